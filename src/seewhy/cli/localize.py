"""`seewhy localize`: photos through the model, boxes around what the maps mark, drawn, listed and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data.disk import Json, png_bytes
from ..data.images import find_images
from ..data.opened import MAX_PIXELS
from ..data.run_folder import Draft, RunFolder, usable_folder
from ..engine.masking import keep_allocator_memory
from ..errors import ImageError
from ..maps.boxes import Boxes, BoxRule, boxes_on_photo, find_rule
from ..methods.explain import explain_batches
from ..methods.explanation import Explanation
from ..methods.photos import photo_digest
from ..methods.records import file_keys
from ..models.load import DEFAULT_MODEL
from ..render.boxes import boxes_picture
from . import parsing
from .interrupts import interruptible
from .saving import done_before, remark, what_is_saved
from .show import bold, console, progress, table, tell_skipped

JSON_NAME, SCHEMA = "boxes.json", 1


def localize_photos(
    photos: Sequence[Path],
    *,
    model: str = DEFAULT_MODEL,
    methods: Sequence[str],
    targets: Sequence[str],
    layers: Sequence[str] | None = None,
    rule: str = "cam2016",
    threshold: float | None = None,
    every: bool = False,
    out: Path,
    device: str = "cpu",
    labels: Path | None = None,
    options: Sequence[str] = (),
    batch_size: int = 8,
    max_pixels: int = MAX_PIXELS,
    trust_paths: bool = False,
    as_json: bool = False,
) -> int:
    """Boxes what maps of photos mark, and writes pictures and, at the end, boxes.json; goes on where it was stopped.

    Args:
        rule, threshold: a name in `seewhy.localize.RULES`, and a threshold instead of its own.
        every: boxes around all components, not the rule's choice of them.

    Returns:
        The exit status, 1 where some photo could not be read.
    """
    chosen = find_rule(rule, threshold=threshold)
    if every:
        chosen = dataclasses.replace(chosen, components="all", most=None)
    paths = find_images(photos)
    unreadable: dict[Path, str] = {}
    usable_folder(out)
    loaded = parsing.loaded_model(model, labels=labels, device=device, trust_paths=trust_paths)
    keep_allocator_memory()
    told = {
        "schema": SCHEMA,
        "model": loaded.name,
        "rule": {"name": rule, **dataclasses.asdict(chosen)},
    }
    given = parsing.options(options)
    asked = {"methods": list(methods), "targets": list(targets), "layers": layers, "options": given}
    request = {"model": loaded.identity(), **asked, "rule": told["rule"]}
    run = RunFolder(
        out, kind="boxes", request=request, tell=remark, close=lambda run: _write_boxes(run, told)
    )
    names: list[str] = []
    with interruptible(lambda: what_is_saved(run, names)), run:
        names, done = done_before(run, photos, loaded)
        samples = parsing.samples(methods, len(paths), batch_size)
        with progress("Localising", len(paths), samples=samples) as show:
            for part in explain_batches(
                loaded,
                photos,
                methods=methods,
                targets=parsing.targets(targets, loaded),
                layers=parsing.layers(layers),
                batch_size=batch_size,
                max_pixels=max_pixels,
                options=parsing.with_progress(methods, given, show.within),
                progress=show,
                on_bad_image=None
                if len(paths) == 1
                else lambda path, error: unreadable.update({path: str(error)}),
                without=done,
            ):
                for i in range(len(part.names)):
                    _add_photo(run, part, i, chosen)
        entries = [entry.record for entry in run.entries(names)]
        if not entries:
            first = next(iter(unreadable.values()))
            raise ImageError(f"none of the {len(paths)} pictures can be read; the first: {first}")
    skipped = [{"name": str(path), "error": said} for path, said in unreadable.items()]
    _tell({**told, "images": entries}, out, skipped, as_json=as_json)
    tell_skipped(unreadable.values())
    return 1 if skipped else 0


def _write_boxes(run: RunFolder, told: Json) -> None:
    run.view_json(JSON_NAME, {**told, "images": [entry.record for entry in run.entries()]})


def _tell(
    told: dict[str, Any], out: Path, skipped: Sequence[dict[str, str]], *, as_json: bool
) -> None:
    if as_json:
        print(json.dumps({**told, "out": str(out), "skipped": skipped}))
    else:
        first = out / told["images"][0]["found"][0]["picture"]
        table(f"Where {told['model']} sees it", list(_rows(told["images"])))
        console.print(
            f"\nBoxes are x0, y0, x1, y1 in pixels of the photo, also in {bold(out / JSON_NAME)}"
        )
        console.print(f"Look at {bold(first)} first")


def _add_photo(run: RunFolder, part: Explanation, i: int, rule: BoxRule) -> None:
    """Draws the boxes of one photo, if that is not done, and lists them."""
    name, path = part.names[i], part.paths[i]
    digest = photo_digest(path or part.photos[i])
    if not run.has(name, digest):
        with run.entry(name, digest) as draft:
            draft.record = _photo_record(draft, part, i, rule)


def _photo_record(draft: Draft, part: Explanation, i: int, rule: BoxRule) -> Json:
    """What the boxes of each map are; a share is of the photo's pixels."""
    placement, photo = part.placements[i], part.photos[i]
    shown = placement.scaled(photo.size[::-1])
    found = []
    for attribution, key in zip(part, file_keys(part), strict=True):
        boxes = boxes_on_photo(attribution.map[i], shown, rule=rule)
        picture = draft.save(
            f"{key}.png", png_bytes(boxes_picture(attribution, i, photo, shown, boxes))
        )
        probability = attribution.probabilities[i]
        found.append(
            {
                "method": attribution.method,
                "layer": attribution.layer,
                "target": attribution.target,
                "label": attribution.labels[i],
                "probability": None if probability is None else round(probability, 6),
                "status": attribution.status[i] if boxes.status == "ok" else boxes.status,
                "remarks": list(attribution.remarks[i]) if attribution.remarks else [],
                "boxes": _box_entries(boxes.scaled(placement.photo_size)),
                "picture": picture,
            }
        )
    return {"name": part.names[i], "size": list(placement.photo_size), "found": found}


def _box_entries(boxes: Boxes) -> list[dict[str, Any]]:
    pixels = boxes.size[0] * boxes.size[1]
    each = zip(
        boxes.boxes.tolist(),
        boxes.areas.tolist(),
        boxes.peaks.tolist(),
        boxes.means.tolist(),
        strict=True,
    )
    return [
        {
            "box": box,
            "share": round(area / pixels, 6),
            "peak": round(peak, 6),
            "mean": round(mean, 6),
        }
        for box, area, peak, mean in each
    ]


def _rows(entries: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """For people: a line for each box, and one for each map without."""
    for entry in entries:
        first = True
        for told in entry["found"]:
            for box in told["boxes"] or [None]:
                yield {
                    "photo": entry["name"] if first else "",
                    "method": told["method"],
                    "layer": told["layer"] or "",
                    "label": told["label"],
                    "probability": ""
                    if told["probability"] is None
                    else f"{told['probability']:.1%}",
                    "box": "" if box is None else "{}, {}, {}, {}".format(*box["box"]),
                    "covers": "" if box is None else f"{box['share']:.0%} of the photo",
                    "status": told["status"],
                    "remarks": "; ".join(told["remarks"]),
                }
                first = False
