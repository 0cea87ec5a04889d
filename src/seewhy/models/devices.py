"""Devices that are here."""

from __future__ import annotations

import torch

from ..errors import InputError
from ..names import check_device

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "npu")


def usable_device(name: str) -> str:
    """The device, if it can be used here.

    Raises:
        InputError: it cannot; the message is one line.
    """
    check_device(name, DEVICES)
    reason = _why_not(name)
    if reason is not None:
        raise InputError(f"device {name!r} cannot be used: {reason}; 'cpu' always can")
    return name


def _why_not(name: str) -> str | None:
    """In a few words; None where the device works."""
    kind, _, number = name.partition(":")
    count = _count_of(kind)
    if count == 0:
        return f"this torch ({torch.__version__}) finds no {kind} here"
    if count is not None and number and int(number) >= count:
        return (
            f"here are {kind}:0 to {kind}:{count - 1}" if count > 1 else f"here is {kind}:0 alone"
        )
    try:
        torch.zeros(1, device=name).item()  # the meta device has no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        if str(error).startswith("Expected one of"):
            return f"this torch ({torch.__version__}) knows no {kind} devices"
        return str(error).splitlines()[0].partition(". ")[0]
    return None


def _count_of(kind: str) -> int | None:
    """How many devices of a kind torch finds; None where it does not count them."""
    count = None if kind == "cpu" else getattr(getattr(torch, kind, None), "device_count", None)
    return None if count is None else int(count())
