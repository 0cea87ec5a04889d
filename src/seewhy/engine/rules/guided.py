"""Rules for rectifiers: what Guided Backpropagation and Deconvnet change on the way back.

The rules act on operations as they are called, whatever module, function or method called them, in place or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

RectifierRule = Literal["gradient", "guided", "deconvnet"]

# smooth rectifiers too: a network of GELU or SiLU has no other gate, and guided backpropagation of it would
# silently be the plain gradient
_ALWAYS: frozenset[Callable[..., Any]] = frozenset(
    {
        *(F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6),
        *(F.leaky_relu, F.leaky_relu_, F.rrelu, F.rrelu_, F.prelu, torch.prelu, Tensor.prelu),
        *(F.elu, F.elu_, F.celu, F.celu_, torch.celu, torch.celu_, F.selu, F.selu_, torch.selu, torch.selu_),
        *(F.gelu, F.silu, F.mish, F.hardswish, F.softplus, F.threshold, torch.threshold),
    }
)
# their derivative is 0 or 1
_STEPS = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6})
# these are rectifiers where their lower bound is zero: operation -> (position, name, default) of that bound
_IF_CUT_AT_ZERO: dict[Callable[..., Any], tuple[int, str, float | None]] = {
    **dict.fromkeys((F.hardtanh, F.hardtanh_), (1, "min_val", -1.0)),
    **dict.fromkeys((torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_), (1, "min", None)),
    **dict.fromkeys((torch.clip, torch.clip_, Tensor.clip, Tensor.clip_), (1, "min", None)),
    **dict.fromkeys((torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_), (1, "min", None)),
}


def is_rectifier(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is of a ReLU, ReLU6, clamp from zero, or of a smooth relative such as GELU or SiLU."""
    if func in _ALWAYS:
        return True
    if func not in _IF_CUT_AT_ZERO:
        return False
    position, name, default = _IF_CUT_AT_ZERO[func]
    bound = args[position] if len(args) > position else kwargs.get(name, default)
    return isinstance(bound, int | float) and bound == 0


class Rectifiers(TorchFunctionMode):
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

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not is_rectifier(func, args, kwargs):
            return func(*args, **kwargs)
        self.met += 1
        if self.rule == "deconvnet":
            rest = {name: value for name, value in kwargs.items() if name != "input"}
            return _PositiveSignal.apply(args[0] if args else kwargs["input"], func, args[1:], rest)
        x = args[0] if args else kwargs["input"]
        if x._is_view() and x.requires_grad and torch.is_grad_enabled():
            return self._on_view(x, func, args[1:], kwargs)
        y = func(*args, **kwargs)
        if y.requires_grad and (func in _STEPS or func in _IF_CUT_AT_ZERO):
            y.grad_fn.register_hook(self._positive_after)
        elif y.requires_grad:
            y.register_hook(self._positive)
        return y

    def _on_view(self, x: Tensor, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        """Of a part of a tensor changed in place the way back leads through the whole, past a hook on the part."""
        copy = x.clone()
        y: Tensor = func(copy, *args, **{name: value for name, value in kwargs.items() if name != "input"})
        y.register_hook(self._positive)  # type: ignore[no-untyped-call]
        return x.copy_(y) if y is copy else y

    def _positive(self, g: Tensor | None) -> Tensor | None:
        return g.clamp(min=0) if self.rule == "guided" and g is not None else None

    def _positive_after(self, made: tuple[Tensor | None, ...], given: Any) -> tuple[Tensor | None, ...] | None:
        """The same behind a derivative of 0 or 1: on the gradient just made, which needs no copy."""
        if self.rule != "guided" or made[0] is None:
            return None
        return made[0].clamp_(min=0), *made[1:]


class _PositiveSignal(torch.autograd.Function):
    """An operation whose way back is g -> max(g, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        y: Tensor = func(x, *args, **kwargs)
        if y is x:
            ctx.mark_dirty(x)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g.clamp(min=0), None, None, None
