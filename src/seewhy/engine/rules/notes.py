"""What is known of tensors on their way forward under relevance rules, kept beside them and only as long as they live.

Nothing is set on a tensor: what hangs on a tensor and leads to one that an autograd node has saved is a cycle through
C++, which nothing collects.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeGuard, TypeVar, cast

from torch import Tensor

from .linear_map import LinearMap

Kind = Literal["conv", "linear"]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Source:
    """The linear map that made a tensor, which a BatchNorm after it merges with."""

    x: Tensor  # what it was given
    linear: LinearMap
    channel: int  # the dimension of the weight's outputs
    kind: Kind
    depthwise: bool
    weight: Tensor


class _Note(weakref.ref[Tensor]):
    """What is known of one tensor."""

    __slots__ = ("coefficient", "depth", "key", "non_negative", "now", "source")

    def __init__(self, x: Tensor, forget: Callable[[_Note], object]) -> None:
        super().__init__(x, forget)  # type: ignore[call-arg]
        self.key = id(x)
        self.depth: int | None = None
        self.non_negative = self.coefficient = False
        self.source: Source | None = None
        self.now: Callable[[], Tensor] | None = None


class Notes:
    """Of each tensor of one forward pass: linear maps since the tap, its sign, whether it only scales, its maker.

    An entry goes when its tensor does, before another tensor can have the same identity.
    """

    def __init__(self) -> None:
        self._notes: dict[int, _Note] = {}
        notes = self._notes
        self._forget = lambda note: notes.pop(note.key, None)

    def clear(self) -> None:
        """Forgets everything."""
        self._notes.clear()

    def _note_of(self, x: Tensor) -> _Note:
        note = self._notes.get(id(x))
        if note is None:
            note = self._notes[id(x)] = _Note(x, self._forget)
        return note

    def tag(
        self,
        x: Tensor,
        *,
        depth: int | None = None,
        non_negative: bool = False,
        coefficient: bool = False,
        source: Source | None = None,
    ) -> Tensor:
        """Adds to what is known of a tensor, and returns it."""
        note = self._note_of(x)
        if depth is not None:
            note.depth = depth
        if source is not None:
            note.source = source
        note.non_negative |= non_negative
        note.coefficient |= coefficient
        return x

    def depth(self, x: object) -> int | None:
        """Linear maps between the earliest tap and the value; None where it does not come from there."""
        note = self._notes.get(id(x))
        return None if note is None else note.depth

    def live(self, x: object) -> TypeGuard[Tensor]:
        """Whether a value comes from the earliest tap, so that it may carry relevance."""
        return self.depth(x) is not None

    def carrying(self, x: object) -> bool:
        """Whether relevance of the value goes back to the earliest tap."""
        return self.live(x) and x.requires_grad

    def is_non_negative(self, x: object) -> bool:
        note = self._notes.get(id(x))
        return note is not None and note.non_negative

    def is_coefficient(self, x: object) -> bool:
        note = self._notes.get(id(x))
        return note is not None and note.coefficient

    def source(self, x: Tensor) -> Source | None:
        """The linear map that made the tensor, if one did."""
        note = self._notes.get(id(x))
        return None if note is None else note.source

    def supersede(self, old: Tensor, now: Callable[[], Tensor]) -> None:
        """From now on what this gives stands for the tensor."""
        self._note_of(old).now = now

    def now(self, x: Tensor) -> Callable[[], Tensor] | None:
        """Gives what stands for the tensor; None where that is the tensor itself."""
        note = self._notes.get(id(x))
        return None if note is None else note.now


def tensors(values: Iterable[object]) -> Iterator[Tensor]:
    """The tensors among values, those in tuples, lists and mappings too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors(value)
        elif isinstance(value, dict):
            yield from tensors(value.values())


_MAY_HOLD_TENSORS = (Tensor, tuple, list, dict)


def replaced(values: T, new: Callable[[Tensor], Tensor]) -> T:
    """The same values, nested as they were, with every tensor exchanged."""
    return cast(T, _replaced(values, new))


def _replaced(values: object, new: Callable[[Tensor], Tensor]) -> object:
    if isinstance(values, Tensor):
        return new(values)
    if type(values) is tuple or type(values) is list:
        return type(values)(
            [_replaced(v, new) if isinstance(v, _MAY_HOLD_TENSORS) else v for v in values]
        )
    if type(values) is dict:
        return {key: _replaced(v, new) for key, v in values.items()}
    return values
