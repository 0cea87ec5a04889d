"""Results of metrics as one file, and back, bit by bit."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.disk import Json
from .result import Figure, Findings, Floats, MetricResult

_ABOUT = "about"


def packed(about: Json, results: Sequence[MetricResult]) -> bytes:
    """An .npz file of results, with what else is to be known of them; of those that are one and the same, one."""
    places: dict[int, int] = {}
    arrays: Json = {}
    told: list[Json] = []
    for result in results:
        if id(result) not in places:
            places[id(result)] = len(told)
            arrays |= _arrays_of(result, len(told))
            told.append(_record_of(result))
    text = json.dumps(
        {**about, "results": told, "places": [places[id(result)] for result in results]}
    )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{_ABOUT: np.frombuffer(text.encode(), np.uint8), **arrays})
    return buffer.getvalue()


def unpacked(path: Path) -> tuple[Json, list[MetricResult]]:
    """What `packed` was given."""
    with np.load(path, allow_pickle=False) as stored:
        about: Json = json.loads(stored[_ABOUT].tobytes())
        results = [_result_again(one, stored, i) for i, one in enumerate(about.pop("results"))]
    return about, [results[place] for place in about.pop("places")]


def _arrays_of(result: MetricResult, place: int) -> dict[str, Floats]:
    lengths = np.array([len(curve) for curve in result.curves], np.float64)
    each: dict[str, Floats] = {"values": result.values, "lengths": lengths}
    if result.curves:
        each |= {
            "curves": np.concatenate(result.curves),
            "positions": np.concatenate(result.positions),
        }
    if result.pooled_curve is not None:
        each["pooled"] = np.stack(result.pooled_curve)
    return {f"{place}.{name}": values for name, values in each.items()}


def _record_of(result: MetricResult) -> Json:
    figures = {
        name: [*map(repr, figure[:3]), list(figure.thresholds)]
        for name, figure in result.figures.items()
    }
    return {
        "metric": result.metric,
        "numbers": [repr(float(number)) for number in (result.mean, result.low, result.high)],
        "n": result.n,
        "higher_is_better": result.higher_is_better,
        "status": list(result.status),
        "interval": result.interval,
        "settings": dict(result.settings),
        "figures": figures,
    }


def _result_again(told: Json, stored: Mapping[str, Floats], place: int) -> MetricResult:
    cuts = np.cumsum(stored[f"{place}.lengths"])[:-1].astype(int)
    curves, positions = (
        tuple(np.split(stored[f"{place}.{name}"], cuts)) if f"{place}.{name}" in stored else ()
        for name in ("curves", "positions")
    )
    pooled = tuple(stored[f"{place}.pooled"]) if f"{place}.pooled" in stored else None
    mean, low, high = map(float, told["numbers"])
    found = Findings(
        metric=told["metric"],
        mean=mean,
        low=low,
        high=high,
        n=told["n"],
        higher_is_better=told["higher_is_better"],
        values=stored[f"{place}.values"],
        status=tuple(told["status"]),
        curves=curves,
        positions=positions,
        interval=told["interval"],
        settings=told["settings"],
        figures={name: _figure_again(*one) for name, one in told["figures"].items()},
        pooled_curve=None if pooled is None else (pooled[0], pooled[1]),
    )
    return MetricResult(found)


def _figure_again(mean: str, low: str, high: str, thresholds: Sequence[float]) -> Figure:
    return Figure(float(mean), float(low), float(high), tuple(thresholds))
