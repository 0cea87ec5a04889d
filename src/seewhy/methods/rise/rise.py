"""RISE: which places raise the score when they are shown, from randomly masked copies of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ...engine.call import Call
from ...engine.inputs import settled_input
from ...engine.masking.baselines import AnyBaseline, BaselineLike, find_baseline
from ...engine.masking.masks import GridMasks
from ...engine.masking.running import MOST_SAMPLES, Running
from ...engine.masking.scoring import ScorerError, masked_scores, settle
from ...engine.targets.classes import ScoreFunction
from ...errors import InputError
from ...maps.attribution import Estimate
from ..method import Method
from .moments import Form
from .sampling import PAIR, Scheme
from .state import RiseSetting, RiseState

FIRST_LOOK = 32  # samples of each block


def _rise(
    call: Call,
    x: Tensor,
    scores: Sequence[ScoreFunction],
    *,
    layer: str | None,
    samples: int,
    cells: int,
    p: float,
    masks: Scheme,
    form: Form,
    baseline: BaselineLike,
    precision: float | None,
    blocks: int,
    seed: int,
    running: Running | None,
    state: RiseState | None,
) -> list[Estimate]:
    """RISE (Petsiuk et al., BMVC 2018, eq. 6): S = 1 / (N p) sum_i f(x * M_i) M_i over random masks M_i.

    The paper takes N = 4000 masks for VGG-16, 8000 for ResNet-50, 7 x 7 cells, p = 0.5, and for f the probability of
    the class: target="probability:NAME". The map lies over the pixels. It has the sign of the score as "paper" and
    "ratio"; in the other forms 0 says that showing a place does not change the score.

    Args:
        call: the model, and how it is called.
        x: (N, C, H, W), or volumes (N, C, D, H, W).
        scores: of each target, from what the model answers.
        layer: None: the map lies over the input.
        samples: masks for each image, at most.
        cells: of the masks, along each edge, and along the depth of a volume if it has as many slices.
        p: probability that a cell is shown.
        masks: "sobol": `blocks` separately scrambled Sobol' sequences; "iid": the paper's; "antithetic": pairs.
        form: "paper"; "ratio": sum f M / sum M; "centred": 1 / (N p) sum (f - mean f) M, usually with half the error of
            "paper" or less; "adjusted": the same in expectation, where what a linear model of the score on the mask's
            means over tiles explains is not sampled but computed (control variates, fitted on the other blocks).
        baseline: what is shown where a mask hides, as in `seewhy.masking.find_baseline`.
        precision: stops when the squared error of the map over its squared signal is below this, with 95 %
            confidence over all looks, which are at 32, 64, 128 ... samples of each block. None: takes all samples.
        blocks: independent parts of the sample; the interval comes from how far they differ, except with "iid".
        seed: of the masks; each image has its own by its bytes, in any batch.
        running: how masked pictures are run; but for bfloat16 it changes rounding alone.
        state: goes on where this one stopped, and keeps where this one stops.

    Returns:
        For each score the maps, half-widths of 95 % intervals for each pixel, and facts: samples, relative_error and
        its bound, stopped ("samples", "precision" or "error"), partial, score_mean, score_std, form, masks.

    Raises:
        InputError: an option cannot be used.
        ScorerError: the model or a target failed before anything was scored; later, what is known is returned.
    """
    call, x = settled_input(call, x)
    if samples < 2:
        raise InputError(f"samples={samples} is too few; RISE needs at least 2, usually 4000")
    if samples > MOST_SAMPLES:
        raise InputError(
            f"samples={samples} is too many; give at most {MOST_SAMPLES}, usually 4000"
        )
    if precision is not None and precision <= 0:
        raise InputError(
            f"precision={precision} cannot be reached; give a relative squared error such as 0.1, or None"
        )
    found = find_baseline(baseline, seed=seed)
    setting = RiseSetting(cells, p, masks, blocks, seed, found.name, len(scores))
    with torch.inference_mode(False), torch.no_grad():
        state = state or RiseState()
        state.begin(setting, x, samples)
        looks = (
            _counts_of_looks(samples, blocks * PAIR[masks]) if precision is not None else [samples]
        )
        sample = _Sample(call, x, samples, scores, found, running or Running(), state)
        stopped = sample.take(looks, form, precision or 0.0)
        return state.estimates(form, looks=len(looks), stopped=stopped, failed=sample.failed)


def _counts_of_looks(samples: int, turn: int) -> list[int]:
    """After how many samples the precision is looked at: where every block is a power of two, and at the end."""
    looks, next_ = [], FIRST_LOOK * turn
    while next_ < samples:
        looks.append(next_)
        next_ *= 2
    return [*looks, samples]


class _Sample:
    """Takes samples of a batch, from look to look."""

    def __init__(
        self,
        call: Call,
        x: Tensor,
        samples: int,
        scores: Sequence[ScoreFunction],
        baseline: AnyBaseline,
        running: Running,
        state: RiseState,
    ) -> None:
        self.call, self.x, self.scores, self.state, self.baseline = call, x, scores, state, baseline
        self.failed = ""
        self.grids = [state.grids(i, samples) for i in range(len(x))]
        self.running = settle(call, x, self.grids, scores, baseline=baseline, running=running)

    def take(self, looks: Sequence[int], form: Form, precision: float) -> list[str]:
        """Samples until each image is known well enough or has all; says for each why it stopped."""
        stopped: list[str | None] = [None] * len(self.x)
        for look in looks:
            active = [i for i, reason in enumerate(stopped) if reason is None]
            failed = self._up_to(look, active)
            if failed:
                return self._broken_off(failed, stopped, looks[-1])
            for i in active:
                all_there = self.state.samples[i] == look < looks[-1]
                if all_there and self._is_known(i, form, len(looks), precision):
                    stopped[i] = "precision"
        return [reason or "samples" for reason in stopped]

    def _is_known(self, image: int, form: Form, looks: int, precision: float) -> bool:
        """Whether the error of each of an image's maps is bounded by the precision."""
        found = self.state.found(image, form, looks=looks)
        return max(one.bound for one in found) <= precision

    def _broken_off(
        self, failed: ScorerError, stopped: Sequence[str | None], wanted: int
    ) -> list[str]:
        """Why each image has no more samples; the failure itself where there are none at all."""
        done = self.state.samples
        if not any(done):
            raise failed
        self.failed = f"{failed} (the estimate so far is returned)"
        ended = ["samples" if n >= wanted else "error" for n in done]
        return [reason or end for reason, end in zip(stopped, ended, strict=True)]

    def _up_to(self, look: int, active: Sequence[int]) -> ScorerError | None:
        """Takes samples of the active images until each has so many; returns what stopped it before."""
        done, progress, running = list(self.state.samples), self.running.progress, self.running
        parts = [
            _some_of(g, done[i], look if i in active else done[i]) for i, g in enumerate(self.grids)
        ]
        if progress:
            before, total = sum(done), sum(map(len, self.grids))
            running = replace(running, progress=lambda more, _: progress(before + more, total))
        try:
            for chunk in masked_scores(
                self.call, self.x, parts, self.scores, baseline=self.baseline, running=running
            ):
                self.state.add(chunk.image, chunk.scores)
                self.state.device = chunk.masks.device
        except ScorerError as error:
            return error
        return None


def _some_of(grids: GridMasks, start: int, stop: int) -> GridMasks:
    return replace(grids, cells=grids.cells[start:stop], shifts=grids.shifts[start:stop])


def sure(estimate: Estimate, *, above: Literal["mean", "zero"] = "mean") -> Tensor:
    """Where an estimate is sure of evidence: black and white, (N, h, w) bool.

    True where the lower end of the interval is above the map's mean over the picture, or above zero, which in the
    centred form says that showing the place raises the score.

    Raises:
        InputError: the estimate has no interval.

    Example:
        >>> found = seewhy.maps.Estimate(torch.tensor([[[0.5, 0.1]]]), torch.tensor([[[0.2, 0.2]]]))
        >>> seewhy.methods.sure(found, above="zero")
        tensor([[[ True, False]]])
    """
    if estimate.interval is None:
        raise InputError("the estimate has no interval; methods such as rise give one")
    dims = tuple(range(1, estimate.map.ndim))
    level = estimate.map.mean(dims, keepdim=True) if above == "mean" else 0.0
    return estimate.map - estimate.interval > level


rise = Method(
    "rise",
    "RISE",
    "Petsiuk et al., BMVC 2018",
    "perturbation",
    run=_rise,
    at="input",
    signed=True,
    options={
        "samples": 4000,
        "cells": 7,
        "p": 0.5,
        "masks": "sobol",
        "form": "adjusted",
        "baseline": "zeros",
        "precision": None,
        "blocks": 8,
        "seed": 0,
        "running": None,
        "state": None,
    },
)
