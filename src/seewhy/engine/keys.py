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

_PLAIN = frozenset({bool, int, float, str, bytes, type(None)})
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
    if type(value) in _PLAIN:
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


class _Structure:
    """The parts of a module and their settings, for comparing; equal only as long as these very parts live."""

    def __init__(self, settings: list[Any], parts: list[nn.Module]) -> None:
        self._settings = tuple(settings)
        self._refer = [weakref.ref(part) for part in parts]
        self._hash = hash(self._settings)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Structure)
            and self._settings == other._settings
            and all(refer() is not None for known in (self, other) for refer in known._refer)
        )


def structure_key(module: nn.Module) -> Hashable:
    """A module's parts, by identity, and the plain settings of each: other after one was exchanged, added or set."""
    parts = _parts(module)
    settings: list[Any] = []
    for part in parts:
        settings.append(id(part))
        settings += part._modules.keys()
        for name, value in vars(part).items():  # a hot loop: a model may have thousands
            kind = type(value)
            plain = kind in _PLAIN or (kind is tuple and _PLAIN.issuperset(map(type, value)))
            if plain and name != "training":
                settings += (name, value)
    return _Structure(settings, parts)


def weights_key(module: nn.Module) -> Hashable:
    """Which parameters a module has, and how often each was written to."""
    every = [p for part in _parts(module) for p in part._parameters.values() if p is not None]
    return tuple((id(p), 0 if p.is_inference() else p._version) for p in every)


def _parts(module: nn.Module) -> list[nn.Module]:
    """A module and all that is in it, each once; several times as fast as `modules()`."""
    parts, seen = [module], {id(module)}
    for part in parts:
        for child in part._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                parts.append(child)
    return parts


class Remembered(Generic[T]):
    """The latest answers about each of several modules; they go with the module."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, T]] = weakref.WeakKeyDictionary()

    def get(self, module: nn.Module, key: Hashable, make: Callable[[], T]) -> T:
        """The answer of that key, made where there is none."""
        known = self._of.setdefault(module, {})
        found = known.get(key)
        if found is None:
            found = make()
            while len(known) >= _KEPT:
                known.pop(next(iter(known)), None)
            known[key] = found
        return found
