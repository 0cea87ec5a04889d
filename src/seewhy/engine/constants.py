"""Constants on a device, made there once: each copy from the host waits for all that was launched before it."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache

import torch
from torch import Tensor

_KEPT = 256
_indices: OrderedDict[tuple[tuple[int, ...], torch.device], Tensor] = OrderedDict()


def column_indices(columns: tuple[int, ...], device: torch.device) -> Tensor:
    """The columns, one for each image, as indices (N,) on the device."""
    made = _indices.get((columns, device))
    if made is None:
        with torch.inference_mode(False):
            made = torch.tensor(columns, device=device)
        keep_indices(columns, made)
    return made


@lru_cache(_KEPT)
def scalar(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number as a tensor () of this type on the device."""
    with torch.inference_mode(False):
        return torch.full((), value, dtype=dtype, device=device)


def keep_indices(columns: tuple[int, ...], made: Tensor) -> None:
    """Keeps indices that a device has made by itself."""
    if made.is_inference():
        return
    _indices[columns, made.device] = made
    while len(_indices) > _KEPT:
        _indices.popitem(last=False)
