"""What metrics are without options: the papers' settings, and what is said of them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest

from seewhy.errors import ArgumentTypeError, InputError
from seewhy.methods.catalog import METHODS
from seewhy.metrics import (
    LOCALIZATION,
    METRICS,
    ChanceMethod,
    ExplanationMetric,
    ImageMetric,
    MaxSensitivity,
    chance_maps,
    find_metric,
    focus_mosaics,
    grid_mosaics,
)

Settings = dict[str, Any]
NINE = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
IMAGE: Settings = {"output": "probability", "seed": 0}
SHOWN: Settings = {**IMAGE, "keep": None, "baseline": "zeros"}
ROAD: Settings = {**IMAGE, "shares": NINE, "noise": 0.01}
SUMS: Settings = {
    "output": "logit",
    "baseline": "zeros",
    "maps_are": "contributions",
    "seed": 0,
}
METHOD: Settings = {"method": None, "layer": None, "seed": 0}
FIXED: Settings = {"thresholds": 1000, "seed": 0}

# name -> settings, whether higher is better, what values lie between, which interval
DEFAULTS: dict[str, tuple[Settings, bool, tuple[float, float], str]] = {
    "insertion": ({**IMAGE, "step": 224, "baseline": "blur"}, True, (0, 1), "t"),
    "deletion": ({**IMAGE, "step": 224, "baseline": "zeros"}, False, (0, 1), "t"),
    "pixel_flipping": (
        {**IMAGE, "region": 9, "regions": 100, "baseline": "noise"},
        True,
        (-1, 1),
        "t",
    ),
    "road": (ROAD, True, (-0.5, 0.5), "t"),
    "road_morf": (ROAD, False, (0, 1), "t"),
    "road_lerf": (ROAD, True, (0, 1), "t"),
    "average_drop": (SHOWN, False, (0, 1), "t"),
    "average_increase": (SHOWN, True, (0, 1), "wilson"),
    "confidence_drop": (SHOWN, False, (-1, 1), "t"),
    "infidelity": (
        {**SUMS, "samples": 100, "sides": [0.125, 0.25], "normalize": True},
        False,
        (0, math.inf),
        "t",
    ),
    "sensitivity_n": (
        {
            **SUMS,
            "sizes": [0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8],
            "samples": 50,
            "region": 1,
        },
        True,
        (-1, 1),
        "t",
    ),
    "max_sensitivity": (
        {**METHOD, "radius": 0.02, "samples": 10},
        False,
        (0, math.inf),
        "t",
    ),
    "parameter_randomization": (
        {
            **METHOD,
            "order": "cascading",
            "similarity": "spearman_abs",
            "reset_statistics": False,
            "layers": None,
        },
        False,
        (-1, 1),
        "t",
    ),
    "complexity": ({"seed": 0}, False, (0, math.inf), "t"),
    "sparsity": ({"seed": 0}, True, (0, 1), "t"),
    "max_box_accuracy": (
        {
            **FIXED,
            "version": 2,
            "iou": (0.3, 0.5, 0.7),
            "threshold": 0.2,
            "validation": None,
            "relative_to": "minmax",
            "connectivity": 8,
        },
        True,
        (0, 1),
        "t",
    ),
    "pixel_ap": ({**FIXED, "relative_to": "minmax"}, True, (0, 1), "t"),
    "pointing_game": (
        {"tolerance": 15, "average": "classes", "seed": 0},
        True,
        (0, 1),
        "wilson",
    ),
    "energy_pointing": ({"inside": "masks", "seed": 0}, True, (0, 1), "t"),
    "location_ap": ({"tolerance": 18, "interpolated": True, "seed": 0}, True, (0, 1), "wilson"),
    "topk_localization": ({"k": 5, "iou": 0.5, "seed": 0}, False, (0, 1), "wilson"),
    "grid_pointing": ({"inside": "masks", "seed": 0}, True, (0, 1), "t"),
    "focus": ({"inside": "masks", "seed": 0}, True, (0, 1), "t"),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_the_papers(name: str) -> None:
    settings, higher, limits, interval = DEFAULTS[name]
    metric = find_metric(name, ImageMetric)  # type: ignore[type-abstract]
    assert metric.settings == settings
    assert metric.higher_is_better is higher
    assert metric._limits() == limits
    assert metric.interval == interval
    asked = {**METRICS, **LOCALIZATION}[name]
    for option, value in settings.items():  # what is recorded is what is used
        used = getattr(metric, option, value)
        if option not in ("baseline", "method"):
            assert used == (tuple(value) if isinstance(value, list) else value), (asked, option)


@pytest.mark.parametrize(
    ("function", "defaults"),
    [
        (grid_mosaics, {"n": 2, "count": 100, "labels": None, "confidence": 0.99, "seed": 0}),
        (focus_mosaics, {"count": 100, "target": None, "seed": 0}),
        (chance_maps, {"seed": 0}),
    ],
)
def test_functions_have_their_published_defaults(
    function: Callable[..., object], defaults: Settings
) -> None:
    empty = inspect.Parameter.empty
    found = inspect.signature(function).parameters.values()
    assert {p.name: p.default for p in found if p.default is not empty} == defaults


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("saliency", "saliency"),
        (METHODS["grad_cam"], "grad_cam"),
        (ChanceMethod("edges"), "ChanceMethod"),
        (None, None),
    ],
)
def test_the_method_that_is_run_again_is_recorded_by_its_name(method: Any, name: object) -> None:
    assert MaxSensitivity(method, layer="conv2").settings["method"] == name
    assert MaxSensitivity(method, layer="conv2").settings["layer"] == "conv2"


@pytest.mark.parametrize("name", [n for n, made in DEFAULTS.items() if "output" in made[0]])
def test_an_output_is_one_of_two(name: str) -> None:
    assert METRICS[name](output="logit").settings["output"] == "logit"
    with pytest.raises(InputError, match="output='logits' is not known; did you mean 'logit'"):
        METRICS[name](output="logits")


class Own(ExplanationMetric):
    name, title, paper = "own", "Own", "nobody"


def test_a_metric_of_ones_own_has_an_output_of_the_two() -> None:
    assert Own(settings={"output": "probability"}).settings["output"] == "probability"
    with pytest.raises(InputError, match="output='logits' is not known"):
        Own(settings={"output": "logits"})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deletion", {"step": "many"}),
        ("infidelity", {"samples": 0.5}),
        ("max_box_accuracy", {"thresholds": None}),
    ],
)
def test_options_of_another_type_are_told(name: str, options: Settings) -> None:
    with pytest.raises(ArgumentTypeError, match=f"{next(iter(options))}="):
        {**METRICS, **LOCALIZATION}[name](**options)
