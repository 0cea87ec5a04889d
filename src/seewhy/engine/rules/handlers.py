"""What becomes of each kind of operation under relevance rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from . import operations as ops
from .joined import JoinedKind
from .linear import convolution, dense, merged
from .mode import NONE, Mode
from .norms import normed_with_bias
from .notes import Source, replaced, tensors
from .operations import Argument, Arguments, Function, Options
from .passing import passed_on, shared, valued

Called = tuple[Function, Arguments, Options]
Handler = Callable[[Mode, Function, Arguments, Options], object]
T = TypeVar("T")


def detached(values: T) -> T:
    return replaced(values, Tensor.detach)


def transparent(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> object:
    """Operations whose derivative carries relevance as it is, and those that nobody knows."""
    notes = mode.notes
    out = func(*args, **kwargs)
    values = (*args, *kwargs.values())
    made = list(tensors((out,)))
    if ops.keeps_sign(func, args, kwargs) and all(map(notes.is_non_negative, tensors(values))):
        for y in made:
            notes.tag(y, non_negative=True)
    elif func not in ops.TRANSPARENT and any(y.requires_grad for y in made):
        mode.note(func)
    if ops.joins_constants(func, values, all_live=all(map(notes.live, tensors(values)))):
        _keep_joined(mode, out, func, args, kwargs)
    if func in ops.FLATTEN and args[1:] == (0, 1):
        _keep_source_of_tokens(mode, args[0], out)
    return out


def _keep_joined(mode: Mode, out: Tensor, func: Function, args: Arguments, kwargs: Options) -> None:
    """Accounts for constants that a call puts beside what comes from the image."""
    live, kind = mode.notes.live, mode.joined.kind

    def without(*others: JoinedKind) -> Tensor:
        def is_left_out(x: Tensor) -> bool:
            if live(x):
                return True
            return x.is_floating_point() and kind(x) in others

        return _without_some(is_left_out, func, args, kwargs)

    alone = without()
    parts: dict[JoinedKind, Tensor] = {}
    for x in tensors((*args, *kwargs.values())):
        found = None if live(x) else kind(x)
        if found is not None and found not in parts:
            parts[found] = alone - without(found)
    mode.keep("join", out, alone, parts=parts)


def _without_some(
    is_left_out: Callable[[Tensor], bool], func: Function, args: Arguments, kwargs: Options
) -> Tensor:
    """What a call gives with zeros in place of some tensors."""
    given: Tensor
    with torch.no_grad():
        few, named = replaced(
            (args, kwargs),
            lambda x: torch.zeros_like(x) if is_left_out(x) else x,
        )
        given = func(*few, **named)
    return given


def _keep_source_of_tokens(mode: Mode, x: Tensor, tokens: Tensor) -> None:
    """So that BatchNorm over tokens still finds the linear map."""
    notes = mode.notes
    made = notes.source(x)
    if made is None or made.kind != "linear":
        return
    read = notes.tag(made.x.flatten(0, 1), depth=notes.depth(made.x))
    notes.tag(tokens, source=replace(made, x=read))


def convolve(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> object:
    notes = mode.notes
    x, linear, weight, depthwise = convolution(func, args, kwargs)
    # kernels come from the image, or there is one without a batch
    if not notes.live(x) or x.ndim != weight.ndim:
        mode.note(func)
        return func(*args, **kwargs)
    with torch.no_grad():
        z = func(*args, **kwargs)
    y = mode.ruled(z, x, lambda: linear, "conv", depthwise, weight)
    transposed = ops.CONVOLUTIONS[func][1]
    return notes.tag(y, source=Source(x, linear, 1 if transposed else 0, "conv", depthwise, weight))


def dense_layer(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> object:
    notes = mode.notes
    x, linear, weight = dense(args, kwargs)
    if not notes.live(x):
        mode.note(func)
        return func(*args, **kwargs)
    with torch.no_grad():
        z = func(*args, **kwargs)
    y = mode.ruled(z, x, lambda: linear, "linear", False, weight)
    return notes.tag(y, source=Source(x, linear, 0, "linear", False, weight))


def batch_norm(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> object:
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
        # without the input, which is needed no more
        norm = {name: value for name, value in given.items() if name != "input"}
        # on the way back, when it is used
        whole = partial(merged, made.linear, norm, made.channel, y.ndim, made.kind)
        return mode.ruled(y, made.x, whole, made.kind, made.depthwise, made.weight)
    with torch.no_grad():
        scale = torch.rsqrt(given["running_var"] + given.get("eps", 1e-5))
        scale = scale if given.get("weight") is None else scale * given["weight"]
        shape = (-1, *[1] * (x.ndim - 2))
        bias = -given["running_mean"] * scale
        bias = bias if given.get("bias") is None else bias + given["bias"]
    return normed_with_bias(mode, x * scale.view(shape), x, y, bias.view(shape), 1)


def activation(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Tensor:
    """Place by place, or divided by a statistic: relevance passes as it is."""
    notes = mode.notes
    x = ops.first_argument(args, kwargs)
    if func in ops.RELU:
        return notes.tag(torch.relu(x), non_negative=True)
    with torch.no_grad():
        y = func(*args, **kwargs)
    non_negative = func in ops.NON_NEGATIVE or ops.is_cut_at_zero(func, args, kwargs)
    return notes.tag(passed_on(x, y), non_negative=non_negative)


def gate(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> object:
    """A coefficient where it multiplies; its relevance passes place by place where it does not."""
    notes = mode.notes
    if mode.composite.attention == "attn" and func in ops.SOFTMAX:
        return func(*args, **kwargs)
    x = next(v for v in tensors((*args, *kwargs.values())) if notes.live(v))
    with torch.no_grad():
        y = func(*args, **kwargs)
    if y.shape != x.shape or not y.is_floating_point():
        return notes.tag(y, coefficient=True)
    return notes.tag(passed_on(x, y), coefficient=True, non_negative=func in ops.NON_NEGATIVE)


def statistic(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> object:
    """By what is divided: a constant."""
    return _as_coefficients(mode, func(*detached(args), **detached(kwargs)))


def _as_coefficients(mode: Mode, out: T) -> T:
    for y in tensors((out,)):
        mode.notes.tag(y, coefficient=True)
    return out


def moments(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> tuple[Tensor, Tensor]:
    """The deviation, a constant, and the mean, a linear map."""
    spread, _ = _as_coefficients(mode, func(*detached(args), **detached(kwargs)))
    x, *rest = args if args else (kwargs["input"],)
    dim = rest[0] if rest and not isinstance(rest[0], bool) else kwargs.get("dim")
    keepdim = kwargs.get("keepdim", len(rest) > 2 and rest[2])
    mean = x.mean() if dim is None else x.mean(dim, keepdim=keepdim)
    return spread, mean


def add(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Tensor:
    """Sums need no rule; constants in them keep their share, those that all places have in common are biases."""
    notes = mode.notes
    out: Tensor = func(*args, **kwargs)
    a, b = _operands(func, args, kwargs)
    if _is_lost_statistic(mode, a, b) or _is_lost_statistic(mode, b, a):
        mode.note(func)
    sign = kwargs.get("alpha", 1) * (-1 if func in ops.SUBTRACT else 1)
    if not notes.live(a):
        out = _with_constant(mode, out, b, sign, a)
    if not notes.live(b):
        constant = b * sign
        mode.joined.follow(constant, tensors((b,)))
        out = _with_constant(mode, out, a, 1, constant)
    stays_positive = sign > 0 and all(_is_at_least_zero(mode, v) for v in (a, b))
    return notes.tag(out, non_negative=stays_positive)


def _is_lost_statistic(mode: Mode, one: object, other: object) -> bool:
    """Whether a statistic is added to what carries relevance: it would keep relevance that it has from the image."""
    notes = mode.notes
    if not isinstance(one, Tensor) or not notes.is_coefficient(one) or one.requires_grad:
        return False
    return notes.carrying(other)


def _is_at_least_zero(mode: Mode, value: object) -> bool:
    if isinstance(value, int | float):
        return value >= 0
    return mode.notes.is_non_negative(value)


def _with_constant(
    mode: Mode, out: Tensor, x: Tensor, sign: float, constant: Tensor | float
) -> Tensor:
    """The sum of sign * x and a constant."""
    is_bias = not isinstance(constant, bool) and not mode.notes.is_coefficient(x)
    axis = _channels_of(constant, out) if is_bias else None
    if axis is None or not out.requires_grad:
        mode.keep("add", out, constant, parts=_position_embedding(mode, constant))
        return out
    bias = constant if isinstance(constant, Tensor) else out.new_tensor(constant)
    return normed_with_bias(mode, x * sign if sign != 1 else x, x, out, bias, axis)


def _position_embedding(mode: Mode, constant: Tensor | float) -> Mapping[JoinedKind, Tensor]:
    """What the module adds with a value of its own for each place is one, whatever it is called."""
    if not isinstance(constant, Tensor):
        return NONE
    if constant.numel() == max(constant.shape, default=1):
        return NONE
    return {mode.joined.kind(constant) or "position_embedding": constant}


def _channels_of(constant: Tensor | float, out: Tensor) -> int | None:
    """The axis of channels, if the constant is the same at all places; None if it has values for places or images."""
    shape = constant.shape if isinstance(constant, Tensor) else ()
    usual = (1, out.ndim - 1) if out.ndim > 3 else (out.ndim - 1,)
    varying = _longer_than_one(shape, out.ndim) or [usual[0]]
    # a class token looks like its own bias
    token_alone = out.ndim == 3 and out.shape[1] == 1 < len(shape)
    if out.ndim < 2 or token_alone or len(varying) > 1 or varying[0] not in usual:
        return None
    return varying[0]


def _longer_than_one(shape: Sequence[int], ndim: int) -> list[int]:
    """The axes of a tensor of ndim dimensions along which one that is broadcast to it may vary."""
    return [axis - len(shape) + ndim for axis, size in enumerate(shape) if size > 1]


def _operands(func: Function, args: Arguments, kwargs: Options) -> tuple[Argument, Argument]:
    """The two operands, the left one first."""
    a = ops.first_argument(args, kwargs)
    b = args[1] if len(args) > 1 else kwargs["other"]
    return (b, a) if func in ops.REVERSED else (a, b)


def product(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Tensor:
    """Coefficients are constants; factors that carry relevance share it."""
    notes = mode.notes
    values = (*args, *kwargs.values())
    carriers = [x for x in tensors(values) if notes.carrying(x)]
    plain = [x for x in carriers if not notes.is_coefficient(x)]
    if plain and len(plain) < len(carriers):
        args, kwargs = _with_constant_coefficients(mode, args, kwargs)
        carriers = plain
    out: Tensor = func(*args, **kwargs)
    if len(carriers) > 1 and out.requires_grad:
        out = shared(out, len(carriers))
    return notes.tag(out, non_negative=_none_is_below_zero(mode, values))


def _none_is_below_zero(mode: Mode, values: Sequence[object]) -> bool:
    """Whether that is known of the tensors and numbers among the values."""
    numbers = (v for v in values if isinstance(v, int | float))
    return all(map(mode.notes.is_non_negative, tensors(values))) and all(v >= 0 for v in numbers)


def _with_constant_coefficients(
    mode: Mode, args: Arguments, kwargs: Options
) -> tuple[Arguments, Options]:
    is_coefficient = mode.notes.is_coefficient
    return replaced((args, kwargs), lambda x: x.detach() if is_coefficient(x) else x)


def divide(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Tensor:
    notes = mode.notes
    a, b = _operands(func, args, kwargs)
    if kwargs.get("rounding_mode"):
        mode.note(func)
    out: Tensor
    if not notes.carrying(b):
        out = func(*args, **kwargs)
        by_positive = isinstance(b, int | float) and b > 0
        return notes.tag(out, non_negative=by_positive and notes.is_non_negative(a))
    out = torch.div(a, b.detach())
    if notes.carrying(a):
        return out
    return notes.tag(out, coefficient=True)


def grid_sample(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> object:
    """Linear in the picture; where it is looked at is a coefficient."""
    where = {name: v if name == "input" else detached(v) for name, v in kwargs.items()}
    return func(*args[:1], *detached(args[1:]), **where)


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
    return valued(parts, value)
