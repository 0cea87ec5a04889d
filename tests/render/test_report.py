"""The report: well-formed, self-contained, escaped."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from typing import get_args

import torch

from render_samples import PREDICTIONS, attribution, many, photo, whole
from seewhy.data.placement import Placement
from seewhy.maps import values as maps
from seewhy.maps.attribution import Family
from seewhy.render import STYLES, ReportPage, html_report, reading


class Page(HTMLParser):
    """Collects tags and attributes, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "img", "input", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(label: str = "tabby cat") -> str:
    pages = [
        ReportPage(
            photo(),
            f"{label}.png",
            Placement((60, 90), (15, 0, 75, 60)),
            PREDICTIONS,
            many(label),
            0,
        ),
        ReportPage(photo(30, 200), "tall.png", whole(photo(30, 200)), [], [], 0),
    ]
    return html_report(pages, title=f"A report on {label}", model_name=label, notes=[label])


def test_report_parses_and_stands_alone() -> None:
    text = report()
    page = Page(text)
    assert page.open == []
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) >= 6
    assert all((p["src"] or "").startswith("data:image/") and p["alt"] for p in pictures)
    assert not re.search(
        r"https?:|//[a-z]|@import|<link|srcset", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    )
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_report_says_what_people_need() -> None:
    page = Page(report())
    for words in (
        "tabby cat",
        "43 %",
        "Grad-CAM",
        "layer4",
        "How to read it",
        "What it cannot say",
        "2 photos",
    ):
        assert words in page.text
    assert maps.STATUS_MEANINGS["empty"] in page.text
    assert maps.STATUS_MEANINGS["non_finite"] in page.text
    alts = [attributes["alt"] or "" for tag, attributes in page.tags if tag == "img"]
    assert any(
        "Grad-CAM · layer4 for tabby cat 43 %: the strongest evidence lies in the centre" in alt
        for alt in alts
    )


def test_report_escapes() -> None:
    evil = "<script>alert('x')</script>\"><img src=x onerror=y>"
    text = report(evil)
    page = Page(text)
    assert text.count("<script>") == 1  # its own
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.text.count("alert('x')") >= 4


def test_report_of_nothing() -> None:
    assert "0 photos" in Page(html_report([], title="Nothing", model_name="none")).text


def test_every_family_has_its_limits() -> None:
    families = [*get_args(Family), None]
    told = [
        reading.cannot_say(dataclasses.replace(attribution(torch.ones(1, 2, 2)), family=family))
        for family in families
    ]
    assert len(set(told)) == len(families)
    assert all(words.endswith(".") for words in told)
    assert set(reading.HOW_TO_READ) == set(STYLES)


def test_sampled_maps_say_how_far_they_can_be_trusted() -> None:
    rise = {"samples": 1600, "relative_error": 0.097}
    lime = {"samples": 400, "r2_held_out": 0.3, "locally_linear": False}
    found = dataclasses.replace(attribution(torch.rand(3, 4, 4)), facts=(rise, lime, {}))
    assert reading.trust_words(found, 0) == "1,600 samples; its error is 10% of its signal"
    said = "400 samples; a linear model has 30% of the score's variance; the model is not locally linear"
    assert reading.trust_words(found, 1) == said
    assert (
        reading.trust_words(found, 2)
        == reading.trust_words(attribution(torch.rand(1, 4, 4)), 0)
        == ""
    )
    page = ReportPage(photo(), "cat.jpg", whole(photo()), PREDICTIONS, [found], 1)
    assert "not locally linear" in html_report([page], title="Why?", model_name="net")
