"""Operations in place, made out of place: what they would overwrite may be needed on the way back.

The result then stands for the overwritten tensor wherever the model uses that again, and for its views.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def set_item(x: Tensor, index: Any, value: Any) -> Tensor:
    new: Tensor = x.clone()
    new[index] = value
    return new


def copied(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    new: Tensor = source.to(x).expand_as(x).clone()
    return new


def filled(x: Tensor, value: Any = 0) -> Tensor:
    new: Tensor = torch.zeros_like(x) + value
    return new


LINEAR = frozenset({set_item, copied, filled})
_TWINS: dict[Any, Callable[..., Tensor]] = {
    Tensor.__setitem__: set_item,
    Tensor.copy_: copied,
    Tensor.zero_: filled,
    Tensor.fill_: filled,
}


@cache
def twin(func: Any) -> Callable[..., Any] | None:
    """The function that does out of place what this one does in place; None where this one is not in place."""
    name = getattr(func, "__name__", "")
    if func in _TWINS:
        return _TWINS[func]
    if name in ("__iadd__", "__isub__", "__imul__", "__itruediv__"):
        return getattr(Tensor, name.replace("__i", "__", 1))  # type: ignore[no-any-return]
    if not name.endswith("_") or name.endswith("__") or func is Tensor.requires_grad_:
        return None
    for place in (torch, Tensor, F):
        if getattr(place, name, None) is func and hasattr(place, name[:-1]):
            return getattr(place, name[:-1])  # type: ignore[no-any-return]
    return lambda x, *args, **kwargs: func(x.clone(), *args, **kwargs)


def supersede(old: Tensor, new: Tensor, owner: object) -> bool:
    """From now on the new tensor stands for the old one, and for its part of what the old one is a view of.

    False where it cannot: the tensor behind the view has gaps or another order in memory.
    """
    if new is old:
        return True
    old._seewhy_now = owner, lambda: new  # type: ignore[attr-defined]
    base = old._base
    if base is None:
        return True
    before, places = current(base, owner), _places(old, base)

    def changed() -> Tensor:
        return before.reshape(-1).scatter(0, places.reshape(-1), new.reshape(-1)).view(base.shape).clone()

    base._seewhy_now = owner, changed  # type: ignore[attr-defined]
    return base.is_contiguous() and hasattr(before, "_seewhy_depth")


def _places(view: Tensor, base: Tensor) -> Tensor:
    """Where in the flat base the elements of a view are."""
    flat = torch.arange(base.numel(), device=base.device)
    return flat.as_strided(view.size(), view.stride(), view.storage_offset() - base.storage_offset())


def current(x: Tensor, owner: object) -> Tensor:
    """What stands for the tensor now."""
    standing: tuple[object, Callable[[], Tensor]] | None = getattr(x, "_seewhy_now", None)
    if standing is not None and standing[0] is owner:
        new = _noted(x, standing[1]())
        x._seewhy_now = owner, lambda: new  # type: ignore[attr-defined]
        return current(new, owner)
    base = x._base
    if base is None or not hasattr(base, "_seewhy_now"):
        return x
    whole = current(base, owner)
    return x if whole is base else _noted(x, whole.reshape(-1)[_places(x, base)])


def _noted(old: Tensor, new: Tensor) -> Tensor:
    if not hasattr(new, "_seewhy_depth"):
        new._seewhy_depth = getattr(old, "_seewhy_depth", 0)  # type: ignore[attr-defined]
    return new
