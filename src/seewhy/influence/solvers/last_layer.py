"""Influence through the head alone: softmax regression on the features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ...errors import InputError
from ..curvature import warn_unless_converged
from ..gradients import cotangents
from ..head import Head
from ..head_curvature import Dense, HeadCurvature, Iterative, Kronecker, Ridge
from ..losses import check_cross_entropy
from ..problem import WORKING, Batches, Problem, Progress, Reduce, Rows, ScoreOrLoss, identity
from .whole_gradients import in_double

Solve = Literal["auto", "cholesky", "kronecker", "conjugate_gradient"]
_DENSE = 5_000  # parameters: 200 MB in float64
_IN_MEMORY = 2**26  # features of all examples: 512 MB in float64
_PRODUCT = 2**26  # numbers in one block of a dot product


class LastLayer:
    """Koh and Liang (ICML 2017, section 5.1) with the features frozen: exact for softmax regression on them.

    The head is the linear layer whose output is the model's. An example's gradient is residual (x) features, and an
    index keeps those two, F + K numbers, in place of their product.

    Args:
        solve: "cholesky", exact; "conjugate_gradient", exact to 1e-8, with all features in memory; "kronecker", an
            approximation for any size. "auto" is the first of these that fits.
        damping: added to the diagonal, beside the problem's l2.

    Raises:
        ModelError: the head is not linear.
        InputError: the loss does not curve as the softmax cross entropy does (label smoothing does), or the Hessian is
            singular.
    """

    name = "last_layer"
    passes = 1
    streams = False

    def __init__(self, *, solve: Solve = "auto", damping: float = 0.0) -> None:
        if solve not in get_args(Solve):
            raise InputError(f"solve={solve!r} is not known; use {', '.join(map(repr, get_args(Solve)))}")
        if damping < 0:
            raise InputError(f"damping={damping} cannot be used; accepted: 0 or more")
        self.settings: Mapping[str, Any] = {"solve": solve, "damping": damping}
        self._solve, self._damping = solve, damping
        self._head: Head | None = None
        self._curvature: HeadCurvature | None = None

    def fit(
        self, problem: Problem, batches: Batches, *, reduce: Reduce = identity, progress: Progress | None = None
    ) -> None:
        curvature, watch, done = None, _Watch(), 0
        while curvature is None or done < curvature.passes:
            for images, labels in batches():
                features, outputs = self._read(problem, images)
                if curvature is None:
                    check_cross_entropy(problem, outputs.shape[1], self.name)
                    curvature = self._choose(problem, features.shape[1], outputs.shape[1], reduce)
                if not done:
                    watch.see(features, cotangents(problem, outputs, labels))
                curvature.see(in_double(features), in_double(outputs).softmax(1))
                if progress:
                    progress(len(images))
            if curvature is None:
                raise InputError("the training data are empty; give at least one batch of images")
            if not done:
                watch.conclude(problem, self._found_head(), reduce)
            curvature.conclude(problem.count, problem.l2 + self._damping, reduce)
            done += 1
        self._curvature = curvature

    def _choose(self, problem: Problem, features: int, classes: int, reduce: Reduce) -> HeadCurvature:
        """The first form that fits."""
        alone, solve = reduce is identity, self._solve
        if solve == "conjugate_gradient" and not alone:
            raise InputError(
                "solve='conjugate_gradient' runs in one process; use 'kronecker', or 'cholesky' for small heads"
            )
        if solve == "cholesky" or (solve == "auto" and features * classes <= _DENSE):
            return Dense()
        fits = alone and problem.count * (features + classes) <= _IN_MEMORY
        return Iterative() if solve == "conjugate_gradient" or (solve == "auto" and fits) else Kronecker()

    def _read(self, problem: Problem, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) and outputs (B, K)."""
        if self._head is None or not self._head.belongs_to(problem.module):
            self._head = Head(problem, images)
        return self._head(problem, images)

    def _found_head(self) -> Head:
        assert self._head is not None
        return self._head

    def _solved(self, problem: Problem, slopes: Tensor, features: Tensor) -> Tensor:
        """H^-1 of residual (x) features over n, (T, K, F) float64."""
        if self._curvature is None:
            raise InputError(
                f"the solver {self.name!r} is not fitted; call fit(problem, batches), or load(problem, state)"
            )
        matrices = in_double(slopes)[:, :, None] * in_double(features)[:, None]
        return self._curvature.solve(matrices) / problem.count

    def _few(self, slopes: Tensor, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Residuals and features of as many examples as may be solved for together."""
        size = max(1, WORKING // max(1, slopes.shape[1] * features.shape[1]))
        return zip(torch.split(slopes, size), torch.split(features, size), strict=True)

    def state(self) -> dict[str, Tensor]:
        return {} if self._curvature is None else self._curvature.state()

    def load(self, problem: Problem, state: Mapping[str, Tensor]) -> None:
        kinds: dict[str, type[HeadCurvature]] = {
            "factor": Dense,
            "all_features": Iterative,
            "values": Kronecker,
            "ridge": Ridge,
        }
        kind = next(kind for key, kind in kinds.items() if key in state)
        self._curvature = kind()
        self._curvature.load({key: value.to(problem.device) for key, value in state.items()})

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        features, outputs = self._read(problem, images)
        return {"features": features.cpu(), "residuals": cotangents(problem, outputs, labels).cpu()}

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        features, outputs = self._read(problem, images)
        slopes = cotangents(problem, outputs, score)
        parts = [self._solved(problem, r, a).to(features.dtype).cpu() for r, a in self._few(slopes, features)]
        return {"solutions": torch.cat(parts)}

    def dot(self, test: Rows, train: Rows) -> Tensor:
        solutions, dtype = test["solutions"], test["solutions"].dtype
        features, residuals = train["features"].to(dtype), train["residuals"].to(dtype)
        size = max(1, _PRODUCT // max(1, residuals.numel()))
        blocks = [
            ((part @ features.T) * residuals.T).sum(1) for part in torch.split(solutions, size)
        ]  # (T, K, B) -> (T, B)
        return torch.cat(blocks) if blocks else solutions.new_zeros(0, len(features))

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        features, outputs = self._read(problem, images)
        residuals = cotangents(problem, outputs, labels)
        parts = [
            torch.einsum("bkf,bk,bf->b", self._solved(problem, r, a), in_double(r), in_double(a)).cpu()
            for r, a in self._few(residuals, features)
        ]
        return torch.cat(parts)


class Representer(LastLayer):
    """Representer points (Yeh et al., NeurIPS 2018, theorem 3.1): the head as a sum over training examples.

    At a minimum with l2 > 0 the outputs are W a = sum_i alpha_i (a_i . a), alpha_i = -grad loss_i / (l2 n), so for a
    logit the influences over all training examples add up to it. It is what would be missing if the others stayed as
    they are: H is l2 I, and the losses' own curvature is left out.
    """

    name = "representer"

    def __init__(self) -> None:
        super().__init__()
        self.settings = {}

    def _choose(self, problem: Problem, features: int, classes: int, reduce: Reduce) -> HeadCurvature:
        return Ridge()


class _Watch:
    """The head's mean gradient, over a pass."""

    def __init__(self) -> None:
        self._gradient: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def see(self, features: Tensor, residuals: Tensor) -> None:
        a, r = in_double(features), in_double(residuals)
        self._gradient = self._gradient + r.T @ a
        self._squares = self._squares + (r.square().sum(1) * a.square().sum(1)).sum()

    def conclude(self, problem: Problem, head: Head, reduce: Reduce) -> None:
        gradient, squares = torch.as_tensor(self._gradient), torch.as_tensor(self._squares)
        mean = reduce(gradient) / problem.count + problem.l2 * in_double(head.weights())
        warn_unless_converged(float(mean.norm()), float(reduce(squares) / problem.count) ** 0.5)
