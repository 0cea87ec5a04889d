"""Mosaics of photos, in which it is known where the evidence for a class can be: the grid pointing game and Focus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...data.truth import Truth
from ...errors import InputError
from .pixel_metrics import EnergyPointing


@dataclass(frozen=True, eq=False)
class Mosaics:
    """M pictures, each of n x n others.

    Attributes:
        pictures: (M, C, n H, n W), to be explained.
        targets: (M,) int64, the class to explain of each.
        truths: for each the cells as boxes, with the class of what is in them.
        members: (M, n n) int64, which picture is in which cell, row by row.

    Example:
        >>> x = torch.eye(4).view(4, 1, 2, 2)
        >>> mosaics = seewhy.metrics.grid_mosaics(x, 9 * torch.eye(4), count=1)
        >>> mosaics.pictures.shape, mosaics.members.shape, len(mosaics.truths[0].boxes)
        (torch.Size([1, 1, 4, 4]), torch.Size([1, 4]), 4)
    """

    pictures: Tensor
    targets: Tensor
    truths: tuple[Truth, ...]
    members: Tensor

    def __len__(self) -> int:
        return len(self.pictures)


def grid_mosaics(
    x: Tensor,
    scores: Tensor,
    *,
    n: int = 2,
    count: int = 100,
    labels: Sequence[int] | Tensor | None = None,
    confidence: float = 0.99,
    seed: int = 0,
) -> Mosaics:
    """Grids of pictures of n x n different classes (Boehle et al., CVPR 2021), for `GridPointing`.

    Only pictures that the classifier is sure of, and right where that is known. The class to explain is that of one
    cell, drawn; a mosaic is drawn by the seed and its own number.

    Args:
        x: (P, C, H, W), the classifier's inputs.
        scores: (P, K), its scores of them, whose softmax is its confidence.
        n: cells a side.
        count: how many mosaics.
        labels: the true class of each picture; the classifier's own answer unless given.
        confidence: the least probability of the class; 0.99 (Rao et al., CVPR 2022).
        seed: of what is drawn.

    Raises:
        InputError: fewer than n n classes have such a picture.

    Example:
        >>> x = torch.eye(4).view(4, 1, 2, 2)
        >>> seewhy.metrics.grid_mosaics(x, 9 * torch.eye(4), count=3).pictures.shape
        torch.Size([3, 1, 4, 4])
    """
    chosen = _confident_pictures(x, scores, labels, confidence)
    if n < 2 or len(chosen) < n * n:
        raise InputError(
            f"n={n} asks for pictures of {n * n} classes; {len(chosen)} classes have one with a probability of "
            f"{confidence} or more; give n from 2 on, more pictures or a lower confidence"
        )
    drawn = [draw_grid(chosen, n, seed, i) for i in range(_at_least_one(count))]
    members, classes, targets = zip(*drawn, strict=True)
    return _laid_out(x, members, classes, targets, n)


def draw_grid(
    chosen: Mapping[int, Sequence[int]], n: int, seed: int, number: int
) -> tuple[list[int], list[int], int]:
    """Which pictures go into the n x n cells of a grid, row by row, their classes, and one of these.

    What is drawn is so by the seed and the grid's own number; `chosen` has for each class its pictures.
    """
    rng = np.random.default_rng((seed, number))
    drawn = rng.choice(sorted(chosen), n * n, replace=False).tolist()
    members = [int(rng.choice(chosen[label])) for label in drawn]
    return members, drawn, drawn[int(rng.integers(n * n))]


def focus_mosaics(
    x: Tensor,
    labels: Sequence[int] | Tensor,
    *,
    count: int = 100,
    target: int | None = None,
    seed: int = 0,
) -> Mosaics:
    """Mosaics 2 x 2 of two pictures of a class and two of others, shuffled (Arias-Duart et al., 2022), for `Focus`.

    Args:
        x: (P, C, H, W), the classifier's inputs.
        labels: the class of each.
        count: how many mosaics.
        target: the class to explain; drawn for each mosaic unless given.
        seed: of what is drawn, for each mosaic by its own number.

    Raises:
        InputError: no class has two pictures while two are of other classes.

    Example:
        >>> mosaics = seewhy.metrics.focus_mosaics(torch.rand(4, 3, 8, 8), [0, 0, 1, 1], count=2, target=1)
        >>> mosaics.pictures.shape, mosaics.targets
        (torch.Size([2, 3, 16, 16]), tensor([1, 1]))
    """
    known = torch.as_tensor(labels).cpu().numpy()
    if len(known) != len(x):
        raise InputError(
            f"labels has {len(known)} classes for {len(x)} pictures; give one for each"
        )
    usable = _with_two_and_two_others(known)
    if not usable or (target is not None and target not in usable):
        asked = "a class" if target is None else f"class {target}"
        raise InputError(
            f"{asked} with two pictures, and two of other classes, is not there; give more pictures"
        )
    members, targets = [], []
    for i in range(_at_least_one(count)):
        rng = np.random.default_rng((seed, i))
        label = int(rng.choice(usable)) if target is None else target
        pairs = [
            rng.choice(np.flatnonzero(mine), 2, replace=False)
            for mine in (known == label, known != label)
        ]
        members.append(rng.permutation(np.concatenate(pairs)).tolist())
        targets.append(label)
    return _laid_out(x, members, [known[m] for m in members], targets, 2)


def _with_two_and_two_others(labels: npt.NDArray[np.int64]) -> list[int]:
    """The classes of which there are two pictures, beside two of others."""
    found = zip(*np.unique(labels, return_counts=True), strict=True)
    return [int(label) for label, size in found if size >= 2 and len(labels) - size >= 2]


def _confident_pictures(
    x: Tensor, scores: Tensor, labels: Sequence[int] | Tensor | None, confidence: float
) -> dict[int, list[int]]:
    """For each class the pictures that the classifier is sure of, and right about."""
    if x.ndim != 4 or scores.ndim != 2 or len(x) != len(scores):
        raise InputError(
            f"x {tuple(x.shape)} and scores {tuple(scores.shape)}; give (P, C, H, W) and (P, K)"
        )
    sure, answers = scores.detach().float().cpu().softmax(1).max(1)
    kept = sure >= confidence
    if labels is not None:
        kept &= torch.as_tensor(labels).cpu() == answers
    found: dict[int, list[int]] = {}
    for i in torch.nonzero(kept).flatten().tolist():
        found.setdefault(int(answers[i]), []).append(i)
    return found


def _at_least_one(count: int) -> int:
    if count < 1:
        raise InputError(f"count={count} mosaics; give at least 1")
    return count


def _laid_out(
    x: Tensor,
    members: Sequence[Sequence[int]],
    classes: Sequence[npt.ArrayLike],
    targets: Sequence[int],
    n: int,
) -> Mosaics:
    height, width = x.shape[2:]
    taken = torch.tensor(members)
    tiles = x.detach()[taken.flatten()].reshape(
        len(members), n, n, *x.shape[1:]
    )  # (M, n, n, C, H, W)
    pictures = tiles.permute(0, 3, 1, 4, 2, 5).reshape(
        len(members), x.shape[1], n * height, n * width
    )
    y, x0 = (torch.arange(n) * side for side in (height, width))
    corners = torch.cartesian_prod(y, x0)
    cells = torch.stack(
        [corners[:, 1], corners[:, 0], corners[:, 1] + width, corners[:, 0] + height], 1
    )
    truths = tuple(
        Truth((n * height, n * width), cells, torch.as_tensor(np.asarray(own))) for own in classes
    )
    return Mosaics(pictures, torch.tensor(targets), truths, taken)


class GridPointing(EnergyPointing):
    """Grid pointing game (GridPG; Boehle et al., CVPR 2021): the share of the positive evidence in the class's cell.

    L = sum over the cell of m+ / sum m+, of maps of `grid_mosaics`: `update(maps, mosaics.truths,
    labels=mosaics.targets)`. A map without positive evidence has 0. The figure "uniform" is chance, 1 / n^2.

    Args:
        options: what `EnergyPointing` takes.

    Example:
        >>> mosaics = seewhy.metrics.grid_mosaics(torch.rand(4, 3, 2, 2), 9 * torch.eye(4), count=1)
        >>> metric = seewhy.metrics.GridPointing()
        >>> metric.update(torch.rand(1, 4, 4), mosaics.truths, labels=mosaics.targets)
        >>> metric.compute().figures["uniform"].mean
        0.25
    """

    name, title, paper = "grid_pointing", "Grid pointing game", "Boehle et al., CVPR 2021"


class Focus(EnergyPointing):
    """Focus (Arias-Duart et al., FUZZ-IEEE 2022): the share of the positive evidence in the two cells of the class.

    Of maps of `focus_mosaics`: `update(maps, mosaics.truths, labels=mosaics.targets)`. A map without positive evidence
    has 0. The figure "uniform" is chance, 0.5.

    Args:
        options: what `EnergyPointing` takes.

    Example:
        >>> mosaics = seewhy.metrics.focus_mosaics(torch.rand(4, 3, 2, 2), [0, 0, 1, 1], count=1)
        >>> metric = seewhy.metrics.Focus()
        >>> metric.update(torch.rand(1, 4, 4), mosaics.truths, labels=mosaics.targets)
        >>> metric.compute().figures["uniform"].mean
        0.5
    """

    name, title, paper = "focus", "Focus", "Arias-Duart et al., FUZZ-IEEE 2022"
