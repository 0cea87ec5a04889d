"""Which attributions of an explanation are meant: by method, layer and target, as people write them."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.targets.given import given_class
from ..errors import InputError, TargetError, did_you_mean
from ..maps.attribution import Attribution
from ..names import Spellings, find_name


def chosen(
    attributions: Sequence[Attribution],
    *,
    method: str | None,
    layer: str | None,
    target: int | str | None,
) -> list[Attribution]:
    """Those of a method, a layer and a target; None is any.

    Raises:
        InputError: there is none; the error says what there is.
        TargetError: there is no such target.
    """
    found = list(attributions)
    if method is not None:
        found = _of_method(found, method)
    if layer is not None:
        found = _of_layer(found, layer)
    return found if target is None else _of_target(found, given_class(target, "target"))


def _of_method(attributions: Sequence[Attribution], method: str) -> list[Attribution]:
    titles = {a.method: a.title for a in attributions}
    name = _name_that_is_there("method", method, list(titles), titles)
    return [a for a in attributions if a.method == name]


def _of_layer(attributions: Sequence[Attribution], layer: str) -> list[Attribution]:
    layers = dict.fromkeys(a.layer for a in attributions if a.layer is not None)
    name = _name_that_is_there("layer", layer, list(layers), {})
    return [a for a in attributions if a.layer == name]


def _name_that_is_there(what: str, given: str, names: list[str], titles: dict[str, str]) -> str:
    found = find_name(given, names, titles)
    if found is None:
        there = (
            f"the explanation has {', '.join(names)}"
            if names
            else f"none of these maps has a {what}"
        )
        raise InputError(f"{what}={given!r} is not in it{did_you_mean(given, names)}; {there}")
    return found


def _of_target(attributions: Sequence[Attribution], target: int | str) -> list[Attribution]:
    """Those of a target by its name, its place among the targets, or the label that it is of in some photo."""
    names = list(dict.fromkeys(a.target for a in attributions))
    if isinstance(target, int):
        if not 0 <= target < len(names):
            raise TargetError(
                f"target={target}: the explanation has {len(names)} targets: {', '.join(names)}"
            )
        target = names[target]
    if target in names:
        return [a for a in attributions if a.target == target]
    found = _of_label(attributions, target)
    if not found:
        there = list(dict.fromkeys(label for a in attributions for label in a.labels))
        hint = did_you_mean(target, [*names, *there])
        known = f"its targets: {', '.join(names)}; its labels: {', '.join(there)}"
        raise TargetError(f"target={target!r} is not in the explanation{hint}; {known}")
    return found


def _of_label(attributions: Sequence[Attribution], label: str) -> list[Attribution]:
    """Those that are of a label in some photo."""
    labels = Spellings([each for a in attributions for each in a.labels])
    meant = {labels.labels[place] for place in labels.columns(label)}
    return [a for a in attributions if meant & set(a.labels)]
