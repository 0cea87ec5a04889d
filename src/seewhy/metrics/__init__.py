"""Metrics as `torchmetrics.Metric`s, of two kinds: `update(...)`, then `compute()`, which gives a `MetricResult`.

`METRICS` ask the model: `update(maps, model, x, target)`. `LOCALIZATION` compare with what is marked:
`update(maps, truth, labels=...)`; `TopKLocalization` compares guesses, `update(classes, boxes, truth)`.
"""

from __future__ import annotations

from .base import STATUS_MEANINGS, ImageMetric
from .baselines import CHANCES, Chance, ChanceMethod, chance_maps
from .catalog import LOCALIZATION, METRICS, find_metric
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
from .localization.metric import LocalizationMetric
from .localization.mosaics import Focus, GridPointing, Mosaics, focus_mosaics, grid_mosaics
from .localization.pixel_metrics import EnergyPointing, PixelAveragePrecision, SegmentationIoU
from .localization.point_metrics import LocationAveragePrecision, PointingGame
from .metric import ExplanationMetric
from .result import Figure, MetricResult
from .sanity.last_layer import LastLayerRandomization
from .sanity.randomization import (
    ParameterRandomization,
    Randomization,
    label_randomization,
    parameter_randomization,
)
from .sanity.rerun import MethodMetric, bind
from .sanity.robustness import MaxSensitivity
from .similarity import SIMILARITIES

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
    "LastLayerRandomization",
    "LocalizationMetric",
    "LocationAveragePrecision",
    "LookAlike",
    "MaxBoxAccuracy",
    "MaxSensitivity",
    "MethodMetric",
    "MetricResult",
    "Mosaics",
    "PairShare",
    "ParameterRandomization",
    "PixelAveragePrecision",
    "PixelFlipping",
    "PointingGame",
    "ROAD",
    "ROADLeRF",
    "ROADMoRF",
    "Randomization",
    "SegmentationIoU",
    "SensitivityN",
    "Sparsity",
    "TopKLocalization",
    "bind",
    "chance_maps",
    "find_metric",
    "focus_mosaics",
    "grid_mosaics",
    "label_randomization",
    "parameter_randomization",
]
