"""The rules of layer-wise relevance propagation as dense float64 matrices, one image at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def matrix(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """An affine function of one image as W (inputs, outputs) and b (outputs)."""
    origin = torch.zeros_like(x)
    jacobian = torch.autograd.functional.jacobian(lambda v: function(v[None])[0], origin)
    w = jacobian.reshape(-1, x.numel()).T
    return w, function(origin[None])[0].flatten()


def _stable(z: Tensor, epsilon: float) -> Tensor:
    sign = torch.ones_like(z)
    sign[z < 0] = -1
    return z + epsilon * sign


def _shared(q: Tensor, bias: Tensor, r: Tensor, epsilon: float) -> Tensor:
    """R_i = sum_j q_ij / (sum_i q_ij + b_j + epsilon) R_j; (inputs, outputs), (outputs), (outputs) -> (inputs)."""
    total = q.sum(0) + bias
    share = q / _stable(total, epsilon)
    share[:, total == 0] = 0
    return share @ r


def epsilon_rule(
    w: Tensor, b: Tensor, x: Tensor, r: Tensor, *, epsilon: float, absorb: bool
) -> Tensor:
    return _shared(x[:, None] * w, b * absorb, r, epsilon)


def epsilon_rule_with_bias_spread(
    w: Tensor, b: Tensor, x: Tensor, r: Tensor, *, epsilon: float
) -> Tensor:
    """The bias takes its share, and hands it to the image's inputs in proportion to their magnitude."""
    z = (x[:, None] * w).sum(0) + b
    share = b / _stable(z, epsilon)
    share[z == 0] = 0
    return epsilon_rule(w, b, x, r, epsilon=epsilon, absorb=True) + x.abs() / x.abs().sum() * (
        share @ r
    )


def gamma_rule(
    w: Tensor, b: Tensor, x: Tensor, r: Tensor, *, gamma: float, epsilon: float, absorb: bool
) -> Tensor:
    """Contributions of the sign of z_j count 1 + gamma times."""
    q = x[:, None] * w
    z = q.sum(0) + b
    same = (q > 0) == (z > 0)
    bias_same = (b > 0) == (z > 0)
    return _shared(q + gamma * q * same, (b + gamma * b * bias_same) * absorb, r, epsilon)


def alpha_beta_rule(
    w: Tensor,
    b: Tensor,
    x: Tensor,
    r: Tensor,
    *,
    alpha: float,
    beta: float,
    epsilon: float,
    absorb: bool,
) -> Tensor:
    q = x[:, None] * w
    positive = _shared(q.clamp(min=0), b.clamp(min=0) * absorb, r, epsilon)
    negative = _shared(q.clamp(max=0), b.clamp(max=0) * absorb, r, epsilon)
    return alpha * positive - beta * negative


def w_squared_rule(w: Tensor, b: Tensor, x: Tensor, r: Tensor, *, epsilon: float) -> Tensor:
    return _shared(w**2, torch.zeros_like(b), r, epsilon)


def flat_rule(w: Tensor, b: Tensor, x: Tensor, r: Tensor, *, epsilon: float) -> Tensor:
    return _shared((w != 0).to(w), torch.zeros_like(b), r, epsilon)


def z_box_rule(
    w: Tensor, b: Tensor, x: Tensor, r: Tensor, low: Tensor, high: Tensor, *, epsilon: float
) -> Tensor:
    q = x[:, None] * w - low[:, None] * w.clamp(min=0) - high[:, None] * w.clamp(max=0)
    return _shared(q, torch.zeros_like(b), r, epsilon)


def z_plus_with_fallback(w: Tensor, b: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """z+ without bias or epsilon; outputs without positive contributions share among the negative ones.

    What has no contribution at all goes to all contributions that any output shares among, by size.
    """
    q = x[:, None] * w
    out = torch.zeros_like(x)
    used = torch.zeros_like(q)
    orphaned = 0.0
    for j in range(len(r)):
        positive, negative = q[:, j].clamp(min=0), q[:, j].clamp(max=0)
        if positive.sum() > 0:
            used[:, j] = positive
        elif negative.sum() < 0:
            used[:, j] = -negative
        else:
            orphaned += r[j]
            continue
        out += used[:, j] / used[:, j].sum() * r[j]
    return out + used.sum(1) / used.sum() * orphaned
