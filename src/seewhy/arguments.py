"""Arguments against what their annotations say, before anything is done: one line for what cannot be meant."""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
from torch import Tensor, strided

from .errors import ArgumentTypeError, InputError, SeewhyError, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")
Kind = Any  # what an annotation stands for: a class, a union, a literal, ...

_WORDS: dict[Kind, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    Tensor: "a tensor",
    np.ndarray: "an array",
    Callable: "a function",
    Mapping: "a mapping",
    os.PathLike: "a path",
    types.NoneType: "None",
}
_BY_NAME = {"Image": "a picture", "Module": "a module"}  # of classes that are not loaded for this
_SEVERAL = (Iterable, Sequence, list, tuple, set, frozenset)
_READ_ELSEWHERE = frozenset(  # these have readers of their own, which know more of them
    (
        "self",
        "cls",
        "model",
        "module",
        "x",
        "target",
        "targets",
        "labels",
        "output",
        "args",
        "kwargs",
        "inputs",
    )
)
_LONGEST = 80
_LOOKED_AT = 1000  # members of a list


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Has a function refuse arguments that are not of the types which it is annotated with.

    Plain types are checked, and what is in lists of those; a type that is not known here is any object of it. What
    `_READ_ELSEWHERE` names is left to its reader.
    """

    @wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> R:
        check_arguments(function, given, named)
        return function(*given, **named)

    return call


def checked_class(kind: type[R]) -> type[R]:
    """The same of what makes the objects of a class, a dataclass too."""
    made: Kind = kind
    made.__init__ = checked(made.__init__)
    return kind


def check_arguments(
    function: Callable[..., object], given: Sequence[object], named: Mapping[str, object]
) -> None:
    """Says which argument is of a type that the function does not take; what is missing or unknown, Python says.

    Raises:
        ArgumentTypeError: one is, with its value and what is accepted.
        InputError: one is none of the values that it can have.
    """
    signature, kinds = _signature(function)
    try:
        bound = signature.bind_partial(*given, **named).arguments
    except TypeError:  # Python says it better
        return
    for name, value in bound.items():
        if name in kinds and not _is_of(value, kinds[name]):
            raise _refusal(name, value, kinds[name])


def check_like(name: str, value: object, default: object) -> None:
    """Says that a value is of another plain type than its default, or is a container where that is none.

    Raises:
        ArgumentTypeError: it is.
        InputError: it is not a number.
    """
    kind = type(default)
    wrong = kind in _TESTS and default is not None and not _TESTS[kind](value)
    if wrong or (isinstance(default, str) and not isinstance(value, Hashable)):
        raise _refusal(name, value, kind)


def _refusal(name: str, value: object, kind: Kind) -> SeewhyError:
    options = [
        option for part in _parts(kind) if _plain(part) is Literal for option in get_args(part)
    ]
    if type(value) in map(type, options):
        near = did_you_mean(value, options) if isinstance(value, str) else ""
        known = ", ".join(map(repr, options))
        return InputError(f"{name}={brief(value)} is not known{near}; use {known}")
    accepted = " or ".join(dict.fromkeys(_words(kind)))
    if isinstance(value, float) and value != value:  # NaN is not itself
        return InputError(f"{name}=nan is not a number; give {accepted}")
    return ArgumentTypeError(
        f"{name}={brief(value)} is of type {type(value).__name__}; give {accepted}"
    )


def brief(value: object) -> str:
    """A value on one line, short."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
    try:
        shown = " ".join(repr(value).split())
    except Exception:  # what others' objects do when they are looked at is theirs
        shown = f"<{type(value).__name__}>"
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


# ---------------------------------------------------------------- what is wanted


@lru_cache(maxsize=512)  # methods that are made anew each time come here too
def _signature(function: Callable[..., object]) -> tuple[inspect.Signature, dict[str, Kind]]:
    """The signature of a function, and what each of its arguments is to be, where that is known."""
    signature = inspect.signature(function)
    defined = inspect.unwrap(getattr(function, "func", function))  # of a partial its function
    names = getattr(defined, "__globals__", {})
    kinds = {}
    for name, parameter in signature.parameters.items():
        single = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if not single or parameter.annotation is parameter.empty:
            continue
        kind = _resolved(parameter.annotation, names)
        if name not in _READ_ELSEWHERE or _plain(kind) is Literal:
            kinds[name] = kind
    return signature, kinds


def _resolved(annotation: Kind, names: Mapping[str, object]) -> Kind:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(names))
    except NameError:  # imported for the type checker alone
        return Any


def _parts(kind: Kind) -> Sequence[Kind]:
    """The alternatives of a union, or the one kind."""
    return get_args(kind) if _plain(kind) in (Union, types.UnionType) else (kind,)


def _plain(kind: Kind) -> Kind:
    """A kind without what it holds."""
    return types.NoneType if kind is None else get_origin(kind) or kind


# ---------------------------------------------------------------- whether it is that


def _is_of(value: object, kind: Kind) -> bool:
    """Whether a value may be meant by an annotation."""
    return any(_is_one(value, part) for part in _parts(kind))


def _is_one(value: object, kind: Kind) -> bool:
    plain = _plain(kind)
    if plain is Literal:
        return isinstance(value, str | int | None) and value in get_args(kind)
    if plain in _TESTS:
        return _TESTS[plain](value)
    if plain in _SEVERAL:
        return _is_several(value, plain) and _holds(value, get_args(kind))
    unknown = plain is Any or not isinstance(plain, type) or getattr(plain, "_is_protocol", False)
    return unknown or isinstance(value, plain)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    real = isinstance(value, int | float | np.integer | np.floating)
    return real and type(value) is not bool and value == value  # NaN is not itself


def _is_flag(value: object) -> bool:
    return isinstance(value, bool | np.bool_)


_TESTS: dict[Kind, Callable[[object], bool]] = {
    int: _is_whole,
    float: _is_number,
    bool: _is_flag,
    Callable: callable,
    types.NoneType: lambda value: value is None,
}


def _is_several(value: object, kind: Kind) -> bool:
    """Whether a value holds others, in an order where that is wanted."""
    if isinstance(value, str | bytes) or getattr(value, "ndim", 1) == 0:
        return False
    if isinstance(value, Tensor | np.ndarray):
        dense = not isinstance(value, Tensor) or (not value.is_meta and value.layout is strided)
        return kind is not Sequence and dense
    return isinstance(value, Iterable if kind is Iterable else Sequence)


def _holds(value: object, kinds: Sequence[Kind]) -> bool:
    """Whether a list, tuple or array has as many members as are wanted, and the first of them are what is wanted."""
    if not isinstance(value, list | tuple | np.ndarray | Tensor) or not kinds:
        return True
    members: Sequence[object] = value if isinstance(value, list | tuple) else value.tolist()
    fixed = Ellipsis not in kinds and len(kinds) > 1
    if fixed and len(members) != len(kinds):
        return False
    wanted = kinds if fixed else [kinds[0]] * len(members)
    return all(map(_is_of, members[:_LOOKED_AT], wanted))


# ---------------------------------------------------------------- in words


def _words(kind: Kind) -> list[str]:
    """What an annotation accepts, in words."""
    return [word for part in _parts(kind) for word in _words_of_one(part)]


def _words_of_one(kind: Kind) -> list[str]:
    plain = _plain(kind)
    if plain is Literal:
        return [repr(value) for value in get_args(kind)]
    if plain in _SEVERAL:
        return [_several_in_words(get_args(kind))]
    name = getattr(plain, "__name__", str(plain))
    return [
        _WORDS.get(plain) or _BY_NAME.get(name) or f"{'an' if name[0] in 'AEIO' else 'a'} {name}"
    ]


def _several_in_words(kinds: Sequence[Kind]) -> str:
    words = _words(kinds[0]) if kinds else []
    if len(words) != 1:
        return "a list, each " + " or ".join(dict.fromkeys(words)) if words else "several in a list"
    each = f"{_words(kinds[0])[0].removeprefix('a ').removeprefix('an ')}s"
    fixed = Ellipsis not in kinds and len(kinds) > 1
    return f"{len(kinds)} {each}" if fixed else f"a list of {each}"
