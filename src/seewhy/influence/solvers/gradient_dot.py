"""Gradient dot products: of one model, and along its training."""

from __future__ import annotations

import torch
from torch import Tensor

from ...engine.call import Call
from ...errors import InputError
from ..gradients.per_example import example_gradients
from ..problem import Problem, Rows, ScoreOrLoss
from .whole_gradients import GradientSolver


class GradientDot(GradientSolver):
    """grad q(test) . grad loss(z) / n: H is taken for the identity (Charpiat et al., NeurIPS 2019).

    What one step of full-batch gradient descent with learning rate 1 owes to the example.
    """

    name = "gradient_dot"
    calibrated = False  # H is not the identity

    def __init__(self, *, dim: int | None = None, seed: int = 0) -> None:
        super().__init__(dim=dim, seed=seed)


class TracIn(GradientSolver):
    """TracInCP (Pruthi et al., NeurIPS 2020, section 3.3): sum over checkpoints of eta grad q . grad loss / n.

    The problem's `modules` are the checkpoints and its `learning_rates` the eta. The paper has no 1/n: multiply by n to
    compare. What it estimates is what the example did on the way, so the model need not have converged.
    """

    name = "tracin"
    calibrated = False

    def __init__(self, *, dim: int | None = None, seed: int = 0) -> None:
        super().__init__(dim=dim, seed=seed)

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        return {"rows": self._checkpoints(problem, images, labels).cpu()}

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        return {"rows": self._checkpoints(problem, images, score).cpu() / problem.count}

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        each = [
            root * example_gradients(problem, images, labels, call=call)
            for root, call in _checkpoints(problem)
        ]
        return torch.stack([g.square().sum(1).cpu() for g in each]).sum(0) / problem.count

    def _checkpoints(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Tensor:
        """sqrt(eta) grad of each checkpoint side by side, (B, M P) or (B, M dim)."""
        parts = [
            root * self._projected(example_gradients(problem, images, score, call=call))
            for root, call in _checkpoints(problem)
        ]
        return torch.cat(parts, 1)


def _checkpoints(problem: Problem) -> list[tuple[float, Call]]:
    if problem.learning_rates is None:
        raise InputError(
            "tracin needs learning_rates=, one for each checkpoint, as the training had them"
        )
    return [
        (rate**0.5, call) for rate, call in zip(problem.learning_rates, problem.calls, strict=True)
    ]
