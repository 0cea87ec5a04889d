"""What is written of a photo and of its maps, for people and programs, and what makes the same records of it again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch

from ..data.disk import Json, number
from ..data.placement import Placement
from ..maps import values as maps
from ..maps.attribution import Attribution, Prediction
from ..maps.ledger import Entry, Ledger
from ..safe_names import within_bytes

Arrays = Mapping[str, npt.NDArray[np.float32]]

COLUMNS = (
    "label",
    "method",
    "layer",
    "target",
    "probability",
    "score",
    "status",
    "minimum",
    "maximum",
    "peak",
)  # of a table of maps


def file_keys(attributions: Iterable[Attribution]) -> list[str]:
    """METHOD.LAYER.TARGET for each, of characters that every file system takes; no two are the same."""
    taken: set[str] = set()
    named = [(a.method, a.layer, a.target) for a in attributions]
    keys = [
        ".".join(re.sub(r"[^\w+-]+", "_", part).strip("_") for part in parts if part)
        for parts in named
    ]
    return [_free_name(within_bytes(key, 180), taken) for key in keys]


def _free_name(name: str, taken: set[str]) -> str:
    """The name, or the first of name-2, name-3 ... that is not taken; and takes it."""
    free, n = name, 2
    while free.lower() in taken:  # some file systems do not tell A from a
        free, n = f"{name}-{n}", n + 1
    taken.add(free.lower())
    return free


def photo_record(
    name: str, placement: Placement, predictions: Sequence[Prediction], image_size: Sequence[int]
) -> Json:
    """What is said of one photo, its maps aside: plain numbers and strings; what is not finite is null."""
    return {
        "name": name,
        "size": list(image_size if placement.frames else placement.photo_size),
        **({"frames": list(placement.frames)} if placement.frames else {}),
        "input_size": list(image_size),
        "seen_box": [round(v, 2) for v in placement.box],
        "predictions": [
            {
                "index": p.index,
                "label": p.label,
                "probability": number(p.probability),
                "score": number(p.score),
            }
            for p in predictions
        ],
    }


def attribution_record(a: Attribution, i: int, placement: Placement) -> Json:
    """What is said of one of its maps."""
    values = a.map[i]
    return {
        "method": a.method,
        "layer": a.layer,
        "layer_title": a.layer_title,
        "target": a.target,
        "label": a.labels[i],
        "score": number(a.scores[i]),
        "probability": number(a.probabilities[i]),
        "status": a.status[i],
        "remarks": list(a.remarks[i]) if a.remarks else [],
        "signed": a.signed,
        "minimum": number(float(values.min())),
        "maximum": number(float(values.max())),
        "peak": _strongest_place(a, i, placement),
        "options": {name: _short_value(value) for name, value in a.options.items()},
        **({"facts": dict(a.facts[i])} if a.facts else {}),
        **({"ledger": [asdict(entry) for entry in a.ledgers[i].entries]} if a.ledgers else {}),
    }


def _strongest_place(a: Attribution, i: int, placement: Placement) -> list[float] | None:
    """The photo's pixel (x, y) under the centre of the map's strongest place; of a volume (x, y, z), of the input."""
    if a.status[i] not in maps.READABLE:
        return None
    if a.map.ndim == 4:
        place = torch.unravel_index(a.map[i].argmax(), a.map.shape[1:])
        peak = []
        for at, cells, side in zip(place, a.map.shape[1:], a.image_size, strict=True):
            peak.append(round((int(at) + 0.5) / cells * side, 1))
        return peak[::-1]
    h, w = a.map.shape[1:]
    y, x = divmod(int(a.map[i].argmax()), w)
    x0, y0, x1, y1 = placement.box
    return [round(x0 + (x + 0.5) / w * (x1 - x0), 1), round(y0 + (y + 0.5) / h * (y1 - y0), 1)]


def _short_value(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)[:80]


def photo_exact(placement: Placement, predictions: Sequence[Prediction]) -> Json:
    """What `photo_record` rounds or leaves out."""
    return {
        "placement": asdict(placement),
        "predictions": [
            [p.index, p.label, _exact_number(p.probability), _exact_number(p.score)]
            for p in predictions
        ],
    }


def placement_again(exact: Json) -> Placement:
    told = exact["placement"]
    height, width = told["photo_size"]
    x0, y0, x1, y1 = told["box"]
    return Placement((height, width), (x0, y0, x1, y1), tuple(told["frames"]))


def predictions_again(exact: Json) -> tuple[Prediction, ...]:
    told = exact["predictions"]
    return tuple(
        Prediction(i, label, _number_again(chance), float(score))
        for i, label, chance, score in told
    )


def attribution_exact(a: Attribution, i: int) -> Json:
    """What `attribution_record` rounds or leaves out; an option that is an object stays its text."""
    return {
        "title": a.title,
        "score": _exact_number(a.scores[i]),
        "probability": _exact_number(a.probabilities[i]),
        "image_size": list(a.image_size),
        "options": {name: _plain_value(value) for name, value in a.options.items()},
        "family": a.family,
        "style": a.style,
    }


def attribution_arrays(a: Attribution, i: int, key: str) -> Arrays:
    """The maps of one photo, as the paper has them, and what belongs to them, under their names in maps.npz."""
    each = {key: a.map, f"{key}.interval": a.interval, f"{key}.pixels": a.pixels}
    return {name: values[i].numpy() for name, values in each.items() if values is not None}


def attribution_again(record: Json, exact: Json, arrays: Arrays) -> Attribution:
    """The attribution of one photo, from what was written of it."""
    key = record["map"]["key"]
    names = [name for name in (key, f"{key}.interval", f"{key}.pixels") if name in arrays]
    found = {name: torch.from_numpy(arrays[name])[None] for name in names}
    ledgers = (
        (Ledger([Entry(**entry) for entry in record["ledger"]]),) if "ledger" in record else ()
    )
    return Attribution(
        method=record["method"],
        title=exact["title"],
        layer=record["layer"],
        layer_title=record.get("layer_title"),
        target=record["target"],
        map=found[key],
        status=(record["status"],),
        labels=(record["label"],),
        scores=(float(exact["score"]),),
        probabilities=(_number_again(exact["probability"]),),
        image_size=tuple(exact["image_size"]),
        signed=record["signed"],
        pixels=found.get(f"{key}.pixels"),
        options=exact["options"],
        interval=found.get(f"{key}.interval"),
        facts=(record["facts"],) if "facts" in record else (),
        ledgers=ledgers,
        remarks=(tuple(record["remarks"]),),
        family=exact["family"],
        style=exact["style"],
    )


def _plain_value(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_plain_value(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain_value(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return _short_value(value)


def _exact_number(value: float | None) -> float | str | None:
    """A number as JSON has it, "nan" and "inf" as texts."""
    return value if value is None or math.isfinite(value) else repr(float(value))


def _number_again(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def table_rows(
    names: Sequence[str], placements: Sequence[Placement], attributions: Sequence[Attribution]
) -> list[Json]:
    """A row for each photo and map, in plain numbers and texts."""
    rows = []
    for image, name in enumerate(names):
        for attribution in attributions:
            told = attribution_record(attribution, image, placements[image])
            known = {column: told[column] for column in COLUMNS if column in told}
            rows.append({"photo": name, **known, "remarks": "; ".join(told["remarks"])})
    return rows
