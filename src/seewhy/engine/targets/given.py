"""What people give as targets, as Python's own values: numpy's and torch's numbers, text, and sequences of any kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TypeGuard

from torch import Tensor, strided

from ...arguments import brief
from ...errors import ArgumentTypeError

Single = int | str | Callable[..., Tensor]  # a class, what is written, or a function of the output
_ACCEPTED = (
    "give a class index, a label, 'top1', a callable, or a list, tuple, array or tensor of those"
)


def given_target(given: object, argument: str = "target") -> Single | list[Single]:
    """One target, or a list of one for each image.

    Raises:
        ArgumentTypeError: it is none: a float, a bool, None, bytes, or what has no order, as a set.
    """
    value = _plain_value(given)
    if _is_sequence(value):
        return [_single_target(item, f"{argument}[{i}]") for i, item in enumerate(value)]
    return _single_target(value, argument)


def given_targets(given: object, argument: str = "targets") -> list[Single | list[Single]]:
    """One target or several as a list; each of several may itself be a list of one for each image.

    Raises:
        ArgumentTypeError: one of them is no target, or they have no order.
    """
    value = _plain_value(given)
    unordered = isinstance(value, str | bytes | bytearray | Set | Mapping)
    if callable(value) or unordered or not isinstance(value, Iterable):
        return [_single_target(value, argument)]
    return [given_target(item, f"{argument}[{i}]") for i, item in enumerate(value)]


def given_classes(given: object, argument: str) -> int | str | tuple[int | str, ...]:
    """A class, or one for each image.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = _plain_value(given)
    if _is_sequence(value):
        return tuple(given_class(item, f"{argument}[{i}]") for i, item in enumerate(value))
    return given_class(value, argument)


def _plain_value(given: object) -> object:
    """The value without numpy or torch around it."""
    if isinstance(given, str):
        return str(given)
    listed = getattr(given, "tolist", None)
    if isinstance(given, Tensor) and (given.is_meta or given.layout is not strided):
        return given  # which has no values to list
    if callable(listed) and not isinstance(given, type):
        return listed()
    return given


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes | bytearray)
        and not callable(value)
    )


def _single_target(given: object, argument: str) -> Single:
    value = _plain_value(given)
    if callable(value) and not isinstance(value, type):
        return value
    return given_class(value, argument)


def given_class(given: object, argument: str) -> int | str:
    """A class by its number or its name.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = _plain_value(given)
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _error_of_no_target(given, argument)


def _error_of_no_target(given: object, argument: str) -> ArgumentTypeError:
    shown, way_out = brief(given), _ACCEPTED
    if isinstance(given, type):
        shown, way_out = (
            f"the class {given.__name__}",
            f"give one of its objects, {given.__name__}(...)",
        )
    elif isinstance(given, Set | Mapping):
        way_out = f"a {type(given).__name__} has no order; give a list"
    return ArgumentTypeError(f"{argument}={shown} is no target; {way_out}")
