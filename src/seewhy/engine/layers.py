"""Which layer to look at: chosen from how the evidence flows through one traced forward pass, not from names.

A layer is worth reading where it is a picture (`places`), where everything the model says about the image
passes through it (it lies on the trunk, not on a branch), and where the places of the picture still matter to the
output (after the last attention of a ViT only the class token does).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.jit._script import RecursiveScriptModule
from torch.nn.modules import pooling

from ..arguments import brief
from ..errors import ArgumentTypeError, LayerError, did_you_mean
from .black_box import BlackBox
from .layout import Layout

INPUT = "input"  # the reserved name of the model's input
_POOLS = (
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._AdaptiveAvgPoolNd,
    pooling._AdaptiveMaxPoolNd,
    pooling._LPPoolNd,
)


@dataclass(frozen=True)
class LayerRecord:
    """One layer's output in a traced forward pass, in the order in which the layers finished.

    Attributes:
        maker: the innermost module that made the tensor; `name` is the outermost that returns it, with "@k" for a call
            that is not the one which the name alone means.
        kind: the class of the module `name`.
        shape: of the output, with the batch.
        layout: how it lies over the image; None where it is no picture.
        trunk: every path from the image to the output passes through it.
        evidence: the output depends on its places (the gradient there is not zero).
        pools: it only makes the picture smaller.
        projects: it is a bare linear map (convolution, dense layer): what it gives is not yet a feature.
        by_places: it has no negative values and a 1 x 1 convolution reads it, place by place.
    """

    name: str
    maker: str
    kind: str
    shape: tuple[int, ...]
    layout: Layout | None
    trunk: bool
    evidence: bool
    pools: bool
    projects: bool
    by_places: bool = False

    @property
    def cells(self) -> int:
        return math.prod(self.layout.grid) if self.layout else 0

    @property
    def channels(self) -> int:
        if self.layout is None:
            return 0
        return self.shape[self.layout.channel_dim]


def is_pool(module: nn.Module) -> bool:
    return isinstance(module, _POOLS)


def is_projection(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return not list(module.children()) and isinstance(weight, torch.Tensor) and weight.ndim >= 2


class NoPictureError(LayerError):
    """No layer's output is a picture."""


def choose(records: Sequence[LayerRecord], why_none: str = "") -> list[LayerRecord]:
    """One layer for each resolution, finest first; the last is the default layer.

    Args:
        records: every layer's output, in the order in which the layers finished.
        why_none: what the error adds.

    Raises:
        NoPictureError: there is none.
    """
    pictures = [record for record in records if _is_readable_picture(record)]
    # the model's own output is what is explained
    pictures = [record for record in pictures if record.name] or pictures
    if not pictures:
        raise NoPictureError(
            "no layer of the model has a picture-shaped output: layer=None cannot be found; a method that reads the "
            f"input (saliency, integrated_gradients) still works{why_none}"
        )
    return _last_of_each_resolution(_with_most_to_say(pictures))


def _is_readable_picture(record: LayerRecord) -> bool:
    is_one_call_of_several = split_call(record.name)[1] is not None
    return record.layout is not None and not record.pools and not is_one_call_of_several


def _with_most_to_say(pictures: list[LayerRecord]) -> list[LayerRecord]:
    """Those on the trunk that carry evidence.

    A model of several branches has no trunk, one whose head is zero no evidence: then fall back to the order alone.
    """
    with_evidence = [record for record in pictures if record.evidence]
    on_trunk = [record for record in pictures if record.trunk]
    both = [record for record in on_trunk if record.evidence]
    return both or with_evidence or on_trunk or pictures


def _last_of_each_resolution(records: Sequence[LayerRecord]) -> list[LayerRecord]:
    stages: list[LayerRecord] = []  # coarsest first
    for record in reversed(records):
        finest = stages[-1].cells if stages else 0
        if not stages or record.cells > finest:
            stages.append(record)
        elif record.cells == finest and stages[-1].projects and not record.projects:
            stages[-1] = record  # a feature rather than the bare linear map after it
    return stages[::-1]


def unwrap(model: nn.Module | Callable[..., object]) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel or torch.compile, whose layers can be read.

    What is no module becomes a `BlackBox`, or an ArgumentTypeError where it is nothing to call.
    """
    module = model if isinstance(model, nn.Module) else BlackBox(model)
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
            continue
        compiled_from = getattr(module, "_orig_mod", None)
        if not isinstance(compiled_from, nn.Module):
            return module
        module = compiled_from


def split_call(layer: str) -> tuple[str, int | None]:
    """The name of a module, and which of its calls is meant, counted from 0: "trunk@1" is ("trunk", 1)."""
    name, _, number = layer.rpartition("@")
    if number.isdecimal() and "@" in layer:
        return (name, int(number))
    return (layer, None)


def is_sealed(part: nn.Module) -> bool:
    """Whether nobody can listen to what the part gives: it is scripted."""
    return isinstance(part, RecursiveScriptModule)


def part_to_hear(module: nn.Module, layer: str) -> nn.Module:
    """The part that is called under that name, to register a hook on.

    Raises:
        LayerError: it is scripted.
    """
    part: nn.Module = dict(module.named_modules(remove_duplicate=False))[split_call(layer)[0]]
    if is_sealed(part):
        raise LayerError(f"layer {layer!r} cannot be read{why_unheard(module)}")
    return part


def why_unheard(module: nn.Module) -> str:
    """Why layers of a module may not run as modules, and the way out; nothing where they do."""
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        made = "TorchScript"
    elif isinstance(module, torch.fx.GraphModule):
        made = "an exported graph"
    else:
        return ""
    return (
        f": layers of {made} do not run as modules; give the nn.Module that it was made from, or ask from outside "
        "(saliency, integrated_gradients, rise, lime, occlusion)"
    )


def resolve_layer(module: nn.Module, layer: str | nn.Module) -> str:
    """Returns the dotted name of a layer that was given by name, with "@k" for its k-th call, or as the module itself.

    Raises:
        LayerError: it is not in the model.
    """
    if isinstance(layer, nn.Module):
        for name, found in module.named_modules():
            if found is layer:
                return str(name)
        raise LayerError(
            f"layer {type(layer).__name__} is not a part of {type(module).__name__}; give one of its modules"
        )
    if not isinstance(layer, str):
        raise ArgumentTypeError(f"layer={brief(layer)} is no layer; give a dotted name or a module")
    known = dict(module.named_modules(remove_duplicate=False))
    if layer != INPUT and layer not in known and split_call(layer)[0] not in known:
        raise LayerError(
            f"layer {layer!r} is not in {type(module).__name__}{did_you_mean(layer, known)} "
            "('seewhy layers MODEL' or seewhy.list_layers(model) lists them)"
        )
    return layer
