"""What the solvers share that keep each training example's gradient, whole or projected."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from ...errors import InputError
from ..gradients.per_example import example_gradients
from ..gradients.projection import Projection
from ..problem import Problem, Rows, ScoreOrLoss
from .solver import Holds, Settings, WithoutFit

T = TypeVar("T")


class GradientSolver(WithoutFit):
    """influence = (A g_test) . (B g_train) / n, where A and B are matrices with A^T B = H^-1.

    Most solvers apply H^-1 to the test side and leave the training side as it is; those that have a root of H^-1 apply
    it to both. With `dim`, both sides are projected on that many numbers, at random from `seed`: a store of bounded
    size, and influences with the error that `Projection` tells.
    """

    name: str
    calibrated = True
    holds: Holds = "all"

    def __init__(self, *, dim: int | None = None, seed: int = 0, **settings: object) -> None:
        self.settings: Settings = {**settings, "dim": dim, "seed": seed}
        self._project = Projection(dim, seed=seed) if dim is not None else None

    def train_side(self, problem: Problem, gradients: Tensor) -> Tensor:
        """B g of each row."""
        return gradients

    def test_side(self, problem: Problem, gradients: Tensor) -> Tensor:
        """A g of each row."""
        return gradients

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        rows = self.train_side(problem, example_gradients(problem, images, labels))
        return {"rows": self._projected(rows).cpu()}

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        rows = self.test_side(problem, example_gradients(problem, images, score)) / problem.count
        return {"rows": self._projected(rows).cpu()}

    def dot(self, test: Rows, train: Rows) -> Tensor:
        return test["rows"] @ train["rows"].to(test["rows"].dtype).T

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        gradients = example_gradients(problem, images, labels)
        both = self.test_side(problem, gradients) * self.train_side(problem, gradients)
        return (both.sum(1) / problem.count).cpu()

    def _projected(self, rows: Tensor) -> Tensor:
        return rows if self._project is None else self._project(rows)


def as_fitted(value: T | None, name: str) -> T:
    """What `fit` found, or says that it has not been called."""
    if value is None:
        raise InputError(
            f"the solver {name!r} is not fitted; call fit(problem, batches), or load(problem, state)"
        )
    return value


def in_double(vectors: Tensor) -> Tensor:
    """Where sums are long or ill conditioned; MPS has no float64, so there it is done on the CPU."""
    return vectors.cpu().double() if vectors.device.type == "mps" else vectors.to(torch.float64)
