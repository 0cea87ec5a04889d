"""The curvature of softmax regression, in three forms: written out, as a Kronecker product, and as products.

With features a (F,) and probabilities p = softmax(W a), the Hessian of the mean cross entropy by W is
1/n sum_i S_i (x) a_i a_i^T, S = diag(p) - p p^T.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError
from .linear_solve import conjugate_gradients
from .problem import Reduce


class HeadCurvature(Protocol):
    """H of a head, with a ridge: sums over the data in `see`, for `passes` passes, each ended by `conclude`."""

    passes: int

    def see(self, features: Tensor, probabilities: Tensor) -> None:
        """Takes in features (B, F) and probabilities (B, K), float64."""

    def conclude(self, count: int, ridge: float, reduce: Reduce) -> None:
        """Ends a pass over `count` examples."""

    def solve(self, matrices: Tensor) -> Tensor:
        """H^-1 of each (T, K, F), float64."""

    def state(self) -> dict[str, Tensor]:
        """What was found."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes it back."""


def _singular(highest: float) -> InputError:
    return InputError(
        "the Hessian of the head is singular (adding the same to all outputs changes no softmax); give l2= as in the "
        f"training, or damping= such as {1e-3 * highest:.1g}"
    )


class Dense:
    """H written out, (K F, K F), and factorised by Cholesky."""

    passes = 1

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._factor = torch.empty(0)

    def see(self, features: Tensor, probabilities: Tensor) -> None:
        k, f = probabilities.shape[1], features.shape[1]
        if self._total is None:
            self._total = features.new_zeros(k, f, k, f)
        for i in range(k):  # the upper half: blocks (i, j) with j >= i
            bends = -probabilities[:, i : i + 1] * probabilities[:, i:]
            bends[:, 0] += probabilities[:, i]
            scaled = bends[:, :, None] * features[:, None]  # (B, K - i, F)
            self._total[i, :, i:] += (features.T @ scaled.flatten(1)).reshape(f, k - i, f)

    def conclude(self, count: int, ridge: float, reduce: Reduce) -> None:
        assert self._total is not None
        k, f = self._total.shape[:2]
        upper = reduce(self._total).reshape(k * f, k * f) / count
        self._total = None
        upper.diagonal().add_(ridge)
        highest = float(upper.diagonal().max())
        self._factor, failed = torch.linalg.cholesky_ex(upper, upper=True)
        if int(failed) or float(self._factor.diagonal().square().min()) <= 1e-12 * highest:
            raise _singular(highest)

    def solve(self, matrices: Tensor) -> Tensor:
        return torch.cholesky_solve(matrices.flatten(1).T, self._factor, upper=True).T.reshape(matrices.shape)

    def state(self) -> dict[str, Tensor]:
        return {"factor": self._factor}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._factor = state["factor"]


class Kronecker:
    """H in the eigenbasis of mean(S) (x) mean(a a^T): its diagonal there is exact, the rest is left out.

    For heads whose H is too large to write out. It is EK-FAC (George et al., NeurIPS 2018) with no label drawn.
    """

    passes = 2

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._bases: list[Tensor] = []  # (K, K) and (F, F), eigenvectors in columns
        self._values = torch.empty(0)  # (K, F), ridge included

    def see(self, features: Tensor, probabilities: Tensor) -> None:
        if self._bases:
            left, right = self._bases
            bends = probabilities @ left.square() - (probabilities @ left).square()  # u^T S u of each u: (B, K)
            new = [bends.T @ (features @ right).square()]
        else:
            new = [torch.diag(probabilities.sum(0)) - probabilities.T @ probabilities, features.T @ features]
        self._sums = [old + more for old, more in zip(self._sums, new, strict=True)] if self._sums else new

    def conclude(self, count: int, ridge: float, reduce: Reduce) -> None:
        means, self._sums = [reduce(total) / count for total in self._sums], []
        if not self._bases:
            self._bases = [torch.linalg.eigh(mean).eigenvectors for mean in means]
            return
        self._values = means[0] + ridge
        if float(self._values.min()) <= 1e-12 * float(self._values.max()):
            raise _singular(float(self._values.max()))

    def solve(self, matrices: Tensor) -> Tensor:
        left, right = self._bases
        return left @ (left.T @ matrices @ right / self._values) @ right.T

    def state(self) -> dict[str, Tensor]:
        return {"outputs": self._bases[0], "features": self._bases[1], "values": self._values}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._bases, self._values = [state["outputs"], state["features"]], state["values"]


class Iterative:
    """H as products with all training features, which stay in memory; solved by preconditioned conjugate gradients.

    The Kronecker form is the preconditioner, so a few dozen products suffice. For one process: features are not summed.
    """

    passes = 2

    def __init__(self, *, tolerance: float = 1e-8, iterations: int = 500) -> None:
        self._near = Kronecker()
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._kept: tuple[Tensor, Tensor] | None = None  # (n, F), (n, K)
        self._ridge = torch.zeros(())
        self._limits = (tolerance, iterations)

    def see(self, features: Tensor, probabilities: Tensor) -> None:
        self._near.see(features, probabilities)
        if self._kept is None:
            self._seen.append((features, probabilities))

    def conclude(self, count: int, ridge: float, reduce: Reduce) -> None:
        self._near.conclude(count, ridge, reduce)
        if self._kept is None:
            features, probabilities = zip(*self._seen, strict=True)
            self._kept, self._seen = (torch.cat(features), torch.cat(probabilities)), []
        self._ridge = torch.tensor(ridge, dtype=torch.float64)

    def _products(self, rows: Tensor) -> Tensor:
        """H X of each (T, K F)."""
        assert self._kept is not None
        a, p = self._kept
        matrices = rows.reshape(len(rows), p.shape[1], a.shape[1])
        moved = matrices @ a.T  # (T, K, n)
        moved = p.T * (moved - (p.T * moved).sum(1, keepdim=True))
        return (moved @ a / len(a) + self._ridge * matrices).flatten(1)

    def solve(self, matrices: Tensor) -> Tensor:
        tolerance, iterations = self._limits
        found = conjugate_gradients(
            self._products,
            matrices.flatten(1),
            tolerance=tolerance,
            iterations=iterations,
            precondition=lambda rows: self._near.solve(rows.reshape(-1, *matrices.shape[1:])).flatten(1),
        )
        return found.reshape(matrices.shape)

    def state(self) -> dict[str, Tensor]:
        assert self._kept is not None
        own = {"all_features": self._kept[0], "all_probabilities": self._kept[1], "ridge": self._ridge}
        return {**self._near.state(), **own}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._near.load(state)
        self._kept, self._ridge = (state["all_features"], state["all_probabilities"]), state["ridge"]


class Ridge:
    """H = l2 I: what is left of it where the losses' own curvature is left out, as representer points do."""

    passes = 1

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

    def state(self) -> dict[str, Tensor]:
        return {"ridge": self._ridge}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._ridge = state["ridge"]
