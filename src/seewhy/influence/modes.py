"""Influence takes gradients, whatever the caller has switched off, and adds up in full precision."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from ..arguments import check_arguments
from ..engine.defaults import own_defaults

P = ParamSpec("P")
R = TypeVar("R")


def with_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """A way in: with its arguments checked, with gradients on, and with the caller's autocast for the model alone.

    Tensors of inference mode, which no gradient can use, are copied on entry.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        check_arguments(function, args, kwargs)
        with own_defaults(), torch.inference_mode(False), torch.enable_grad():
            own: Any = [_out_of_inference_mode(value) for value in args]
            named: Any = {key: _out_of_inference_mode(value) for key, value in kwargs.items()}
            return function(*own, **named)

    return wrapped


def _out_of_inference_mode(value: object) -> object:
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if type(value) is tuple:
        return tuple(map(_out_of_inference_mode, value))
    if type(value) is list:
        return list(map(_out_of_inference_mode, value))
    return value


def made_in_inference_mode(module: nn.Module) -> bool:
    """Whether any weight or buffer is a tensor that no gradient can use."""
    return any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers()))


def ordinary(module: nn.Module) -> nn.Module:
    """The module; of one that was made under torch.inference_mode a copy that gradients can use."""
    with torch.inference_mode(False):
        return copy.deepcopy(module) if made_in_inference_mode(module) else module
