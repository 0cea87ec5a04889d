"""Score functions over batches in which the rows are copies of images, in any order and number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...arguments import brief
from ...errors import SeewhyError, TargetError
from .classes import ScoreFunction
from .target import Target, describe

OWN = "each image's own"  # what a target is called that is another for each image
ROWS_AS_INPUTS = (
    "; of further inputs of the model those with a row for each image are given as inputs="
)


def rows_of(score: ScoreFunction, images: Sequence[int], n: int) -> ScoreFunction:
    """A score function of a batch of n images, for a batch whose row r is a copy of image `images[r]`.

    A `Target` gives each row what it holds for the row's image. A callable that sets `rowwise = True` is used as it is,
    or as its `rows` gives it for these images. Any other sees each row by itself, repeated n times, and its answer for
    the row's image is kept.

    Example:
        >>> score = seewhy.masking.rows_of(seewhy.targets.Logit((0, 1)), [1, 1, 0], 2)
        >>> score(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        tensor([2., 4., 5.])
    """
    if isinstance(score, Target):
        score.check_images(n)
    if not getattr(score, "rowwise", False):
        return _EachRow(score, tuple(images), n)
    return score.rows(images) if hasattr(score, "rows") else score


@dataclass(frozen=True, eq=False)
class OneEach(Target):
    """A target of its own for each image; each sees the row of its image alone, (1, ...).

    Example:
        >>> each = seewhy.targets.OneEach((seewhy.targets.Logit(0), seewhy.targets.Margin(1, 0)))
        >>> each(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        tensor([1., 2.])
    """

    targets: tuple[ScoreFunction, ...]
    one_each: ClassVar = {"targets": 1}

    def __post_init__(self) -> None:
        if not isinstance(self.targets, list | tuple) or not all(map(callable, self.targets)):
            raise TargetError(
                f"targets={brief(self.targets)} are no score functions; give a list with one for each image"
            )
        if not self.targets:
            raise TargetError(f"targets={brief(self.targets)} is empty; give one for each image")

    def __call__(self, output: object) -> Tensor:
        n = len(self.targets)
        return torch.stack(
            [_scores_of_row(score, output, (i, n), 1)[0] for i, score in enumerate(self.targets)]
        )

    def described(self) -> str:
        return OWN

    def in_words(self, image: int, label: Callable[[int], str]) -> str:
        own = self.targets[image]
        said = own.in_words(0, label) if isinstance(own, Target) else None
        return said or describe(own)


@dataclass(frozen=True, eq=False)
class _EachRow(Target):
    score: ScoreFunction
    of: tuple[int, ...]
    n: int
    one_each: ClassVar = {"of": 1}

    def __call__(self, output: object) -> Tensor:
        rows = len(self.of)
        return torch.stack(
            [
                _scores_of_row(self.score, output, (r, rows), self.n)[image]
                for r, image in enumerate(self.of)
            ]
        )


def _scores_of_row(
    score: ScoreFunction, output: object, row: tuple[int, int], times: int
) -> Tensor:
    """The scores of one row of an output, of so many, that is seen so many times."""
    value = score(row_of(output, *row, times=times))
    if not isinstance(value, Tensor) or value.shape != (times,):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TargetError(
            f"the target gave {shape}, not one score for each of the images: ({times},)"
        )
    return value


def row_of(output: object, row: int, rows: int, *, times: int = 1) -> object:
    """One row of an output of so many rows, so many times, in whatever the output is packed."""
    if isinstance(output, Tensor):
        alike = output.ndim and len(output) == rows
        if alike:
            return output[row : row + 1].expand(times, *output.shape[1:])
        return output
    if isinstance(output, Mapping):
        return {key: row_of(value, row, rows, times=times) for key, value in output.items()}
    if not isinstance(output, list | tuple):
        return output
    if _is_one_for_each_picture(output, rows):
        return [output[row]] * times
    return tuple(row_of(value, row, rows, times=times) for value in output)


def _is_one_for_each_picture(output: Sequence[object], rows: int) -> bool:
    """Whether it is what a detector gives: one record for each picture."""
    has_tensors = any(isinstance(part, Tensor) for part in output)
    return len(output) == rows and rows > 0 and not has_tensors


def asked(score: ScoreFunction, output: object, n: int) -> Tensor:
    """What a target gives for an output of n images, or in words that what it holds does not fit them."""
    try:
        return score(output)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if "numpy() on Tensor that requires grad" in reason:
            raise TargetError(
                "the target hands a tensor to numpy, and no gradient passes that; give one that computes in torch"
            ) from error
        if not any(
            said in reason for said in ("must match", "expanded size", "is invalid for input")
        ):
            raise
        raise TargetError(
            f"the target does not fit an output of {n} images: {reason}; one that holds something for each image has a "
            "method rows(images), which gives those of a batch, as seewhy.targets have; or give a list of one for each"
        ) from error
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        if isinstance(error, SeewhyError):
            raise
        reason = str(error).partition("\n")[0]
        raise TargetError(
            f"the target raised {type(error).__name__}: {reason}; it is called with what the model gives, and returns "
            "one score for each image, (N,)"
        ) from error
