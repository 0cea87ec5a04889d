"""Linear models of how scores depend on which superpixels are shown, with what is known of their errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...engine.masking.tuning import spearman

Selection = Literal["auto", "none", "forward_selection", "highest_weights"]
FORWARD_UP_TO = 6  # features; beyond it the lime package selects by "highest_weights"
TOP = 5


@dataclass(frozen=True, eq=False)
class Surrogate:
    """score = intercept + the sum of the coefficients of what is shown.

    Attributes:
        coefficients: (d,) float64; zero where a feature is left out.
        errors: (d,), the standard error of each; NaN where there are too few samples to tell.
        r2: the share of the scores' weighted variance that the model has; NaN where they do not vary.
        r2_held_out: the same for samples that the model has not seen, each left out in turn.
    """

    coefficients: Tensor
    errors: Tensor
    intercept: float
    r2: float
    r2_held_out: float


def fit(
    design: Tensor,
    scores: Tensor,
    weights: Tensor,
    *,
    ridge: float,
    offset: Tensor | None = None,
    block: int = 1,
) -> list[Surrogate]:
    """Weighted ridge regression in closed form, for each column of the scores.

    Minimises sum_i w_i (y_i - b0 - x_i b)^2 + ridge |b|^2; the intercept is not penalised. With an offset there is no
    intercept, and y less the offset is fitted. Without ridge, where several b fit as well, it is the shortest.

    Standard errors are those of a sample drawn at random, whatever the true dependence is: the sandwich with the
    residual of each sample from the fit without it (HC3; MacKinnon and White, 1985). They say where another sample of
    this size would have put the coefficient, and nothing of the ridge's own shrinkage.

    Args:
        design: (n, d) float64.
        scores: (n, T) float64.
        weights: (n,), >= 0.
        ridge: the penalty, >= 0.
        offset: (n, T).
        block: samples drawn together, one after another; n is a multiple of it.
    """
    free = offset is None
    mean = weighted_mean(design, weights) if free else torch.zeros_like(design[0])
    level = weighted_mean(scores, weights)
    spread = (weights[:, None] * (scores - level) ** 2).sum(0)
    # scores that differ by the rounding of float32 alone do not vary
    varied = spread > weights.sum() * (1e-6 * scores.abs().amax(0)) ** 2
    x = design - mean
    y = torch.where(varied, scores - level, 0) if offset is None else scores - offset
    inverse, rank = _inverse_and_rank(x.T @ (weights[:, None] * x), ridge)
    coefficients = inverse @ (x.T @ (weights[:, None] * y))  # (d, T)
    residual = y - x @ coefficients
    unseen = torch.full_like(residual, math.nan)
    if ridge > 0 or rank < len(x) // block - free:  # else there are too few samples to tell
        unseen = _held_out(residual, x, inverse, weights, free, block)
    influence = x @ inverse  # (n, d)

    def explained(rest: Tensor) -> Tensor:  # the share of the variance that is not left
        return (1 - (weights[:, None] * rest**2).sum(0) / spread).where(varied, math.nan)

    r2, held_out = explained(residual), explained(unseen)
    found = []
    for t in range(scores.shape[1]):
        pulls = (weights * unseen[:, t])[:, None] * influence
        errors = pulls.reshape(-1, block, len(mean)).sum(1).square().sum(0).sqrt()
        own = coefficients[:, t]
        intercept = float(level[t] - mean @ own) if free else 0.0
        shares = float(r2[t]), float(held_out[t])
        found.append(Surrogate(own.contiguous(), errors, intercept, *shares))
    return found


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean over the first axis."""
    return (weights[:, None] * values).sum(0) / weights.sum()


def _inverse_and_rank(gram: Tensor, ridge: float) -> tuple[Tensor, int]:
    """(gram + ridge)^-1, the pseudo-inverse without ridge, and the rank of the Gram matrix."""
    values, axes = torch.linalg.eigh(gram)
    kept = (
        values > 1e-10 * values.abs().amax()
    )  # designs are of zeros and ones: what is smaller is rounding
    usable = kept | (ridge > 0)
    return axes * torch.where(usable, 1 / torch.where(usable, values + ridge, 1), 0) @ axes.T, int(
        kept.sum()
    )


def _held_out(
    residual: Tensor, x: Tensor, inverse: Tensor, weights: Tensor, free: bool, block: int
) -> Tensor:
    """The residual (n, T) of each block of samples from the fit without them: (I - H_block)^-1 e_block."""
    rows = x.reshape(-1, block, x.shape[1])
    leverage = rows @ inverse @ rows.mT + (
        1 / weights.sum() if free else 0
    )  # (n / block, block, block)
    rest = torch.eye(block, dtype=x.dtype) * (1 + 1e-12) - leverage * weights.reshape(-1, 1, block)
    unseen: Tensor = torch.linalg.solve(rest, residual.reshape(-1, block, residual.shape[1]))
    return unseen.reshape(residual.shape)


def fit_selected(
    design: Tensor,
    scores: Tensor,
    weights: Tensor,
    *,
    ridge: float,
    features: int | None,
    selection: Selection,
) -> list[Surrogate]:
    """As `fit`, each column of the scores on the features that are selected for it; d of them at most."""
    d = design.shape[1]
    if selection == "none" or features is None or features >= d:
        return fit(design, scores, weights, ridge=ridge)
    if selection == "auto":
        selection = "forward_selection" if features <= FORWARD_UP_TO else "highest_weights"
    select = forward_selection if selection == "forward_selection" else highest_weights
    found = []
    for column in scores.T:
        chosen = torch.tensor(select(design, column, weights, features))
        part = fit(design[:, chosen], column[:, None], weights, ridge=ridge)[0]
        full = torch.zeros(2, d, dtype=design.dtype)
        full[:, chosen] = torch.stack([part.coefficients, part.errors])
        found.append(Surrogate(full[0], full[1], part.intercept, part.r2, part.r2_held_out))
    return found


def highest_weights(design: Tensor, scores: Tensor, weights: Tensor, features: int) -> list[int]:
    """The features of largest magnitude in a ridge regression (0.01) on all."""
    return largest(fit(design, scores[:, None], weights, ridge=0.01)[0].coefficients, features)


def largest(coefficients: Tensor, k: int) -> list[int]:
    """The k features of largest magnitude, the largest first."""
    found: list[int] = coefficients.abs().argsort(descending=True, stable=True)[:k].tolist()
    return found


def forward_selection(design: Tensor, scores: Tensor, weights: Tensor, features: int) -> list[int]:
    """One feature after another, each time the one with which least squares explains most.

    What is chosen is taken out of all others (Gram-Schmidt), so that a step is one product, not d regressions.
    """
    root = weights.sqrt()
    x = root[:, None] * (design - weighted_mean(design, weights))
    y = root * (scores - weighted_mean(scores[:, None], weights))
    shortest = 1e-10 * x.square().sum(0)
    chosen: list[int] = []
    for _ in range(min(features, x.shape[1])):
        length = x.square().sum(0)
        gain = torch.where(length > shortest, (y @ x) ** 2 / length.clamp(min=1e-300), 0)
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        if length[best] > shortest[best]:
            direction = x[:, best] / length[best].sqrt()
            x = x - direction[:, None] * (direction @ x)
            y = y - direction * (direction @ y)
    return chosen


def stability(parts: Sequence[Tensor]) -> dict[str, float | int] | None:
    """How much explanations (d,) from separate samples agree, over all pairs of them; None for fewer than 2 features.

    Returns:
        parts: how many there are.
        rank_correlation: the mean of Spearman's, in [-1, 1].
        top_overlap: the mean intersection over union of the five features of largest magnitude (half of the features,
            where they are fewer than ten), in [0, 1].
        seed_correlation: what two samples of all that was drawn would have, by the Spearman-Brown formula.
    """
    if len(parts) < 2 or len(parts[0]) < 2:
        return None
    pairs = list(itertools.combinations(range(len(parts)), 2))
    correlations = [spearman(parts[i], parts[j]) for i, j in pairs]
    mean = sum(0.0 if math.isnan(value) else value for value in correlations) / len(pairs)
    top = min(TOP, len(parts[0]) // 2)
    tops = [set(largest(part, top)) for part in parts]
    overlap = sum(len(tops[i] & tops[j]) / len(tops[i] | tops[j]) for i, j in pairs) / len(pairs)
    whole = max(mean, 0.0) * len(parts) / (1 + (len(parts) - 1) * max(mean, 0.0))
    return {
        "parts": len(parts),
        "rank_correlation": mean,
        "top_overlap": overlap,
        "seed_correlation": whole,
    }
