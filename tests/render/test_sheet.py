"""Sheets: titles, order and shapes; nothing is cut."""

from __future__ import annotations

import dataclasses

import pytest
from PIL import Image

from render_samples import LONG, PREDICTIONS, attribution, bump, chroma, many, numbers, photo, whole
from seewhy.data.placement import Placement
from seewhy.errors import InputError
from seewhy.maps.attribution import Prediction
from seewhy.render import (
    attribution_picture,
    contact_sheet,
    drawing,
    explanation_sheet,
    panels,
    reading,
)


def test_text_fits() -> None:
    face = drawing.font(13)
    for width in (0, 5, 20, 80, 200):
        assert face.getlength(drawing.shorten(LONG, face, width)) <= width
        assert all(face.getlength(line) <= width for line in drawing.wrap(LONG, face, width))
    assert drawing.shorten("cat", face, 100) == "cat"
    assert drawing.shorten("a\n b", face, 100) == "a b"
    assert drawing.shorten(LONG, face, 100).endswith("…")
    assert " ".join(drawing.wrap(LONG, face, 300)) == LONG


def test_percentages() -> None:
    given = [0.0, 0.001, 0.043, 0.43, 0.9951, 1.0]
    assert [panels.percent(p) for p in given] == ["0 %", "<1 %", "4 %", "43 %", ">99 %", "100 %"]


def test_long_layers_keep_their_end() -> None:
    found = attribution(bump(), layer="features.denseblock4.denselayer16.conv2")
    face = drawing.font(13)
    assert panels.method_title(found) == "Grad-CAM · features.denseblock4.denselayer16.conv2"
    assert panels.layer_lines(found, face, 400) == ["features.denseblock4.denselayer16.conv2"]
    assert panels.layer_lines(found, face, 150) == ["….denselayer16.conv2"]
    named = dataclasses.replace(found, layer_title="last stage, 7 x 7")
    assert panels.method_title(named) == (
        "Grad-CAM · last stage, 7 x 7 (features.denseblock4.denselayer16.conv2)"
    )
    assert panels.layer_lines(named, face, 150) == ["last stage, 7 x 7", "….denselayer16.conv2"]
    both = dataclasses.replace(named, layer="blocks.3.bn1 + blocks.5.bn1")
    assert panels.layer_lines(both, face, 50)[1] == both.layer  # cut at its end, if at all
    assert panels.layer_lines(attribution(bump(), layer=None), face, 9) == []
    assert panels.method_title(attribution(bump(), layer=None)) == "Grad-CAM"


def test_grid_of_methods_and_targets() -> None:
    one, two = (attribution(bump(), target=t, label=t) for t in ("a", "b"))
    other = attribution(bump(), title="LIME", layer=None, target="b", label="b")
    again = attribution(bump(), target="a", label="a")
    assert panels.arrange([one, two, other, again], 0) == [[one, two], [None, other], [again, None]]


def test_peak_in_words() -> None:
    words = [
        reading.where_words(attribution(bump(9, x=x, y=y)), 0)
        for x, y in ((0.1, 0.1), (0.5, 0.5), (0.9, 0.5))
    ]
    assert words == ["upper left", "centre", "right"]


@pytest.mark.parametrize("size", [(160, 120), (1600, 100), (60, 900), (32, 32), (1, 1), (3000, 10)])
@pytest.mark.parametrize("targets", [1, 3])
def test_sheets_of_any_shape(size: tuple[int, int], targets: int) -> None:
    picture = photo(*size)
    found = [
        attribution(
            a.map, title=a.title, layer=a.layer, signed=a.signed, target=str(t), label=f"{t} {LONG}"
        )
        for a in many()
        for t in range(targets)
    ]
    answers = [Prediction(i, LONG, 0.3, 1.0) for i in range(5)]
    sheet = explanation_sheet(picture, whole(picture), answers, found, 0, title=LONG * 3)
    assert max(sheet.size) < 3600
    pixels = numbers(sheet)
    for margin in (pixels[:20], pixels[-20:], pixels[:, :20], pixels[:, -20:]):
        assert (margin == 255).all()  # nothing outside
    assert (pixels < 255).any()


def test_sheet_without_maps_or_predictions() -> None:
    picture = photo()
    bare = explanation_sheet(picture, whole(picture), [], [], 0)
    assert (numbers(bare) < 255).any()
    assert explanation_sheet(picture, whole(picture), PREDICTIONS, [], 0).height > bare.height


def test_sheet_shows_every_panel() -> None:
    picture = Image.new("RGB", (200, 200), (90, 90, 90))
    one = explanation_sheet(picture, whole(picture), PREDICTIONS, many()[:1], 0)
    four = explanation_sheet(picture, whole(picture), PREDICTIONS, many()[:1] * 4, 0)
    hot = [int((chroma(sheet) > 60).sum()) for sheet in (one, four)]
    bars = int((chroma(explanation_sheet(picture, whole(picture), PREDICTIONS, [], 0)) > 60).sum())
    assert hot[1] - bars > 3.5 * (hot[0] - bars) * 0.8


def test_contact_sheet() -> None:
    pictures = [(photo(400, 300), LONG), (photo(20, 20), "tiny"), (photo(100, 600), "")] * 2
    sheet = contact_sheet(pictures, columns=4)
    pixels = numbers(sheet)
    for margin in (pixels[:20], pixels[-20:], pixels[:, :20], pixels[:, -20:]):
        assert (margin == 255).all()
    assert contact_sheet(pictures, columns=1).height > sheet.height
    with pytest.raises(InputError, match="columns=0"):
        contact_sheet(pictures, columns=0)
    with pytest.raises(InputError, match="0 pictures"):
        contact_sheet([], columns=2)


@pytest.mark.parametrize(
    ("box", "size", "words"),
    [
        ((0, 0, 90, 60), (20, 30), "the whole photo, at 30 x 20"),
        ((0, 0, 90, 60), (20, 20), "the whole photo, squashed to 20 x 20"),
        ((0.2, 0, 89.8, 60.1), (20, 30), "the whole photo, at 30 x 20"),
        ((15, 0, 75, 60), (20, 20), "the framed part, at 20 x 20"),
        ((15, 10, 75, 30), (20, 20), "the framed part, squashed to 20 x 20"),
        ((0, -15, 90, 75), (20, 20), "the whole photo, with a border around it, at 20 x 20"),
        ((15, -5, 85, 65), (20, 20), "the framed part, with a border around it, at 20 x 20"),
        ((15, 0, 75, 60), None, "the framed part"),
    ],
)
def test_what_the_model_saw_in_words(
    box: tuple[float, float, float, float], size: tuple[int, int] | None, words: str
) -> None:
    assert panels.seen_words(Placement((60, 90), box), size) == f"The model saw {words}"


def test_panels_of_one_sheet_are_level_whatever_is_said_of_their_layers() -> None:
    picture = photo(250, 250)
    long = dataclasses.replace(
        attribution(bump(), layer="features." * 5 + "conv"), layer_title="last stage, 7 x 7"
    )
    without = attribution(bump(), title="LIME", layer=None)
    sheet = numbers(explanation_sheet(picture, whole(picture), [], [long, without], 0))
    first = numbers(attribution_picture(without, 0, picture, whole(picture)))[0]
    found = [
        (y, x)
        for y in range(len(sheet) - 250)
        for x in range(300, sheet.shape[1] - 250)  # right of the photo
        if (sheet[y, x : x + 250] == first).all()
    ]
    assert len(found) == 2
    assert found[0][0] == found[1][0]
