"""Conjugate gradients on the training objective's curvature."""

from __future__ import annotations

from torch import Tensor

from ...errors import InputError
from ..gradients.curvature import Curvature, Kind
from ..gradients.linear_solve import conjugate_gradients
from ..problem import Batches, Problem, Progress, Reduce, identity
from .exact import check_converged
from .whole_gradients import GradientSolver, in_double


class Streaming(GradientSolver):
    """A solver whose test side reads the training data: `fit` keeps the batches."""

    streams = True
    _curvature: Curvature | None = None

    def fit(
        self,
        problem: Problem,
        batches: Batches,
        *,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        options = {"kind": self.settings["curvature"], "damping": self.settings["damping"]}
        self._curvature = Curvature(problem, batches, **options, reduce=reduce)

    def curvature(self) -> Curvature:
        """H's products, or says that the training data are not there."""
        if self._curvature is None:
            raise InputError(
                f"the solver {self.name!r} reads the training data: call fit(problem, batches) first"
            )
        return self._curvature


class ConjugateGradient(Streaming):
    """H x = g by conjugate gradients (Hestenes and Stiefel, 1952), as Koh and Liang (ICML 2017, section 3) use them.

    All right sides go through the training data together, a pass for each iteration, in float64.

    Args:
        curvature: "hessian", or "gauss_newton", which is never negative.
        damping: added to the diagonal, beside the problem's l2.
        tolerance: of the residual, |g - H x| / |g|.
        iterations: at most; where they do not suffice, a warning tells the residual.
        dim, seed: see `GradientSolver`.

    Raises:
        InputError: negative curvature, where there is no minimum to go to.
    """

    name = "conjugate_gradient"
    passes = 1

    def __init__(
        self,
        *,
        curvature: Kind = "hessian",
        damping: float = 0.0,
        tolerance: float = 1e-5,
        iterations: int = 200,
        dim: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            dim=dim,
            seed=seed,
            curvature=curvature,
            damping=damping,
            tolerance=tolerance,
            iterations=iterations,
        )

    def fit(
        self,
        problem: Problem,
        batches: Batches,
        *,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        super().fit(problem, batches, reduce=reduce, progress=progress)
        check_converged(problem, batches, reduce)

    def test_side(self, problem: Problem, gradients: Tensor) -> Tensor:
        return conjugate_gradients(
            self.curvature().products,
            in_double(gradients),
            tolerance=self.settings["tolerance"],
            iterations=self.settings["iterations"],
        )
