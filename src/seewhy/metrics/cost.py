"""What an evaluation will take, from a measured sample."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.batches import answers
from ..engine.call import Call
from ..render.reading import clock_words
from .metric import ExplanationMetric
from .unit import Unit

_COPIES = 8  # of a picture, run at once
_SLOW = 0.5  # seconds of a single picture, of which no copies are run


@dataclass(frozen=True)
class EvaluationCost:
    """What scoring photos will take, roughly.

    Attributes:
        photos: how many are left.
        passes: pictures that the model is shown for each.
        seconds: for all of them.
    """

    photos: int
    passes: int
    seconds: float

    def __str__(self) -> str:
        photos = "1 photo" if self.photos == 1 else f"{self.photos:,} photos"
        return f"{photos}, about {self.passes:,} passes for each: about {clock_words(self.seconds)}"


def estimate(
    call: Call,
    x: Tensor,
    units: Sequence[tuple[Unit, ExplanationMetric]],
    *,
    photos: int,
    explaining: float,
) -> EvaluationCost:
    """Runs the model on a few copies of a picture, and reckons.

    Args:
        call: the model, and how it is called.
        x: (N, C, H, W), of which the first is run.
        units: what is scored of each photo, and by what.
        photos: how many.
        explaining: seconds that a map of one photo takes.
    """
    pixels, passes, again = x.shape[2] * x.shape[3], 0, 0
    for unit, metric in units:
        passes += metric.passes(pixels)
        again += 0 if unit.by_chance else metric.reruns(call.module)
    maps = sum(not unit.by_chance for unit, _ in units) + again
    return EvaluationCost(
        photos, passes, photos * (passes * _seconds_of_picture(call, x) + maps * explaining)
    )


def _seconds_of_picture(call: Call, x: Tensor) -> float:
    """The seconds that the model takes for a picture, several at once where one takes little."""
    one = call.rows([0])
    taken = _seconds_of_pass(one, x[:1])
    if taken > _SLOW or call.inputs:
        return taken
    return min(taken, _seconds_of_pass(one, x[:1].repeat(_COPIES, 1, 1, 1)) / _COPIES)


def _seconds_of_pass(call: Call, x: Tensor) -> float:
    """The seconds of a pass, the better of two: the first of a size is slow."""
    taken = []
    for _ in range(2):
        begun = time.perf_counter()
        answers(call, x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        taken.append(time.perf_counter() - begun)
    return min(taken)
