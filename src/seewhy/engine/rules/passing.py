"""How relevance passes operations that are not linear maps with weights: the autograd functions of the rules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .propagation import stabilized

_EPSILON = 1e-9


class PassedOn(torch.autograd.Function):
    """y = f(x), place by place: relevance of y is relevance of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return y.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return g * y / stabilized(x, _EPSILON), None


class Shared(torch.autograd.Function):
    """A product of n factors: each has an n-th of the relevance (AttnLRP, Achtibat et al., ICML 2024)."""

    @staticmethod
    def forward(ctx: Any, product: Tensor, factors: int) -> Tensor:
        ctx.factors = factors
        return product.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g / ctx.factors, None


class Valued(torch.autograd.Function):
    """The model's own value, with the way back of the same value worked out from its parts."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, value: Tensor) -> Tensor:
        return value.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g, None


class Normed(torch.autograd.Function):
    """A norm or sum whose bias keeps nothing: its share is spread over `dims` of the input by magnitude."""

    @staticmethod
    def forward(
        ctx: Any, parts: Tensor, x: Tensor, value: Tensor, bias: Tensor, dims: Any
    ) -> Tensor:
        ctx.save_for_backward(x, bias)
        ctx.dims = dims
        return value.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, bias = ctx.saved_tensors
        kept = (g * bias).sum(ctx.dims, keepdim=True)
        magnitude = x.abs().sum(ctx.dims, keepdim=True)
        return g, x.sign() * (kept / magnitude.clamp(min=_EPSILON)), None, None, None
