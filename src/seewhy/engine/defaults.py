"""The caller's default device and autocast: a model runs under them, and what is reckoned around the model does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

_CASTING = ("cpu", "cuda", "xpu", "mps")  # kinds of devices that may have autocast


@dataclass(frozen=True)
class _Defaults:
    """Where new tensors are made, and for kinds of devices the type that autocast casts to."""

    device: torch.device = torch.device("cpu")  # noqa: RUF009  a constant
    casts: Mapping[str, torch.dtype] = field(default_factory=dict)


_NONE = _Defaults()
_of_the_caller: ContextVar[_Defaults] = ContextVar("of_the_caller", default=_NONE)


def _casts_here() -> dict[str, torch.dtype]:
    return {
        kind: torch.get_autocast_dtype(kind) for kind in _CASTING if torch.is_autocast_enabled(kind)
    }


@contextmanager
def own_defaults() -> Iterator[None]:
    """Within it new tensors are made on the CPU unless they say where, and nothing is cast, whatever the caller set."""
    device = torch.empty(0).device  # torch 2.6 cannot tell a default that was taken back
    casts = _casts_here()
    if device.type == "cpu" and not casts:
        yield
        return
    outer = _of_the_caller.get()
    of_the_caller = _Defaults(
        outer.device if device.type == "cpu" else device, {**outer.casts, **casts}
    )
    token = _of_the_caller.set(of_the_caller)
    try:
        with ExitStack() as stack:
            if device.type != "cpu":
                stack.enter_context(torch.device("cpu"))
            _cast(stack, dict.fromkeys(casts))
            yield
    finally:
        _of_the_caller.reset(token)


@contextmanager
def as_the_caller() -> Iterator[None]:
    """Within it the caller's defaults hold, as a model is written for them."""
    found = _of_the_caller.get()
    with ExitStack() as stack:
        if found.device.type != "cpu":
            stack.enter_context(torch.device(found.device))
        _cast(stack, found.casts)
        yield


def _cast(stack: ExitStack, types: Mapping[str, torch.dtype | None]) -> None:
    """Has autocast cast to these types, or to none; whether it keeps what it has cast is the caller's."""
    kept = torch.is_autocast_cache_enabled()
    for kind, to in types.items():
        stack.enter_context(torch.autocast(kind, to, enabled=to is not None, cache_enabled=kept))


@contextmanager
def casting(kind: str, to: torch.dtype | None) -> Iterator[None]:
    """Within it a model's products on this kind of device are in this type, or in its own, whatever the caller set."""
    found = _of_the_caller.get()
    token = _of_the_caller.set(
        _Defaults(found.device, {k: v for k, v in found.casts.items() if k != kind})
    )
    try:
        with torch.autocast(kind, to or torch.bfloat16, enabled=to is not None):
            yield
    finally:
        _of_the_caller.reset(token)


def type_that_models_are_cast_to(kind: str) -> torch.dtype | None:
    """What a model's products are in under the autocast that holds for it; None without one."""
    return _casts_here().get(kind) or _of_the_caller.get().casts.get(kind)
