"""What becomes of norms under relevance rules: the mean is a linear map, the deviation a constant."""

from __future__ import annotations

import torch
from torch import Tensor

from . import operations as ops
from .mode import Mode
from .operations import Arguments, Function, Options
from .passing import Axes, centered_and_scaled, normed, valued


def normed_with_bias(
    mode: Mode,
    parts: Tensor,
    x: Tensor,
    y: Tensor,
    bias: Tensor | None,
    dims: Axes,
    *,
    finite: bool = False,
) -> Tensor:
    """The value of a norm, the way back of its parts, and the bias as the composite has it."""
    if bias is not None and mode.composite.norm_bias == "exclude":
        return normed(parts, x, y, bias.detach(), dims)
    out = valued(parts, y)
    if bias is not None:
        mode.keep("norm", out, bias, bias=True, finite=finite)
    return out


def layer_norm(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> object:
    """Layer, group or instance norm: the mean is subtracted, a linear map; the deviation divides as a constant."""
    given = {**dict(zip(ops.LAYER_NORMS[func], args, strict=False)), **kwargs}
    if given.get("running_mean") is not None:
        mode.note(func)
        return func(*args, **kwargs)
    with torch.no_grad():
        y = func(*args, **kwargs)
    if "normalized_shape" in given:
        return _norm_of_tokens(mode, y, given)
    return _norm_of_groups(mode, y, given)


def _norm_of_tokens(mode: Mode, y: Tensor, given: Options) -> Tensor:
    """Each token by itself."""
    x, bias, shape = given["input"], given.get("bias"), tuple(given["normalized_shape"])
    dims: Axes = tuple(range(-len(shape), 0))
    parts = centered_and_scaled(x, shape, given.get("weight"), given.get("eps", 1e-5))
    bias = None if bias is None else bias.view(shape)
    return normed_with_bias(mode, parts, x, y, bias, dims, finite=True)


def _norm_of_groups(mode: Mode, y: Tensor, given: Options) -> Tensor:
    """Each group of channels by itself."""
    x, weight, bias = given["input"], given.get("weight"), given.get("bias")
    parts: Tensor = x.reshape(len(x), given.get("num_groups", x.shape[1]), -1)
    shape = (-1, *[1] * (x.ndim - 2))
    centered = parts - parts.mean(-1, keepdim=True)
    with torch.no_grad():
        scale = torch.rsqrt((centered**2).mean(-1, keepdim=True) + given.get("eps", 1e-5))
        scale = scale.expand_as(centered).reshape(x.shape)
        scale = scale if weight is None else scale * weight.view(shape)
    bias = None if bias is None else bias.view(shape)
    return normed_with_bias(mode, centered.reshape(x.shape) * scale, x, y, bias, 1, finite=True)
