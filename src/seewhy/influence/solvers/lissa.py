"""LiSSA: the Neumann series of the inverse Hessian, on batches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import InputError
from ...remarks import warn
from ..gradients.curvature import Curvature, Kind
from ..problem import Batches, Problem, Progress, Reduce, identity
from .conjugate_gradient import Streaming
from .whole_gradients import as_fitted, in_double

_DIVERGED = 1e6  # times the first step


class LiSSA(Streaming):
    """h <- h + (g - H_b h) / scale over batches b (Agarwal et al., JMLR 2017; Koh and Liang, ICML 2017, section 3).

    Beyond the usual: the scale comes from a power iteration on the training data; the iterates are averaged, which
    takes out the batches' noise; and the recursion is started anew on what is left, g - H h over all training data,
    until |g - H h| / |g| is small. Where it grows, the scale is doubled; where it shrinks slowly, the passes are.
    The steps that it takes grow with the condition of H: where conjugate gradients work, they are faster.

    Args:
        curvature: "hessian", or "gauss_newton", which is never negative.
        damping: added to the diagonal, beside the problem's l2.
        scale: above the largest eigenvalue of a batch's H over 2; None finds it.
        tolerance: of the residual.
        depth: passes over the training data, at most; where they do not suffice, a warning tells the residual.
        dim, seed: see `GradientSolver`; the seed is also the power iteration's.

    Raises:
        InputError: the recursion diverges, as it does where the scale is too small or curvature is negative, or two
            restarts do not improve; or there
            are several processes: each has batches of its own.
    """

    name = "lissa"
    passes = 10

    def __init__(
        self,
        *,
        curvature: Kind = "hessian",
        damping: float = 0.0,
        scale: float | None = None,
        tolerance: float = 0.01,
        depth: int = 512,
        dim: int | None = None,
        seed: int = 0,
    ) -> None:
        if scale is not None and scale <= 0:
            raise InputError(
                f"scale={scale} cannot be used; give a number above 0, or None to find one"
            )
        super().__init__(
            dim=dim,
            seed=seed,
            curvature=curvature,
            damping=damping,
            scale=scale,
            tolerance=tolerance,
            depth=depth,
        )
        self._scale = None if scale is None else torch.tensor(float(scale))

    def fit(
        self,
        problem: Problem,
        batches: Batches,
        *,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        if reduce is not identity:
            raise InputError(
                "lissa runs in one process, its batches follow on each other; use conjugate_gradient or ekfac"
            )
        super().fit(problem, batches, reduce=reduce, progress=progress)
        if self._scale is None:
            size = problem.flat().numel()
            start = torch.randn(
                size,
                generator=torch.Generator().manual_seed(self.settings["seed"]),
                dtype=torch.float32,
            )
            largest = largest_curvature(
                self.curvature(), in_double(start.to(problem.device)), self.passes, progress
            )
            self._scale = torch.tensor(1.1 * largest, dtype=torch.float64)

    def state(self) -> dict[str, Tensor]:
        return {"scale": as_fitted(self._scale, self.name)}

    def load(self, problem: Problem, state: Mapping[str, Tensor]) -> None:
        self._scale = state["scale"]

    def test_side(self, problem: Problem, gradients: Tensor) -> Tensor:
        scale = float(as_fitted(self._scale, self.name))
        return recursion(
            self.curvature(),
            in_double(gradients),
            scale,
            tolerance=self.settings["tolerance"],
            depth=self.settings["depth"],
        )


def largest_curvature(
    curvature: Curvature, vector: Tensor, passes: int, progress: Progress | None
) -> float:
    """The largest |H_b v| of a batch, v the dominant eigenvector of H by a power iteration; at least |H v|."""
    largest = 0.0
    for _ in range(passes):
        vector, largest = vector / vector.norm(), 0.0
        total = torch.zeros_like(vector)
        for images, labels in curvature.batches():
            moved = curvature.of_batch(images, labels, vector[None])[0]
            largest = max(largest, float(moved.norm()) / len(images))
            total += moved
            if progress:
                progress(len(images))
        vector = total / curvature.problem.count + curvature.ridge * vector
    return max(largest + curvature.ridge, float(vector.norm()))


def recursion(
    curvature: Curvature, right: Tensor, scale: float, *, tolerance: float, depth: int
) -> Tensor:
    """h with H h = right nearly, row by row: (T, P) -> (T, P)."""
    norms = right.norm(dim=1).clamp(min=1e-300)
    estimate = torch.zeros_like(right)
    residual = right
    done = 0
    passes = 1
    worst, stalls = 1.0, 0
    while True:
        change = _averaged(curvature, residual, scale, passes)
        new = residual - curvature.products(change)
        done += passes + 1
        before, after = residual.norm(dim=1), new.norm(dim=1)
        better = (after < before)[:, None]
        estimate, residual = (
            torch.where(better, estimate + change, estimate),
            torch.where(better, new, residual),
        )
        last = worst
        worst = float((residual.norm(dim=1) / norms).max())
        stalls = stalls + 1 if worst >= last else 0
        if worst > tolerance and stalls > 1:
            raise InputError(
                f"LiSSA does not improve on a residual of {worst:.1g} with scale={scale:.3g}; give damping=, a larger "
                "scale=, or curvature='gauss_newton', or use conjugate_gradient"
            )
        if worst <= tolerance or done >= depth:
            break
        shrunk = float((after / before.clamp(min=1e-300)).max())
        scale = 2 * scale if shrunk >= 1 else scale
        passes = min(2 * passes if shrunk > 0.5 else passes, max(1, depth - done - 1))
    if worst > tolerance:
        warn(
            f"LiSSA stopped after depth={depth} passes with a residual of {worst:.1g}, not tolerance={tolerance:g}; "
            "give more, or damping"
        )
    return estimate


def _averaged(curvature: Curvature, right: Tensor, scale: float, passes: int) -> Tensor:
    """The mean of the recursion's iterates from 0 over some passes, the t-th of weight t."""
    estimate = torch.zeros_like(right)
    total = torch.zeros_like(right)
    step = 0
    for _ in range(passes):
        for images, labels in curvature.batches():
            moved = (
                curvature.of_batch(images, labels, estimate) / len(images)
                + curvature.ridge * estimate
            )
            estimate += (right - moved) / scale
            step += 1
            total += step * estimate
        growth = float((estimate.norm(dim=1) * scale / right.norm(dim=1).clamp(min=1e-300)).max())
        if not growth < _DIVERGED:
            raise InputError(
                f"LiSSA diverges with scale={scale:.3g}; give a larger scale=, damping= where the Hessian has negative "
                "or no curvature, or curvature='gauss_newton'"
            )
    return total * 2 / (step * (step + 1))
