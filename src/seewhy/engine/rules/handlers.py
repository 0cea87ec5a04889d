"""What becomes of each kind of operation under relevance rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import operations as ops
from .linear import convolution, dense, merged
from .mode import Mode
from .notes import Source, tensors
from .operations import Arguments, Function, Options
from .passing import Normed, PassedOn, Shared, Valued

Called = tuple[Function, Arguments, Options]
Handler = Callable[[Mode, Function, Arguments, Options], Any]


def replaced(values: Any, new: Callable[[Tensor], Tensor]) -> Any:
    """The same values, nested as they were, with every tensor exchanged."""
    if isinstance(values, Tensor):
        return new(values)
    if type(values) in (tuple, list):
        return type(values)(
            [replaced(v, new) if isinstance(v, Tensor | tuple | list | dict) else v for v in values]
        )
    if type(values) is dict:
        return {key: replaced(v, new) for key, v in values.items()}
    return values


def detached(values: Any) -> Any:
    return replaced(values, Tensor.detach)


def transparent(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    """Operations whose derivative carries relevance as it is, and those that nobody knows."""
    notes = mode.notes
    out = func(*args, **kwargs)
    if ops.keeps_sign(func, args, kwargs) and all(
        map(notes.is_non_negative, tensors((*args, *kwargs.values())))
    ):
        for y in tensors((out,)):
            notes.tag(y, non_negative=True)
    elif func not in ops.TRANSPARENT and any(y.requires_grad for y in tensors((out,))):
        mode.note(func)
    values = (*args, *kwargs.values())
    if ops.joins_constants(func, values, all_live=all(map(notes.live, tensors(values)))):
        with torch.no_grad():  # what is left when nothing comes from the image
            alone = replaced((args, kwargs), lambda x: torch.zeros_like(x) if notes.live(x) else x)
            mode.keep("join", out, func(*alone[0], **alone[1]))
    made = notes.source(args[0]) if func in ops.FLATTEN and args[1:] == (0, 1) else None
    if (
        made is not None and made.kind == "linear"
    ):  # BatchNorm over tokens still finds the linear map
        x = notes.tag(made.x.flatten(0, 1), depth=notes.depth(made.x))
        notes.tag(out, source=replace(made, x=x))
    return out


def convolve(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    notes = mode.notes
    x, linear, weight, depthwise = convolution(func, args, kwargs)
    if (
        not notes.live(x) or x.ndim != weight.ndim
    ):  # kernels come from the image, or there is one without a batch
        mode.note(func)
        return func(*args, **kwargs)
    with torch.no_grad():
        z = func(*args, **kwargs)
    y = mode.ruled(z, x, lambda: linear, "conv", depthwise, weight)
    transposed = ops.CONVOLUTIONS[func][1]
    return notes.tag(y, source=Source(x, linear, 1 if transposed else 0, "conv", depthwise, weight))


def dense_layer(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    notes = mode.notes
    x, linear, weight = dense(args, kwargs)
    if not notes.live(x):
        mode.note(func)
        return func(*args, **kwargs)
    with torch.no_grad():
        z = func(*args, **kwargs)
    y = mode.ruled(z, x, lambda: linear, "linear", False, weight)
    return notes.tag(y, source=Source(x, linear, 0, "linear", False, weight))


def batch_norm(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    """Merged with the linear map before it, where there is one; else an affine map place by place."""
    given = {**dict(zip(ops.BATCH_NORM[func], args, strict=False)), **kwargs}
    x = given["input"]
    if given["running_mean"] is None or given.get("training"):
        mode.note(func)
        return func(*args, **kwargs)
    made = mode.notes.source(x)
    with torch.no_grad():
        y = func(*args, **kwargs)
    if made is not None:
        norm = {
            name: value for name, value in given.items() if name != "input"
        }  # which is needed no more
        whole = partial(
            merged, made.linear, norm, made.channel, y.ndim, made.kind
        )  # on the way back, when it is used
        return mode.ruled(y, made.x, whole, made.kind, made.depthwise, made.weight)
    with torch.no_grad():
        scale = torch.rsqrt(given["running_var"] + given.get("eps", 1e-5))
        scale = scale if given.get("weight") is None else scale * given["weight"]
        shape = (-1, *[1] * (x.ndim - 2))
        bias = -given["running_mean"] * scale
        bias = bias if given.get("bias") is None else bias + given["bias"]
    return _normed(mode, x * scale.view(shape), x, y, bias.view(shape), 1)


def _normed(
    mode: Mode, parts: Tensor, x: Tensor, y: Tensor, bias: Tensor | None, dims: Any
) -> Tensor:
    """The value of a norm, the way back of its parts, and the bias as the composite has it."""
    if bias is not None and mode.composite.norm_bias == "exclude":
        return Normed.apply(parts, x, y, bias.detach(), dims)  # type: ignore[no-any-return]
    out: Tensor = Valued.apply(parts, y)
    if bias is not None:
        mode.keep("norm", out, bias, bias=True)
    return out


def layer_norm(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Tensor:
    """Layer, group or instance norm: the mean is subtracted, a linear map; the deviation divides as a constant."""
    given = {**dict(zip(ops.LAYER_NORMS[func], args, strict=False)), **kwargs}
    x, weight, bias = given["input"], given.get("weight"), given.get("bias")
    if given.get("running_mean") is not None or (
        "eps" not in given and len(ops.LAYER_NORMS[func]) > 5
    ):
        mode.note(func)
        return func(*args, **kwargs)  # type: ignore[no-any-return]
    with torch.no_grad():
        y = func(*args, **kwargs)
    per_token = "normalized_shape" in given
    dims = tuple(range(-len(given["normalized_shape"]), 0)) if per_token else (-1,)
    parts = x if per_token else x.reshape(len(x), given.get("num_groups", x.shape[1]), -1)
    centered = parts - parts.mean(dims, keepdim=True)
    with torch.no_grad():
        scale = torch.rsqrt((centered**2).mean(dims, keepdim=True) + given.get("eps", 1e-5))
        scale = scale.expand_as(centered).reshape(x.shape)
        shape = weight.shape if per_token and weight is not None else (-1, *[1] * (x.ndim - 2))
        scale = scale if weight is None else scale * weight.view(shape)
    bias = (
        None if bias is None else bias.view(bias.shape if per_token else (-1, *[1] * (x.ndim - 2)))
    )
    return _normed(mode, centered.reshape(x.shape) * scale, x, y, bias, dims if per_token else 1)


def activation(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Tensor:
    """Place by place, or divided by a statistic: relevance passes as it is."""
    notes = mode.notes
    x = ops.first_argument(args, kwargs)
    if func in ops.RELU:
        return notes.tag(torch.relu(x), non_negative=True)
    with torch.no_grad():
        y = func(*args, **kwargs)
    non_negative = func in ops.NON_NEGATIVE or ops.is_cut_at_zero(func, args, kwargs)
    return notes.tag(PassedOn.apply(x, y), non_negative=non_negative)


def gate(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    """A coefficient where it multiplies; its relevance passes place by place where it does not."""
    notes = mode.notes
    if mode.composite.attention == "attn" and func in ops.SOFTMAX:
        return func(*args, **kwargs)
    x = next(v for v in tensors((*args, *kwargs.values())) if notes.live(v))
    with torch.no_grad():
        y = func(*args, **kwargs)
    if y.shape != x.shape or not y.is_floating_point():
        return notes.tag(y, coefficient=True)
    return notes.tag(PassedOn.apply(x, y), coefficient=True, non_negative=func in ops.NON_NEGATIVE)


def statistic(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    """By what is divided: a constant."""
    out = func(*detached(args), **detached(kwargs))
    for y in tensors((out,)):
        mode.notes.tag(y, coefficient=True)
    return out


def moments(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    """The deviation, a constant, and the mean, a linear map."""
    spread, _ = statistic(mode, func, args, kwargs)
    x, *rest = args if args else (kwargs["input"],)
    dim = rest[0] if rest and not isinstance(rest[0], bool) else kwargs.get("dim")
    keepdim = kwargs.get("keepdim", len(rest) > 2 and rest[2])
    mean = x.mean() if dim is None else x.mean(dim, keepdim=keepdim)
    return spread, mean


def add(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Tensor:
    """Sums need no rule; constants in them keep their share, those that all places have in common are biases."""
    notes = mode.notes
    out: Tensor = func(*args, **kwargs)
    a, b = _two(func, args, kwargs)
    for one, other in (
        (a, b),
        (b, a),
    ):  # a statistic would keep relevance that it has from the image
        if notes.is_coefficient(one) and not one.requires_grad and notes.carrying(other):
            mode.note(func)
    sign = kwargs.get("alpha", 1) * (-1 if func in ops.SUBTRACT else 1)
    if not notes.live(a):
        out = _with_constant(mode, out, b, sign, a)
    if not notes.live(b):
        out = _with_constant(mode, out, a, 1, b * sign)
    both = sign > 0 and all(
        notes.is_non_negative(v) or (isinstance(v, int | float) and v >= 0) for v in (a, b)
    )
    return notes.tag(out, non_negative=both)


def _with_constant(
    mode: Mode, out: Tensor, x: Tensor, sign: float, constant: Tensor | float
) -> Tensor:
    """The sum of sign * x and a constant."""
    axis = (
        None
        if isinstance(constant, bool) or mode.notes.is_coefficient(x)
        else _channels_of(constant, out)
    )
    if axis is None or not out.requires_grad:
        mode.keep("add", out, constant)
        return out
    bias = constant if isinstance(constant, Tensor) else out.new_tensor(constant)
    return _normed(mode, x * sign if sign != 1 else x, x, out, bias, axis)


def _channels_of(constant: Tensor | float, out: Tensor) -> int | None:
    """The axis of channels, if the constant is the same at all places; None if it has values for places or images."""
    shape = constant.shape if isinstance(constant, Tensor) else ()
    usual = (1, out.ndim - 1) if out.ndim > 3 else (out.ndim - 1,)
    varying = _longer_than_one(shape, out.ndim) or [usual[0]]
    token_alone = out.ndim == 3 and out.shape[1] == 1 < len(
        shape
    )  # a class token looks like its own bias
    return (
        varying[0]
        if out.ndim > 1 and len(varying) == 1 and varying[0] in usual and not token_alone
        else None
    )


def _longer_than_one(shape: Sequence[int], ndim: int) -> list[int]:
    """The axes of a tensor of ndim dimensions along which one that is broadcast to it may vary."""
    return [axis - len(shape) + ndim for axis, size in enumerate(shape) if size > 1]


def _two(func: Function, args: Arguments, kwargs: Options) -> tuple[Any, Any]:
    """The two operands, the left one first."""
    a = ops.first_argument(args, kwargs)
    b = args[1] if len(args) > 1 else kwargs["other"]
    return (b, a) if func in ops.REVERSED else (a, b)


def product(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    """Coefficients are constants; factors that carry relevance share it."""
    notes = mode.notes
    factors = list(tensors((*args, *kwargs.values())))
    carriers = [x for x in factors if notes.carrying(x)]
    plain = [x for x in carriers if not notes.is_coefficient(x)]
    if plain and len(plain) < len(carriers):
        args, kwargs = replaced(
            (args, kwargs), lambda x: x.detach() if notes.is_coefficient(x) else x
        )
        carriers = plain
    out = func(*args, **kwargs)
    if len(carriers) > 1 and out.requires_grad:
        out = Shared.apply(out, len(carriers))
    scalars = [v for v in (*args, *kwargs.values()) if isinstance(v, int | float)]
    return notes.tag(
        out, non_negative=all(map(notes.is_non_negative, factors)) and all(v >= 0 for v in scalars)
    )


def divide(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    notes = mode.notes
    a, b = _two(func, args, kwargs)
    if kwargs.get("rounding_mode"):
        mode.note(func)
    if not notes.carrying(b):
        out = func(*args, **kwargs)
        return notes.tag(
            out, non_negative=notes.is_non_negative(a) and isinstance(b, int | float) and b > 0
        )
    out = torch.div(a, b.detach())
    return out if notes.carrying(a) else notes.tag(out, coefficient=True)


def grid_sample(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    """Linear in the picture; where it is looked at is a coefficient."""
    args, kwargs = (
        (args[0], *detached(args[1:])),
        {k: v if k == "input" else detached(v) for k, v in kwargs.items()},
    )
    return func(*args, **kwargs)


def _addmm(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return input * beta + torch.matmul(a, b) * alpha


def _addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return input + tensor1 * tensor2 * value


def _addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return input + tensor1 / tensor2 * value


def _lerp(input: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    return input * (1 - weight) + end * weight


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b)


WRITTEN_OUT: dict[Function, Callable[..., Tensor]] = {
    **dict.fromkeys(ops.named("addmm", "baddbmm"), _addmm),
    **dict.fromkeys(ops.named("addcmul"), _addcmul),
    **dict.fromkeys(ops.named("addcdiv"), _addcdiv),
    **dict.fromkeys(ops.named("lerp"), _lerp),
    **dict.fromkeys(ops.named("glu"), _glu),
}


def written_out(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Tensor:
    """The model's own value, with the way back through the operation's parts, each under its rule."""
    with torch.no_grad():
        value: Tensor = func(*args, **kwargs)
    with mode:
        parts = WRITTEN_OUT[func](*args, **kwargs)
    return Valued.apply(parts, value)  # type: ignore[no-any-return]
