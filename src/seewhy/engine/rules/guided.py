"""Rules for rectifiers: what Guided Backpropagation and Deconvnet change on the way back.

The rules act on operations as they are called, whatever module, function or method called them, in place or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from ..graph import between
from . import operations as ops
from .balance import on_the_way_back
from .computed import MAY_RECTIFY, height, operands
from .hidden import SeeingMode, torch_name
from .in_place import twin
from .operations import Arguments, Function, Options

RectifierRule = Literal["gradient", "guided", "deconvnet"]

# smooth rectifiers too: a network of GELU or SiLU has no other gate, and guided backpropagation of it would
# silently be the plain gradient
_ALWAYS = ops.named(
    "relu", "relu6", "leaky_relu", "rrelu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish",
    "softplus", "threshold",
)  # fmt: skip
# their derivative is 0 or 1
_STEPS = ops.named("relu", "relu6")
# these are rectifiers where their lower bound is zero: operation -> (position, name, default) of that bound
_IF_CUT_AT_ZERO: dict[Function, tuple[int, str, float | None]] = {
    **dict.fromkeys(ops.named("hardtanh"), (1, "min_val", -1.0)),
    **dict.fromkeys(ops.named("clamp", "clip", "clamp_min"), (1, "min", None)),
}
# what else may be one, called out of sight
_MAY_BE_ONE = frozenset({
    *("relu", "threshold", "hardtanh", "clamp", "clampmin", "leakyrelu", "rreluwithnoise", "prelukernel", "elu"),
    *("gelu", "silu", "mish", "hardswish", "softplus", "maximum", "fmax", "where", "maskedfill", "indexput"),
    *("mul", "abs"),
})  # fmt: skip


def is_rectifier(func: Function, args: Arguments, kwargs: Options) -> bool:
    """Whether a call is of a ReLU, ReLU6, clamp from zero, or of a smooth relative such as GELU or SiLU."""
    if func in _ALWAYS:
        return True
    if func not in _IF_CUT_AT_ZERO:
        return False
    position, name, default = _IF_CUT_AT_ZERO[func]
    bound = args[position] if len(args) > position else kwargs.get(name, default)
    return isinstance(bound, int | float) and bound == 0


class Rectifiers(SeeingMode):
    """Overrides what rectifiers do to a signal g on its way back; forward values stay as they are.

    - "gradient": nothing, the derivative as it is.
    - "guided": the derivative of g's positive part (Springenberg et al., ICLR 2015 workshop, fig. 1).
    - "deconvnet": g's positive part, wherever the activation was (Zeiler and Fergus, ECCV 2014).

    `rule` may be changed between "gradient" and "guided" from one signal of a trace to the next, so that one forward
    pass answers for both; `met` counts the rectifiers that were called.
    """

    def __init__(self, rule: RectifierRule) -> None:
        super().__init__()
        self.rule: RectifierRule = rule
        self.met = 0
        self._hooks: dict[Node, RemovableHandle] = {}

    def handle(self, func: Function, args: Arguments, kwargs: Options) -> object:
        if func in MAY_RECTIFY:
            return self._by_what_it_computes(func, args, kwargs)
        if not is_rectifier(func, args, kwargs):
            return func(*args, **kwargs)
        self.met += 1
        x = ops.first_argument(args, kwargs)
        rest = {name: value for name, value in kwargs.items() if name != "input"}
        if self.rule == "deconvnet":
            return _PositiveSignal.apply(x, func, args[1:], rest)
        if x._is_view() and x.requires_grad:
            return self._on_view(x, func, args[1:], rest)
        y: Tensor = func(*args, **kwargs)
        if y.requires_grad:
            self._hooks[_maker_of(y)] = self._hook_rule_on(func, y)
        return y

    def end(self) -> None:
        super().end()
        self._hooks.clear()  # a graph lives no longer than its trace

    def concerns(self, node: Node) -> bool:
        name = torch_name(node)
        return name is None or name.lower() in _MAY_BE_ONE

    def rectify(self, node: Node, x: Tensor, y: Tensor, height: float) -> bool:
        def only_positive(
            made: tuple[Tensor | None, ...], given: Sequence[Tensor]
        ) -> tuple[Tensor | None, ...] | None:
            if self.rule != "deconvnet":
                return None
            back = given[0].clamp(min=0) * height
            return tuple(None if g is None else back for g in made)

        node.register_prehook(
            lambda given: (given[0].clamp(min=0),) if self.rule == "guided" else None
        )
        node.register_hook(only_positive)
        self.met += 1
        return True

    def _by_what_it_computes(self, func: Function, args: Arguments, kwargs: Options) -> object:
        """A call that may spell a rectifier: the rule holds if it did."""
        if not operands(func, args, kwargs):
            return func(*args, **kwargs)
        out_of_place = twin(func)
        tried = args if out_of_place is None else (args[0].clone(), *args[1:])
        y: Tensor = (out_of_place or func)(*tried, **kwargs)
        for x in operands(func, tried, kwargs):
            opened = height(func, tried, kwargs, x, y)
            if opened is not None:
                y = self._rectified_under_rule(x, y, opened)
                return y if out_of_place is None else args[0].copy_(y)
        return y if out_of_place is None else func(*args, **kwargs)

    def _rectified_under_rule(self, x: Tensor, y: Tensor, height: float) -> Tensor:
        """y, which is x rectified, under the rule; what rectified inside the gate is a part of it."""
        self._release_between(x, y)
        self.met += 1
        if self.rule == "deconvnet":
            x = x if height == 1 else x * height
            signal: Tensor = _PositiveSignal.apply(x, lambda _: y.detach(), (), {})
            return signal
        self._hooks[_maker_of(y)] = on_the_way_back(y, self._positive_part)
        return y

    def _release_between(self, x: Tensor, y: Tensor) -> None:
        """Takes the rule from the rectifiers between x and y."""
        since = _maker_of(x)._sequence_nr()
        if not any(node._sequence_nr() > since for node in self._hooks):
            return
        for node in between([_maker_of(y)], [_maker_of(x)]):
            if node in self._hooks:
                self._hooks.pop(node).remove()
                self.met -= 1

    def _on_view(self, x: Tensor, func: Function, args: Arguments, kwargs: Options) -> Tensor:
        """Of a part of a tensor changed in place the way back leads through the whole, past a hook on the part."""
        copy = x.clone()
        y: Tensor = func(copy, *args, **kwargs)
        on_the_way_back(y, self._positive_part)
        return x.copy_(y) if y is copy else y

    def _hook_rule_on(self, func: Function, y: Tensor) -> RemovableHandle:
        """The rule for what a rectifier gave."""
        if func in _STEPS or func in _IF_CUT_AT_ZERO:
            return _maker_of(y).register_hook(self._positive_part_after)
        return on_the_way_back(y, self._positive_part)

    def _positive_part(self, g: Tensor) -> Tensor | None:
        return g.clamp(min=0) if self.rule == "guided" else None

    def _positive_part_after(
        self, made: tuple[Tensor | None, ...], given: object
    ) -> tuple[Tensor | None, ...] | None:
        """The same behind a derivative of 0 or 1: on the gradient just made, which needs no copy."""
        if self.rule != "guided" or made[0] is None:
            return None
        return made[0].clamp_(min=0), *made[1:]


def _maker_of(x: Tensor) -> Node:
    assert x.grad_fn is not None  # taps are copies
    return x.grad_fn


class _MarksDirty(Protocol):
    def mark_dirty(self, *tensors: Tensor) -> None: ...


class _PositiveSignal(torch.autograd.Function):
    """An operation whose way back is g -> max(g, 0)."""

    @staticmethod
    def forward(
        ctx: _MarksDirty, x: Tensor, func: Function, args: Arguments, kwargs: Options
    ) -> Tensor:
        y: Tensor = func(x, *args, **kwargs)
        if y is x:
            ctx.mark_dirty(x)
        return y

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[Tensor, None, None, None]:
        return g.clamp(min=0), None, None, None
