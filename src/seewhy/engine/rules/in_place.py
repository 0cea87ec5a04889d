"""Operations in place, made out of place: what they would overwrite may be needed on the way back.

The result then stands for the overwritten tensor wherever the model uses that again, and for its views.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .notes import Notes

Index = Any  # whatever a tensor may be indexed with


def set_item(x: Tensor, index: Index, value: Tensor | float) -> Tensor:
    new: Tensor = x.clone()
    new[index] = value
    return new


def copied(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    new: Tensor = source.to(x).expand_as(x).clone()
    return new


def filled(x: Tensor, value: Tensor | float = 0) -> Tensor:
    new: Tensor = torch.zeros_like(x) + value
    return new


LINEAR = frozenset({set_item, copied, filled})
_TWINS: dict[Callable[..., object], Callable[..., Tensor]] = {
    Tensor.__setitem__: set_item,
    Tensor.copy_: copied,
    Tensor.zero_: filled,
    Tensor.fill_: filled,
}


@cache
def twin(func: Callable[..., Tensor]) -> Callable[..., Tensor] | None:
    """The function that does out of place what this one does in place; None where this one is not in place."""
    name = getattr(func, "__name__", "")
    if func in _TWINS:
        return _TWINS[func]
    if name in ("__iadd__", "__isub__", "__imul__", "__itruediv__"):
        return cast(Callable[..., Tensor], getattr(Tensor, name.replace("__i", "__", 1)))
    if not name.endswith("_") or name.endswith("__") or func is Tensor.requires_grad_:
        return None
    for place in (torch, Tensor, F, torch._C._nn):
        if getattr(place, name, None) is func and hasattr(place, name[:-1]):
            return cast(Callable[..., Tensor], getattr(place, name[:-1]))
    return lambda x, *args, **kwargs: func(x.clone(), *args, **kwargs)


def supersede(old: Tensor, new: Tensor, notes: Notes) -> bool:
    """From now on the new tensor stands for the old one, and for its part of what the old one is a view of.

    False where it cannot: the tensor behind the view has gaps or another order in memory.
    """
    if new is old:
        return True
    notes.supersede(old, lambda: new)
    base = old._base
    if base is None:
        return True
    shape, before, places = base.shape, current(base, notes), _places_in_base(old, base)

    def changed() -> Tensor:
        return (
            before.reshape(-1).scatter(0, places.reshape(-1), new.reshape(-1)).view(shape).clone()
        )

    notes.supersede(base, changed)
    return base.is_contiguous() and notes.live(before)


def _places_in_base(view: Tensor, base: Tensor) -> Tensor:
    """Where in the flat base the elements of a view are."""
    flat = torch.arange(base.numel(), device=base.device)
    return flat.as_strided(
        view.size(), view.stride(), view.storage_offset() - base.storage_offset()
    )


def current(x: Tensor, notes: Notes) -> Tensor:
    """What stands for the tensor now."""
    standing = notes.now(x)
    if standing is not None:
        new = _noted_like(x, standing(), notes)
        notes.supersede(x, lambda: new)
        return current(new, notes)
    base = x._base
    if base is None or notes.now(base) is None:
        return x
    whole = current(base, notes)
    return (
        x if whole is base else _noted_like(x, whole.reshape(-1)[_places_in_base(x, base)], notes)
    )


def _noted_like(old: Tensor, new: Tensor, notes: Notes) -> Tensor:
    if notes.live(new):
        return new
    return notes.tag(new, depth=notes.depth(old) or 0)
