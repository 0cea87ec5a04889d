"""CAM, exactly: of networks that pool their last picture into one linear layer, found by what the model answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engine.call import Call
from ..engine.causes import check_differentiable
from ..engine.flow import find_flow
from ..engine.layers import LayerRecord
from ..engine.places.places import picture_layout
from ..engine.readings import Reading, noted
from ..engine.targets.classes import ScoreFunction, class_scores
from ..engine.trace import Trace
from ..errors import ModelError
from ..models.networks.heads import LogSumExpPool2d
from .cam import places, weighted
from .formula import one_by_one
from .method import Method

_Head = tuple[Tensor, Tensor | None]  # weights (K, C, ...) and bias (K,)


class _Linear(Protocol):
    weight: Tensor
    bias: Tensor | None


_LAST: tuple[Callable[[LayerRecord], bool], ...] = (
    lambda record: record.pools,
    lambda record: record.projects,
)


@one_by_one
def _cam(call: Call, x: Tensor, score: ScoreFunction, *, layer: str | None) -> Tensor:
    """CAM (Zhou et al., CVPR 2016, eq. 2): the pooled channels weighted by the class's own weights in the head; signed.

    Exact, or an error: the head found in the model must give the model's output from the pooled channels. The score has
    to be linear in the classes' scores, as a logit or a margin is; its class weights are its gradient there. Where the
    head pools each class's own map (Oquab et al., CVPR 2015), as one that is applied at every place does, that map is
    the answer, bias included.
    """
    flow = find_flow(call, x)
    # what a network pools may be the picture that another pooling left, as in VGG without its dense layers, or the
    # classes' own maps, which a layer makes at every place
    pooled, projected = (
        [r.name for r in flow.records if r.layout and kind(r)][-1:] for kind in _LAST
    )
    names = list(dict.fromkeys([*projected, flow.default, *pooled]))
    with Trace(call, x, layers=names, grad=False) as trace:
        raws = {name: trace.activations[name] for name in names}
        output = class_scores(trace.output)
        given = [t.dtype for t in (trace.output, *raws.values()) if isinstance(t, Tensor)]
    pictures = [
        picture_layout(flow.places, x, name, raw).to_grid(raw).to(output)
        for name, raw in raws.items()
    ]
    tolerance = max(1e-3, 4 * max(torch.finfo(dtype).eps for dtype in given))
    a, weight = _pooled_head(call, pictures, output, x, tolerance)
    with torch.inference_mode(False), torch.enable_grad():
        logits = output.detach().clone().requires_grad_()
        said = check_differentiable(score(logits))
        (of_class,) = torch.autograd.grad(
            said.sum(), logits
        )  # (N, K): which classes the score speaks of
    return weighted((of_class @ weight).float(), a.float())


def _pooled_head(
    call: Call, pictures: Sequence[Tensor], output: Tensor, x: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The picture that is pooled (N, C, h, w) and the weights (K, C) on it that fit the model's own output best."""
    module, heads = call.module, _linear_heads(call, x, output)
    fits: list[_Fit] = []
    with torch.no_grad():
        for a in pictures:
            candidates = [*heads, *_head_of_classes(a, output)]
            for weight, bias in candidates:
                fits += _fits_of_head(a, weight, bias, output, module)
    largest = noted(output.abs().amax())
    near = [fit for fit in fits if fit.error.tensor() <= tolerance * largest.tensor()]
    if not near:
        raise ModelError(
            f"cam needs a network that pools its last layer into one linear layer, and {type(module).__name__} does "
            "not; use Grad-CAM ('grad_cam'), which is the same where CAM exists and works on any network"
        )
    own_maps = [fit for fit in near if fit.is_of_classes(output.shape[1])]
    best = min(own_maps or near, key=lambda fit: float(fit.error.tensor()))
    return best.picture, best.weights


class _Fit(NamedTuple):
    """How far a head on a pooled picture (N, C, h, w), with weights (K, C), is from the model's own output."""

    error: Reading
    picture: Tensor
    weights: Tensor
    changes: Reading  # how far the weights are from an identity

    def is_of_classes(self, classes: int) -> bool:
        """Whether the picture has a map for each class, and the weights change nothing."""
        return self.picture.shape[1] == classes and not self.changes.tensor()


def _head_of_classes(a: Tensor, output: Tensor) -> list[_Head]:
    """Without a dense layer the channels are the classes: where there are as many, a head that hands them on."""
    return (
        [(torch.eye(a.shape[1], dtype=a.dtype, device=a.device), None)]
        if a.shape[1] == output.shape[1]
        else []
    )


def _linear_heads(call: Call, x: Tensor, output: Tensor) -> list[_Head]:
    """Of the linear layers that make as many numbers as there are classes the weights (K, C, ...) and the biases.

    Raises:
        ModelError: their weights are not there.
    """
    heads = [
        cast(_Linear, call.module.get_submodule(r.maker))
        for r in find_flow(call, x).records
        if r.projects and output.shape[1] in (r.channels, r.shape[1])
    ]
    if any(head.weight.is_meta for head in heads):
        raise ModelError(
            "cam reads the head's weights, which wait on the meta device; load them, or use grad_cam"
        )
    return [
        (head.weight.to(output), None if head.bias is None else head.bias.to(output))
        for head in heads
    ]


def _fits_of_head(
    a: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor, module: nn.Module
) -> Iterator[_Fit]:
    """How a head fits on a picture, for each way to pool that gives what the model gives."""
    if weight[0].numel() != a.shape[1]:
        return
    for said, picture, weights in _answers_of_head(a, weight.detach().flatten(1), bias, module):
        if said.shape == output.shape:
            error, changes = (said - output).abs().amax(), _distance_from_identity(weights)
            yield _Fit(noted(error), picture, weights, noted(changes))


def _distance_from_identity(weights: Tensor) -> Tensor:
    """The largest difference; infinite where they are not square."""
    if weights.shape[0] != weights.shape[1]:
        return torch.full((), torch.inf, device=weights.device)
    same = torch.eye(len(weights), dtype=weights.dtype, device=weights.device)
    return (weights - same).abs().amax()


def _answers_of_head(
    a: Tensor, weight: Tensor, bias: Tensor | None, module: nn.Module
) -> Iterator[tuple[Tensor, ...]]:
    """What a head (K, C) would answer (N, K), the picture it pools and its weights, for each way to pool."""
    soft = [part for part in module.modules() if isinstance(part, LogSumExpPool2d)]
    for layer in (a, F.relu(a)):  # some models rectify by a function after the last layer
        for pooled in (
            layer.mean(places(layer)),
            layer.amax(places(layer)),
            layer.sum(places(layer)),
            *(pool(layer).flatten(1) for pool in soft),
        ):
            yield F.linear(pooled, weight, bias), layer, weight
        project = F.conv2d if layer.ndim == 4 else F.conv3d
        kernel = weight.view(*weight.shape, *[1] * (layer.ndim - 2))
        maps = project(layer, kernel, bias)  # pooled class by class, as Oquab et al. do
        yield (
            maps.amax(places(maps)),
            maps,
            torch.eye(len(weight), dtype=maps.dtype, device=maps.device),
        )


cam = Method("cam", "CAM", "Zhou et al., CVPR 2016", "layer", run=_cam, at="head", signed=True)
