"""What an answer depends on, in JSON's types: equal where the same is meant, in every process, and else different."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Set
from types import CellType, CodeType, FunctionType, MethodType

import numpy as np
import torch

from ..engine.keys import digest


def told_value(value: object, within: tuple[int, ...] = ()) -> object:
    """A value in JSON's types: tensors and arrays by their digests, functions and objects by all that they hold.

    Args:
        value: what is told.
        within: the ids of what holds it, so that what holds itself comes to an end.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return digest(value)
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        return digest(f"{array.dtype} {array.shape} {array.tobytes().hex()}")
    if id(value) in within:
        return "itself"
    return _told_holder(value, (*within, id(value)))


def _told_holder(value: object, within: tuple[int, ...]) -> object:
    """What holds others, one by one."""
    if isinstance(value, Mapping):
        pairs = value.items()
        return {str(key): told_value(each, within) for key, each in pairs}
    if isinstance(value, list | tuple):
        return [told_value(each, within) for each in value]
    if isinstance(value, Set):
        told = [told_value(each, within) for each in value]
        return sorted(told, key=repr)
    return _told_object(value, within)


def _told_object(value: object, within: tuple[int, ...]) -> object:
    """A name, and what the object or function holds; what says neither is told by its repr."""
    if isinstance(value, functools.partial):
        return told_value([value.func, value.args, value.keywords], within)
    if isinstance(value, MethodType):
        return told_value([value.__func__, value.__self__], within)
    if isinstance(value, FunctionType):
        return _told_function(value, within)
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "__dict__"):
        return [type(value).__qualname__, told_value(vars(value), within)]
    return repr(value)


def _told_function(function: FunctionType, within: tuple[int, ...]) -> list[object]:
    """Its name, what it does, and what it was given."""
    held: list[object] = [
        function.__defaults__,
        function.__kwdefaults__,
    ]
    for cell in function.__closure__ or ():
        held.append(_held_in(cell))
    does = _told_code(function.__code__)
    name = function.__qualname__
    return [name, does, told_value(held, within)]


def _held_in(cell: CellType) -> object:
    """What a variable of an outer function is, if it is anything yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return "nothing yet"


def _told_code(code: CodeType) -> str:
    """A digest of what code does, and what is defined within it."""
    constants: list[object] = []
    for each in code.co_consts:
        is_code = isinstance(each, CodeType)
        told = _told_code(each) if is_code else told_value(each)
        constants.append(told)
    does = code.co_code.hex()
    return digest(f"{does} {constants} {code.co_names}")
