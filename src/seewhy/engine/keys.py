"""What things are remembered by: keys that are equal only where the answer is the same.

Plain values count by value, tensors by type, shape and bytes, functions by their code and by what it refers to, all
else by identity. A key keeps nothing alive, and one of something that is gone equals no other.
"""

from __future__ import annotations

import hashlib
import inspect
import weakref
from collections.abc import Callable, Hashable, Mapping
from types import FunctionType, MethodType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, bytes, type(None))
_KEPT = 32  # answers for one model

T = TypeVar("T")


def digest(*parts: Tensor | str) -> str:
    """16 hexadecimal digits of the parts: of a tensor its type, shape and values, bit by bit."""
    made = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            made.update(f"{len(part)}:{part}".encode())
        else:
            made.update(f"{part.dtype}{tuple(part.shape)}".encode())
            made.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


class Identity:
    """Equal to another of the same object, as long as that lives; of what takes no weak reference, for ever."""

    def __init__(self, value: Any) -> None:
        self._hash = id(value)
        try:
            self._refer: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self._refer = lambda: value

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        mine = self._refer()
        return isinstance(other, Identity) and mine is not None and mine is other._refer()


def key_of(value: Any) -> Hashable:
    """A key of anything that a model may be called with, its functions among them."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, Tensor) and not value.is_meta:
        return "tensor", str(value.device), digest(value)
    if isinstance(value, tuple | list | set | frozenset):
        return type(value), tuple(map(key_of, value))
    if isinstance(value, Mapping):
        return type(value), tuple((key_of(name), key_of(held)) for name, held in value.items())
    if isinstance(value, MethodType):
        return key_of(value.__func__), Identity(value.__self__)
    if isinstance(value, FunctionType):
        return _function_key(value)
    return Identity(value)


def _function_key(function: FunctionType) -> Hashable:
    """Equal for functions made anew in each turn of a loop, as lambdas are, if they do the same."""
    try:
        named = inspect.getclosurevars(function)
    except ValueError:  # a cell that is still empty
        return Identity(function)
    held = [value for values in (named.nonlocals, named.globals) for value in values.values()]
    defaults = (function.__defaults__ or (), function.__kwdefaults__ or {})
    # functions that it refers to count by identity, since they may refer to it in turn
    keys = [Identity(value) if isinstance(value, FunctionType) else key_of(value) for value in held]
    return function.__code__, tuple(keys), key_of(defaults)


def structure_key(module: nn.Module) -> Hashable:
    """A module's parts, by identity, and the plain settings of each: other after one was exchanged, added or set."""
    return tuple((name, Identity(part), _settings(part)) for name, part in module.named_modules(remove_duplicate=False))


def _settings(part: nn.Module) -> Hashable:
    return tuple((name, value) for name, value in vars(part).items() if _is_plain(value) and name != "training")


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is tuple and all(type(each) in _PLAIN for each in value))


def weights_key(module: nn.Module) -> Hashable:
    """Which parameters a module has, and how often each was written to."""
    return tuple((id(p), 0 if p.is_inference() else p._version) for p in module.parameters())


class Remembered(Generic[T]):
    """The latest answers about each of several modules; they go with the module."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, T]] = weakref.WeakKeyDictionary()

    def get(self, module: nn.Module, key: Hashable, make: Callable[[], T]) -> T:
        """The answer of that key, made where there is none."""
        known = self._of.setdefault(module, {})
        if key not in known:
            made = make()
            while len(known) >= _KEPT:
                known.pop(next(iter(known)), None)
            known[key] = made
        return known[key]
