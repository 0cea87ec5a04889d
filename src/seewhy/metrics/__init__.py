"""Metrics of explanations as `torchmetrics.Metric`s: `update(maps, model, x, target)`, then `compute()`."""

from __future__ import annotations

from ..errors import InputError, did_you_mean
from .baselines import CHANCES, Chance, ChanceMethod, chance_maps
from .complexity import Complexity, Sparsity
from .explainer import MethodMetric, bind
from .faithfulness import AverageDrop, AverageIncrease, ConfidenceDrop, Deletion, Insertion, PixelFlipping
from .metric import STATUS_MEANINGS, ExplanationMetric, MetricResult
from .road import ROAD, ROADLeRF, ROADMoRF
from .robustness import MaxSensitivity
from .sanity import ParameterRandomisation, Randomisation, label_randomisation, parameter_randomisation
from .similarity import SIMILARITIES
from .subsets import Infidelity, SensitivityN

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


def find_metric(name: str | ExplanationMetric) -> ExplanationMetric:
    """Returns the metric of that name with its defaults, or the metric itself.

    Raises:
        InputError: there is none.
    """
    if isinstance(name, ExplanationMetric):
        return name
    if name not in METRICS:
        raise InputError(f"metric {name!r} is unknown{did_you_mean(name, METRICS)}; accepted: {', '.join(METRICS)}")
    return METRICS[name]()


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
    "ExplanationMetric",
    "Infidelity",
    "Insertion",
    "MaxSensitivity",
    "MethodMetric",
    "MetricResult",
    "ParameterRandomisation",
    "PixelFlipping",
    "ROAD",
    "ROADLeRF",
    "ROADMoRF",
    "Randomisation",
    "SensitivityN",
    "Sparsity",
    "bind",
    "chance_maps",
    "find_metric",
    "label_randomisation",
    "parameter_randomisation",
]
