"""Watches operations that add a bias: FullGrad reads the gradient of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node

from .hidden import SeeingMode, torch_name

_CONVOLUTIONS = frozenset(
    {
        *(F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d),
        *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    }
)
_MAY_ADD_A_BIAS = ("conv", "addmm", "linear", "batchnorm", "layernorm", "groupnorm")


class BiasGradients(SeeingMode):
    """Gives `collect` each operation's bias gradient b * dS/db, before it is summed over places, on the way back.

    The tensors have the shape of the operation's output. A BatchNorm in evaluation mode adds beta - mu gamma / sigma.
    Nothing about the signal changes. For networks that are piecewise linear, x * dS/dx and these add up to the score
    (Srinivas and Fleuret, NeurIPS 2019, proposition 1).
    """

    def __init__(self, collect: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.collect = collect

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        y = func(*args, **kwargs)
        bias = _bias(func, args, kwargs)
        if bias is not None and isinstance(y, Tensor) and y.requires_grad:
            y.register_hook(lambda g: None if g is None else self.collect(g.detach() * bias))  # type: ignore[no-untyped-call]
        return y

    def concerns(self, node: Node) -> bool:
        name = torch_name(node)
        return name is None or any(kind in name.lower() for kind in _MAY_ADD_A_BIAS)

    def rectify(self, node: Node, x: Tensor, y: Tensor, height: float) -> bool:
        return True  # it has no bias


def _bias(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """What the operation adds, shaped to broadcast over its output; None where it adds nothing."""

    def argument(position: int, name: str) -> Any:
        return args[position] if len(args) > position else kwargs.get(name)

    if func in _CONVOLUTIONS:
        bias, weight = argument(2, "bias"), argument(1, "weight")
        return None if bias is None else bias.detach().view(-1, *[1] * (weight.ndim - 2))
    if func is F.linear:
        bias = argument(2, "bias")
        return None if bias is None else bias.detach()
    if func is F.layer_norm:
        bias = argument(3, "bias")
        return None if bias is None else bias.detach()
    if func is F.group_norm:
        bias, x = argument(3, "bias"), argument(0, "input")
        return None if bias is None else bias.detach().view(-1, *[1] * (x.ndim - 2))
    if func is F.batch_norm and not argument(5, "training"):
        return _batch_norm_bias(argument)
    return None


def _batch_norm_bias(argument: Callable[[int, str], Any]) -> Tensor:
    x, mean, var = argument(0, "input"), argument(1, "running_mean"), argument(2, "running_var")
    gamma, beta, eps = argument(3, "weight"), argument(4, "bias"), argument(7, "eps")
    with torch.no_grad():
        added: Tensor = -mean * torch.rsqrt(var + (1e-5 if eps is None else eps))
        added = added if gamma is None else added * gamma
        added = added if beta is None else added + beta
    return added.detach().view(-1, *[1] * (x.ndim - 2))  # (C, 1, 1)
