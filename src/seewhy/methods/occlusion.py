"""Occlusion: how much the score drops where a window hides the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from ..engine.call import Call
from ..engine.layout import Grid
from ..engine.masking.baselines import BaselineLike, find_baseline
from ..engine.masking.masks import PatchMasks
from ..engine.masking.running import Running
from ..engine.masking.scoring import ScorerError, masked_scores
from ..engine.targets.classes import ScoreFunction
from ..errors import InputError
from ..maps.attribution import Estimate
from .method import Method

Edges = int | tuple[int, ...]


def windows(size: Grid, window: Edges | None = None, stride: Edges | None = None) -> Tensor:
    """Boxes (n, 4), x0, y0, x1, y1, that slide over (H, W) row by row; the last of a row or column ends at the border.

    Args:
        size: (H, W); of a volume (D, H, W), and the boxes are (n, 6), x0, y0, z0, x1, y1, z1.
        window: its height and width; None is a seventh of each edge, rounded up. At most the picture's.
        stride: down and across; None is half of the window, at least 1.
    """
    edges = _edges_of("window", window, tuple(math.ceil(side / 7) for side in size))
    steps = _edges_of("stride", stride, tuple(max(1, edge // 2) for edge in edges))
    if any(step > edge for step, edge in zip(steps, edges, strict=True)):
        raise InputError(
            f"stride={stride} is larger than the window {edges}: pixels would never be hidden"
        )
    edges = tuple(map(min, edges, size))
    starts = torch.cartesian_prod(*map(_starts_along, size, edges, steps))  # (n, axes)
    return torch.cat([starts.flip(1), (starts + torch.tensor(edges)).flip(1)], 1)


def _edges_of(name: str, given: Edges | None, default: Grid) -> Grid:
    if isinstance(given, int):
        each: Grid = (given,) * len(default)
    else:
        each = default if given is None else tuple(given)
    if len(each) != len(default) or min(each) < 1:
        order = "(down, across)" if len(default) == 2 else "(deep, down, across)"
        raise InputError(
            f"{name}={given!r} cannot be used; give pixels, one number or {order}, at least 1"
        )
    return each


def _starts_along(length: int, window: int, stride: int) -> Tensor:
    starts = torch.arange(0, length - window + 1, stride)
    return (
        starts
        if starts[-1] == length - window
        else torch.cat([starts, torch.tensor([length - window])])
    )


def spread(boxes: Tensor, values: Tensor, size: Grid) -> Tensor:
    """Adds up over each pixel the values (n, T) of the boxes that cover it: (T, H, W) or (T, D, H, W) float64."""
    total = torch.zeros(values.shape[1], *(side + 1 for side in size), dtype=torch.float64)
    ends = boxes.view(len(boxes), 2, len(size)).flip(2)  # first and last, of each axis
    for corner in product((0, 1), repeat=len(size)):
        flat = torch.zeros(len(boxes), dtype=boxes.dtype)
        for axis, end in enumerate(corner):
            flat = flat * (size[axis] + 1) + ends[:, end, axis]
        total.flatten(1).index_add_(1, flat, (-1) ** sum(corner) * values.T.double())
    for axis in range(len(size)):
        total = total.cumsum(axis + 1)
    return total[:, *(slice(-1) for _ in size)]


def _occlusion(
    call: Call,
    x: Tensor,
    scores: Sequence[ScoreFunction],
    *,
    layer: str | None,
    window: Edges | None,
    stride: Edges | None,
    baseline: BaselineLike,
    seed: int,
    running: Running | None,
) -> list[Estimate]:
    """Occlusion (Zeiler and Fergus, ECCV 2014, section 4.2): the drop of the score where a window hides the picture.

    Each pixel has the mean of score(x) - score(x with the window hidden) over the windows that cover it, in units of
    the score. Signed: where hiding raises the score, the map is negative.

    Args:
        call: the model, and how it is called.
        x: (N, C, H, W), or volumes (N, C, D, H, W).
        scores: of each target, from what the model answers.
        layer: None: the map lies over the input.
        window: pixels, one number or (height, width), in volumes (depth, height, width); None is a seventh of each
            edge.
        stride: likewise; None is half of the window. The last window of a row or column ends at the border.
        baseline: what is shown in the window; "zeros" is for usual preprocessing the mean colour, as in the paper.
        seed: of the baseline "noise".
        running: how masked pictures are run.

    Raises:
        InputError: no such window.
        ScorerError: the model failed before any window was scored. Later failures leave a partial map, with zeros where
            no window came.
    """
    size: Grid = tuple(x.shape[2:])
    boxes = windows(size, window, stride)
    nothing = torch.zeros_like(boxes[:1])
    masks = PatchMasks(torch.cat([nothing, boxes]), size)
    said = [torch.empty(0, len(scores), dtype=torch.float64) for _ in x]
    passes = masked_scores(
        call,
        x,
        [masks] * len(x),
        scores,
        baseline=find_baseline(baseline, seed=seed),
        running=running,
    )
    failed: dict[str, str] = {}
    try:
        for chunk in passes:
            said[chunk.image] = torch.cat([said[chunk.image], chunk.scores])
    except ScorerError as error:
        if all(len(s) < 2 for s in said):
            raise
        failed = {"failed": str(error)}
    done = [max(len(s) - 1, 0) for s in said]
    maps = torch.stack(
        [_mean_drop(boxes[:n], s, size) for n, s in zip(done, said, strict=True)], 1
    )  # (T, N, H, W)
    facts = tuple(_facts_of_windows(n, len(boxes), failed) for n in done)
    return [Estimate(one.float(), facts=facts) for one in maps]


def _facts_of_windows(done: int, windows: int, failed: dict[str, str]) -> dict[str, object]:
    known = {"windows": done, "of": windows, "partial": done < windows}
    return {**known, **(failed if done < windows else {})}


def _mean_drop(boxes: Tensor, scores: Tensor, size: Grid) -> Tensor:
    """For each pixel the mean drop over the boxes (n, 4) that cover it, from scores (1 + n, T): (T, H, W)."""
    drop = spread(boxes, scores[:1] - scores[1:], size)
    covered = spread(boxes, torch.ones(len(boxes), 1), size).round()
    return torch.where(covered > 0, drop / covered.clamp(min=1), 0)


occlusion = Method(
    "occlusion",
    "Occlusion",
    "Zeiler and Fergus, ECCV 2014",
    "perturbation",
    run=_occlusion,
    at="input",
    signed=True,
    options={"window": None, "stride": None, "baseline": "zeros", "seed": 0, "running": None},
)
