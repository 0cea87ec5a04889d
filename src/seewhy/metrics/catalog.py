"""The written-out lists of all metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar, overload

from ..arguments import brief
from ..errors import ArgumentTypeError, InputError
from ..names import known_name
from .base import ImageMetric
from .complexity import Complexity, Sparsity
from .faithfulness.curves import (
    AverageDrop,
    AverageIncrease,
    ConfidenceDrop,
    Deletion,
    Insertion,
    PixelFlipping,
)
from .faithfulness.road import ROAD, ROADLeRF, ROADMoRF
from .faithfulness.subsets import Infidelity, SensitivityN
from .localization.box_metrics import MaxBoxAccuracy, TopKLocalization
from .localization.class_metrics import LookAlike, PairShare
from .localization.mosaics import Focus, GridPointing
from .localization.pixel_metrics import EnergyPointing, PixelAveragePrecision, SegmentationIoU
from .localization.point_metrics import LocationAveragePrecision, PointingGame
from .metric import ExplanationMetric
from .sanity.last_layer import LastLayerRandomization
from .sanity.randomization import ParameterRandomization
from .sanity.robustness import MaxSensitivity

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
        LastLayerRandomization,
        ParameterRandomization,
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
        PairShare,
        GridPointing,
        LookAlike,
        Focus,
    )
}


_M = TypeVar("_M", bound=ImageMetric)


@overload
def find_metric(name: str | ImageMetric) -> ExplanationMetric: ...


@overload
def find_metric(name: str | ImageMetric, kind: type[_M]) -> _M: ...


def find_metric(
    name: str | ImageMetric, kind: type[ImageMetric] = ExplanationMetric
) -> ImageMetric:
    """Returns the metric of that name with its defaults, or the metric itself.

    Args:
        name: a key of `METRICS` or `LOCALIZATION`, as people write it, or a metric.
        kind: what it has to be: `ExplanationMetric`, `LocalizationMetric`, or `ImageMetric` for any.

    Raises:
        InputError: there is none, or it is of the other kind.

    Example:
        >>> seewhy.metrics.find_metric("Insertion").name
        'insertion'
    """
    known = {**METRICS, **LOCALIZATION}
    wanted = [each for each, metric in known.items() if issubclass(metric, kind)]
    if isinstance(name, str):
        titles = {each: metric.title for each, metric in known.items()}
        accepted = f"accepted: {', '.join(wanted)}"
        found = known[known_name(name, known, what="metric", titles=titles, ways=accepted)]()
    else:
        found = name
    if not isinstance(found, ImageMetric):
        raise ArgumentTypeError(
            f"metric {brief(name)} is of type {type(name).__name__}; give a name, or a metric"
        )
    if not isinstance(found, kind):
        needs = "compares with true boxes" if found.name in LOCALIZATION else "asks the model"
        raise InputError(
            f"metric {found.name!r} {needs} and cannot be used here; accepted: {', '.join(wanted)}"
        )
    return found


def named_metrics(
    given: str | ImageMetric | Iterable[str | ImageMetric] | Mapping[str, str | ImageMetric],
    kind: type[_M],
    *,
    such_as: str,
    named: str,
) -> dict[str, _M]:
    """Metrics of a kind by what they are called: the names of a mapping, or their own.

    Args:
        given: names, metrics, or a mapping of names to them.
        kind: what each has to be.
        such_as: one that could be given, for errors.
        named: several with names, for errors.

    Raises:
        InputError: there is none, or one of a kind twice.
    """
    if isinstance(given, Mapping):
        found = {name: find_metric(metric, kind) for name, metric in given.items()}
    else:
        each = [given] if isinstance(given, str | ImageMetric) else given
        listed = [find_metric(metric, kind) for metric in each]
        found = {metric.name: metric for metric in listed}
        if len(found) < len(listed):
            raise InputError(f"metrics has one of a kind twice; name them: metrics={named}")
    if not found:
        raise InputError(f"metrics is empty; give at least one, such as {such_as}")
    return found
