"""What rules make of a model's weights, kept for the ways back of one pass: parts by sign, folded batch norms."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

Made = dict[Hashable, tuple[Tensor, Tensor | None]]  # by name, a weight and a bias


@dataclass(frozen=True, eq=False)
class _Version:
    """What was made of tensors as they were."""

    of: tuple[weakref.ref[Tensor] | None, ...]
    told: Hashable
    made: Made = field(default_factory=dict)

    def is_of(self, tensors: tuple[Tensor | None, ...], told: Hashable) -> bool:
        same = (
            (None if ref is None else ref()) is tensor
            for ref, tensor in zip(self.of, tensors, strict=True)
        )
        return self.told == told and all(same)


_versions: MutableMapping[Tensor, _Version] = WeakIdKeyDictionary()


def made_of_weights(weight: Tensor, *others: Tensor | None, settings: Hashable = ()) -> Made:
    """What was made of a weight and of what goes with it, to be added to; empty after one of them was written to.

    It goes with the weight, and with the pass: what is written past a tensor's counter, into `.data` or through numpy,
    would not be seen by the next (`forget_weights`).
    """
    tensors = (weight, *others)
    if not all(map(_tells_its_version, tensors)):
        return {}
    told = settings, tuple(map(_version_of, tensors))
    known = _versions.get(weight)
    if known is not None and len(known.of) == len(tensors) and known.is_of(tensors, told):
        return known.made
    now = _Version(tuple(None if t is None else weakref.ref(t) for t in tensors), told)
    _versions[weight] = now
    return now.made


def forget_weights() -> None:
    """Has all parts made anew. Where another thread is on its way back, it makes them once more."""
    _versions.clear()


def _tells_its_version(tensor: Tensor | None) -> bool:
    if tensor is None:
        return True
    return type(tensor) in (Tensor, nn.Parameter) and not tensor.is_inference()


def _version_of(tensor: Tensor | None) -> Hashable:
    return None if tensor is None else (tensor._version, tensor.data_ptr())
