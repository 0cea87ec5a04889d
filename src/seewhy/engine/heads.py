"""Which linear layer gives a model's answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .call import Call


def linear_heads(call: Call, x: Tensor) -> tuple[list[str], list[str]]:
    """The names of the linear layers whose output is the model's, and of all linear layers, in the order they ran.

    Args:
        call: says which of the model's outputs is meant.
        x: (N, C, H, W), whose first image is looked at.
    """
    ran: list[tuple[str, Tensor]] = []
    parts = {
        name: part for name, part in call.module.named_modules() if isinstance(part, nn.Linear)
    }
    handles = [
        part.register_forward_hook(lambda m, a, out, name=name: ran.append((name, out.clone())))
        for name, part in parts.items()
    ]
    try:
        said = call.rows([0]).answer(x[:1])
    finally:
        for handle in handles:
            handle.remove()
    equal = [name for name, out in ran if isinstance(said, Tensor) and torch.equal(out, said)]
    return equal, [name for name, _ in ran]
