"""Rectifiers told by what they compute: `torch.maximum(x, 0)`, `x * (x > 0)`, `x[x < 0] = 0`, `x * x.sigmoid()`.

A rectifier is y = x h(x), place by place, with a gate h >= 0 that grows with x. Of the calls that may be one, values
of x and y tell: those of two tensors that have nothing to do with each other do not come in order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..graph import name_of
from . import operations as ops
from .in_place import set_item
from .notes import tensors
from .operations import Arguments, Function, Options

_LARGER = ops.named("maximum", "fmax", "max")
_SUMS = ops.ADD | {Tensor.__iadd__}
_PRODUCTS = ops.named("mul", "multiply") | {Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__}
_ITEMS = frozenset({Tensor.__setitem__, set_item}) | ops.named("index_put")
MAY_RECTIFY = _LARGER | _SUMS | _PRODUCTS | _ITEMS | ops.named("where", "masked_fill")
_SAMPLE = 4096  # places that are looked at
_FEWEST = 4  # of either sign: by chance, fewer come in order
_OPENS, _CLOSES, _NEAR = (
    2.5,
    0.25,
    1.5,
)  # against half open; GELU, SiLU, Mish and the like open 2.3 times as far at most
_SLOWER = 0.9


def operands(func: Function, args: Arguments, kwargs: Options) -> list[Tensor]:
    """The tensors that a call of `MAY_RECTIFY` may rectify; none where its shapes or kinds rule that out."""
    if func in _ITEMS:
        if args[0].requires_grad and _is_mask(args[1], args[0]):
            return [args[0]]
        return []
    given = list(tensors((args, kwargs)))
    if not _may_rectify(func, given):
        return []
    return [
        x
        for x in given
        if x.requires_grad and all(o.shape == x.shape or o.numel() == 1 for o in given)
    ]


def _may_rectify(func: Function, given: Sequence[Tensor]) -> bool:
    """False for sums without a magnitude, and for products that are not of two tensors."""
    if func in _SUMS:
        return any(map(_is_magnitude, given))
    return func not in _PRODUCTS or (len(given) > 1 and given[0] is not given[1])


def _is_mask(index: object, x: Tensor) -> bool:
    mask = index[0] if isinstance(index, tuple | list) and len(index) == 1 else index
    return isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == x.shape


def height(func: Function, args: Arguments, kwargs: Options, x: Tensor, y: Tensor) -> float | None:
    """How far the gate opens where y, which the call gave, is x rectified; None where it is not."""
    if func in _LARGER and any(_is_zero(v) for v in (*args[:2], *kwargs.values()) if v is not x):
        return 1.0
    if y.shape == x.shape:
        return gate_height(x.detach(), y.detach())
    return None


def gate_height(x: Tensor, y: Tensor) -> float | None:
    """The limit of h where y = x h(x) with h >= 0 that grows with x and is not the same everywhere; else None."""
    step = -(-x.numel() // _SAMPLE) or 1
    x, y = (v.flatten()[::step].float() for v in (x, y))
    x, y = x[x != 0], y[x != 0]
    below = int((x < 0).sum())
    if min(below, len(x) - below) < _FEWEST:  # of one sign alone many a product grows so
        return None
    order = x.argsort()
    x, h = x[order], (y / x)[order]
    spread = h[-1] - h[0]
    slack = 1e-2 * spread  # where x is small, the division tells little
    if not ((h.diff() >= -slack).all() & (h[0] >= -slack) & (spread > 1e-3 * h[-1])):
        return None
    if h[-1] <= 1 + 1e-3:
        return 1.0
    if h[-1] - h[below] <= slack:  # a step
        return float(h[-1])
    at_zero = h[x.abs().argmin()]  # smooth ones are half open there
    return (
        float(2 * at_zero.round(decimals=1))
        if _is_smooth_gate(x, h, below, float(at_zero))
        else None
    )


def _is_smooth_gate(x: Tensor, h: Tensor, below: int, half: float) -> bool:
    """Whether h closes below zero, or opens ever more slowly above, as far as x goes; what just grows does not."""
    halfway = (below + len(x) - 1) // 2  # in number, of what is above zero
    slows = (h[-1] - half) / x[-1] <= _SLOWER * (h[halfway] - half) / x[halfway]
    closes, is_near = h[0] <= _CLOSES * half, h[-1] <= _NEAR * half
    return bool(h[-1] <= _OPENS * half and (slows or closes or is_near))


def _is_magnitude(x: Tensor) -> bool:
    return x.grad_fn is not None and name_of(x.grad_fn) == "AbsBackward0"


def _is_zero(value: object) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and not value.count_nonzero()
    return type(value) in (int, float) and value == 0
