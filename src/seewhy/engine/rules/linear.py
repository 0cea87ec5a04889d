"""Linear maps as the rules need them: forward with any weight, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .kept_weights import made_of_weights
from .linear_map import LinearMap
from .operations import CONVOLUTIONS, Arguments, Function, Options

_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED_NAMES = (
    "input",
    "weight",
    "bias",
    "stride",
    "padding",
    "output_padding",
    "groups",
    "dilation",
)


Sizes = int | Sequence[int]  # of each dimension, or of all alike


def _for_each_dimension(value: Sizes, n: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values


def _padding_on_both_sides(
    padding: Sizes | Literal["same", "valid"], kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Padding on both sides, and what `same` adds behind where that is uneven: one more than before, as torch does."""
    if padding == "same":
        whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [p // 2 for p in whole], [p % 2 for p in whole]
    none = [0] * len(kernel)
    if isinstance(padding, str):  # "valid"
        return none, none
    return _for_each_dimension(padding, len(kernel)), none


def _widened_behind(x: Tensor, behind: Sequence[int]) -> Tensor:
    """x with zeros behind, or less of it for negative numbers."""
    if any(behind):
        return F.pad(x, [p for each in reversed(behind) for p in (0, each)])
    return x


def convolution(
    func: Function, args: Arguments, kwargs: Options
) -> tuple[Tensor, LinearMap, Tensor, bool]:
    """The input, the map, the weight of a convolution call, and whether it is depthwise."""
    n, transposed = CONVOLUTIONS[func]
    given = {**dict(zip(_TRANSPOSED_NAMES if transposed else _NAMES, args, strict=False)), **kwargs}
    x, weight, bias = given["input"], given["weight"].detach(), given.get("bias")
    stride, dilation = (
        _for_each_dimension(given.get("stride", 1), n),
        _for_each_dimension(given.get("dilation", 1), n),
    )
    groups, extra = given.get("groups", 1), _for_each_dimension(given.get("output_padding", 0), n)
    padding, behind = _padding_on_both_sides(given.get("padding", 0), weight.shape[2:], dilation)
    geometry = (stride, padding, dilation, transposed, extra, groups)

    def apply(x: Tensor, w: Tensor, b: Tensor | None = None, /) -> Tensor:
        y: Tensor = torch.ops.aten.convolution(_widened_behind(x, behind), w, b, *geometry)
        return y

    def pull(s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        wanted = [True, False, False]
        back = torch.ops.aten.convolution_backward(
            s, _widened_behind(x, behind), w, None, *geometry, wanted
        )[0]
        return _widened_behind(back, [-p for p in behind])

    shaped = None if bias is None else bias.detach().view(-1, *[1] * n)
    depthwise = groups > 1 and groups == x.shape[1]
    along = (1, 1) if groups == 1 and not transposed else None
    made = partial(made_of_weights, given["weight"], bias)
    return x, LinearMap(apply, pull, weight, shaped, along, made), given["weight"], depthwise


def dense(args: Arguments, kwargs: Options) -> tuple[Tensor, LinearMap, Tensor]:
    """The input, the map and the weight of a call of `F.linear`."""
    given = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
    bias = given.get("bias")

    def pull(s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return s @ w

    linear = LinearMap(
        F.linear,
        pull,
        given["weight"].detach(),
        None if bias is None else bias.detach(),
        (-1, 1),
        partial(made_of_weights, given["weight"], bias),
    )
    return given["input"], linear, given["weight"]


def merged(linear: LinearMap, norm: Options, channel: int, ndim: int, kind: str) -> LinearMap:
    """A linear map with the BatchNorm after it: w' = w s, b' = (b - mean) s + beta, s = gamma / sqrt(var + eps)."""
    parts = [norm.get(k) for k in ("running_mean", "running_var", "weight", "bias")]
    settings = channel, ndim, kind, norm.get("eps", 1e-5)
    kept = partial(linear.made, *parts, settings=settings)
    if "folded" not in (made := kept()):
        whole = _folded(linear, norm, channel, ndim, kind)
        made["folded"] = whole.weight, whole.bias
    weight, bias = made["folded"]
    return replace(linear, weight=weight, bias=bias, made=kept)


def _folded(linear: LinearMap, norm: Options, channel: int, ndim: int, kind: str) -> LinearMap:
    mean, var, gamma, beta = (
        norm.get(k) for k in ("running_mean", "running_var", "weight", "bias")
    )
    assert mean is not None
    assert var is not None
    scale = torch.rsqrt(var + norm.get("eps", 1e-5))
    scale = scale if gamma is None else scale * gamma.detach()
    shape = (-1, *[1] * (ndim - 2)) if kind == "conv" else (-1,)
    bias = ((0 if linear.bias is None else linear.bias) - mean.view(shape)) * scale.view(shape)
    bias = bias if beta is None else bias + beta.detach().view(shape)
    w = linear.weight
    if channel:  # transposed: (inputs, outputs of a group, ...)
        groups = len(scale) // w.shape[1]
        grouped = w.reshape(groups, -1, *w.shape[1:]) * scale.view(
            groups, 1, -1, *[1] * (w.ndim - 2)
        )
        return replace(linear, weight=grouped.reshape(w.shape), bias=bias)
    return replace(linear, weight=w * scale.view(-1, *[1] * (w.ndim - 1)), bias=bias)
