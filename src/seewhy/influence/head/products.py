"""The curvature of a head too large to invert: as a Kronecker product, and as products with all features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..gradients.linear_solve import conjugate_gradients
from ..problem import WORKING, Reduce
from .curvature import singular, together

_ALL = slice(None)


class Kronecker:
    """H in the eigenbasis of mean(S) (x) mean(a a^T): its diagonal there is exact, the rest is left out.

    For heads whose H is too large to write out. It is EK-FAC (George et al., NeurIPS 2018) with no label drawn.
    """

    passes = 2

    @staticmethod
    def numbers(n: int, features: int, classes: int) -> int:
        return features**2 + classes**2 + features * classes

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._bases: list[
            Tensor
        ] = []  # (K, K) and (F, F), eigenvectors in columns, those of large eigenvalues last
        self._values = torch.empty(0)  # (K, F), ridge included

    def see(self, features: Tensor, probabilities: Tensor) -> None:
        if self._bases:
            left, right = self._bases
            bends = (
                probabilities @ left.square() - (probabilities @ left).square()
            )  # u^T S u of each u: (B, K)
            new = [bends.T @ (features @ right).square()]
        else:
            new = [
                torch.diag(probabilities.sum(0)) - probabilities.T @ probabilities,
                features.T @ features,
            ]
        self._sums = (
            [old + more for old, more in zip(self._sums, new, strict=True)] if self._sums else new
        )

    def conclude(self, count: int, ridge: float, reduce: Reduce) -> None:
        means = [reduce(total) / count for total in self._sums]
        self._sums = []
        if not self._bases:
            self._bases = [torch.linalg.eigh(mean).eigenvectors for mean in means]
            return
        self._values = means[0] + ridge
        if float(self._values.min()) <= 1e-12 * float(self._values.max()):
            raise singular(float(self._values.max()))

    def turn(self, rows: Tensor) -> Tensor:
        """Rows (..., F) in the features' eigenbasis."""
        return rows @ self._bases[1]

    def turn_back(self, rows: Tensor) -> Tensor:
        """The reverse of `turn`."""
        return rows @ self._bases[1].T

    def solve_turned(self, turned: Tensor, columns: slice = _ALL) -> Tensor:
        """Solves (T, K, .) for these columns of the eigenbasis alone, which do not touch each other."""
        left = self._bases[0]
        return left @ (left.T @ turned / self._values[:, columns])

    def quadratic_turned(self, residuals: Tensor, turned: Tensor, columns: slice = _ALL) -> Tensor:
        """The part of `quadratic` that these columns have, with features (B, .) of them."""
        bent = (residuals @ self._bases[0]).square() @ self._values[:, columns].reciprocal()
        return (bent * turned.square()).sum(1)

    def solve(self, matrices: Tensor) -> Tensor:
        return self.turn_back(self.solve_turned(self.turn(matrices)))

    def quadratic(self, residuals: Tensor, features: Tensor) -> Tensor:
        return self.quadratic_turned(residuals, self.turn(features))

    def state(self) -> dict[str, Tensor]:
        return {"outputs": self._bases[0], "features": self._bases[1], "values": self._values}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._bases = [state["outputs"], state["features"]]
        self._values = state["values"]


class Iterative:
    """H as products with all training features, which stay in memory; solved by preconditioned conjugate gradients.

    The Kronecker form is the preconditioner, so a few dozen products suffice. All is done in its eigenbasis, whose last
    min(n, F) directions hold all that n examples say; in the others H is the ridge, and that form is exact.
    """

    passes = 2

    @staticmethod
    def numbers(n: int, features: int, classes: int) -> int:
        return Kronecker.numbers(n, features, classes) + n * (features + classes)

    @staticmethod
    def work(n: int, features: int, classes: int) -> int:
        """Multiplications that a product with H takes, of which a question needs some dozens."""
        return 2 * n * min(n, features) * classes

    def __init__(self, *, tolerance: float = 1e-8, iterations: int = 500) -> None:
        self._near = Kronecker()
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._kept: tuple[Tensor, Tensor] | None = None  # (n, F) in the eigenbasis, (n, K)
        self._ridge = torch.zeros(())
        self._limits = (tolerance, iterations)

    def see(self, features: Tensor, probabilities: Tensor) -> None:
        self._near.see(features, probabilities)
        if self._kept is None:
            self._seen.append((features, probabilities))

    def conclude(self, count: int, ridge: float, reduce: Reduce) -> None:
        self._near.conclude(count, ridge, reduce)
        if self._kept is None:
            features, probabilities = together(self._seen, reduce)
            self._kept = (self._near.turn(features), probabilities)
            self._seen = []
        self._ridge = torch.tensor(ridge, dtype=torch.float64)

    def solve(self, matrices: Tensor) -> Tensor:
        turned, inside, outside = self._near.turn(matrices), *self._columns()
        found = [
            self._near.solve_turned(turned[:, :, outside], outside),
            self._inside(turned[:, :, inside]),
        ]
        return self._near.turn_back(torch.cat(found, 2))

    def quadratic(self, residuals: Tensor, features: Tensor) -> Tensor:
        turned, inside, outside = self._near.turn(features), *self._columns()
        matrices = residuals[:, :, None] * turned[:, None, inside]
        # the error of b^T H^-1 b is the square of the solution's
        found = self._inside(matrices, tolerance=self._limits[0] ** 0.5)
        return (found * matrices).sum((1, 2)) + self._near.quadratic_turned(
            residuals, turned[:, outside], outside
        )

    def _columns(self) -> tuple[slice, slice]:
        """The directions that the training features span, and the others."""
        a, _ = self._training()
        others = max(0, a.shape[1] - len(a))
        return slice(others, None), slice(others)

    def _training(self) -> tuple[Tensor, Tensor]:
        assert self._kept is not None
        return self._kept

    def _inside(self, matrices: Tensor, *, tolerance: float | None = None) -> Tensor:
        """H^-1 of (T, K, R) of the directions that the features span."""
        a, p = self._training()
        size = max(1, WORKING // (p.shape[1] * max(len(a), matrices.shape[2])))
        shape = (-1, *matrices.shape[1:])
        return torch.cat(
            [
                conjugate_gradients(
                    lambda rows: self._products(rows.reshape(shape)).flatten(1),
                    part.flatten(1),
                    tolerance=tolerance or self._limits[0],
                    iterations=self._limits[1],
                    precondition=lambda rows: self._near.solve_turned(
                        rows.reshape(shape), self._columns()[0]
                    ).flatten(1),
                ).reshape(shape)
                for part in torch.split(matrices, size)
            ]
        )

    def _products(self, matrices: Tensor) -> Tensor:
        """H X of each (T, K, R)."""
        (a, p), inside = self._training(), self._columns()[0]
        moved = matrices @ a[:, inside].T  # (T, K, n)
        moved = p.T * (moved - (p.T * moved).sum(1, keepdim=True))
        return moved @ a[:, inside] / len(a) + self._ridge * matrices

    def state(self) -> dict[str, Tensor]:
        features, probabilities = self._training()
        own = {"training": features, "probabilities": probabilities, "ridge": self._ridge}
        return {**self._near.state(), **own}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._near.load(state)
        self._kept = (state["training"], state["probabilities"])
        self._ridge = state["ridge"]
