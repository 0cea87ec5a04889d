"""In which precision a model ran, and products of float32 are made: TF32 and the like, where allowed, or float32."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor

_FULL_BITS = 32
_OWNERS = {
    "cpu": ("mkldnn.matmul", "mkldnn.conv"),
    "cuda": ("cuda.matmul", "cudnn.conv"),
}  # of settings


class _Switch(NamedTuple):
    """One of torch's settings, and its value under which products are those of float32."""

    read: Callable[[], object]
    write: Callable[..., object]
    exact: object

    @property
    def is_exact(self) -> bool:
        return self.read() in (self.exact, "none")


def _attribute(owner: object, name: str, exact: object) -> _Switch:
    return _Switch(partial(getattr, owner, name), partial(setattr, owner, name), exact)


def _switches(kind: str) -> list[_Switch]:
    """Those of a kind of device. Since torch 2.9 each has its own, and the older ones cannot be read beside them."""
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        owners = (attrgetter(name)(torch.backends) for name in _OWNERS.get(kind, ()))
        return [_attribute(owner, "fp32_precision", "ieee") for owner in owners]
    products = (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")
    convolutions = [_attribute(torch.backends.cudnn, "allow_tf32", False)]
    return [_Switch(*products), *(convolutions if kind == "cuda" else [])]


def products_are_exact(kind: str) -> bool:
    """Whether products of float32 on this kind of device ("cpu", "cuda") are those of float32."""
    return all(switch.is_exact for switch in _switches(kind))


_lock = threading.Lock()
_asking: dict[str, int] = {}  # kind of device -> how many are within `exact_products`
_before: dict[str, list[object]] = {}


@contextmanager
def exact_products(kind: str) -> Iterator[None]:
    """Within it products of float32 on this kind of device are those of float32, whatever the caller allows.

    The settings are the process's: other threads have it too meanwhile, and the last one out puts them back.
    """
    _enter(kind)
    try:
        yield
    finally:
        _leave(kind)


def _enter(kind: str) -> None:
    with _lock:
        _asking[kind] = _asking.get(kind, 0) + 1
        if _asking[kind] > 1 or products_are_exact(kind):
            return
        switches = _switches(kind)
        _before[kind] = [switch.read() for switch in switches]
        for switch in switches:
            switch.write(switch.exact)


def _leave(kind: str) -> None:
    with _lock:
        _asking[kind] -= 1
        if _asking[kind] or kind not in _before:
            return
        for switch, value in zip(_switches(kind), _before.pop(kind), strict=True):
            switch.write(value)


def half_precision_of(given: Iterable[Tensor]) -> str | None:
    """The least precise type of what a model gave, as "bfloat16"; None where that is float32 or finer."""
    types = {tensor.dtype for tensor in given if tensor.is_floating_point()}
    half = [dtype for dtype in types if torch.finfo(dtype).bits < _FULL_BITS]
    coarsest = max(half, key=lambda dtype: torch.finfo(dtype).eps, default=None)
    return None if coarsest is None else str(coarsest).removeprefix("torch.")
