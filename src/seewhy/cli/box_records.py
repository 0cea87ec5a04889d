"""What boxes.json says of a photo, and the pictures of its boxes."""

from __future__ import annotations

from ..data.disk import Json, png_bytes
from ..data.run_folder import Draft, RunFolder
from ..maps.attribution import Attribution
from ..maps.box_rules import BoxRule
from ..maps.boxes import Boxes, boxes_on_photo
from ..methods.explanation import Explanation
from ..methods.photos import photo_digest
from ..methods.records import file_keys
from ..render.boxes import boxes_picture


def add_photos(run: RunFolder, part: Explanation, rule: BoxRule) -> None:
    """Draws the boxes of each photo for which that is not done, and lists them."""
    for i, name in enumerate(part.names):
        digest = photo_digest(part.paths[i] or part.photos[i])
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
        picture = boxes_picture(attribution, i, photo, shown, boxes)
        record = _map_record(attribution, i)
        if boxes.status != "ok":
            record["status"] = boxes.status
        record["boxes"] = _box_entries(boxes.scaled(placement.photo_size))
        record["picture"] = draft.save(f"{key}.png", png_bytes(picture))
        found.append(record)
    return {"name": part.names[i], "size": list(placement.photo_size), "found": found}


def _map_record(attribution: Attribution, i: int) -> Json:
    probability = attribution.probabilities[i]
    return {
        "method": attribution.method,
        "layer": attribution.layer,
        "target": attribution.target,
        "label": attribution.labels[i],
        "probability": None if probability is None else round(probability, 6),
        "status": attribution.status[i],
        "remarks": list(attribution.remarks[i]) if attribution.remarks else [],
    }


def _box_entries(boxes: Boxes) -> list[Json]:
    pixels = boxes.size[0] * boxes.size[1]
    columns = (boxes.boxes, boxes.areas, boxes.peaks, boxes.means)
    return [
        {
            "box": box,
            "share": round(area / pixels, 6),
            "peak": round(peak, 6),
            "mean": round(mean, 6),
        }
        for box, area, peak, mean in zip(*(each.tolist() for each in columns), strict=True)
    ]
