"""How relevance passes operations that are not linear maps with weights: the autograd functions of the rules."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .propagation import Context, stabilized

_EPSILON = 1e-9
Axes = int | tuple[int, ...]


class _CountsFactors(Context, Protocol):
    factors: int


class _KnowsAxes(Context, Protocol):
    dims: Axes


def passed_on(x: Tensor, y: Tensor) -> Tensor:
    """y = f(x), place by place: relevance of y is relevance of x."""
    out: Tensor = _PassedOn.apply(x, y)
    return out


def shared(product: Tensor, factors: int) -> Tensor:
    """A product of n factors: each has an n-th of the relevance (AttnLRP, Achtibat et al., ICML 2024)."""
    out: Tensor = _Shared.apply(product, factors)
    return out


def valued(parts: Tensor, value: Tensor) -> Tensor:
    """The model's own value, with the way back of the same value worked out from its parts."""
    out: Tensor = _Valued.apply(parts, value)
    return out


def normed(parts: Tensor, x: Tensor, value: Tensor, bias: Tensor, dims: Axes) -> Tensor:
    """A norm or sum whose bias keeps nothing: its share is spread over `dims` of the input x by magnitude."""
    out: Tensor = _Normed.apply(parts, x, value, bias, dims)
    return out


def centered_and_scaled(
    x: Tensor, shape: tuple[int, ...], weight: Tensor | None, epsilon: float
) -> Tensor:
    """A layer norm's way back as far as its mean goes; its deviation is a constant. The value is x's, and not meant."""
    out: Tensor = _CenteredAndScaled.apply(x, shape, weight, epsilon)
    return out


class _KnowsNorm(Context, Protocol):
    shape: tuple[int, ...]
    weight: Tensor | None
    epsilon: float


class _CenteredAndScaled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _KnowsNorm,
        x: Tensor,
        shape: tuple[int, ...],
        weight: Tensor | None,
        epsilon: float,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.shape, ctx.epsilon = shape, epsilon
        ctx.weight = None if weight is None else weight.detach()
        return x.detach()

    @staticmethod
    def backward(ctx: _KnowsNorm, g: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        scale = torch.native_layer_norm(x, ctx.shape, None, None, ctx.epsilon)[2]
        g = g * scale if ctx.weight is None else g * ctx.weight * scale
        dims = tuple(range(-len(ctx.shape), 0))
        return g - g.mean(dims, keepdim=True), None, None, None


class _PassedOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return y.detach()

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        return g * y / stabilized(x, _EPSILON), None


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _CountsFactors, product: Tensor, factors: int) -> Tensor:
        ctx.factors = factors
        return product.detach()

    @staticmethod
    def backward(ctx: _CountsFactors, g: Tensor) -> tuple[Tensor, None]:
        return g / ctx.factors, None


class _Valued(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, parts: Tensor, value: Tensor) -> Tensor:
        return value.detach()

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> tuple[Tensor, None]:
        return g, None


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _KnowsAxes, parts: Tensor, x: Tensor, value: Tensor, bias: Tensor, dims: Axes
    ) -> Tensor:
        ctx.save_for_backward(x, bias)
        ctx.dims = dims
        return value.detach()

    @staticmethod
    def backward(ctx: _KnowsAxes, g: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, bias = ctx.saved_tensors
        kept = (g * bias).sum(ctx.dims, keepdim=True)
        magnitude = x.abs().sum(ctx.dims, keepdim=True)
        return g, x.sign() * (kept / magnitude.clamp(min=_EPSILON)), None, None, None
