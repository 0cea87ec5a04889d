"""A `Model` as the engine takes it: how it is called, and what its classes are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ..engine.answers import OutputLike
from ..engine.call import Call, as_call, with_inputs
from ..engine.targets.names import ClassNames
from .load import load_model
from .model import Model, own_names, wrap

CallableModel = Model | nn.Module | Call | Callable[..., Any]


def call_of(
    model: CallableModel,
    *,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
    output: OutputLike | None = None,
) -> Call:
    """How a model is called: as it says itself, with what its user gives beside it.

    Args:
        model: a `Model`, a module, any callable, or a call.
        args: further inputs, as they are.
        kwargs: further inputs by name, as they are.
        inputs: further inputs with a row for each image.
        output: which of the model's outputs is meant; its own `output` unless given.
    """
    return with_inputs(_own_call(model), args, kwargs, inputs, output)


def _own_call(model: CallableModel) -> Call:
    if not isinstance(model, Model):
        return as_call(model)
    bounds = model.preprocess.bounds if model.preprocess else None
    own = Call(model.module, bounds=bounds, gives=model.gives, multi_label=model.multi_label)
    return own if model.output is None else replace(own, output=model.output)


def model_and_call(
    model: CallableModel | str,
    *,
    pretrained: bool = True,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
    output: OutputLike | None = None,
) -> tuple[Model, Call]:
    """The `Model` of what a user gives, a spec for `load_model` too, and how it is called; the rest as in `call_of`."""
    if isinstance(model, str):
        model = load_model(model, pretrained=pretrained)
    if not isinstance(model, Call):
        model = wrap(model)
    call = call_of(model, args=args, kwargs=kwargs, inputs=inputs, output=output)
    if isinstance(model, Call):
        name = type(call.module).__name__
        model = Model(
            call.module, name, output=call.output, gives=call.gives, multi_label=call.multi_label
        )
    return model, call


def labels_of(model: CallableModel) -> ClassNames | None:
    """A name for each class, where the model has them or says them of itself."""
    if isinstance(model, Model):
        return model.labels
    return ClassNames.of(own_names(model.module if isinstance(model, Call) else model))


def wrapped(model: CallableModel) -> Model | Call:
    """The model as a `Model`, or the call as it is: each has a `module`, which a changed copy can replace."""
    return model if isinstance(model, Call) else wrap(model)
