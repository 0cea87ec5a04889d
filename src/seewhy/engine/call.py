"""How a model is called: the one object that every room which runs a model takes whole, and the only place that does.

What goes in beside the pictures is a user's own: it is handed on, and nothing is asked of it but its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from ..arguments import brief
from ..errors import ArgumentTypeError, InputError
from .answers import Answer, Gives, OutputLike, as_adapter, main_output, taken_out
from .borrowing import evaluating
from .defaults import as_the_caller
from .failures import FailedCall
from .keys import key_of
from .layers import unwrap
from .pictures import matching_input, rounded

# the lowest and the highest value of each channel of the input, (C, 1, 1) each
Bounds = tuple[Tensor, Tensor]
# a further input with a row for each image
Rows = Tensor | NDArray[np.generic] | Sequence[object]
Runnable = nn.Module | Callable[..., object]


@dataclass(frozen=True, eq=False)
class Call:
    """A model, what goes into it beside the pictures, and which of its outputs is meant.

    >>> call = seewhy.Call(net, output=lambda scores: scores[:, :2])
    >>> call.answer(x)
    tensor([[4., 0.]])

    Attributes:
        module: any module, which is taken out of DataParallel, torch.compile and the like; what is no module becomes a
            `BlackBox`.
        args, kwargs: further inputs, which go in as they are.
        inputs: further inputs by name that have a row for each image, tensors or sequences: they are cut with the
            images.
        output: takes what the module returns to what targets read: a function, or the name or number of a part.
        bounds: the range of the input, for rules that need one.
        gives: what the answer's numbers are, where the module does not say it (`seewhy.engine.targets.numbers`).
        multi_label: a picture may show several classes: of logits each has a sigmoid of its own.
        whole_numbers: the type of pictures for a model that takes no floats; what goes in is rounded to it.

    Raises:
        InputError: a name is in `inputs` and in `kwargs`.
        ArgumentTypeError: the module cannot be called, or one of `inputs` has no rows.
    """

    module: nn.Module
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    inputs: Mapping[str, Rows] = field(default_factory=dict)
    output: OutputLike = main_output
    bounds: Bounds | None = None
    gives: Gives | None = None
    multi_label: bool = False
    whole_numbers: torch.dtype | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        own = {"args": tuple(self.args), "kwargs": dict(self.kwargs), "inputs": dict(self.inputs)}
        for name, value in own.items():  # the caller may go on to change theirs
            object.__setattr__(self, name, value)
        object.__setattr__(self, "module", unwrap(self.module))
        self._check_inputs()

    def _check_kinds(self) -> None:
        if not isinstance(self.module, nn.Module) and isinstance(
            getattr(self.module, "module", None), nn.Module
        ):
            kind = type(self.module).__name__
            raise ArgumentTypeError(
                f"module is a {kind}; give its module, {kind}.module, or the {kind} itself to explain"
            )
        if not isinstance(self.args, tuple | list):
            raise ArgumentTypeError(
                f"args is {brief(self.args)}; give a tuple of further inputs: args=(value,)"
            )
        for name in ("kwargs", "inputs"):
            given = getattr(self, name)
            if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
                raise ArgumentTypeError(
                    f"{name} is {brief(given)}; give a mapping of names: {name}={{'name': value}}"
                )
        as_adapter(self.output)

    def _check_inputs(self) -> None:
        for name, value in self.inputs.items():
            if name in self.kwargs:
                raise InputError(f"{name!r} is given in inputs= and in kwargs=; give it once")
            if not isinstance(value, Tensor | np.ndarray | list | tuple) or (
                hasattr(value, "ndim") and not value.ndim
            ):
                raise ArgumentTypeError(
                    f"inputs[{name!r}] is a {type(value).__name__}, which has no row for each image; give a tensor "
                    "or a list, or kwargs= for what goes in as it is"
                )

    @cached_property
    def asked(self) -> Hashable:
        """Equal for calls that ask the same of a model; of `inputs`, which differ by image, only the kind counts."""
        rows = tuple(
            (name, type(v), tuple(getattr(v, "shape", ())[1:])) for name, v in self.inputs.items()
        )
        return key_of(self.args), key_of(self.kwargs), rows, key_of(self.output), self.whole_numbers

    def check_rows(self, n: int) -> None:
        """Says which of `inputs` has not one row for each of n images."""
        for name, value in self.inputs.items():
            if len(value) != n:
                raise InputError(
                    f"inputs[{name!r}] has {len(value)} rows for {n} images; give one for each, or kwargs= for what "
                    "goes in as it is"
                )

    def rows(self, images: Sequence[int]) -> Call:
        """The call for these images of the batch, in this order and as often."""
        if not self.inputs:
            return self
        return replace(
            self,
            inputs={name: _rows_of_images(value, images) for name, value in self.inputs.items()},
        )

    def run(self, x: Tensor, *, weights: Mapping[str, Tensor] | None = None) -> Answer:
        """Calls the module on x (N, C, H, W), and reads its output.

        Args:
            x: as the module takes it (`matching_input`).
            weights: parameters in place of the module's own, by name.

        Raises:
            InputError: x or a further input does not fit the model.
            ModelError: the model was made under torch.inference_mode.
        """
        said = taken_out(self.output, self._raw_answer(x, weights))
        if len(x) == 1 and isinstance(said, Tensor) and not said.ndim:
            return said[None]  # its dimension of images was squeezed away
        return said

    def _raw_answer(self, x: Tensor, weights: Mapping[str, Tensor] | None) -> object:
        self.check_rows(len(x))
        args = [_out_of_inference_mode(value) for value in self.args]
        given = {name: _out_of_inference_mode(value) for name, value in self.kwargs.items()}
        given |= {
            name: _out_of_inference_mode(_on_device(value, x))
            for name, value in self.inputs.items()
        }
        x = rounded(x, self.whole_numbers)
        try:
            with as_the_caller():
                if weights is None:
                    return self.module(x, *args, **given)
                return functional_call(self.module, dict(weights), (x, *args), given)
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            failed = FailedCall(self.module, x, args, given, tuple(self.inputs))
            explained = failed.explained(error)
            if explained is None:
                raise
            raise explained from error

    def answer(self, x: Tensor) -> Answer:
        """What the model says of x, in evaluation mode and without a graph."""
        with torch.inference_mode(False), torch.no_grad(), evaluating(self.module):
            return self.run(matching_input(self.module, x))


def as_call(model: Call | Runnable) -> Call:
    """The call of a module without further inputs; a call is returned as it is."""
    if isinstance(model, Call):
        return model
    return Call(unwrap(model))


def with_inputs(
    model: Call | Runnable,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
    output: OutputLike | None = None,
) -> Call:
    """The call of a module with what its users give beside it; what is not given is as in a call that is given."""
    beside: dict[str, Any] = {"kwargs": kwargs, "inputs": inputs, "output": output}
    beside["args"] = None if isinstance(args, tuple | list) and not args else args
    given = {name: value for name, value in beside.items() if value is not None}
    return replace(as_call(model), **given) if given else as_call(model)


def _rows_of_images(value: Rows, images: Sequence[int]) -> Rows:
    if isinstance(value, Tensor):
        return value[torch.as_tensor(images, device=value.device, dtype=torch.long)]
    if isinstance(value, np.ndarray):
        cut: NDArray[np.generic] = value[np.asarray(images, dtype=int)]
        return cut
    return [value[i] for i in images]


def _on_device(value: object, x: Tensor) -> object:
    if isinstance(value, Tensor):
        return value.to(x.device)
    return value


def _out_of_inference_mode(value: object) -> object:
    """A further input, copied where it was made under inference mode, which rules out gradients."""
    if isinstance(value, Tensor) and value.is_inference() and not torch.is_inference_mode_enabled():
        return value.clone()
    return value
