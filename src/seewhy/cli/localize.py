"""`seewhy localize`: photos through the model, boxes around what the maps mark, drawn, listed and as JSON."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..no_file import check_any_there
from .arguments import RULES_HELP, PhotosArgument
from .asked import checked
from .groups import Asked, How
from .results import print_json
from .show import starting

if TYPE_CHECKING:
    from ..data.disk import Json
    from ..data.run_folder import RunFolder
    from ..maps.box_rules import BoxRule

JSON_NAME, SCHEMA = "boxes.json", 1
_RuleIfAny = Annotated[
    str | None, typer.Option(help=RULES_HELP, show_default="mean; cam2016 with --threshold")
]


def localize(
    photos: PhotosArgument,
    *,
    asked: Asked,
    rule: _RuleIfAny = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, help="Share of the map's scale, instead of the rule's."),
    ] = None,
    every: Annotated[bool, typer.Option("--every", help="Boxes around all components.")] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where pictures and boxes.json go.")
    ] = Path("seewhy-boxes"),
    how: How,
) -> int:
    """Draws and prints boxes around what a map marks."""
    methods = checked(asked, how, rule=rule)
    check_any_there(photos)
    with starting():
        from .box_records import add_photos
        from .interrupts import interruptible
        from .photo_run import PhotoRun

    rule = rule or ("mean" if threshold is None else "cam2016")
    chosen = _box_rule(rule, threshold, every=every)
    shared = PhotoRun(photos, asked, how, methods, out=out)
    of_rule = {"name": rule, **dataclasses.asdict(chosen)}
    told = {"schema": SCHEMA, "model": shared.request.model.name, "rule": of_rule}
    close = functools.partial(_write_boxes, told=told)
    run = shared.run_folder("boxes", {"rule": of_rule}, close)
    with interruptible(lambda: shared.what_is_saved(run)), run:
        with shared.showing("Localizing", run) as show:
            for part in shared.explanations(show):
                add_photos(run, part, chosen)
        shared.check_any_read(run)
        found = {**told, "images": [entry.record for entry in run.entries(shared.names)]}
    if how.as_json:
        print_json({**found, "out": str(out), "skipped": shared.skipped()})
    else:
        _tell_boxes(found, out)
    return shared.status()


def _box_rule(rule: str, threshold: float | None, *, every: bool) -> BoxRule:
    from ..maps.box_rules import find_rule

    chosen = find_rule(rule, threshold=threshold)
    return dataclasses.replace(chosen, components="all", most=None) if every else chosen


def _write_boxes(run: RunFolder, told: Json) -> None:
    run.view_json(JSON_NAME, {**told, "images": [entry.record for entry in run.entries()]})


def _tell_boxes(told: Json, out: Path) -> None:
    """For people: the boxes, and where the pictures are."""
    from .show import bold, console, table

    first = out / told["images"][0]["found"][0]["picture"]
    table(f"Where {told['model']} sees it", list(_lines_of_boxes(told["images"])))
    where = bold(out / JSON_NAME)
    console.print(f"\nBoxes are x0, y0, x1, y1 in pixels of the photo, also in {where}")
    console.print(f"Look at {bold(first)} first")


def _lines_of_boxes(entries: Sequence[Json]) -> Iterator[dict[str, str]]:
    """For people: a line for each box, and one for each map without."""
    for entry in entries:
        name = entry["name"]
        for told in entry["found"]:
            for box in told["boxes"] or [None]:
                yield {"photo": name, **_line_of_box(told, box)}
                name = ""  # it is said once


def _line_of_box(told: Json, box: Json | None) -> dict[str, str]:
    chance = told["probability"]
    return {
        "method": told["method"],
        "layer": told["layer"] or "",
        "label": told["label"],
        "probability": "" if chance is None else f"{chance:.1%}",
        "box": "" if box is None else "{}, {}, {}, {}".format(*box["box"]),
        "covers": "" if box is None else f"{box['share']:.0%} of the photo",
        "status": told["status"],
        "remarks": "; ".join(told["remarks"]),
    }
