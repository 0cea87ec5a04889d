"""What a layer gives: a tensor, or one with others, in whatever it is packed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a layer's output: itself, or those in a tuple, mapping or dataclass."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    elif is_dataclass(value):
        value = list(vars(value).values())
    return [v for v in value if isinstance(v, Tensor)] if isinstance(value, tuple | list) else []


def replace_first_tensor(value: Any, new: Tensor) -> Any:
    """The same output with the first of its tensors exchanged: that one stands for the layer."""
    if isinstance(value, Tensor):
        return new
    old = tensors_in(value)[0]
    if isinstance(value, Mapping):
        key = next(k for k, v in value.items() if v is old)
        try:
            return type(value)({**value, key: new})  # type: ignore[call-arg]
        except TypeError:  # transformers' outputs are mappings that take keywords
            return type(value)(**{**value, key: new})
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{next(k for k, v in vars(value).items() if v is old): new})
    items = [new if v is old else v for v in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # named tuples take arguments
