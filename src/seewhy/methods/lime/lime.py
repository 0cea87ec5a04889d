"""LIME for images: a linear model of how the score depends on which superpixels are shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from ...data.disk import Json, number
from ...engine.call import Call
from ...engine.masking.baselines import (
    AnyBaseline,
    BaselineLike,
    SuperpixelMean,
    find_baseline,
    image_seed,
)
from ...engine.masking.masks import SuperpixelMasks
from ...engine.masking.running import MOST_SAMPLES, Running
from ...engine.masking.scoring import ScorerError, masked_scores
from ...engine.targets.classes import ScoreFunction
from ...errors import InputError
from ...maps.attribution import Estimate, Facts
from ..formula import Settings
from ..method import Method
from .coalitions import Kernel, LimeKernel, Sample, ShapleyKernel
from .superpixels import SuperpixelsLike, centers, segment, sizes
from .surrogate import Selection, Surrogate, largest

LINEAR_FROM = (
    0.5  # of the scores' variance, held out: with less, the linear model misses more than it tells
)
OWN_COLORS = "superpixel_mean"  # the baseline that needs the labels
LISTED = 10  # superpixels in the facts


def _lime(
    call: Call,
    x: Tensor,
    scores: Sequence[ScoreFunction],
    *,
    layer: str | None,
    samples: int,
    superpixels: SuperpixelsLike,
    superpixel_options: Settings | None,
    kernel: Literal["lime", "shap"],
    kernel_width: float,
    ridge: float | None,
    features: int | None,
    selection: Selection,
    baseline: BaselineLike,
    precision: float | None,
    max_samples: int,
    seed: int,
    running: Running | None,
) -> list[Estimate]:
    """LIME (Ribeiro et al., KDD 2016, eq. 1) for images: the coefficients of a linear model of the score.

    Superpixels are hidden at random, the model is run, and a weighted ridge regression of its score on what was shown
    is solved. Signed: a superpixel with a positive coefficient speaks for the target. The interval is that of the
    sampling, 1.96 standard errors; features that are left out have coefficient and interval zero.

    Args:
        call: the model, and how it is called.
        x: (N, C, H, W), or volumes (N, C, D, H, W).
        scores: of each target, from what the model answers.
        layer: None: the map lies over the input.
        samples: coalitions drawn; equal ones are run once.
        superpixels: as in `seewhy.methods.lime.superpixels.segment`.
        superpixel_options: the segmentation's own.
        kernel: "lime" weighs by sqrt(exp(-D^2 / kernel_width^2)), D the cosine distance; "shap" is KernelSHAP, whose
            coefficients are Shapley values and takes neither kernel width nor selection.
        kernel_width: of "lime", in units of that distance.
        ridge: the penalty; None is 1 for "lime" and 0 for "shap".
        features: keep this many coefficients; None keeps all. Standard errors take the selection as given.
        selection: "forward_selection", "highest_weights", "auto" (the former up to 6 features) or "none".
        baseline: what is shown of a hidden superpixel: its own mean colour, or another baseline.
        precision: draw more, `samples` at a time up to `max_samples`, until the standard errors of the five largest
            coefficients are below this share of the largest.
        max_samples: how many coalitions `precision` may take.
        seed: of the coins, together with the image's own values; superpixels do not depend on it.
        running: how masked pictures are run.

    Raises:
        InputError: an option is out of range.
        ScorerError: the model failed before any image had two samples. Later failures leave a partial estimate.
    """
    rule = _checked_kernel(kernel, samples, kernel_width, ridge, features, selection)
    most = samples if precision is None else max_samples
    _check_sizes(samples, most, precision)
    found = segment(x, superpixels, options=superpixel_options, bounds=call.bounds)
    drawn = [
        Sample(labels, rule, torch.Generator().manual_seed(image_seed(image, seed)))
        for image, labels in zip(x, found, strict=True)
    ]
    background = [_baseline_of(baseline, labels, seed) for labels in found]

    def run(masks: Sequence[SuperpixelMasks]) -> ScorerError | None:
        return _run_masks(call, x, drawn, masks, scores, background, running)

    broken = _sample_until_precise(drawn, run, samples, most, precision)
    return _estimates_of_targets(drawn, len(scores), precision, broken)


def _sample_until_precise(
    drawn: Sequence[Sample],
    run: Callable[[Sequence[SuperpixelMasks]], ScorerError | None],
    samples: int,
    most: int,
    precision: float | None,
) -> ScorerError | None:
    """Draws and runs so many at a time, until each image is known well enough or has all; returns what broke it off."""
    pending = list(drawn)
    while pending:
        masks = []
        for sample in drawn:
            wanted = min(samples, most - len(sample.drawn)) if sample in pending else 0
            masks.append(SuperpixelMasks(sample.extend(wanted), sample.labels))
        broken = run(masks)
        for sample in pending:
            sample.refit()
        if broken is not None or precision is None:
            return broken
        pending = [s for s in pending if not s.reaches(precision) and s.room(most)]
    return None


def _baseline_of(baseline: BaselineLike, labels: Tensor, seed: int) -> AnyBaseline:
    own = isinstance(baseline, str) and baseline == OWN_COLORS
    return SuperpixelMean(labels) if own else find_baseline(baseline, seed=seed)


def _checked_kernel(
    name: str,
    samples: int,
    width: float,
    ridge: float | None,
    features: int | None,
    selection: Selection,
) -> Kernel:
    """The kernel of that name, with options that are in range."""
    if not width > 0 or (ridge is not None and not ridge >= 0):
        raise InputError(
            f"kernel_width={width}, ridge={ridge}: the width has to be above 0, the penalty not below"
        )
    if features is not None:
        _check_features(features, name)
    if name == "shap":
        return ShapleyKernel(0.0 if ridge is None else ridge, samples)
    return LimeKernel(float(width), 1.0 if ridge is None else ridge, features, selection)


def _check_features(features: int, kernel: str) -> None:
    """Says that so many coefficients cannot be kept."""
    if kernel == "shap":
        accepted = "None: Shapley values are of all superpixels"
        raise InputError(f"features={features} cannot be kept with kernel='shap'; give {accepted}")
    if features < 1:
        raise InputError(
            f"features={features} cannot be kept with kernel={kernel!r}; give at least 1, or None for all"
        )


def _check_sizes(samples: int, most: int, precision: float | None) -> None:
    if samples < 2:
        raise InputError(
            f"samples={samples} is too few for a linear model; give at least 2, usually 1000"
        )
    if most > MOST_SAMPLES:
        raise InputError(f"samples={most} is too many; give at most {MOST_SAMPLES}, usually 1000")
    if most < samples:
        raise InputError(f"max_samples={most} is below samples={samples}; give as many or more")
    if precision is not None and not precision > 0:
        raise InputError(
            f"precision={precision} cannot be reached; give a share above 0, such as 0.1, or None"
        )


def _run_masks(
    call: Call,
    x: Tensor,
    drawn: Sequence[Sample],
    masks: Sequence[SuperpixelMasks],
    scores: Sequence[ScoreFunction],
    background: Sequence[AnyBaseline],
    running: Running | None,
) -> ScorerError | None:
    """Runs what was drawn; returns the error on which it broke off, unless it has broken off before it had anything."""
    passes = masked_scores(
        call,
        x,
        masks,
        scores,
        baseline=background,
        running=running,
    )
    try:
        for chunk in passes:
            drawn[chunk.image].add(chunk.scores)
    except ScorerError as error:
        if all(len(sample.finished()[0]) < 2 for sample in drawn):
            raise
        return error
    return None


def _estimates_of_targets(
    drawn: Sequence[Sample], targets: int, precision: float | None, broken: ScorerError | None
) -> list[Estimate]:
    """The maps of each target: each pixel has its superpixel's coefficient; NaN where there is no sample to tell."""
    maps, intervals = (
        torch.full((targets, len(drawn), *drawn[0].labels.shape), math.nan, dtype=torch.float32)
        for _ in range(2)
    )
    facts: list[list[Facts]] = [[] for _ in range(targets)]
    for i, sample in enumerate(drawn):
        common = _facts_of_sample(sample, precision, broken)
        stable = sample.stability()
        for t in range(targets):
            facts[t].append(
                {
                    **common,
                    **(
                        _facts_of_fit(sample, sample.found[t], stable[t])
                        if sample.found
                        else _NO_FIT
                    ),
                }
            )
        for t, surrogate in enumerate(sample.found):
            maps[t, i] = surrogate.coefficients[sample.labels]
            intervals[t, i] = 1.96 * surrogate.errors[sample.labels]
    return [Estimate(maps[t], intervals[t], tuple(facts[t])) for t in range(targets)]


def _facts_of_sample(sample: Sample, precision: float | None, broken: ScorerError | None) -> Json:
    n = len(sample.finished()[0])
    partial = n < len(sample.drawn)
    return {
        "superpixels": sample.d,
        "samples": n,
        "distinct": len(set(sample.drawn[:n])),
        "more_features_than_samples": sample.d >= n,
        "precise": None if precision is None else sample.reaches(precision),
        "partial": partial,
        **({"failed": str(broken)} if partial and broken else {}),
    }


def _facts_of_fit(sample: Sample, surrogate: Surrogate, stable: Facts | None) -> Json:
    places, pixels = centers(sample.labels), sizes(sample.labels)
    return {
        "intercept": number(surrogate.intercept),
        "r2": number(surrogate.r2),
        "r2_held_out": number(surrogate.r2_held_out),
        "locally_linear": _is_linear(surrogate),
        "stability": stable,
        "top": [
            {
                "superpixel": j,
                "coefficient": float(surrogate.coefficients[j]),
                "standard_error": number(float(surrogate.errors[j])),
                "centre": [round(float(place), 1) for place in places[j]],  # row, column
                "pixels": int(pixels[j]),
            }
            for j in largest(surrogate.coefficients, LISTED)
        ],
    }


_NO_FIT: Json = {
    **dict.fromkeys(("intercept", "r2", "r2_held_out", "locally_linear", "stability")),
    "top": [],
}


def _is_linear(surrogate: Surrogate) -> bool | None:
    """None where nothing varies, or too little was drawn to tell."""
    return None if math.isnan(surrogate.r2_held_out) else surrogate.r2_held_out >= LINEAR_FROM


lime = Method(
    "lime",
    "LIME",
    "Ribeiro et al., KDD 2016",
    "perturbation",
    run=_lime,
    at="input",
    signed=True,
    options={
        "samples": 1000,
        "superpixels": "quickshift",
        "superpixel_options": None,
        "kernel": "lime",
        "kernel_width": 0.25,
        "ridge": None,
        "features": None,
        "selection": "auto",
        "baseline": OWN_COLORS,
        "precision": None,
        "max_samples": 10_000,
        "seed": 0,
        "running": None,
    },
    style="superpixels",
)
