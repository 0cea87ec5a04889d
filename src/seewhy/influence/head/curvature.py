"""The curvature of softmax regression, H, in forms that are inverted directly: written out, by classes, and a ridge.

With features a (F,) and probabilities p = softmax(W a), the Hessian of the mean cross entropy by W is
1/n sum_i S_i (x) a_i a_i^T, S = diag(p) - p p^T.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ...engine.spread import World, world
from ...errors import InputError
from ..problem import WORKING, Reduce, identity


class HeadCurvature(Protocol):
    """H of a head, with a ridge: sums over the data in `see`, for `passes` passes, each ended by `conclude`."""

    passes: int

    @staticmethod
    def numbers(n: int, features: int, classes: int) -> int:
        """How many it holds of n examples."""

    def see(self, features: Tensor, probabilities: Tensor) -> None:
        """Takes in features (B, F) and probabilities (B, K), float64."""

    def conclude(self, count: int, ridge: float, reduce: Reduce) -> None:
        """Ends a pass over `count` examples."""

    def solve(self, matrices: Tensor) -> Tensor:
        """H^-1 of each (T, K, F), float64."""

    def quadratic(self, residuals: Tensor, features: Tensor) -> Tensor:
        """v^T H^-1 v of each v = residual (x) features: (B, K), (B, F) -> (B,), float64."""

    def state(self) -> dict[str, Tensor]:
        """What was found."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes it back."""


def singular(highest: float) -> InputError:
    return InputError(
        "the Hessian of the head is singular (adding the same to all outputs changes no softmax); give l2= as in the "
        f"training, or damping= such as {1e-3 * highest:.1g}"
    )


def _factorise(matrix: Tensor, highest: float, *, scale: float = 0.0) -> None:
    """Puts the lower Cholesky factor in the place of a matrix, with no copy of it.

    `highest` is of H's diagonal, and `scale` of what the matrix was found from, where that is larger than itself.
    """
    failed = torch.empty(0, dtype=torch.int32, device=matrix.device)
    torch.linalg.cholesky_ex(matrix, out=(matrix, failed))
    diagonal = matrix.diagonal().square()
    if int(failed) or float(diagonal.min()) <= 1e-12 * max(scale, float(diagonal.max())):
        raise singular(highest)


def _inverted(factor: Tensor) -> None:
    """Puts the inverse of a lower triangular matrix in its place."""
    factor.copy_(
        torch.linalg.solve_triangular(factor, torch.eye(len(factor)).to(factor), upper=False)
    )


def together(seen: list[tuple[Tensor, Tensor]], reduce: Reduce) -> tuple[Tensor, Tensor]:
    """Features (n, F) and probabilities (n, K) of all batches and, where sums go over processes, of all of these."""
    everyone = World() if reduce is identity else world()
    features, probabilities = (everyone.rows(torch.cat(part)) for part in zip(*seen, strict=True))
    return features, probabilities


class Dense:
    """H written out, (K F, K F), and factorised by Cholesky."""

    passes = 1

    @staticmethod
    def numbers(n: int, features: int, classes: int) -> int:
        return (classes * features) ** 2

    def __init__(self) -> None:
        self._total: list[
            Tensor
        ] = []  # of the upper half: for class i its columns j >= i, (F, (K - i) F)
        self._factor = torch.empty(0)

    def see(self, features: Tensor, probabilities: Tensor) -> None:
        k, f = probabilities.shape[1], features.shape[1]
        self._total = self._total or [features.new_zeros(f, (k - i) * f) for i in range(k)]
        for i, total in enumerate(self._total):
            bends = -probabilities[:, i : i + 1] * probabilities[:, i:]
            bends[:, 0] += probabilities[:, i]
            total.addmm_(
                features.T, (bends[:, :, None] * features[:, None]).flatten(1)
            )  # (B, K - i, F)

    def conclude(self, count: int, ridge: float, reduce: Reduce) -> None:
        f, size = self._total[0].shape
        upper = self._total[0].new_zeros(size, size)
        for i in range(len(self._total)):
            upper[i * f : (i + 1) * f, i * f :] = reduce(self._total[i]) / count
            self._total[i] = upper.new_empty(0)  # so that no more than half as much again is held
        self._total = []
        upper.diagonal().add_(ridge)
        self._factor = upper.T  # the lower half
        _factorise(self._factor, float(upper.diagonal().max()))

    def solve(self, matrices: Tensor) -> Tensor:
        return torch.cholesky_solve(matrices.flatten(1).T, self._factor).T.reshape(matrices.shape)

    def quadratic(self, residuals: Tensor, features: Tensor) -> Tensor:
        rows = (residuals[:, :, None] * features[:, None]).flatten(1)
        halves: Tensor = torch.linalg.solve_triangular(self._factor, rows.T, upper=False)
        return halves.square().sum(0)

    def state(self) -> dict[str, Tensor]:
        return {"factor": self._factor.T}  # as it lies in memory

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._factor = state["factor"].T


class Woodbury:
    """H by classes: blocks D_k = 1/n sum_i p_ik a_i a_i^T + ridge on the diagonal, less a matrix of rank n.

    With U = [p_i (x) a_i] / sqrt(n), H = D - U U^T and H^-1 = D^-1 + D^-1 U C^-1 U^T D^-1, C = 1 - U^T D^-1 U: exact,
    as in Laplace's method for Gaussian processes of several classes (Rasmussen and Williams, 2006, section 3.5). The
    blocks are taken in the R = min(n, F) directions that the features span; in the others H is the ridge. What is kept
    are the inverses of Cholesky factors, D_k = L L^T: with those of D and C errors grow by the square of the condition.
    """

    passes = 1

    def __init__(self) -> None:
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._features = torch.empty(0)  # (n, R)
        self._probabilities = torch.empty(0)  # (n, K)
        self._basis = torch.empty(0, 0)  # (F, R); (F, 0) where the features span all directions
        self._blocks = torch.empty(0)  # (K, R, R), L^-1 of each D_k
        self._capacity = torch.empty(0)  # (n, n), L^-1 of C
        self._ridge = torch.zeros(())

    @staticmethod
    def numbers(n: int, features: int, classes: int) -> int:
        r = min(n, features)
        return classes * r * r + n * n + n * (r + classes) + (features * r if n < features else 0)

    @staticmethod
    def work(n: int, features: int, classes: int) -> int:
        """Multiplications that `conclude` takes."""
        r = min(n, features)
        return classes * n * r * (2 * r + n)

    def see(self, features: Tensor, probabilities: Tensor) -> None:
        self._seen.append((features, probabilities))

    def conclude(self, count: int, ridge: float, reduce: Reduce) -> None:
        features, self._probabilities = together(self._seen, reduce)
        self._seen = []
        self._ridge = torch.tensor(ridge, dtype=torch.float64)
        n, f = features.shape
        self._basis = torch.linalg.qr(features.T).Q if n < f else features.new_empty(f, 0)
        a = self._features = self._inside(features)
        r, k = a.shape[1], self._probabilities.shape[1]
        self._blocks = a.new_empty(k, r, r)
        self._capacity = torch.eye(n).to(a)
        highest = ridge
        for block, p in zip(self._blocks, self._probabilities.T, strict=True):
            block.copy_((a * p[:, None]).T @ a / count).diagonal().add_(ridge)
            highest = max(highest, float(block.diagonal().max()))
            _factorise(block, highest)
            _inverted(block)
            halves = block @ (a.T * p)  # (R, n)
            self._capacity.addmm_(halves.T, halves, alpha=-1 / count)
        _factorise(self._capacity, highest, scale=1.0)
        _inverted(self._capacity)

    def solve(self, matrices: Tensor) -> Tensor:
        inside = self._inside(matrices)
        found = matrices - self._back(inside)  # what lies outside
        found /= self._ridge
        for part, out in zip(*(torch.split(x, self._few()) for x in (inside, found)), strict=True):
            halves = self._halves(part)
            weights = self._by_example(halves) @ self._capacity / len(self._features)
            halves += self._halves((weights[:, None] * self._probabilities.T) @ self._features)
            out += self._back(self._wholes(halves))
        return found

    def quadratic(self, residuals: Tensor, features: Tensor) -> Tensor:
        inside = self._inside(features)
        outside = (features - self._back(inside)).square().sum(1)
        found = residuals.square().sum(1) * outside / self._ridge
        for r, a, out in zip(
            *(torch.split(x, self._few()) for x in (residuals, inside, found)), strict=True
        ):
            halves = self._halves(r[:, :, None] * a[:, None])
            out += halves.square().sum((1, 2)) + self._by_example(halves).square().sum(1) / len(
                self._features
            )
        return found

    def _few(self) -> int:
        """How many rows are solved for together."""
        return max(1, WORKING // (self._probabilities.shape[1] * len(self._features)))

    def _inside(self, rows: Tensor) -> Tensor:
        """Rows (..., F) in the directions that the features span, (..., R)."""
        return rows @ self._basis if self._basis.shape[1] else rows

    def _back(self, rows: Tensor) -> Tensor:
        """The reverse of `_inside`."""
        return rows @ self._basis.T if self._basis.shape[1] else rows

    def _halves(self, matrices: Tensor) -> Tensor:
        """L^-1 of (T, K, R), L of D."""
        return (matrices.transpose(0, 1) @ self._blocks.mT).transpose(0, 1)

    def _wholes(self, halves: Tensor) -> Tensor:
        """L^-T of (T, K, R): D^-1 of what `halves` are of."""
        return (halves.transpose(0, 1) @ self._blocks).transpose(0, 1)

    def _by_example(self, halves: Tensor) -> Tensor:
        """sqrt(n) L^-1 U^T L^-T of (T, K, R), with the first L of C and the second of D: (T, n)."""
        each = (self._wholes(halves) @ self._features.T * self._probabilities.T).sum(1)
        return each @ self._capacity.T

    def state(self) -> dict[str, Tensor]:
        return {
            "features": self._features,
            "probabilities": self._probabilities,
            "basis": self._basis,
            "blocks": self._blocks,
            "capacity": self._capacity,
            "ridge": self._ridge,
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._features = state["features"]
        self._probabilities = state["probabilities"]
        self._basis, self._blocks = state["basis"], state["blocks"]
        self._capacity = state["capacity"]
        self._ridge = state["ridge"]


class Ridge:
    """H = l2 I: what is left of it where the losses' own curvature is left out, as representer points do."""

    passes = 1

    @staticmethod
    def numbers(n: int, features: int, classes: int) -> int:
        return 1

    def __init__(self) -> None:
        self._ridge = torch.ones(())

    def see(self, features: Tensor, probabilities: Tensor) -> None:
        """Needs nothing of them."""

    def conclude(self, count: int, ridge: float, reduce: Reduce) -> None:
        if ridge <= 0:
            raise InputError(
                "representer points need l2= above 0, as in the training: they are sums weighted by 1 / l2"
            )
        self._ridge = torch.tensor(ridge, dtype=torch.float64)

    def solve(self, matrices: Tensor) -> Tensor:
        return matrices / self._ridge

    def quadratic(self, residuals: Tensor, features: Tensor) -> Tensor:
        return residuals.square().sum(1) * features.square().sum(1) / self._ridge

    def state(self) -> dict[str, Tensor]:
        return {"ridge": self._ridge}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._ridge = state["ridge"]
