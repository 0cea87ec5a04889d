"""The dominant eigenvectors of the Hessian."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import InputError
from ..gradients.curvature import Curvature, Kind
from ..problem import Batches, Problem, Progress, Reduce, identity
from .exact import check_converged
from .whole_gradients import GradientSolver, as_fitted, in_double


class Arnoldi(GradientSolver):
    """H on its eigenvectors of the largest eigenvalues, found by Arnoldi's iteration (Schioppa et al., AAAI 2022).

    H is symmetric, so the iteration is that of Lanczos, with every new direction made orthogonal to all before it. An
    index keeps `rank` numbers of each training example. What gradients have beyond the eigenvectors is left out:
    influences are too small where much of it is there.

    Args:
        curvature: "hessian", or "gauss_newton".
        damping: added to the eigenvalues, beside the problem's l2.
        krylov: directions of the iteration, each a pass over the training data.
        rank: eigenvectors that are kept, at most: those of positive curvature, the largest first.
        seed: of the first direction.

    Raises:
        InputError: no positive curvature was found.
    """

    name = "arnoldi"
    whitens = True

    def __init__(
        self,
        *,
        curvature: Kind = "hessian",
        damping: float = 0.0,
        krylov: int = 100,
        rank: int = 50,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed, curvature=curvature, damping=damping, krylov=krylov, rank=rank)
        self.settings = {key: value for key, value in self.settings.items() if key != "dim"}
        if not 1 <= rank <= krylov:
            raise InputError(
                f"rank={rank} of krylov={krylov} cannot be used; accepted: 1 <= rank <= krylov"
            )
        self.passes = krylov + 1
        self._vectors: Tensor | None = None  # (R, P)
        self._values: Tensor | None = None  # (R,), damping and l2 included

    def fit(
        self,
        problem: Problem,
        batches: Batches,
        *,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        check_converged(problem, batches, reduce)
        options = {"kind": self.settings["curvature"], "damping": self.settings["damping"]}
        curvature = Curvature(problem, batches, **options, reduce=reduce, progress=progress)
        size = problem.flat().numel()
        start = torch.randn(
            size,
            generator=torch.Generator().manual_seed(self.settings["seed"]),
            dtype=torch.float32,
        )
        values, vectors = lanczos(
            curvature, in_double(start.to(problem.device)), min(self.settings["krylov"], size)
        )
        values, vectors = (
            values.flip(0)[: self.settings["rank"]],
            vectors.flip(0)[: self.settings["rank"]],
        )
        positive = values > 1e-6 * values[0].abs()
        if not bool(positive.any()):
            raise InputError("arnoldi found no positive curvature; train on, or give damping=")
        self._values = values[positive]
        self._vectors = vectors[positive]

    def state(self) -> dict[str, Tensor]:
        return {
            "values": as_fitted(self._values, self.name),
            "vectors": as_fitted(self._vectors, self.name),
        }

    def load(self, problem: Problem, state: Mapping[str, Tensor]) -> None:
        self._values, self._vectors = (
            state["values"].to(problem.device),
            state["vectors"].to(problem.device),
        )

    def train_side(self, problem: Problem, gradients: Tensor) -> Tensor:
        return (
            in_double(gradients)
            @ as_fitted(self._vectors, self.name).T
            / as_fitted(self._values, self.name).sqrt()
        )

    test_side = train_side


def lanczos(curvature: Curvature, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Ritz values (k,), ascending, and vectors (k, P); k is smaller than `steps` where the space ends before."""
    basis = [start / start.norm()]
    projected = torch.zeros(steps, steps, dtype=start.dtype, device=start.device)
    for k in range(steps):
        moved = curvature.products(basis[k][None])[0]
        known = torch.stack(basis)
        rest = moved
        for _ in range(2):  # once more: rounding leaves something behind (Kahan: "twice is enough")
            along = known @ rest
            projected[: k + 1, k] += along
            rest = rest - along @ known
        if k + 1 == steps or rest.norm() <= 1e-10 * moved.norm():
            break
        projected[k + 1, k] = rest.norm()
        basis.append(rest / rest.norm())
    used = projected[: k + 1, : k + 1]
    values, inner = torch.linalg.eigh((used + used.T) / 2)
    return values, inner.T @ torch.stack(basis)[: k + 1]
