"""What things are remembered by: keys that are equal only where the answer is the same.

Plain values count by value, tensors and arrays by their bytes (large ones by identity and by how often they were
written to), functions by their code and by what it refers to, all else by identity. A key keeps nothing alive: one of
something that is gone, or that takes no weak reference, equals no other. What is written past a tensor's counter, into
`.data` or through numpy, is not seen.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .readings import checked_now

_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), type(Ellipsis)})
_MUCH = 2**20  # bytes of a tensor: more are not read
_MANY = 1000  # members of a container
_DEEP = 8  # containers and functions within each other


def digest(*parts: Tensor | str) -> str:
    """16 hexadecimal digits of the parts: of a tensor its type, shape and values, bit by bit."""
    made = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            made.update(
                f"{len(part)}:{part}".encode(errors="surrogatepass")
            )  # a file's name may be no UTF-8
        else:
            made.update(f"{part.dtype}{tuple(part.shape)}".encode())
            made.update(
                part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
    return made.hexdigest()


class Identity:
    """Equal to another of the same object, as long as that lives; of what takes no weak reference, to none."""

    def __init__(self, value: object) -> None:
        self._hash = id(value)
        try:
            self._refer: Callable[[], object] = weakref.ref(value)
        except TypeError:
            self._refer = lambda: None

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        mine = self._refer()
        return isinstance(other, Identity) and mine is not None and mine is other._refer()


def key_of(value: object) -> Hashable:
    """A key of anything that a model may be called with, its functions among them. It never raises."""
    try:
        key = _nested_key(value, 0)
        hash(key)
    except Exception:  # what values do when they are looked at is theirs
        return Identity(value)
    return key


def _nested_key(value: object, depth: int) -> Hashable:
    kind = type(value)
    if kind in _PLAIN or kind is CodeType:
        return kind, value
    if depth > _DEEP:
        return Identity(value)
    if isinstance(value, Tensor):
        return _tensor_key(value)
    if isinstance(value, np.ndarray | np.generic):
        return _array_key(value)
    parts = _members(value)
    if parts is not None:
        return kind, tuple(_nested_key(each, depth + 1) for each in parts)
    return Identity(value), _plain_settings(value)


def _members(value: object) -> list[object] | None:
    """What something is made of, in order; None for what is taken as one."""
    if isinstance(value, FunctionType):
        return _function_members(value)
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if not isinstance(value, tuple | list | set | frozenset | Mapping) or len(value) > _MANY:
        return None
    return (
        [each for pair in value.items() for each in pair]
        if isinstance(value, Mapping)
        else list(value)
    )


def _tensor_key(value: Tensor) -> Hashable:
    small = value.numel() * value.element_size() <= _MUCH
    if (
        type(value) in (Tensor, nn.Parameter)
        and value.layout == torch.strided
        and small
        and not value.is_meta
    ):
        return "tensor", str(value.device), digest(value.resolve_conj().resolve_neg())
    return Identity(value), 0 if value.is_inference() else value._version


def _array_key(value: Any) -> Hashable:
    if value.nbytes <= _MUCH and not value.dtype.hasobject:
        return "array", str(value.dtype), value.shape, value.tobytes()
    return Identity(value)


def _function_members(function: FunctionType) -> list[object]:
    """The same for functions made anew in each turn of a loop, as lambdas are, if they do the same."""
    code, cells = function.__code__, function.__closure__ or ()
    closed = [cell.cell_contents for cell in cells]
    read = {
        name: function.__globals__[name]
        for name in _names_read_by(code)
        if name in function.__globals__
    }
    return [code, closed, read, function.__defaults__, function.__kwdefaults__]


def _names_read_by(code: CodeType) -> Iterator[str]:
    """What a function may read from its module, in the functions within it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from _names_read_by(constant)


def _plain_settings(value: object) -> Hashable:
    """The attributes of an object that are plain values."""
    held = getattr(value, "__dict__", None)
    if not isinstance(held, dict) or isinstance(value, type) or inspect.ismodule(value):
        return ()
    return tuple((name, each) for name, each in held.items() if type(each) in _PLAIN)


_OWN = frozenset(vars(nn.Module()))  # what every module has
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType)
_FEW = 32  # members of a container that is a setting

Setting = tuple[int, str]  # a part's id, and the name of what it has


class Structure:
    """The parts of a module and what they have, for comparing; equal only as long as these very parts live.

    Attributes:
        told: for each setting the part, its name and its value, one after the other.
    """

    def __init__(self, told: list[object], held: list[object]) -> None:
        self.told = tuple(told)
        self._refer = [weakref.ref(each) for each in held]
        self._hash = hash(self.told)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Structure)
            and self.told == other.told
            and all(refer() is not None for known in (self, other) for refer in known._refer)
        )

    def settings(self) -> dict[Setting, object]:
        """Each setting's value."""
        return {
            (part, name): value
            for part, name, value in zip(*(self.told[i::3] for i in range(3)), strict=True)
        }


def structure_key(module: nn.Module, *, weights: bool = False) -> Structure:
    """What a module is made of: other after a part, a setting or a hook was exchanged, added or set.

    Args:
        module: its parts, hooks and settings are looked at.
        weights: also which parameters and buffers it has, and how often each was written to.
    """
    told: list[object] = []
    held: list[object] = []
    others: dict[int, Hashable] = {}  # objects that many parts share are looked at once
    for part in _parts(module):
        held.append(part)
        _add_settings(part, told, others)
        if weights:
            _add_weights(part, told, held)
    changing = _changing.get(module)
    if changing:
        kept = [i for i in range(0, len(told), 3) if (told[i], told[i + 1]) not in changing]
        told = [each for i in kept for each in told[i : i + 3]]
    return Structure(told, held)


def _add_settings(part: nn.Module, told: list[object], others: dict[int, Hashable]) -> None:
    """What a part is and holds; a model may have a thousand, each with thirty attributes, so every look counts."""
    own, children = id(part), part._modules
    told += (
        own,
        "",
        (type(part), *children.keys(), *map(id, children.values())) if children else type(part),
    )
    if part._forward_hooks or part._forward_pre_hooks:
        _add_hooks(part, told)
    for name, value in vars(part).items():
        if name in _OWN:
            continue
        kind = type(value)
        if kind in _PLAIN or (kind is tuple and _PLAIN.issuperset(map(type, value))):
            told += (own, name, value)
        else:
            told += (own, name, _setting_key(value, others))


def _add_hooks(part: nn.Module, told: list[object]) -> None:
    """What others have hung on a part; each hook has a number of its own."""
    for number, hook in (*part._forward_hooks.items(), *part._forward_pre_hooks.items()):
        if not _is_ours(hook):
            told += (id(part), f"hook {number}", number)


def _is_ours(hook: object) -> bool:
    """Whether another thread looks at the module meanwhile: what it hangs on it changes no answer."""
    return str(getattr(hook, "__module__", "")).startswith("seewhy.")


def _setting_key(value: object, others: dict[int, Hashable]) -> Hashable:
    """What counts of an attribute of a module that is no plain value."""
    if isinstance(value, _FUNCTIONS):
        return Identity(value)
    if id(value) not in others:
        members = len(value) if isinstance(value, tuple | list | set | dict) else 0
        others[id(value)] = members if members > _FEW else key_of(value)
    return others[id(value)]


def _add_weights(part: nn.Module, told: list[object], held: list[object]) -> None:
    """Which parameters and buffers a part has, and how often each was written to."""
    for tensors in (part._parameters, part._buffers):
        for name, tensor in tensors.items():
            if tensor is not None:
                held.append(tensor)
                told += (id(part), name, _written_key(tensor))


def _written_key(tensor: Tensor) -> Hashable:
    """Which tensor it is, and how often it was written to."""
    where = tensor.data_ptr() if type(tensor) in (Tensor, nn.Parameter) else 0
    return id(tensor), 0 if tensor.is_inference() else tensor._version, where


def _parts(module: nn.Module) -> list[nn.Module]:
    """A module and all that is in it, each once; several times as fast as `modules()`."""
    parts, seen = [module], {id(module)}
    for part in parts:
        for child in part._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                parts.append(child)
    return parts


# what running a module writes to it, such as a counter: state, and no setting
_changing: weakref.WeakKeyDictionary[nn.Module, frozenset[Setting]] = weakref.WeakKeyDictionary()
_KEPT = 32  # answers for one model

T = TypeVar("T")


class Remembered(Generic[T]):
    """The latest answers about each of several modules; they go with the module."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, T]] = (
            weakref.WeakKeyDictionary()
        )

    def get(
        self, module: nn.Module, asked: Hashable, make: Callable[[], T], *, weights: bool = False
    ) -> T:
        """The answer to what is asked of the module as it is, made where there is none.

        Args:
            module: what is asked about.
            asked: hashable, and equal only for the same question.
            make: runs the module, and returns the answer, which is not None.
            weights: the answer depends on the weights too.
        """
        known = self._of.setdefault(module, {})
        structure = structure_key(module, weights=weights)
        found = known.get((structure, asked))
        if found is None:
            checked_now()
            found = make()
            after = structure_key(module, weights=weights)
            if after.told != structure.told:
                _learn_changing(module, structure, after)
                after = structure_key(module, weights=weights)
            while len(known) >= _KEPT:
                known.pop(next(iter(known)), None)
            known[after, asked] = found
        return found


def _learn_changing(module: nn.Module, before: Structure, after: Structure) -> None:
    """Notes which settings differ after the module has run; parameters are written by somebody else, who may go on."""
    had, has = before.settings(), after.settings()
    written = {place for place in had.keys() | has.keys() if had.get(place) != has.get(place)}
    written -= {(id(part), name) for part in _parts(module) for name in part._parameters.keys()}  # noqa: SIM118 - a script's has no iterator
    _changing[module] = _changing.get(module, frozenset()) | written
