"""What layers give: a tensor, or one with others, in whatever it is packed; and how to hear it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import is_dataclass, replace

from torch import Tensor, nn

from .answers import Answer
from .layers import is_sealed

LayerCall = tuple[str, int]  # a module's name, and which of its calls
# told what a call gives; what it returns goes on in its place
Listener = Callable[[LayerCall, nn.Module, object], object]


@contextmanager
def listening(module: nn.Module, told: Listener) -> Iterator[None]:
    """Has each part of a module that can be heard tell what it gives; other threads may run it meanwhile, unheard."""
    owner = threading.get_ident()
    calls = Counter[str]()

    def hook(name: str) -> Callable[[nn.Module, object, object], object]:
        def tell(part: nn.Module, args: object, value: object) -> object:
            if threading.get_ident() != owner:
                return None
            calls[name] += 1
            return told((name, calls[name] - 1), part, value)

        return tell

    with ExitStack() as stack:
        for name, part in module.named_modules():
            if not is_sealed(part):
                stack.callback(part.register_forward_hook(hook(name)).remove)
        yield


def tensors_in(value: object) -> list[Tensor]:
    """The tensors of a layer's output: itself, or those in a tuple, mapping or dataclass."""
    if isinstance(value, Tensor):
        return [value]
    held = value
    if isinstance(value, Mapping):
        held = list(value.values())
    elif is_dataclass(value):
        held = list(vars(value).values())
    if isinstance(held, tuple | list):
        return [v for v in held if isinstance(v, Tensor)]
    return []


def replace_first_tensor(value: Answer, new: Tensor) -> Answer:
    """The same output with the first of its tensors exchanged: that one stands for the layer."""
    if isinstance(value, Tensor):
        return new
    old = tensors_in(value)[0]
    if isinstance(value, Mapping):
        key = _key_of(value, old)
        try:
            return type(value)({**value, key: new})  # type: ignore[call-arg]
        except TypeError:  # transformers' outputs are mappings that take keywords
            return type(value)(**{**value, key: new})
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{_key_of(vars(value), old): new})
    items = [new if v is old else v for v in value]
    return (
        type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    )  # named tuples take arguments


def _key_of(values: Mapping[str, object], tensor: Tensor) -> str:
    return next(key for key, value in values.items() if value is tensor)


def memory_of(tensor: Tensor) -> Hashable:
    """Equal for what are the same numbers, not written to meanwhile; what has no memory of its own is itself alone."""
    try:
        where = tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # under vmap
        where = id(tensor)
    return where, 0 if tensor.is_inference() else tensor._version
