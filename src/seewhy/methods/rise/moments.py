"""Sums over masks and their scores, and what they estimate: maps with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...engine.masking.masks import GridMasks
from .control import Control, fit_control

Form = Literal["adjusted", "centred", "ratio", "paper"]
TOGETHER = 1 << 20  # numbers of masks that are rendered at once


@dataclass(frozen=True)
class Design:
    """How masks were drawn.

    Attributes:
        p: the mean of the masks.
        blocks: samples belong to them in turns; the blocks are independent, samples in a block need not be.
        together: samples drawn together, one after another; they go to one block.
        independent: every sample is; then intervals come from samples and not from blocks.
    """

    p: float
    blocks: int
    together: int
    independent: bool

    def members(self, n: int) -> Tensor:
        """Which block each of n samples is in: (blocks, n), 0 or 1."""
        block = torch.arange(n) // self.together % self.blocks
        return (block == torch.arange(self.blocks)[:, None]).double()


@dataclass(frozen=True, eq=False)
class Found:
    """What is known of one target's map.

    Attributes:
        map: (H, W) float64, or (D, H, W).
        interval: as the map, half-width; infinite where there are too few samples.
        relative_error: the expected squared error of the map over its squared signal, both about their mean over the
            picture; infinite where there is no signal.
        bound: what this map's relative error is below, with the confidence asked for.
        score_mean, score_std: of the scores.
    """

    map: Tensor
    interval: Tensor
    relative_error: float
    bound: float
    score_mean: float
    score_std: float


def estimate(
    grids: GridMasks,
    scores: Tensor,
    design: Design,
    form: Form,
    *,
    looks: int = 1,
    device: torch.device | None = None,
) -> list[Found]:
    """What samples say of each target; intervals of 95 %, over all looks together.

    Masks are rendered again, a fixed number at a time, so that the answer does not depend on how they were run.

    Args:
        grids: at least as many masks as there are scores.
        scores: (n, T) float64.
        design: how the masks were drawn.
        form: which of the estimators.
        looks: how many there may be in all.
        device: where masks are rendered.
    """
    control = (
        fit_control(grids, scores, design.members(len(scores)), design.p)
        if form == "adjusted"
        else None
    )
    sums = _Sums(
        grids,
        scores if control is None else control.residual,
        design,
        device or torch.device("cpu"),
    )
    found = []
    for t, column in enumerate(scores.T):
        mean, std = float(column.mean()), float(column.std()) if len(scores) > 1 else 0.0
        if form in ("adjusted", "centred") and std <= 1e-6 * abs(
            mean
        ):  # rounding: hiding does not change the score
            nothing = torch.zeros(grids.size, dtype=torch.float64)
            found.append(Found(nothing, nothing, math.inf, math.inf, mean, std))
        else:
            found.append(Found(*_map_and_interval(sums, t, form, control, 0.05 / looks), mean, std))
    return found


def _map_and_interval(
    sums: _Sums, target: int, form: Form, control: Control | None, tail: float
) -> tuple[Tensor, Tensor, float, float]:
    map_, alpha, beta, scale = sums.form(target, form)
    own, weights = sums.of_blocks(target, alpha, beta, scale)
    if control is not None:
        own = own + control.expected(target)[sums.counts > 0] / scale
        map_ = weights @ own
    deviations = own - weights @ own
    error, bound = _relative_error(map_, deviations, weights, tail)
    if sums.design.independent:
        variance, freedom = sums.variance_of_samples(target, alpha, beta, scale), sums.n - 1
    else:
        variance, freedom = (weights[:, None] * deviations).square().sum(0), len(weights) - 1
        variance = variance * (len(weights) / max(freedom, 1))
    half = (
        _quantile(1 - tail / 2, freedom) * variance.clamp(min=0).sqrt()
        if freedom
        else torch.inf + 0 * map_
    )
    return map_.view(sums.size), half.view(sums.size), error, bound


_Term = Tensor | float  # of each pixel, or of all


class _Sums:
    """Sums over samples i of g^a m^b, for each pixel and target, with g_i = f_i - mean f and m_i = M_i - p."""

    def __init__(
        self, grids: GridMasks, scores: Tensor, design: Design, device: torch.device
    ) -> None:
        self.n, self.size, self.design = len(scores), grids.size, design
        self.mean = scores.mean(0)
        members, g = design.members(self.n), (scores - self.mean).T  # (B, n), (T, n)
        self.counts, self.g, self.gg = members.sum(1), g @ members.T, g.square().sum(1)
        weights = {"gm": (g[:, None] * members).flatten(0, 1), "m": members}
        squares: dict[str, Tensor] = {}
        if design.independent:
            weights["ggm"] = g.square()
            squares = {
                "mm": torch.ones(1, self.n, dtype=torch.float64),
                "gmm": g,
                "ggmm": g.square(),
            }
        pixels = math.prod(grids.size)
        self.sums = {
            name: torch.zeros(len(rows), pixels, dtype=torch.float64)
            for name, rows in {**weights, **squares}.items()
        }
        step = max(1, min(64, TOGETHER // pixels))
        for start in range(0, self.n, step):
            stop = min(self.n, start + step)
            m = grids.render(start, stop, device).flatten(1).sub_(design.p)  # (n, pixels)
            self._add_products(m, {name: rows[:, start:stop] for name, rows in weights.items()})
            if squares:
                self._add_products(
                    m.square_(), {name: rows[:, start:stop] for name, rows in squares.items()}
                )

    def _add_products(self, values: Tensor, weights: dict[str, Tensor]) -> None:
        product = (torch.cat(list(weights.values())).to(values) @ values).to("cpu")
        for name, part in zip(
            weights, torch.split(product, [len(rows) for rows in weights.values()]), strict=True
        ):
            self.sums[name] += part

    def form(self, target: int, form: Form) -> tuple[Tensor, _Term, _Term, _Term]:
        """The map, and alpha, beta and scale such that its error is the mean of (g - alpha)(m - beta) / scale."""
        mean, p = float(self.mean[target]), self.design.p
        gm, m = self._blocks_of(target).sum(0) / self.n, self.sums["m"].sum(0) / self.n
        if form == "adjusted":
            return gm / p, -mean, 0.0, p
        if form == "centred":
            return gm / p, 0.0, m, p
        if form == "paper":
            return (gm + mean * m) / p + mean, -mean, -p, p
        return mean + gm / (m + p), gm / (m + p), -p, m + p

    def _blocks_of(self, target: int) -> Tensor:
        blocks = self.design.blocks
        return self.sums["gm"][target * blocks : (target + 1) * blocks]

    def of_blocks(
        self, target: int, alpha: _Term, beta: _Term, scale: _Term
    ) -> tuple[Tensor, Tensor]:
        """Each block's mean of (g - alpha)(m - beta) / scale, (B, pixels), and its share of the samples, (B,)."""
        used = self.counts > 0
        count, m = self.counts[used, None], self.sums["m"][used]
        total = (
            self._blocks_of(target)[used]
            - alpha * m
            - beta * self.g[target, used, None]
            + count * (alpha * beta)
        )
        return total / count / scale, self.counts[used] / self.n

    def variance_of_samples(self, target: int, alpha: _Term, beta: _Term, scale: _Term) -> Tensor:
        """Of the mean of (g - alpha)(m - beta) / scale over independent samples: (pixels,)."""
        n, s, g, gg = self.n, self.sums, self.g[target].sum(), self.gg[target]
        m, gm = s["m"].sum(0), self._blocks_of(target).sum(0)
        mm, gmm, ggm, ggmm = s["mm"][0], s["gmm"][target], s["ggm"][target], s["ggmm"][target]
        squares = (
            (ggmm - 2 * alpha * gmm + alpha**2 * mm)
            - 2 * beta * (ggm - 2 * alpha * gm + alpha**2 * m)
            + beta**2 * (gg - 2 * alpha * g + n * alpha**2)
        )
        mean = (gm - alpha * m - beta * g + n * alpha * beta) / n
        variance: Tensor = (squares / n - mean**2) / scale**2 / max(n - 1, 1)
        return variance


def _relative_error(
    map_: Tensor, deviations: Tensor, weights: Tensor, tail: float
) -> tuple[float, float]:
    """The expected squared error of a map over its squared signal, and what this map's is below with 1 - tail.

    What a block differs from all, at the scale of the whole sample, is distributed as the error itself; the bound is
    Student's for one more of them.
    """
    blocks = len(weights)
    if blocks < 2:
        return math.inf, math.inf
    apart = deviations - deviations.mean(1, keepdim=True)
    parts = weights**2 * apart.square().sum(1) * (blocks**2 / (blocks - 1))
    error = float(parts.mean())
    most = error + _quantile(1 - tail, blocks - 1) * float(parts.std()) * math.sqrt(1 + 1 / blocks)
    energy = float((map_ - map_.mean()).square().sum())
    return _over_signal(error, energy), _over_signal(most, energy)


def _over_signal(error: float, energy: float) -> float:
    """The energy of an estimate is that of what it estimates and its error."""
    return error / (energy - error) if energy > error else math.inf


def _quantile(level: float, freedom: int) -> float:
    """Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))
