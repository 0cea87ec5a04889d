"""Targets that know what they hold for each image, whose classes they are of, and what to call them."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor, strided

from ...arguments import brief, check_arguments
from ...errors import TargetError
from ..answers import Answer
from .given import given_classes
from .names import ClassNames, column_of
from .numbers import Numbers

CLASSES = ("index", "other")  # the fields of a target that hold classes, by number or by name
Held = Tensor | Sequence[object]  # one value for each image


class Target(ABC):
    """Base of the targets here, frozen dataclasses whose score of an image reads that image's row of the output alone.

    Attributes:
        one_each: the fields that may hold one value for each image, and how many dimensions they then have.
        rowwise: row i of the score needs row i of the output alone.

    Example:
        >>> seewhy.targets.Margin(1, (4, 5)).images
        2
        >>> seewhy.targets.Margin(1, (4, 5)).rows([1])
        Margin(index=1, other=(5,))
    """

    one_each: ClassVar[Mapping[str, int]] = {}
    rowwise: ClassVar[bool] = True
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[object]]]

    def __post_init__(self) -> None:
        fields: Mapping[str, object] = vars(self)
        others = {name: value for name, value in fields.items() if name not in CLASSES}
        check_arguments(type(self).__init__, (), others)  # classes are read by their own
        for name, value in fields.items():
            if isinstance(value, Tensor):
                _check_tensor(name, value)

    @abstractmethod
    def __call__(self, output: Answer) -> Tensor:
        """One score for each image, (N,)."""

    @property
    def images(self) -> int | None:
        """How many images it holds something for; None where all is for every image."""
        return max(map(len, self._held_for_each().values()), default=None)

    def rows(self, images: Sequence[int]) -> Self:
        """The target of these of the images, in this order and as often."""
        held = self._held_for_each()
        cut = {name: _cut_to_images(value, images) for name, value in held.items()}
        return dataclasses.replace(self, **cut) if cut else self

    def settled(self, names: ClassNames | None, numbers: Numbers) -> Self:
        """The same with columns in place of the names of classes; one that has `numbers`, and none, is given these."""
        found: dict[str, object] = columns_of(self, names)
        if "numbers" in self.__dataclass_fields__ and getattr(self, "numbers", None) is None:
            found["numbers"] = numbers
        if found:
            return dataclasses.replace(self, **found)
        return self

    def described(self) -> str:
        """A short name: "margin(281, 285)"."""
        return plain_name(self)

    def in_words(self, image: int, label: Callable[[int], str]) -> str | None:
        """What is explained of one image, "not tabby"; None where its name says it.

        Args:
            image: which of the batch.
            label: the name of a column.
        """
        return None

    def check_images(self, n: int) -> None:
        """Says which field is of another number of images."""
        for name, value in self._held_for_each().items():
            if len(value) != n:
                raise TargetError(
                    f"target {type(self).__name__} has {name} for {len(value)} images, and {n} are explained; give one "
                    "for each image, or one for all"
                )

    def _held_for_each(self) -> dict[str, Held]:
        """What is given for each image; of one alone it is for all."""
        held: dict[str, Held] = {}
        for name, dimensions in self.one_each.items():
            value = getattr(self, name)
            if _dimensions_of(value) != dimensions:
                continue
            if len(value) > 1 or not isinstance(value, Tensor):
                held[name] = value
        return held


def _check_tensor(name: str, value: Tensor) -> None:
    """Says of a field that it holds no numbers to reckon with.

    Raises:
        TargetError: likewise.
    """
    dense = value.layout is strided and not value.is_meta and not value.is_complex()
    if not (dense and value.numel() and value.isfinite().all()):
        raise TargetError(
            f"{name}={brief(value)} cannot be used; give a dense tensor of real, finite numbers, one at least"
        )


def columns_of(target: object, names: ClassNames | None) -> dict[str, object]:
    """Those fields of a target that hold classes, as columns."""
    found: dict[str, object] = {}
    for name in CLASSES:
        value = getattr(target, name, None)
        if not isinstance(value, str | tuple):
            continue
        given = given_classes(value, f"{type(target).__name__}({name}=)")
        if isinstance(given, tuple):
            found[name] = tuple(column_of(each, names) for each in given)
        else:
            found[name] = column_of(given, names)
    return found


def plain_name(target: object) -> str:
    """A dataclass with what it shows of itself, tensors left out: "margin(281, 285)"; else the callable's own name."""
    if not dataclasses.is_dataclass(target) or isinstance(target, type):
        return getattr(target, "__name__", type(target).__name__)
    values = [getattr(target, field.name) for field in dataclasses.fields(target) if field.repr]
    shown = [str(value) for value in values if not isinstance(value, Tensor | None)]
    return f"{form_name(type(target))}({', '.join(shown)})"


def form_name(kind: type) -> str:
    """What a kind of target is called in texts: "rather_than"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def describe(target: object) -> str:
    """A short name for a target: "281", "margin(281, 285)", or the callable's own name.

    Example:
        >>> seewhy.targets.describe(seewhy.targets.Margin(281, 285))
        'margin(281, 285)'
    """
    if isinstance(target, Target):
        return target.described()
    return plain_name(target)


def _dimensions_of(value: object) -> int:
    if isinstance(value, Tensor):
        return value.ndim
    if isinstance(value, tuple | list) and value:
        return 1 + _dimensions_of(value[0])
    return 0


def _cut_to_images(value: Held, images: Sequence[int]) -> Held:
    if isinstance(value, Tensor):
        return value[list(images)]
    return tuple(value[i] for i in images)
