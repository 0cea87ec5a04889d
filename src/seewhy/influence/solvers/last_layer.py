"""Influence through the head alone: softmax regression on the features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from ...errors import InputError
from ...remarks import warn
from ..gradients.curvature import warn_unless_converged
from ..gradients.losses import check_cross_entropy
from ..gradients.per_example import cotangents
from ..head.curvature import Dense, HeadCurvature, Ridge, Woodbury
from ..head.head import Head
from ..head.products import Iterative, Kronecker
from ..problem import WORKING, Batches, Problem, Progress, Reduce, Rows, ScoreOrLoss, identity
from .solver import Holds, Settings
from .whole_gradients import as_fitted, in_double

Solve = Literal["auto", "cholesky", "woodbury", "conjugate_gradient", "kronecker"]
_DENSE = 2**26  # numbers of a factor: 512 MB
_BLOCKS = 2**27, 2**40  # numbers, 1 GB; multiplications to make them, a minute or two
_ITERATIVE = (
    2**26,
    2**32,
)  # numbers; multiplications of each product with H: some ten seconds for a question
_PRODUCT = 2**22  # numbers in one block of a dot product

_FORMS: dict[str, type[HeadCurvature]] = {
    "cholesky": Dense,
    "woodbury": Woodbury,
    "conjugate_gradient": Iterative,
    "kronecker": Kronecker,
}
# by what no earlier one has in its state
_KINDS: dict[str, type[HeadCurvature]] = {
    "factor": Dense,
    "capacity": Woodbury,
    "training": Iterative,
    "values": Kronecker,
    "ridge": Ridge,
}


class LastLayer:
    """Koh and Liang (ICML 2017, section 5.1) with the features frozen: exact for softmax regression on them.

    The head is the linear layer whose output is the model's. An example's gradient is residual (x) features, and an
    index keeps those two, F + K numbers, in place of their product.

    Args:
        solve: "cholesky" writes H out; "woodbury" has a block for each class and a matrix of rank n; both are exact.
            "conjugate_gradient" is exact to 1e-8, with all features in memory. "kronecker" is an approximation for any
            size. "auto" goes by size alone: the smaller of the first two where it takes up to 512 MB, or 1 GB and two
            minutes, to make, then products, up to some ten seconds for a question, then the last, with a warning.
        damping: added to the diagonal, beside the problem's l2.

    Raises:
        ModelError: the head is not linear.
        InputError: the loss does not curve as the softmax cross entropy does (label smoothing does), or the Hessian is
            singular.
    """

    name = "last_layer"
    passes = 1
    streams = False
    calibrated = True
    whitens = False
    holds: Holds = "none"

    def __init__(self, *, solve: Solve = "auto", damping: float = 0.0) -> None:
        if solve not in get_args(Solve):
            raise InputError(
                f"solve={solve!r} is not known; use {', '.join(map(repr, get_args(Solve)))}"
            )
        if damping < 0:
            raise InputError(f"damping={damping} cannot be used; accepted: 0 or more")
        self.settings: Settings = {"solve": solve, "damping": damping}
        self._solve, self._damping = solve, damping
        self._head: Head | None = None
        self._curvature: HeadCurvature | None = None
        self._size = 0, 0  # features, classes

    def fit(
        self,
        problem: Problem,
        batches: Batches,
        *,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        curvature, watch, done = None, _Watch(), 0
        while curvature is None or done < curvature.passes:
            for images, labels in batches():
                features, outputs = self._read(problem, images)
                if curvature is None:
                    check_cross_entropy(problem, outputs.shape[1], self.name)
                    self._size = features.shape[1], outputs.shape[1]
                    curvature = self._choose(problem.count, *self._size)
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

    def _choose(self, count: int, features: int, classes: int) -> HeadCurvature:
        """The form that was asked for, or the first that fits: the same in any number of processes."""
        if self._solve != "auto":
            return _FORMS[self._solve]()
        size = count, features, classes
        direct: list[type[HeadCurvature]] = []
        if Dense.numbers(*size) <= _DENSE:
            direct.append(Dense)
        if Woodbury.numbers(*size) <= _BLOCKS[0] and Woodbury.work(*size) <= _BLOCKS[1]:
            direct.append(Woodbury)
        if direct:
            return min(direct, key=lambda form: form.numbers(*size))()
        if Iterative.numbers(*size) <= _ITERATIVE[0] and Iterative.work(*size) <= _ITERATIVE[1]:
            return Iterative()
        warn(
            f"a head of {features * classes:,} weights and {count:,} examples are too many to solve for "
            "exactly in seconds: last_layer takes Kronecker factors of its Hessian, an approximation; "
            "solve='conjugate_gradient' is exact"
        )
        return Kronecker()

    def _read(self, problem: Problem, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) and outputs (B, K)."""
        if self._head is None or not self._head.belongs_to(problem.module):
            self._head = Head(problem, images)
        return self._head(problem, images)

    def _found_head(self) -> Head:
        assert self._head is not None
        return self._head

    def _fitted(self) -> HeadCurvature:
        return as_fitted(self._curvature, self.name)

    def _few(self, slopes: Tensor, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Residuals and features, in float64, of as many examples as may be solved for together."""
        size = max(1, WORKING // max(1, slopes.shape[1] * features.shape[1]))
        return zip(
            torch.split(in_double(slopes), size),
            torch.split(in_double(features), size),
            strict=True,
        )

    def state(self) -> dict[str, Tensor]:
        return {} if self._curvature is None else self._curvature.state()

    def state_bytes(self, count: int) -> int:
        return torch.float64.itemsize * self._fitted().numbers(count, *self._size)

    def load(self, problem: Problem, state: Mapping[str, Tensor]) -> None:
        kind = next(form for key, form in _KINDS.items() if key in state)
        self._curvature = kind()
        self._curvature.load({key: value.to(problem.device) for key, value in state.items()})

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        features, outputs = self._read(problem, images)
        return {"features": features.cpu(), "residuals": cotangents(problem, outputs, labels).cpu()}

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        return {"solutions": self.solutions(problem, images, score)}

    def solutions(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Tensor:
        features, outputs = self._read(problem, images)
        slopes = cotangents(problem, outputs, score)
        parts = [
            self._fitted()
            .solve(r[:, :, None] * a[:, None])
            .div_(problem.count)
            .to(features.dtype)
            .cpu()
            for r, a in self._few(slopes, features)
        ]
        return torch.cat(parts)

    def dot(self, test: Rows, train: Rows) -> Tensor:
        solutions, dtype = test["solutions"], test["solutions"].dtype
        features = train["features"].to(dtype)
        residuals = train["residuals"].to(dtype)
        if (
            3 * len(solutions) > features.shape[1]
        ):  # then gradients (B, K F) are less than products (T, K, B)
            size = max(1, _PRODUCT // solutions[:1].numel())
            tests = solutions.flatten(1)
            pairs = zip(torch.split(residuals, size), torch.split(features, size), strict=True)
            return torch.cat(
                [tests @ (r[:, :, None] * a[:, None]).flatten(1).T for r, a in pairs], 1
            )
        size = max(1, _PRODUCT // max(1, residuals.numel()))
        parts = torch.split(solutions, size)
        return torch.cat(
            [((part @ features.T) * residuals.T).sum(1) for part in parts]
        )  # (T, K, B) -> (T, B)

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        return self.self_of_rows(problem, self.train_rows(problem, images, labels))

    def self_of_rows(self, problem: Problem, rows: Rows) -> Tensor:
        residuals, features = (rows[name].to(problem.device) for name in ("residuals", "features"))
        parts = [self._fitted().quadratic(r, a).cpu() for r, a in self._few(residuals, features)]
        return torch.cat(parts) / problem.count


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

    def _choose(self, count: int, features: int, classes: int) -> HeadCurvature:
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
        gradient = torch.as_tensor(self._gradient)
        squares = torch.as_tensor(self._squares)
        single = float(reduce(squares) / problem.count) ** 0.5
        warn_unless_converged(
            reduce(gradient) / problem.count, in_double(head.weights()), problem.l2, single
        )
