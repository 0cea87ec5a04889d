"""Occlusion: how much the score drops where a window hides the picture."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ..engine.call import Call
from ..engine.masking.baselines import BaselineLike, find_baseline
from ..engine.masking.masks import PatchMasks
from ..engine.masking.running import Running
from ..engine.masking.scoring import ScorerError, masked_scores
from ..engine.targets.classes import ScoreFunction
from ..errors import InputError, SeewhyWarning
from ..maps.attribution import Estimate
from .method import Method

Pair = int | tuple[int, int]


def windows(size: tuple[int, int], window: Pair | None = None, stride: Pair | None = None) -> Tensor:
    """Boxes (n, 4), x0, y0, x1, y1, that slide over (H, W) row by row; the last of a row or column ends at the border.

    Args:
        size: (H, W).
        window: its height and width; None is a seventh of each edge, rounded up. At most the picture's.
        stride: down and across; None is half of the window, at least 1.
    """
    tall, wide = _pair("window", window, (math.ceil(size[0] / 7), math.ceil(size[1] / 7)))
    down, across = _pair("stride", stride, (max(1, tall // 2), max(1, wide // 2)))
    if down > tall or across > wide:
        raise InputError(f"stride={stride} is larger than the window {(tall, wide)}: pixels would never be hidden")
    tall, wide = min(tall, size[0]), min(wide, size[1])
    y, x = _starts(size[0], tall, down), _starts(size[1], wide, across)
    corners = torch.cartesian_prod(y, x)
    return torch.stack([corners[:, 1], corners[:, 0], corners[:, 1] + wide, corners[:, 0] + tall], 1)


def _pair(name: str, given: Pair | None, default: tuple[int, int]) -> tuple[int, int]:
    both = default if given is None else (given, given) if isinstance(given, int) else tuple(given)
    if len(both) != 2 or min(both) < 1:
        raise InputError(f"{name}={given!r} cannot be used; give pixels, one number or (down, across), at least 1")
    return both


def _starts(length: int, window: int, stride: int) -> Tensor:
    starts = torch.arange(0, length - window + 1, stride)
    return starts if starts[-1] == length - window else torch.cat([starts, torch.tensor([length - window])])


def spread(boxes: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Adds up over each pixel the values (n, T) of the boxes (n, 4) that cover it: (T, H, W) float64."""
    corners = torch.zeros(values.shape[1], size[0] + 1, size[1] + 1, dtype=torch.float64)
    x0, y0, x1, y1 = boxes.unbind(1)
    for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        flat = y * (size[1] + 1) + x
        corners.flatten(1).index_add_(1, flat, sign * values.T.double())
    return corners.cumsum(1).cumsum(2)[:, :-1, :-1]


def _occlusion(
    call: Call,
    x: Tensor,
    scores: Sequence[ScoreFunction],
    *,
    layer: str | None,
    window: Pair | None,
    stride: Pair | None,
    baseline: BaselineLike,
    seed: int,
    running: Running | None,
) -> list[Estimate]:
    """Occlusion (Zeiler and Fergus, ECCV 2014, section 4.2): the drop of the score where a window hides the picture.

    Each pixel has the mean of score(x) - score(x with the window hidden) over the windows that cover it, in units of
    the score. Signed: where hiding raises the score, the map is negative.

    Args:
        window: pixels, one number or (height, width); None is a seventh of each edge.
        stride: likewise; None is half of the window. The last window of a row or column ends at the border.
        baseline: what is shown in the window; "zeros" is for usual preprocessing the mean colour, as in the paper.
        seed: of the baseline "noise".
        running: how masked pictures are run.

    Raises:
        InputError: no such window.
        ScorerError: the model failed before any window was scored. Later failures leave a partial map, with zeros where
            no window came.
    """
    size = (x.shape[2], x.shape[3])
    boxes = windows(size, window, stride)
    masks = PatchMasks(torch.cat([torch.zeros(1, 4, dtype=boxes.dtype), boxes]), size)  # first nothing is hidden
    said = [torch.empty(0, len(scores), dtype=torch.float64) for _ in x]
    passes = masked_scores(
        call,
        x,
        [masks] * len(x),
        scores,
        baseline=find_baseline(baseline, seed=seed),
        running=running,
    )
    try:
        for chunk in passes:
            said[chunk.image] = torch.cat([said[chunk.image], chunk.scores])
    except ScorerError as error:
        if all(len(s) < 2 for s in said):
            raise
        warnings.warn(f"the map is partial: {error}", SeewhyWarning, stacklevel=2)
    done = [max(len(s) - 1, 0) for s in said]
    maps = torch.stack([_mean_drop(boxes[:n], s, size) for n, s in zip(done, said, strict=True)], 1)  # (T, N, H, W)
    facts = tuple({"windows": n, "of": len(boxes), "partial": n < len(boxes)} for n in done)
    return [Estimate(one.float(), facts=facts) for one in maps]


def _mean_drop(boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Tensor:
    """For each pixel the mean drop over the boxes (n, 4) that cover it, from scores (1 + n, T): (T, H, W)."""
    drop = spread(boxes, scores[:1] - scores[1:], size)
    covered = spread(boxes, torch.ones(len(boxes), 1), size).round()
    return torch.where(covered > 0, drop / covered.clamp(min=1), 0)


occlusion = Method(
    "occlusion",
    "Occlusion",
    "Zeiler and Fergus, ECCV 2014",
    "perturbation",
    sample=_occlusion,
    at="input",
    signed=True,
    options={"window": None, "stride": None, "baseline": "zeros", "seed": 0, "running": None},
)
