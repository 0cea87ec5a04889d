"""What metrics are without options: the papers' settings, and what is said of them."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch

import seewhy.metrics
from seewhy import evaluate, evaluate_composed, evaluate_localization
from seewhy.errors import ArgumentTypeError, InputError
from seewhy.methods.catalog import METHODS
from seewhy.metrics import (
    CHANCES,
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
INSIDE: Settings = {"inside": "masks", "side": None, "seed": 0}
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
    "randomization": ({**METHOD, "side": 56}, False, (-1, 1), "t"),
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
    "energy_pointing": (INSIDE, True, (0, 1), "t"),
    "pair_share": (INSIDE, True, (0, 1), "t"),
    "look_alike": (INSIDE, True, (0, 1), "t"),
    "location_ap": ({"tolerance": 18, "interpolated": True, "seed": 0}, True, (0, 1), "wilson"),
    "topk_localization": ({"k": 5, "iou": 0.5, "seed": 0}, False, (0, 1), "wilson"),
    "grid_pointing": (INSIDE, True, (0, 1), "t"),
    "focus": (INSIDE, True, (0, 1), "t"),
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
        (evaluate, {"seed": 0, "chance": CHANCES, "metrics": None}),
        (evaluate_composed, {"seed": 0, "count": 40, "confidence": 0.5, "cases": 4}),
        (
            evaluate_localization,
            {
                "seed": 0,
                "chance": ("centre", "edges", "random"),
                "cases": 4,
                "rule": "cam2016",
                "metrics": ("max_box_accuracy", "pixel_ap", "pointing_game", "energy_pointing"),
            },
        ),
    ],
)
def test_functions_have_their_published_defaults(
    function: Callable[..., object], defaults: Settings
) -> None:
    found = inspect.signature(function).parameters
    assert {name: found[name].default for name in defaults} == defaults


def test_every_seed_is_zero_without_options() -> None:
    found: dict[str, object] = {}
    for info in pkgutil.walk_packages(seewhy.metrics.__path__, "seewhy.metrics."):
        module = importlib.import_module(info.name)
        for name, member in vars(module).items():
            called = member.__init__ if inspect.isclass(member) else member
            if getattr(member, "__module__", None) == info.name and inspect.isfunction(called):
                parameters = inspect.signature(called).parameters
                if "seed" in parameters and not name.startswith("_"):
                    found[name] = parameters["seed"].default
    given = ("image_generator", "pixel_ranks", "resampling_weights", "reinitialize", "Steps")
    given += ("SubsetMasks", "PhotoBoard", "LocalizationBoard", "ComposedStudy", "evaluated_study")
    given += ("pair_members", "mosaic_members", "redraw", "draw_grid")
    without = {name: seed for name, seed in found.items() if seed is not inspect.Parameter.empty}
    assert set(found) - set(without) <= set(given)
    assert {"evaluate", "evaluated", "chance_maps", "interval_of"} <= set(without)
    assert set(without.values()) == {0}


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


# name, option, what is just within its bounds, and what is just beyond
BOUNDS: list[tuple[str, str, object, object]] = [
    ("deletion", "step", 1, 0),
    ("insertion", "step", 1, 0),
    ("pixel_flipping", "region", 1, 0),
    ("pixel_flipping", "regions", 1, 0),
    ("road", "shares", (0.999,), (1.0,)),
    ("road", "shares", (0.001,), (0.0,)),
    ("road", "shares", (0.1, 0.2), (0.2, 0.1)),
    ("road", "shares", (0.5,), ()),
    ("road_morf", "noise", 0.0, -0.01),
    ("average_drop", "keep", 0.999, 1.0),
    ("average_increase", "keep", 0.001, 0.0),
    ("confidence_drop", "keep", None, -0.5),
    ("infidelity", "samples", 1, 0),
    ("infidelity", "sides", (1.0,), (1.01,)),
    ("infidelity", "sides", (0.01, 0.5), (0.0, 0.5)),
    ("infidelity", "sides", (0.5,), ()),
    ("sensitivity_n", "samples", 3, 2),
    ("sensitivity_n", "region", 1, 0),
    ("sensitivity_n", "sizes", (0.999,), (1.0,)),
    ("sensitivity_n", "sizes", (0.001, 0.5), (0.0, 0.5)),
    ("sensitivity_n", "sizes", (0.5,), ()),
    ("max_sensitivity", "samples", 1, 0),
    ("max_sensitivity", "radius", 0.0, -0.01),
    ("randomization", "side", 2, 1),
    ("grid_pointing", "side", 1, 0),
    ("max_box_accuracy", "thresholds", 1, 0),
    ("max_box_accuracy", "iou", 1.0, 1.01),
    ("max_box_accuracy", "iou", 0.01, 0.0),
    ("max_box_accuracy", "iou", (0.5,), ()),
    ("max_box_accuracy", "threshold", 0.0, -0.01),
    ("max_box_accuracy", "threshold", 0.999, 1.0),
    ("max_box_accuracy", "validation", (0.0, 0.5, 0.999), (0.0, 0.5, 1.0)),
    ("max_box_accuracy", "validation", (0.0, 0.5, 0.5), (-0.01, 0.5, 0.5)),
    ("max_box_accuracy", "validation", (0.1, 0.2, 0.3), (0.1, 0.2)),
    ("pixel_ap", "thresholds", 1, 0),
    ("segmentation_iou", "thresholds", 1, 0),
    ("topk_localization", "k", 1, 0),
    ("topk_localization", "iou", 1.0, 1.01),
    ("location_ap", "tolerance", 0.0, -0.5),
    ("pointing_game", "tolerance", 0, -1),
    ("pointing_game", "tolerance", "0%", "-1%"),
]


@pytest.mark.parametrize(("name", "option", "within", "beyond"), BOUNDS)
def test_options_are_taken_up_to_their_bounds(
    name: str, option: str, within: object, beyond: object
) -> None:
    metric = {**METRICS, **LOCALIZATION}[name]
    metric(**{option: within})
    with pytest.raises(InputError, match=option):
        metric(**{option: beyond})


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 4), "the map of a single image is map\\[None\\]"),
        ((2, 3, 4, 4), "of volumes judge one slice, maps\\[:, k\\]"),
        ((2, 0, 4), r"maps has shape \(2, 0, 4\), not \(N, h, w\)$"),
    ],
)
def test_maps_of_another_shape_are_told_with_the_way_out(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_metric("sparsity").update(torch.ones(shape))
