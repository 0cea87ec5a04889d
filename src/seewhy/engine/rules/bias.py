"""Watches operations that add a bias: FullGrad reads the gradient of each."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node

from . import operations as ops
from .balance import on_the_way_back
from .hidden import SeeingMode, torch_name
from .operations import Arguments, Function, Options

_PARAMETERS: dict[Function, tuple[str, ...]] = {
    **dict.fromkeys(ops.CONVOLUTIONS.keys() | ops.LINEAR, ("input", "weight", "bias")),
    **{norm: names for norm, names in ops.LAYER_NORMS.items() if "running_mean" not in names},
    **ops.BATCH_NORM,
}
_MAY_ADD_A_BIAS = ("conv", "addmm", "linear", "batchnorm", "layernorm", "groupnorm")


class BiasGradients(SeeingMode):
    """Gives `collect` each operation's bias gradient b * dS/db, before it is summed over places, on the way back.

    It is given the operation's weight too, if that has one. The tensors have the shape of the operation's output. A
    BatchNorm in evaluation mode adds beta - mu gamma / sigma. Nothing about the signal changes. For networks that are
    piecewise linear, x * dS/dx and these add up to the score (Srinivas and Fleuret, NeurIPS 2019, proposition 1).
    """

    def __init__(self, collect: Callable[[Tensor, Tensor | None], None]) -> None:
        super().__init__()
        self.collect = collect

    def handle(self, func: Function, args: Arguments, kwargs: Options) -> object:
        y = func(*args, **kwargs)
        names = _PARAMETERS.get(func)
        given = {**dict(zip(names or (), args, strict=False)), **kwargs}
        bias = None if names is None else _added_bias(func, given)
        if bias is not None and isinstance(y, Tensor) and y.requires_grad:
            weight = given.get("weight")
            on_the_way_back(
                y, lambda g: None if self.under_way else self.collect(g.detach() * bias, weight)
            )
        return y

    def concerns(self, node: Node) -> bool:
        name = torch_name(node)
        return name is None or any(kind in name.lower() for kind in _MAY_ADD_A_BIAS)

    def rectify(self, node: Node, x: Tensor, y: Tensor, height: float) -> bool:
        return True  # it has no bias


def _added_bias(func: Function, given: Options) -> Tensor | None:
    """What the operation adds, shaped to broadcast over its output; None where it adds nothing."""
    if func in ops.BATCH_NORM:
        by_batch = given.get("training") or given["running_mean"] is None
        return None if by_batch else _batch_norm_bias(given)
    bias: Tensor | None = given.get("bias")
    if bias is None or func is F.linear or "normalized_shape" in given:
        return None if bias is None else bias.detach()
    dims = given["weight" if func in ops.CONVOLUTIONS else "input"].ndim - 2
    return bias.detach().view(-1, *[1] * dims)


def _batch_norm_bias(given: Options) -> Tensor:
    mean, var, gamma, beta = (
        given.get(name) for name in ("running_mean", "running_var", "weight", "bias")
    )
    assert mean is not None
    assert var is not None
    with torch.no_grad():
        added: Tensor = -mean * torch.rsqrt(var + given.get("eps", 1e-5))
        added = added if gamma is None else added * gamma
        added = added if beta is None else added + beta
    return added.detach().view(-1, *[1] * (given["input"].ndim - 2))  # (C, 1, 1)
