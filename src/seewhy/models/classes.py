"""Which of a model's classes stand for those of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..data.dataset import LabelledImages
from ..errors import ModelError
from .model import Model


def class_indices(model: Model, data: LabelledImages, classes: Mapping[str, int] | None = None) -> tuple[int, ...]:
    """The model's class for each of the data's: as given, by name, or by order.

    By order where the model has no names, or as many as the data, most of which agree where they stand.

    Raises:
        ModelError: a class has no counterpart.
    """
    names, known = _plain(data.classes), _plain(model.labels or ())
    by_name = {label: i for i, label in enumerate(known) if known.count(label) == 1}
    by_name |= dict(zip(_plain(list(classes or {})), (classes or {}).values(), strict=True))
    missing = [data.classes[i] for i, name in enumerate(names) if name not in by_name]
    agree = sum(mine == theirs for mine, theirs in zip(names, known, strict=False))
    if missing and classes is None and (not known or (len(known) == len(names) and 2 * agree > len(names))):
        return tuple(range(len(names)))
    if missing:
        also = f" (nor {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise ModelError(
            f"{model.name} has no class {missing[0]!r} of {data.title}{also}; "
            f"give a model of the same classes, or name its class of each: classes={{{missing[0]!r}: 0, ...}}"
        )
    return tuple(by_name[name] for name in names)


def _plain(names: Sequence[str]) -> list[str]:
    """The first of each class's names, for comparing."""
    return [name.partition(",")[0].strip().casefold() for name in names]
