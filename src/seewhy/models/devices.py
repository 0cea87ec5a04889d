"""Devices that are here."""

from __future__ import annotations

import torch

from ..errors import InputError


def usable_device(name: str) -> str:
    """The device, if it can be used here.

    Raises:
        InputError: it cannot; the message is one line.
    """
    try:
        torch.zeros(1, device=name).item()  # the meta device has no numbers
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}; 'cpu' always can") from error
    return name
