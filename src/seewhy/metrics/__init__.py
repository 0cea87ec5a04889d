"""Metrics as `torchmetrics.Metric`s, of two kinds: `update(...)`, then `compute()`, which gives a `MetricResult`.

`METRICS` ask the model: `update(maps, model, x, target)`. `LOCALIZATION` compare with what is marked:
`update(maps, truth, labels=...)`; `TopKLocalization` compares guesses, `update(classes, boxes, truth)`.
"""

from __future__ import annotations

from typing import TypeVar, overload

from ..errors import InputError, did_you_mean
from .base import STATUS_MEANINGS, Figure, ImageMetric, MetricResult
from .baselines import CHANCES, Chance, ChanceMethod, chance_maps
from .complexity import Complexity, Sparsity
from .faithfulness.curves import AverageDrop, AverageIncrease, ConfidenceDrop, Deletion, Insertion, PixelFlipping
from .faithfulness.road import ROAD, ROADLeRF, ROADMoRF
from .faithfulness.subsets import Infidelity, SensitivityN
from .localization.box_metrics import MaxBoxAccuracy, TopKLocalization
from .localization.metric import LocalizationMetric
from .localization.mosaics import Focus, GridPointing, Mosaics, focus_mosaics, grid_mosaics
from .localization.pixel_metrics import EnergyPointing, PixelAveragePrecision, SegmentationIoU
from .localization.point_metrics import LocationAveragePrecision, PointingGame
from .metric import ExplanationMetric
from .sanity.randomization import ParameterRandomisation, Randomisation, label_randomisation, parameter_randomisation
from .sanity.rerun import MethodMetric, bind
from .sanity.robustness import MaxSensitivity
from .similarity import SIMILARITIES

METRICS: dict[str, type[ExplanationMetric]] = {
    metric.name: metric
    for metric in (
        Insertion,
        Deletion,
        PixelFlipping,
        ROAD,
        ROADMoRF,
        ROADLeRF,
        AverageDrop,
        AverageIncrease,
        ConfidenceDrop,
        Infidelity,
        SensitivityN,
        MaxSensitivity,
        ParameterRandomisation,
        Complexity,
        Sparsity,
    )
}


LOCALIZATION: dict[str, type[ImageMetric]] = {
    metric.name: metric
    for metric in (
        MaxBoxAccuracy,
        PixelAveragePrecision,
        PointingGame,
        EnergyPointing,
        SegmentationIoU,
        LocationAveragePrecision,
        TopKLocalization,
        GridPointing,
        Focus,
    )
}


_M = TypeVar("_M", bound=ImageMetric)


@overload
def find_metric(name: str | ImageMetric) -> ExplanationMetric: ...
@overload
def find_metric(name: str | ImageMetric, kind: type[_M]) -> _M: ...
def find_metric(name: str | ImageMetric, kind: type[ImageMetric] = ExplanationMetric) -> ImageMetric:
    """Returns the metric of that name with its defaults, or the metric itself.

    Args:
        name: a key of `METRICS` or `LOCALIZATION`, or a metric.
        kind: what it has to be: `ExplanationMetric`, `LocalizationMetric`, or `ImageMetric` for any.

    Raises:
        InputError: there is none, or it is of the other kind.
    """
    known = {**METRICS, **LOCALIZATION}
    wanted = [each for each, metric in known.items() if issubclass(metric, kind)]
    if isinstance(name, str) and name not in known:
        raise InputError(f"metric {name!r} is unknown{did_you_mean(name, wanted)}; accepted: {', '.join(wanted)}")
    found = known[name]() if isinstance(name, str) else name
    if not isinstance(found, kind):
        needs = "compares with true boxes" if found.name in LOCALIZATION else "asks the model"
        raise InputError(f"metric {found.name!r} {needs} and cannot be used here; accepted: {', '.join(wanted)}")
    return found


__all__ = [
    "CHANCES",
    "METRICS",
    "SIMILARITIES",
    "STATUS_MEANINGS",
    "AverageDrop",
    "AverageIncrease",
    "Chance",
    "ChanceMethod",
    "Complexity",
    "ConfidenceDrop",
    "Deletion",
    "EnergyPointing",
    "ExplanationMetric",
    "Figure",
    "Focus",
    "GridPointing",
    "ImageMetric",
    "Infidelity",
    "Insertion",
    "LOCALIZATION",
    "LocalizationMetric",
    "LocationAveragePrecision",
    "MaxBoxAccuracy",
    "MaxSensitivity",
    "MethodMetric",
    "MetricResult",
    "Mosaics",
    "ParameterRandomisation",
    "PixelAveragePrecision",
    "PixelFlipping",
    "PointingGame",
    "ROAD",
    "ROADLeRF",
    "ROADMoRF",
    "Randomisation",
    "SegmentationIoU",
    "SensitivityN",
    "Sparsity",
    "TopKLocalization",
    "bind",
    "chance_maps",
    "find_metric",
    "focus_mosaics",
    "grid_mosaics",
    "label_randomisation",
    "parameter_randomisation",
]
