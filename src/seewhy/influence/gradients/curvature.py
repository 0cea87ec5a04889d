"""Products with the curvature of the training objective, and whether the training has come to its end."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ...errors import InputError
from ...remarks import warn
from ..problem import Batches, Problem, Progress, Reduce, identity
from .per_example import example_gradients, quantities, total_gradient
from .taps import borrowed, gradients_by, run

Kind = Literal["hessian", "gauss_newton"]
SINGLE = 8  # examples of a batch whose own gradients are looked at
_LOOKED_AT = 1_000  # examples
_LARGE = 0.08  # of the mean gradient's norm over that of a single example's


class Curvature:
    """H of the objective, l2 and damping included, as products; each reads the training data once.

    Args:
        problem: what was trained.
        batches: a pass over the training data, or over this process's share.
        kind: "hessian", or "gauss_newton": the Hessian with the network made linear about its weights. That is
            never negative, is the Fisher information for the softmax cross entropy, and equals the Hessian where the
            network is linear in its parameters.
        damping: added to the diagonal, beside the problem's l2.
        reduce: sums over processes.
    """

    def __init__(
        self,
        problem: Problem,
        batches: Batches,
        *,
        kind: Kind = "hessian",
        damping: float = 0.0,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        if kind not in get_args(Kind):
            raise InputError(
                f"curvature={kind!r} is not known; use {' or '.join(map(repr, get_args(Kind)))}"
            )
        if damping < 0:
            raise InputError(f"damping={damping} cannot be used; accepted: 0 or more")
        self.problem = problem
        self.batches = batches
        self.kind = kind
        self.ridge = problem.l2 + damping
        self.reduce, self.progress = reduce, progress

    def products(self, vectors: Tensor) -> Tensor:
        """H v of each row v: (K, P) -> (K, P)."""
        total = torch.zeros_like(vectors)
        for images, labels in self.batches():
            total += self.of_batch(images, labels, vectors)
            if self.progress:
                self.progress(len(images))
        return self.reduce(total) / self.problem.count + self.ridge * vectors

    def of_batch(self, images: Tensor, labels: Tensor, vectors: Tensor) -> Tensor:
        """The same of the sum of a batch's losses, without l2 and damping."""
        problem = self.problem
        multiply = _hessian_products if self.kind == "hessian" else _gauss_newton_products
        with borrowed(problem.call):
            weights = {name: w.requires_grad_() for name, w in problem.weights().items()}
            outputs = run(problem.call, weights, images)
            leaves = list(weights.values())
            given = vectors.to(outputs.device, outputs.dtype)
            return multiply(problem, outputs, labels, leaves, given).to(vectors)


def _vjp(outputs: Tensor, leaves: list[Tensor], vectors: Tensor) -> Tensor:
    """The gradients (K, P) of sum(outputs * v) by the leaves, for each v of vectors (K, *outputs.shape)."""
    if (
        not outputs.requires_grad
    ):  # constant, such as the gradient of a loss that is linear in the weights
        return vectors.new_zeros(len(vectors), sum(leaf.numel() for leaf in leaves))
    rows = [gradients_by(leaves, outputs, v, keep=True) for v in vectors]
    return torch.stack(
        [torch.cat([g.flatten() for g in row]) for row in rows]
    )  # vmap over them takes longer


def _gradient(values: Tensor, leaves: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(values.sum(), leaves, create_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def _hessian_products(
    problem: Problem, outputs: Tensor, labels: Tensor, leaves: list[Tensor], vectors: Tensor
) -> Tensor:
    return _vjp(_gradient(quantities(problem, outputs, labels), leaves), leaves, vectors)


def _gauss_newton_products(
    problem: Problem, outputs: Tensor, labels: Tensor, leaves: list[Tensor], vectors: Tensor
) -> Tensor:
    """J^T H_out J v. J v is the gradient by u of (J^T u) v: two backward passes, and no forward differentiation."""
    u = torch.zeros_like(outputs, requires_grad=True)
    back = torch.autograd.grad(outputs, leaves, u, create_graph=True, materialize_grads=True)
    moved = _vjp(torch.cat([g.flatten() for g in back]), [u], vectors)  # (K, B * C)
    leaf = outputs.detach().requires_grad_()
    bent = _vjp(_gradient(quantities(problem, leaf, labels), [leaf]), [leaf], moved)
    return _vjp(outputs, leaves, bent.reshape(len(vectors), *outputs.shape))


class Convergence:
    """Watches a pass over the training data for a model that is not at a minimum, where influence is not defined.

    It looks at batches spread over the pass, about a thousand examples, and compares the norm of the objective's mean
    gradient with the root mean square of single examples', of which m of n leave a noise of sqrt(1/m - 1/n) in it.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._seen, self._next = 0, 0
        self._sum = torch.zeros_like(problem.flat(), dtype=torch.float64)
        self._moments = torch.zeros(
            2, dtype=torch.float64
        )  # examples of the mean, sum of squared norms over examples

    def see(self, images: Tensor, labels: Tensor) -> None:
        if self._seen >= self._next:
            self._next += max(1, self.problem.count * len(images) // _LOOKED_AT)
            self._sum += total_gradient(self.problem, images, labels)
            few = example_gradients(self.problem, images[:SINGLE], labels[:SINGLE])
            mean_square = (
                torch.linalg.vector_norm(few, dim=1, dtype=torch.float64).square().mean().cpu()
            )
            self._moments += torch.stack([torch.tensor(1.0), mean_square]).double() * len(images)
        self._seen += len(images)

    def conclude(self, reduce: Reduce = identity) -> None:
        """Warns where the gradient is large."""
        total, (count, squares) = reduce(self._sum), reduce(self._moments).tolist()
        noise = max(0.0, 1 / count - 1 / self.problem.count) ** 0.5
        weights = self.problem.flat().to(total)
        warn_unless_converged(
            total / count, weights, self.problem.l2, (squares / count) ** 0.5, noise=noise
        )


def warn_unless_converged(
    gradient: Tensor, weights: Tensor, l2: float, single: float, *, noise: float = 0.0
) -> None:
    """Warns of an objective's gradient that is large beside `single`, the root mean square of the examples' own norms.

    `gradient` is the mean of the losses', without l2. Where another l2 leaves less than half as much, it is told.
    """
    norm = float((gradient + l2 * weights).norm())
    if norm <= math.hypot(_LARGE, 1.2 * noise) * single:
        return
    best = max(0.0, -float((gradient * weights).sum()) / max(float(weights.square().sum()), 1e-300))
    least = float((gradient + best * weights).norm())
    hint = f" (it would be {least:.2g} with l2={best:.2g})" if least < norm / 2 else ""
    warn(
        f"the model has not converged: the norm of its mean training gradient is {norm:.2g}{hint}, of a single "
        f"example's {single:.2g}; influences suppose nearly 0. Train on, check l2, or use trak or tracin"
    )
