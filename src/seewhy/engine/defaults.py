"""The caller's default device: a model runs under it, and what is reckoned around the model does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_of_the_caller: ContextVar[torch.device | None] = ContextVar("of_the_caller", default=None)


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Within it new tensors are made on the CPU unless they say where, whatever `torch.set_default_device` has set."""
    device = torch.empty(0).device  # torch 2.6 cannot tell once the default was taken back
    if device.type == "cpu":
        yield
        return
    token = _of_the_caller.set(device)
    try:
        with torch.device("cpu"):
            yield
    finally:
        _of_the_caller.reset(token)


@contextmanager
def as_the_caller() -> Iterator[None]:
    """Within it new tensors are made where the caller has them made: models are written for that."""
    device = _of_the_caller.get()
    if device is None:
        yield
        return
    with torch.device(device):
        yield
