"""Which of a model's classes stand for those of a data set."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..data.dataset import Example, LabeledImages
from ..engine.targets.given import given_classes
from ..engine.targets.names import ClassNames, column_of
from ..errors import InputError, ModelError, did_you_mean
from ..names import as_number
from .model import Model


def class_indices(
    model: Model, data: LabeledImages, classes: Mapping[str, int | str] | None = None
) -> tuple[int, ...]:
    """The model's class for each of the data's: as given, by name, or by the number that is the name.

    Order counts only in lists that are the same but for how some classes are written ("crane", "crane bird"). Of a
    model without names, whole numbers as names are its columns.

    Args:
        model: with or without names.
        data: whose classes are looked for.
        classes: for names of the data's classes the model's, by number or name; the first synonym will do.

    Raises:
        InputError: `classes` has a name that is none of the data's.
        ModelError: a class has no counterpart, or two have the same.
    """
    theirs = ClassNames.of(data.classes) or ClassNames()
    given = _given_columns(theirs, model, data, classes or {})
    found = _by_name(theirs, model.labels) if model.labels else _by_number(theirs)
    found = [given.get(i, column) for i, column in enumerate(found)]
    missing = [theirs[i] for i, column in enumerate(found) if column is None]
    if missing:
        raise _no_counterpart(missing, model, data)
    columns = [column for column in found if column is not None]
    _check_apart(columns, given, theirs, model, data)
    return tuple(columns)


def _check_apart(
    columns: Sequence[int],
    given: Mapping[int, int],
    theirs: ClassNames,
    model: Model,
    data: LabeledImages,
) -> None:
    """That no two classes of the data are one of the model's, but for those of which the user says so."""
    for i, column in enumerate(columns):
        if i not in given and columns.count(column) > 1:
            alike = [theirs[j] for j, other in enumerate(columns) if other == column]
            both = " and ".join(map(repr, alike))
            raise ModelError(
                f"{both} of {data.title} are both class {column} of {model.name}; say with classes= which is"
            )


def _no_counterpart(missing: Sequence[str], model: Model, data: LabeledImages) -> ModelError:
    also = f" (nor {len(missing) - 1} others)" if len(missing) > 1 else ""
    has = "has no names, and so" if model.labels is None else "has"
    return ModelError(
        f"{model.name} {has} no class {missing[0]!r} of {data.title}{also}; "
        f"give a model of the same classes, or name its class of each: classes={{{missing[0]!r}: 0, ...}}"
    )


def in_classes_of(model: Model, data: LabeledImages) -> LabeledImages:
    """The data with the model's classes for labels, found as by `class_indices`; as they are where they have them.

    Raises:
        ModelError: a class has no counterpart, or two have the same.
    """
    numbers = class_indices(model, data)
    if numbers == tuple(range(len(data.classes))) and model.labels in (None, data.classes):
        return data
    theirs = dict(zip(numbers, data.classes, strict=True))
    unnamed = [theirs.get(i, f"class {i}") for i in range(max(numbers, default=-1) + 1)]
    return InClassesOf(data, model.labels or unnamed, numbers)


class InClassesOf(LabeledImages):
    """A data set whose labels are a model's.

    Args:
        data: the data set.
        classes: the model's names.
        numbers: for each class of the data the model's.
    """

    def __init__(self, data: LabeledImages, classes: Sequence[str], numbers: Sequence[int]) -> None:
        self.data, self.numbers = data, numbers
        self.title = data.title
        self.classes = tuple(classes)
        self.multi_label = data.multi_label
        self.names = data.names
        self.skipped = data.skipped
        self.on_error = data.on_error
        self.labels = [self._mapped(labels) for labels in data.labels]

    def _mapped(self, labels: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.numbers[label] for label in labels)

    def __getitem__(self, index: int) -> Example:
        example = self.data[index]
        return replace(example, labels=self._mapped(example.labels))


def _given_columns(
    theirs: ClassNames, model: Model, data: LabeledImages, classes: Mapping[str, int | str]
) -> dict[int, int]:
    """For places among the data's classes the columns that the caller gave."""
    found: dict[int, int] = {}
    for name, said in classes.items():
        one = given_classes(said, f"classes[{name!r}]")
        column = one if isinstance(one, tuple) else column_of(one, model.labels)
        most = len(model.labels) if model.labels else math.inf
        if not isinstance(column, int) or not 0 <= column < most:
            raise InputError(
                f"classes[{name!r}]={said!r} is no class of {model.name}; give its number"
            )
        places = theirs.columns(name)
        if not places:
            raise InputError(
                f"classes has {name!r}, which is no class of {data.title}{did_you_mean(name, theirs)}"
            )
        found.update(dict.fromkeys(places, column))
    return found


def _by_name(theirs: ClassNames, ours: ClassNames) -> list[int | None]:
    """The column of the same name; of the same place where the lists are the same."""
    alike = [_first_synonym(a) == _first_synonym(b) for a, b in zip(theirs, ours, strict=False)]
    in_order = len(theirs) == len(ours) and 2 * sum(alike) > len(alike)
    whole = _columns_of_unique(theirs, ours, _whole_name)
    first = _columns_of_unique(theirs, ours, _first_synonym)
    found: list[int | None] = []
    for i, name in enumerate(theirs):
        column = whole.get(_whole_name(name), first.get(_first_synonym(name)))
        if column is None and in_order and _words_in(name) & _words_in(ours[i]):
            column = i
        found.append(column)
    return found


def _columns_of_unique(
    theirs: ClassNames, ours: ClassNames, short: Callable[[str], str]
) -> dict[str, int]:
    """For what one class of either list is called for short, the model's column."""
    among_theirs, among_ours = (Counter(map(short, names)) for names in (theirs, ours))
    each = ((short(name), column) for column, name in enumerate(ours))
    return {name: column for name, column in each if among_theirs[name] == among_ours[name] == 1}


def _by_number(theirs: ClassNames) -> list[int | None]:
    """The columns that names are, where each is a whole number; none where they may count from 1."""
    numbers = [as_number(name) for name in theirs]
    said = {number for number in numbers if number is not None and number >= 0}
    from_one = said == set(range(1, len(numbers) + 1))
    return [None] * len(numbers) if len(said) < len(numbers) or from_one else [*numbers]


def _whole_name(name: str) -> str:
    return name.strip().casefold()


def _first_synonym(name: str) -> str:
    return _whole_name(name.partition(",")[0])


def _words_in(name: str) -> set[str]:
    return set(re.findall(r"\w+", name.casefold()))
