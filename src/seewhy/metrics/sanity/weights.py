"""A model made worse step by step: its layers re-initialised, one after the other or one at a time."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ...engine.call import Call
from ...engine.layers import resolve_layer
from ...errors import InputError, ModelError
from ...models.call import call_of
from ...models.model import Model

Order = Literal["cascading", "independent"]


@dataclass(frozen=True, eq=False)
class Steps:
    """Which layers of a model are randomised, in which order."""

    order: Order
    layers: Sequence[str | nn.Module] | None
    seed: int
    reset_statistics: bool

    def __post_init__(self) -> None:
        if self.order not in ("cascading", "independent"):
            raise InputError(f"order={self.order!r} is not known; use 'cascading' or 'independent'")

    def copies(self, model: Model | Call, x: Tensor) -> Iterator[tuple[str, Model | Call]]:
        """Each step's layer with the model randomised so far. One copy is changed and changed again."""
        call = call_of(model)
        module = call.module
        changed = copied(module)
        names = (
            None if self.layers is None else [resolve_layer(module, layer) for layer in self.layers]
        )
        for name in layers_from_the_top(replace(call, module=changed), x, names):
            part = changed.get_submodule(name)
            before = [
                (value, value.detach().clone()) for value in (*part.parameters(), *part.buffers())
            ]
            reinitialize(
                part, zlib.crc32(name.encode(), self.seed), statistics=self.reset_statistics
            )
            yield name, replace(model, module=changed)
            if self.order == "independent":
                with torch.no_grad():
                    for value, was in before:
                        value.copy_(was)


def copied(module: nn.Module) -> nn.Module:
    """A copy to be changed.

    Raises:
        ModelError: it cannot be copied.
    """
    try:
        with torch.inference_mode(False):  # a copy made in inference mode could have no gradients
            return copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"the model cannot be copied, which randomising it needs: {error}"
        ) from error


def last_layer(call: Call, x: Tensor) -> str:
    """The dotted name of the layer with a matrix or kernels of weights that the model runs last: the classifier.

    Raises:
        ModelError: there is none.
    """
    module = call.module
    for name in layers_from_the_top(call, x):
        if _weights_of(module.get_submodule(name)) is not None:
            return name
    raise ModelError(
        f"{type(module).__name__} has no layer with a matrix of weights to draw anew; "
        "parameter_randomization takes layers of any kind"
    )


def redraw(part: nn.Module, seed: int) -> None:
    """Draws a layer's weights anew, from a normal distribution of their own mean and standard deviation.

    Of a bias nothing is drawn: it moves no evidence.
    """
    weights = _weights_of(part)
    assert weights is not None
    with torch.no_grad():
        drawn = torch.randn(weights.shape, generator=torch.Generator().manual_seed(seed))
        weights.copy_(drawn.to(weights) * weights.std() + weights.mean())


def _weights_of(part: nn.Module) -> Tensor | None:
    weights = getattr(part, "weight", None)
    return weights if isinstance(weights, Tensor) and weights.ndim >= 2 else None


def layers_from_the_top(
    call: Call, x: Tensor, names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Layers with parameters of their own (or `names`) in the order in which the model runs them, the last first.

    What does not run by itself, such as a projection that its parent reads, counts as running with its parent.
    """
    module, ran = call.module, dict[str, int]()

    def note(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            ran.setdefault(name, len(ran))

        return hook

    hooks = [part.register_forward_pre_hook(note(name)) for name, part in module.named_modules()]
    try:
        call.rows([0]).answer(x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if names is None:
        names = [
            n
            for n, part in module.named_modules()
            if next(part.parameters(recurse=False), None) is not None
        ]
    if not names:
        raise ModelError(
            f"{type(module).__name__} has no parameters to randomise; give a torch module that has"
        )

    def place(name: str) -> int:
        while name and name not in ran:
            name = name.rpartition(".")[0]
        return ran.get(name, 0)

    return tuple(sorted(names, key=place, reverse=True))


def reinitialize(part: nn.Module, seed: int, *, statistics: bool = False) -> None:
    """Draws all parameters of a module anew, as its layers do when they are made.

    Parameters of modules without `reset_parameters` are drawn from a normal distribution of their own mean and
    standard deviation. Buffers, BatchNorm's running statistics among them, stay unless `statistics`.
    """
    devices = {p.device for p in part.parameters() if p.device.type == "cuda"}
    with torch.no_grad(), torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        for layer in part.modules():
            own = list(layer.parameters(recurse=False))
            if not own:
                continue
            buffers = [(buffer, buffer.clone()) for buffer in layer.buffers(recurse=False)]
            reset = getattr(layer, "reset_parameters", None)
            if reset:
                reset()
            else:
                for parameter in own:
                    parameter.normal_(float(parameter.mean()), float(parameter.std(correction=0)))
            for buffer, was in () if statistics else buffers:
                buffer.copy_(was)
