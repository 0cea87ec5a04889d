"""One self-contained HTML page about many photos."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jinja2
from PIL import Image

from ..data.disk import png_bytes
from ..data.placement import Placement
from ..maps import values as maps
from ..maps.attribution import Attribution, Prediction
from ..safe_names import shown
from . import panels, reading
from .overlay import attribution_picture, bar_picture, default_style, seen_picture
from .styles import WORDS, find_style

_SIDE, _LONGEST = 380, 900  # pixels of an embedded picture


@dataclass(frozen=True, eq=False)
class ReportPage:
    """What the report shows of one photo.

    Attributes:
        photo: RGB, any size.
        name: What the photo is called, such as its file's name.
        placement: Where on the photo the model looked.
        predictions: The model's answers, best first.
        attributions: The maps to show.
        index: Which image of each attribution.

    Example:
        >>> ex = seewhy.explain(model, photo)
        >>> page = seewhy.render.ReportPage(
        ...     photo, "red.png", ex.placements[0], ex.predictions[0], ex.attributions, 0
        ... )
        >>> len(page.attributions)
        1
    """

    photo: Image.Image
    name: str
    placement: Placement
    predictions: Sequence[Prediction]
    attributions: Sequence[Attribution]
    index: int


def html_report(
    pages: Sequence[ReportPage],
    *,
    title: str,
    model_name: str,
    notes: Sequence[str] = (),
    style: str | None = None,
) -> str:
    """Writes one HTML page that needs nothing beside it: no other file, no network.

    Each photo has its predictions, its maps (rows of methods and layers, columns of targets) with a slider from photo
    to map, and for each kind of map how to read it and what it cannot say.

    Args:
        pages: The photos, in order.
        title: The page's title.
        model_name: What was explained.
        notes: Sentences for the head of the page.
        style: One of `STYLES` for all maps; without it, what suits each.

    Raises:
        InputError: As `attribution_picture`.

    Example:
        >>> ex = seewhy.explain(model, photo)
        >>> page = seewhy.render.ReportPage(
        ...     photo, "red.png", ex.placements[0], ex.predictions[0], ex.attributions, 0
        ... )
        >>> "red.png" in seewhy.render.html_report([page], title="Colors", model_name="net")
        True
    """
    return "".join(
        _chunks(
            pages, count=len(pages), title=title, model_name=model_name, notes=notes, style=style
        )
    )


def write_report(
    path: Path,
    pages: Iterable[ReportPage],
    *,
    count: int,
    title: str,
    model_name: str,
    notes: Sequence[str] = (),
    style: str | None = None,
) -> None:
    """Writes the page of `html_report`, photo by photo: memory does not grow with their number, `count`."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(
            _chunks(
                pages, count=count, title=title, model_name=model_name, notes=notes, style=style
            )
        )


def _chunks(pages: Iterable[ReportPage], *, style: str | None, **told: object) -> Iterator[str]:
    cut, drawn = False, find_style(style)

    def shown() -> Iterator[dict[str, object]]:
        nonlocal cut
        for page in pages:
            cut = cut or panels.is_cut(page.placement)
            yield _page(page, drawn)

    def footer() -> list[str]:
        return [reading.SCALE, reading.UNSEEN] if cut else [reading.SCALE]

    yield from _template().generate(pages=shown(), footer=footer, **told)


def _shown_text(value: object) -> object:
    return shown(value) if type(value) is str else value


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("seewhy.render", "")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        finalize=_shown_text,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2")


def _page(page: ReportPage, style: str | None) -> dict[str, object]:
    size = panels.panel_size((page.photo.height, page.photo.width), _SIDE, longest=_LONGEST)
    photo, placement = panels.resized(page.photo, page.placement, size)
    rows = panels.arrange(page.attributions, page.index)
    cells = [[_cell(a, page.index, photo, placement, style) for a in row] for row in rows]
    return {
        "name": page.name,
        "headline": panels.headline(page.predictions),
        "photo": _jpeg(seen_picture(photo, placement)),
        "seen": panels.seen_words(
            page.placement, page.attributions[0].image_size if page.attributions else None
        ),
        "size": size,
        "cell": max(170, round(0.5 * size[0])),  # CSS pixels that a panel needs at least
        "predictions": [
            {"label": p.label, "percent": panels.sureness(p), "share": _share(p)}
            for p in page.predictions
        ],
        "cells": cells,
        "columns": len(cells[0]) if cells else 0,
        "kinds": _kinds(page, style),
    }


def _share(prediction: Prediction) -> float | None:
    """A probability's length in percent."""
    return None if prediction.probability is None else round(100 * prediction.probability, 1)


def _cell(
    attribution: Attribution | None,
    index: int,
    photo: Image.Image,
    placement: Placement,
    style: str | None,
) -> dict[str, object] | None:
    if attribution is None:
        return None
    status = attribution.status[index]
    target = panels.target_title(attribution, index)
    method = panels.method_title(attribution)
    meaning = reading.status_words(attribution, index)
    place = f"the strongest evidence lies in the {reading.where_words(attribution, index)} of what the model saw"
    return {
        "method": attribution.title,
        "layer": panels.layer_words(attribution),
        "label": attribution.labels[index],
        "percent": panels.target_percent(attribution, index),
        "status": status,
        "meaning": meaning,
        "trust": reading.trust_words(attribution, index),
        "unsure": reading.other_remarks(attribution, index),
        "picture": _jpeg(attribution_picture(attribution, index, photo, placement, style=style)),
        "alt": f"{method} for {target}: {place if status in maps.READABLE else f'no map, {meaning}'}.",
    }


def _kinds(page: ReportPage, style: str | None) -> list[dict[str, str]]:
    """For each kind of map on the page: its methods, its colours, how to read it, what it cannot say."""
    titles: dict[tuple[str, str], list[str]] = {}
    for attribution in page.attributions:
        chosen = style or default_style(attribution, page.index)
        alike = titles.setdefault((chosen, reading.cannot_say(attribution)), [])
        alike += [attribution.title] if attribution.title not in alike else []
    kinds = []
    for (chosen, cannot), alike in titles.items():
        low, high = WORDS[chosen]
        kind = {
            "title": ", ".join(alike),
            "bar": _png(bar_picture(chosen, length=160)),
            "low": low,
            "high": high,
            "read": reading.HOW_TO_READ[chosen],
            "cannot": cannot,
        }
        kinds.append(kind)
    return kinds


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _png(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode()
