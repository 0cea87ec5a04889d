"""Whose names the columns of a model's answer have: the only way from a name to a column and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from torch import Tensor, strided

from ...arguments import brief
from ...data.labels_file import read_labels
from ...errors import ArgumentTypeError, ModelError
from ...names import Spellings, as_number

LabelsLike = Iterable[object] | Mapping[int, str] | Mapping[str, str]
_ACCEPTED = "give a list with a name for each column, in order, or {0: 'name', 1: ...}"


class ClassNames(tuple[str, ...]):
    """A name for each column of a model's answer, in order; `of` makes them from whatever says them.

    A text is a name first: the whole of one as it is written, else whatever its case, else one of its comma-separated
    synonyms. A whole number that is no name is the column, unless all names are numbers.

    Example:
        >>> names = seewhy.targets.ClassNames.of(["tabby, tabby cat", "tiger cat"])
        >>> names.column("Tabby"), names.column("1"), names.label(5)
        (0, 1, 'class 5')
    """

    @classmethod
    def of(cls, given: object) -> Self | None:
        """The names in a sequence, an array or a mapping: from columns (`id2label`, with text for numbers too), or to.

        Numbers become text. None, and what is empty, are no names.

        Raises:
            ArgumentTypeError: it has no order (a set), is one text, or holds what is no name.
            ModelError: a mapping leaves a column out.
        """
        if given is None or isinstance(given, cls):
            return given
        if isinstance(given, Mapping):
            return cls.of(_in_order(given))
        listed = _listed_values(given)
        if isinstance(listed, str | bytes | set | frozenset) or not isinstance(listed, Iterable):
            raise ArgumentTypeError(
                f"labels is a {type(given).__name__}, {brief(given)}; {_ACCEPTED}"
            )
        names = cls(_name_at(item, place) for place, item in enumerate(listed))
        return names or None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The names in a file, as `read_labels` reads it; an empty line of a text is a class without one.

        Raises:
            InputError: it cannot be read.
        """
        return cls.of(read_labels(path))

    def label(self, column: int) -> str:
        """The name of a column, or "class 281" where it has none."""
        return (self[column] if 0 <= column < len(self) else "") or f"class {column}"

    def columns(self, name: str) -> list[int]:
        """The columns that have this name: one where it says which, several, or none."""
        return self._spellings.columns(name)

    def column(self, name: str, *, asked: str = "target") -> int:
        """The column that a text names, or the number it is.

        Raises:
            TargetError: no class or several have this name.
        """
        return self._spellings.column(name, asked=asked)

    def check_width(self, columns: int) -> None:
        """Says that there are more names than columns, or fewer: those of a background class, or of another model.

        Raises:
            ModelError: there are.
        """
        if len(self) == columns:
            return
        one = (
            "; a single column has one name, of what a high score speaks for"
            if columns == 1
            else ""
        )
        raise ModelError(
            f"labels has {len(self)} names, the model gives {columns} columns{one}; give labels= with a name for each "
            "column, in order, or labels=[] for none"
        )

    def check_output(self, output: object) -> None:
        """The same of a model's answer, where that has a column for each class: (N,), (N, K) or (N, K, H, W)."""
        if isinstance(output, Tensor) and output.ndim in (1, 2, 4):
            self.check_width(output.shape[1] if output.ndim > 1 else 1)

    @cached_property
    def _spellings(self) -> Spellings:
        return Spellings(self)


def column_of(name: int | str, names: ClassNames | None) -> int | str:
    """The column of a class; a name stays one where the model has none."""
    if isinstance(name, int):
        return name
    if names is not None:
        return names.column(name)
    number = as_number(name)
    return name if number is None else number


def _listed_values(given: object) -> object:
    """What an array or a tensor holds; None for a tensor that holds nothing here."""
    if isinstance(given, Tensor) and (given.is_meta or given.layout is not strided):
        return None
    if isinstance(given, np.ndarray | Tensor):
        return given.tolist()
    return given


def _in_order(given: Mapping[object, object]) -> list[object]:
    """The values of a mapping from columns, or the keys of one to columns, as torchvision's `class_to_idx` is."""
    named: dict[int, object] = {}
    for key, value in _from_columns(given):
        column = _column_in(key)
        if column in named:
            raise ModelError(
                f"labels has column {column} twice, {named[column]!r} and {value!r}; {_ACCEPTED}"
            )
        named[column] = value
    hole = next((column for column in range(len(named)) if column not in named), None)
    if hole is not None:
        raise ModelError(
            f"labels names {len(named)} columns, up to {max(named)}, and leaves out column {hole}; give labels= with a "
            f"name for each of 0 to {max(named)}"
        )
    return [named[column] for column in range(len(named))]


def _from_columns(given: Mapping[object, object]) -> Iterable[tuple[object, object]]:
    """(column, name) of a mapping either way."""
    for key, value in given.items():
        is_name = isinstance(key, str) and as_number(key) is None
        if not is_name or type(value) is not int:
            return given.items()
    return [(column, name) for name, column in given.items()]


def _column_in(key: object) -> int:
    number = None
    if isinstance(key, str):
        number = as_number(key)
    elif isinstance(key, int | np.integer) and not isinstance(key, bool):
        number = int(key)
    if number is None:
        raise ModelError(f"labels has the key {key!r}, which is no column; {_ACCEPTED}")
    return number


def _name_at(item: object, place: int) -> str:
    value = item.tolist() if isinstance(item, np.generic | Tensor) else item
    if not isinstance(value, str | int | float):
        raise ArgumentTypeError(f"labels[{place}] is {brief(item)}, which is no name; {_ACCEPTED}")
    return str(value)
