"""The exact Hessian of a small network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import InputError
from ..gradients.curvature import Convergence, Curvature, Kind
from ..problem import Batches, Problem, Progress, Reduce, identity
from .whole_gradients import GradientSolver, as_fitted, in_double

MOST_PARAMETERS = 20_000  # 3.2 GB in float64


class ExactHessian(GradientSolver):
    """H written out, (P, P) in float64, and factorised once (Koh and Liang, ICML 2017, equation 2).

    Args:
        curvature: "hessian", or "gauss_newton", which is never negative.
        damping: added to the diagonal, beside the problem's l2.
        dim, seed: see `GradientSolver`.

    Raises:
        InputError: too many parameters, or an H that is singular or has negative curvature.
    """

    name = "hessian"
    passes = 2

    def __init__(
        self,
        *,
        curvature: Kind = "hessian",
        damping: float = 0.0,
        dim: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dim=dim, seed=seed, curvature=curvature, damping=damping)
        self._inverse: Tensor | None = None

    def fit(
        self,
        problem: Problem,
        batches: Batches,
        *,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        size = problem.flat().numel()
        if size > MOST_PARAMETERS:
            raise InputError(
                f"the exact Hessian of {size} parameters does not fit; accepted: at most {MOST_PARAMETERS}. Name fewer "
                "with parameters=, or use ekfac or conjugate_gradient"
            )
        check_converged(problem, batches, reduce)
        options = {"kind": self.settings["curvature"], "damping": self.settings["damping"]}
        matrix = Curvature(problem, batches, **options, reduce=reduce, progress=progress).products(
            in_double(torch.eye(size, device=problem.device))
        )
        self._inverse = inverse_of((matrix + matrix.T) / 2)

    def state(self) -> dict[str, Tensor]:
        return {"inverse": as_fitted(self._inverse, self.name)}

    def load(self, problem: Problem, state: Mapping[str, Tensor]) -> None:
        self._inverse = state["inverse"].to(problem.device)

    def test_side(self, problem: Problem, gradients: Tensor) -> Tensor:
        return in_double(gradients) @ as_fitted(self._inverse, self.name)


def check_converged(problem: Problem, batches: Batches, reduce: Reduce) -> None:
    """A pass that warns of a model that is not at a minimum."""
    watch = Convergence(problem)
    for images, labels in batches():
        watch.see(images, labels)
    watch.conclude(reduce)


def inverse_of(matrix: Tensor) -> Tensor:
    """The inverse of a positive definite matrix in float64, or which damping would make it one."""
    lowest, highest = extremes(matrix)
    if lowest <= 1e-12 * highest:
        kind = "singular" if lowest > -1e-9 * highest else "not positive definite"
        raise InputError(
            f"the Hessian is {kind}: its eigenvalues go from {lowest:.2g} to {highest:.2g}; give a damping of "
            f"{max(1e-3 * highest, -2 * lowest):.1g} or more, or use curvature='gauss_newton' with some"
        )
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))


def extremes(matrix: Tensor) -> tuple[float, float]:
    """The least and the largest eigenvalue of a symmetric matrix."""
    values = torch.linalg.eigvalsh(matrix)
    return float(values[0]), float(values[-1])
