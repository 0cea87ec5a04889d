"""A `Model` as the engine takes it: its module, its labels and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..engine.call import Call
from ..engine.layers import unwrap
from .model import Model


def unpack(model: Model | nn.Module | Callable[..., Any], call: Call) -> tuple[nn.Module, tuple[str, ...] | None, Call]:
    """The module, the labels and the call of a model or module."""
    if not isinstance(model, Model):
        return unwrap(model), None, call
    bounds = model.preprocess.bounds if model.preprocess else None
    output, several = call.output or model.output, call.multi_label or model.multi_label
    return unwrap(model.module), model.labels, Call(call.args, call.kwargs, output, bounds, several)
