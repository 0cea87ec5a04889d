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
    try:
        torch.zeros(1, device=name).item()  # the meta device has no numbers
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}; 'cpu' always can"
        ) from error
    return name
