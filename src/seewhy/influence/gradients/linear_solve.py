"""Conjugate gradients, for many right sides at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import InputError
from ...remarks import warn

Products = Callable[[Tensor], Tensor]  # (T, P) -> (T, P): H v of each row


def conjugate_gradients(
    products: Products,
    right: Tensor,
    *,
    tolerance: float,
    iterations: int,
    precondition: Products | None = None,
) -> Tensor:
    """x with H x = right, row by row (Hestenes and Stiefel, 1952): (T, P) -> (T, P).

    Rows that have come within `tolerance` of |H x - right| / |right| are left out of later products.

    Args:
        products: of H, positive definite.
        right: the right sides.
        tolerance: of the residual, as above.
        iterations: the most.
        precondition: about H^-1, positive definite.

    Raises:
        InputError: H curves down somewhere. Where the iterations do not suffice a warning tells the residual.
    """
    nearly = precondition or (lambda rows: rows)
    found, residual = torch.zeros_like(right), right.clone()
    direction = nearly(residual).clone()
    slopes = (residual * direction).sum(1)
    norms = right.norm(dim=1).clamp(min=1e-300)
    for _ in range(iterations):
        left = residual.norm(dim=1) > tolerance * norms
        if not bool(left.any()):
            return found
        moved = products(direction[left])
        bent = (direction[left] * moved).sum(1)
        if not bool((bent > 0).all()):
            raise InputError(
                f"the curvature is {float(bent.min()):.2g} in some direction, not above 0: the model is at no minimum, "
                "or the Hessian is singular; give damping=, or curvature='gauss_newton' with some"
            )
        step = (slopes[left] / bent)[:, None]
        found[left] += step * direction[left]
        residual[left] -= step * moved
        steep = nearly(residual[left])
        new = (residual[left] * steep).sum(1)
        direction[left] = steep + (new / slopes[left])[:, None] * direction[left]
        slopes[left] = new
    worst = float((residual.norm(dim=1) / norms).max())
    if worst > tolerance:
        warn(
            f"conjugate gradients stopped after iterations={iterations} with a residual of {worst:.1g}, not "
            f"tolerance={tolerance:g}; give more, or damping"
        )
    return found
