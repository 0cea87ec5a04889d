"""Score functions over batches in which the rows are copies of images, in any order and number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .classes import Binary, Counterfactual, EmbeddingSimilarity, Logit, Margin, Probability, Regression, ScoreFunction
from .detection import DetectionBox
from .regions import SegmentationRegion

_ROWWISE = (
    *(Binary, Counterfactual, DetectionBox, EmbeddingSimilarity, Logit),
    *(Margin, Probability, Regression, SegmentationRegion),
)


def rows_of(score: ScoreFunction, images: Sequence[int], n: int) -> ScoreFunction:
    """A score function of a batch of n images, for a batch whose row r is a copy of image `images[r]`.

    The targets of `seewhy.targets` are taken apart: of those that differ between images each row gets its own. A
    callable that sets `rowwise = True` treats every row alike and is used as it is. Any other sees each row by itself,
    repeated n times, and its answer for the row's image is kept.
    """
    if isinstance(score, _EachRow):
        return _EachRow(score.score, tuple(score.images[i] for i in images), score.n)
    if isinstance(score, _ROWWISE):
        return dataclasses.replace(score, **_picked(score, images, n))
    return score if getattr(score, "rowwise", False) else _EachRow(score, tuple(images), n)


def _picked(score: Any, images: Sequence[int], n: int) -> dict[str, Any]:
    """What of a target is given for each image, row by row."""
    picked: dict[str, Any] = {}
    for name in ("index", "other"):
        value = getattr(score, name, None)
        if isinstance(value, tuple) and len(value) == n:
            picked[name] = tuple(value[i] for i in images)
    for name, ndim in (("region", 3), ("reference", 2)):
        value = getattr(score, name, None)
        if isinstance(value, Tensor) and value.ndim == ndim and len(value) == n:
            picked[name] = value[list(images)]
    return picked


@dataclass(frozen=True, eq=False)
class _EachRow:
    score: ScoreFunction
    images: tuple[int, ...]
    n: int

    def __call__(self, output: Any) -> Tensor:
        return torch.stack([self._one(output, row, image) for row, image in enumerate(self.images)])

    def _one(self, output: Any, row: int, image: int) -> Tensor:
        value = self.score(_repeated(output, row, len(self.images), self.n))
        if not isinstance(value, Tensor) or value.shape != (self.n,):
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the target gave {shape}, not one score for each of the images: ({self.n},)")
        return value[image]


def _repeated(output: Any, row: int, rows: int, n: int) -> Any:
    """One row of an output of so many rows, n times, in whatever the output is packed."""
    if isinstance(output, Tensor):
        return output[row : row + 1].expand(n, *output.shape[1:]) if output.ndim and len(output) == rows else output
    if isinstance(output, Mapping):
        return {key: _repeated(value, row, rows, n) for key, value in output.items()}
    if isinstance(output, list | tuple):
        if output and not any(isinstance(part, Tensor) for part in output) and len(output) == rows:
            return [output[row]] * n  # a detector's: one record for each picture
        return tuple(_repeated(value, row, rows, n) for value in output)
    return output
