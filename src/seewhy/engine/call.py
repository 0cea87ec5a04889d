"""How a model is called: the one object that every room which runs a model takes whole, and the only place that does.

The model is borrowed: its mode is afterwards as it was, also when something raised; threads may share it.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from ..arguments import brief
from ..errors import ArgumentTypeError, InputError, ModelError, SeewhyError
from .answers import Gives, OutputLike, as_adapter, main_output, taken_out
from .black_box import BlackBox
from .defaults import as_the_caller
from .keys import key_of
from .layers import unwrap
from .weights import is_without_data, place_of_weights

Bounds = tuple[
    Tensor, Tensor
]  # the lowest and the highest value of each channel of the input, (C, 1, 1) each

_borrowed: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = WeakKeyDictionary()
_borrowing = threading.Lock()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module in evaluation mode and back, each of its parts as it was; the last of several threads puts it back.

    The flag is set without `Module.eval`, which models override with side effects.
    """
    with _borrowing:
        borrowers, training = _borrowed.get(module, (0, []))
        if not borrowers:
            training = [part for part in module.modules() if getattr(part, "training", False)]
            for part in training:
                part.training = False
        _borrowed[module] = borrowers + 1, training
    try:
        yield
    finally:
        with _borrowing:
            borrowers, training = _borrowed.pop(module)
            if borrowers > 1:
                _borrowed[module] = borrowers - 1, training
            else:
                for part in training:
                    part.training = True


_uncompiled = ExitStack()
_uncompiling = 0


@contextmanager
def uncompiled() -> Iterator[None]:
    """Has parts that `torch.compile` made run as they were written: hooks and rules act on what is called.

    That is torch's setting for all threads; the last of several puts it back.
    """
    global _uncompiling
    with _borrowing:
        if (
            not _uncompiling and "torch._dynamo" in sys.modules
        ):  # nothing is compiled where that was not loaded
            _uncompiled.enter_context(torch.compiler.set_stance("force_eager"))
        _uncompiling += 1
    try:
        yield
    finally:
        with _borrowing:
            _uncompiling -= 1
            if not _uncompiling:
                _uncompiled.close()


def matching_input(module: nn.Module, x: Tensor) -> Tensor:
    """The input as floats on the model's device and in its precision, free of the caller's graph and inference mode."""
    weights = place_of_weights(module)
    x = x.detach()
    if weights is not None:
        x = x.to(*weights)
    elif not x.is_floating_point():
        x = x.float()
    return x.clone() if x.is_inference() else x


_THREE_DIMENSIONS = (
    "a single image is x[None], and a series (N, C, L) goes as pictures of one row, x[:, :, None], into a module that "
    "takes the row out again"
)


def is_volume(x: Tensor) -> bool:
    """Whether a batch is of volumes or videos, (N, C, D, H, W)."""
    return x.ndim == 5


def check_input(x: Tensor) -> None:
    """Says what is wrong with a batch (N, C, H, W), or (N, C, D, H, W), before a model fails on it less clearly."""
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(f"x is a {type(x).__name__}; give a tensor (N, C, H, W)")
    if x.ndim not in (4, 5):
        hint = f"; {_THREE_DIMENSIONS}" if x.ndim == 3 else ""
        if x.ndim == 3 and _channels_last(x):
            hint = "; a single image whose channels come last is x.permute(2, 0, 1)[None]"
        raise InputError(
            f"x has shape {tuple(x.shape)}, not (N, C, H, W), or (N, C, D, H, W) of volumes{hint}"
        )
    _check_numbers(x)


def _check_numbers(x: Tensor) -> None:
    if x.layout is not torch.strided:
        raise InputError(f"x is {x.layout}; give a dense tensor, x.to_dense()")
    if x.is_meta:
        raise InputError(
            "x is on the meta device, which holds no data; make it on another, as torch.device('cpu')"
        )
    if x.is_complex() or x.is_quantized:
        raise InputError(f"x is {x.dtype}; give floats, or whole numbers, which go in as floats")
    if 0 in x.shape:
        raise InputError(
            f"x has shape {tuple(x.shape)}: the batch is empty; give at least one image"
        )
    if not x.isfinite().all():
        bad = [i for i, image in enumerate(x) if not image.isfinite().all()]
        raise InputError(
            f"x has NaN or infinite values in image {', '.join(map(str, bad))}; look at its preprocessing"
        )


def _channels_last(x: Tensor) -> bool:
    """Whether x (..., ?, ?, ?) looks as if its channels came last."""
    return x.shape[-1] in (1, 3, 4) and x.shape[-3] not in (1, 3, 4)


@dataclass(frozen=True, eq=False)
class Call:
    """A model, what goes into it beside the pictures, and which of its outputs is meant.

    ```
    call = Call(net, inputs={"meta": rows}, output=lambda answer: answer["cls"])
    call.run(x)
    ```

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
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
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
            self, inputs={name: _rows(value, images) for name, value in self.inputs.items()}
        )

    def run(self, x: Tensor, *, weights: Mapping[str, Tensor] | None = None) -> Any:
        """Calls the module on x (N, C, H, W), and reads its output.

        Args:
            x: as the module takes it (`matching_input`).
            weights: parameters in place of the module's own, by name.

        Raises:
            InputError: x or a further input does not fit the model.
            ModelError: the model was made under torch.inference_mode.
        """
        said = taken_out(self.output, self._raw(x, weights))
        alone = (
            len(x) == 1 and isinstance(said, Tensor) and not said.ndim
        )  # its dimension of images was squeezed away
        return said[None] if alone else said

    def _raw(self, x: Tensor, weights: Mapping[str, Tensor] | None) -> Any:
        self.check_rows(len(x))
        args = [_ordinary(value) for value in self.args]
        given = {name: _ordinary(value) for name, value in self.kwargs.items()}
        given |= {name: _ordinary(_on_device(value, x)) for name, value in self.inputs.items()}
        x = _rounded(x, self.whole_numbers)
        try:
            with as_the_caller():
                if weights is None:
                    return self.module(x, *args, **given)
                return functional_call(self.module, dict(weights), (x, *args), given)
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            told = self._told(error, x)
            if told is None:
                raise
            raise told from error

    def answer(self, x: Tensor) -> Any:
        """What the model says of x, in evaluation mode and without a graph."""
        with torch.inference_mode(False), torch.no_grad(), evaluating(self.module):
            return self.run(matching_input(self.module, x))

    def _told(self, error: Exception, x: Tensor) -> Exception | None:
        """What is wrong in the caller's words, where the cause is known."""
        reason = str(error).partition("\n")[0]
        if _channels_last(x):
            return InputError(
                f"x has shape {tuple(x.shape)}, and its channels seem to come last: give x.permute(0, 3, 1, 2). The "
                f"model says: {reason}"
            )
        if isinstance(error, SeewhyError):
            return None
        if isinstance(error, TypeError):
            told = self._told_of_arguments(error, reason)
        else:
            told = _told_of_weights(self.module, reason) or self._told_of_picture(error, reason, x)
        return told or self._told_of_whole_numbers(error, reason, x)

    def _told_of_whole_numbers(self, error: Exception, reason: str, x: Tensor) -> InputError | None:
        """That the model takes whole numbers where it was given floats, if that is so."""
        of_types = isinstance(error, TypeError) or any(
            word in reason for word in ("type", "Float", "Byte", "Long")
        )
        if not of_types or not x.is_floating_point() or isinstance(self.module, BlackBox):
            return None
        try:
            with torch.no_grad():
                self.module(_rounded(x, torch.uint8), *self.args, **self.kwargs, **self.inputs)
        except Exception:  # then that was not why
            return None
        return InputError(
            f"the model takes torch.uint8, and no floats ({reason}); give pixel values: a tensor of whole numbers 0 to "
            "255, or for photos a preprocess whose mean is 0 and whose std is 1/255"
        )

    def _told_of_picture(self, error: Exception, reason: str, x: Tensor) -> Exception | None:
        if "numpy() on Tensor that requires grad" in reason:
            return ModelError(
                "the model hands a tensor to numpy, and no gradient passes that; use rise, lime or occlusion, which "
                "need no gradient"
            )
        if reason.startswith(("Guard failed", "Expected input at *args")):
            return InputError(
                f"x of shape {tuple(x.shape)} is not what the model was exported for ({reason}); export it with "
                "dynamic_shapes, which lets images come in any number, or give the nn.Module itself"
            )
        misfit = any(said in reason for said in ("channel", "must match", "mat1 and mat2"))
        if misfit or isinstance(error, AssertionError):
            beside = f" with {', '.join(self.inputs)}" if self.inputs else ""
            return InputError(
                f"x of shape {tuple(x.shape)}{beside} does not fit the model: {reason}"
            )
        return None

    def _told_of_arguments(self, error: TypeError, reason: str) -> Exception | None:
        if "forward() " not in reason or self._began(error):
            return None
        return InputError(
            f"{type(self.module).__name__} cannot be called so: {reason}; give what it takes beside the picture as "
            "inputs= (a row for each image), args= or kwargs="
        )

    def _began(self, error: Exception) -> bool:
        """Whether the module's own forward had begun: then the error is no matter of how it was called."""
        forward = getattr(self.module.forward, "__func__", self.module.forward)
        frames = traceback.walk_tb(error.__traceback__)
        return any(frame.f_code is getattr(forward, "__code__", None) for frame, _ in frames)


def as_call(model: Call | nn.Module | Callable[..., Any]) -> Call:
    """The call of a module without further inputs; a call is returned as it is."""
    return model if isinstance(model, Call) else Call(unwrap(model))


def with_inputs(
    model: Call | nn.Module | Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    output: OutputLike | None = None,
) -> Call:
    """The call of a module with what its users give beside it; what is not given is as in a call that is given."""
    given: dict[str, Any] = {"kwargs": kwargs, "inputs": inputs, "output": output}
    given["args"] = None if isinstance(args, tuple | list) and not args else args
    return replace(
        as_call(model), **{name: value for name, value in given.items() if value is not None}
    )


def _rounded(x: Tensor, whole: torch.dtype | None) -> Tensor:
    """Pictures as whole numbers of a type, for models that take no floats."""
    if whole is None:
        return x
    limits = torch.iinfo(whole)
    return x.detach().double().round().clamp(limits.min, limits.max).to(whole)


def _told_of_weights(module: nn.Module, reason: str) -> ModelError | None:
    """What keeps the tensors of a model from being reckoned with."""
    if any(p.is_inference() for p in module.parameters()):
        return ModelError(
            "the model was made under torch.inference_mode, which rules out gradients"
        )
    if "meta" in reason and is_without_data(module):
        return ModelError(
            "weights of the model are on the meta device, which holds no data, and no hook brings them; load them "
            "first, or move the model with to_empty() and load_state_dict()"
        )
    return _told_of_inference(module) if "nference tensor" in reason else None


def _told_of_inference(module: nn.Module) -> ModelError:
    """What to do where a model keeps a tensor made under inference mode, with its name where it is an attribute."""
    kept = [
        f"{name}.{attribute}".lstrip(".")
        for name, part in module.named_modules()
        for attribute, value in {**part._buffers, **vars(part)}.items()
        if any(isinstance(leaf, Tensor) and leaf.is_inference() for leaf in tree_leaves(value))
    ]
    listed = f" ({', '.join(kept[:3])})" if kept else ""
    return ModelError(
        f"the model keeps a tensor from an earlier call under torch.inference_mode{listed}, which rules out gradients; "
        "clear what it keeps or make the model anew, and predict under torch.no_grad() before it is explained"
    )


def _rows(value: Any, images: Sequence[int]) -> Any:
    if isinstance(value, Tensor):
        return value[torch.as_tensor(images, device=value.device, dtype=torch.long)]
    return (
        value[np.asarray(images, dtype=int)]
        if isinstance(value, np.ndarray)
        else [value[i] for i in images]
    )


def _on_device(value: Any, x: Tensor) -> Any:
    return value.to(x.device) if isinstance(value, Tensor) else value


def _ordinary(value: Any) -> Any:
    """A further input, copied where it was made under inference mode, which rules out gradients."""
    made_so = (
        isinstance(value, Tensor) and value.is_inference() and not torch.is_inference_mode_enabled()
    )
    return value.clone() if made_so else value
