"""Where a module's weights are when it runs, and in which precision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn


def place_of_weights(module: nn.Module) -> tuple[torch.device, torch.dtype] | None:
    """The device and the type of what a module reckons with; None for one without weights.

    Weights that wait on the meta device for a hook to bring them, as accelerate's do, are where that hook says, or
    where other tensors of the module are, or on the CPU.
    """
    weight = next(_floating_ones(module.parameters()), None)
    if weight is None:
        return None
    return (_brought_to(module) if weight.is_meta else weight.device), weight.dtype


def _brought_to(module: nn.Module) -> torch.device:
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for each in (hook, *getattr(hook, "hooks", ())):
            device = getattr(each, "execution_device", None)
            if device is not None:
                return torch.device(device)
    tensors = _floating_ones(chain(module.parameters(), module.buffers()))
    return next((tensor.device for tensor in tensors if not tensor.is_meta), torch.device("cpu"))


def _floating_ones(tensors: Iterator[Tensor]) -> Iterator[Tensor]:
    return (tensor for tensor in tensors if tensor.is_floating_point())


def is_without_data(module: nn.Module) -> bool:
    """Whether weights of a module wait on the meta device."""
    return any(tensor.is_meta for tensor in chain(module.parameters(), module.buffers()))


def weights_digest(module: nn.Module) -> str:
    """32 hexadecimal digits of all weights and statistics of a module, and what they are called, bit by bit."""
    made = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor) and not tensor.is_meta:
            made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            made.update(
                tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
    return made.hexdigest()
