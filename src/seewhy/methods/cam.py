"""Class activation maps: weighted sums of a layer's channels.

`a` is the activation and `g` the gradient of the target there, both (N, C, h, w); a map is (N, h, w). Of volumes they
have a depth too. Maps of more than one sign say so (`signed`); a ReLU is where the paper has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engine.call import Call
from ..engine.causes import check_differentiable
from ..engine.flow import find_flow
from ..engine.layers import INPUT, LayerRecord, why_unheard
from ..engine.layout import Grid, Layout
from ..engine.places.extent import Extent
from ..engine.places.places import find_places, picture_layout
from ..engine.rules.bias import BiasGradients
from ..engine.rules.hidden import out_of_sight
from ..engine.targets.classes import ScoreFunction, class_scores
from ..engine.trace import Trace
from ..errors import ModelError
from ..maps.values import resize
from ..models.networks.heads import LogSumExpPool2d
from ..remarks import warn
from .formula import Need, one_by_one
from .method import Method

_LAST: tuple[Callable[[LayerRecord], bool], ...] = (
    lambda record: record.pools,
    lambda record: record.projects,
)
_KRYLOV_STEPS, _KRYLOV_CHECK, _KRYLOV_TOLERANCE = 96, 6, 2e-6


def _weighted(weights: Tensor, a: Tensor) -> Tensor:
    """Sum over channels: (N, C) weights, (N, C, h, w) -> (N, h, w)."""
    return torch.bmm(weights[:, None], a.flatten(2)).view(len(a), *a.shape[2:])


def places(a: Tensor) -> tuple[int, ...]:
    """The dimensions of (N, C, h, w), or (N, C, d, h, w), that are places."""
    return tuple(range(2, a.ndim))


def _grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1-2): ReLU of the channels, each weighted by its mean gradient."""
    return F.relu(_weighted(g.mean(places(g)), a))


def _grad_cam_pp(a: Tensor, g: Tensor) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, eq. 5, 19): places weigh by alpha = g^2 / (2 g^2 + g^3 sum A).

    Up to the positive factor exp(score) of the paper's exponential output.
    """
    # divided by g^2, which underflows where gradients are small: alpha = 1 / (2 + g sum A)
    rising = F.relu(g)
    denominator = (rising * a.sum(places(a), keepdim=True)).add_(2)
    alpha_g = (rising / denominator).nan_to_num_(
        nan=torch.nan, posinf=0.0, neginf=0.0
    )  # alpha is 0 at its pole
    return F.relu(_weighted(alpha_g.sum(places(a)), a))


def _xgrad_cam(a: Tensor, g: Tensor) -> Tensor:
    """XGrad-CAM (Fu et al., BMVC 2020, eq. 8): the gradients of a channel are averaged by its activation."""
    total = a.sum(places(a))
    weights = (g * a).sum(places(a)) / torch.where(total != 0, total, 1)
    return F.relu(_weighted(torch.where(total != 0, weights, 0), a))


def _hires_cam(a: Tensor, g: Tensor) -> Tensor:
    """HiResCAM (Draelos and Carin, 2020, eq. 2): gradient x activation, summed over channels; signed."""
    return (g * a).sum(1)


def _layer_cam(a: Tensor, g: Tensor) -> Tensor:
    """Layer-CAM (Jiang et al., TIP 2021, eq. 5-7): each place weighs by its own positive gradient."""
    return F.relu((F.relu(g) * a).sum(1))


def _elementwise_grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Element-wise Grad-CAM: the positive part of gradient times activation, summed over channels."""
    return F.relu(g * a).sum(1)


def _eigen_cam(a: Tensor) -> Tensor:
    """Eigen-CAM (Muhammad and Yeasin, IJCNN 2020, eq. 3): the activation on its first principal direction.

    Knows no class. The sign, which an eigenvector leaves open, is the one that agrees with the summed activation.
    """
    return _first_component(a)


def _eigen_grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Eigen-CAM of gradient times activation, which makes it speak of the class; sign as the sum over channels."""
    return _first_component(g * a)


def _first_component(a: Tensor) -> Tensor:
    """The first right singular vector over places, times its singular value, of each (C, h w) matrix.

    The search starts from the channel sum and, as that is blind where channels cancel, the strongest channel.
    """
    m = a.flatten(2)  # (N, C, P)
    scale = (
        m.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(m.dtype).tiny)
    )  # squares stay in range
    m = m / scale
    whole = m.sum(1, keepdim=True)  # (N, 1, P)
    strongest = m.take_along_dim(
        m.norm(dim=2, keepdim=True).argmax(1, keepdim=True), 1
    )  # (N, 1, P)
    strongest = torch.where(
        (whole * strongest).sum(2, keepdim=True) < 0, -strongest, strongest
    )  # they may cancel
    start = F.normalize(whole, dim=2) + F.normalize(strongest, dim=2)
    if m.shape[1] < m.shape[2]:  # by the shorter side
        first = _top_singular(m.mT, start @ m.mT)[1]
    else:
        vector, image = _top_singular(m, start)
        first = vector * image.norm(dim=2, keepdim=True)
    agreement = (first * whole).sum(2, keepdim=True)
    return (torch.where(agreement < 0, -first, first) * scale).view(len(a), *a.shape[2:])


def _top_singular(m: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The first right singular vector v (N, 1, Q) of each matrix m (N, P, Q), and its image m v (N, 1, P).

    Rayleigh-Ritz on a Krylov space, grown until the residual is small: products of matrix and vector, where a full
    decomposition would cost the cube of the shorter side.
    """
    most = min(_KRYLOV_STEPS, m.shape[2])
    basis, made = m.new_empty(len(m), most, m.shape[2]), []
    vector = image = direction
    reached = m.new_zeros(len(m), 1, 1)  # no more than the largest singular value squared
    for step in range(most):
        reached = direction.norm(dim=2, keepdim=True).clamp(min=reached) if step else reached
        for _ in range(2 if step else 0):  # once more: rounding leaves the first result aslant
            direction = torch.baddbmm(
                direction, direction @ basis[:, :step].mT, basis[:, :step], alpha=-1
            )
        spent = (
            direction.norm(dim=2, keepdim=True) <= _KRYLOV_TOLERANCE * reached
        )  # of low rank: the rest is rounding
        direction = direction.masked_fill(spent, 0.0)
        basis[:, step : step + 1] = F.normalize(direction, dim=2, eps=1e-30)
        made.append(basis[:, step : step + 1] @ m.mT)
        direction = made[-1] @ m
        if (step + 1) % _KRYLOV_CHECK == 0 or step + 1 == most:
            images = torch.cat(made, 1)  # (N, k, P)
            values, vectors = torch.linalg.eigh(images @ images.mT)
            mix, value = vectors[:, :, -1:].mT, values[:, -1:, None]
            vector, image = mix @ basis[:, : step + 1], mix @ images
            if (
                (image @ m - value * vector).norm(dim=2, keepdim=True) <= _KRYLOV_TOLERANCE * value
            ).all():
                break
    return vector, image


def _fem(a: Tensor) -> Tensor:
    """FEM (Fuad et al., IPTA 2020): channels' unusually strong places, weighted by their means; knows no class."""
    mean = a.mean(places(a), keepdim=True)
    std = (
        (a - mean).square_().mean(places(a), keepdim=True).sqrt()
    )  # a.std() takes five times as long
    return _weighted(mean.flatten(1), (a > mean + 2 * std).to(a))


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
    names = list(dict.fromkeys([*projected, flow.chosen[-1], *pooled]))
    with Trace(call, x, layers=names, grad=False) as trace:
        raws = {name: trace.activations[name] for name in names}
        output = class_scores(trace.output)
    pictures = [
        picture_layout(flow.places, x, name, raw).to_grid(raw) for name, raw in raws.items()
    ]
    a, weight = _pooled_head(call, pictures, output, x)
    with torch.inference_mode(False), torch.enable_grad():
        logits = output.detach().clone().requires_grad_()
        said = check_differentiable(score(logits))
        (of_class,) = torch.autograd.grad(
            said.sum(), logits
        )  # (N, K): which classes the score speaks of
    return _weighted((of_class @ weight).float(), a.float())


def _pooled_head(
    call: Call, pictures: Sequence[Tensor], output: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """The picture that is pooled (N, C, h, w) and the weights (K, C) on it that fit the model's own output best."""
    module, records = call.module, find_flow(call, x).records
    heads = [
        module.get_submodule(r.maker)
        for r in records
        if r.projects and output.shape[1] in (r.channels, r.shape[1])
    ]
    if any(head.weight.is_meta for head in heads):
        raise ModelError(
            "cam reads the head's weights, which wait on the meta device; load them, or use grad_cam"
        )
    fits: list[tuple[float, Tensor, Tensor]] = []
    with torch.no_grad():
        for a in pictures:
            candidates: list[tuple[Any, Any]] = [(h.weight, h.bias) for h in heads]
            if a.shape[1] == output.shape[1]:  # without a dense layer the channels are the classes
                candidates.append((torch.eye(a.shape[1]).to(a), None))
            fits += [
                (float((said - output).abs().amax()), layer, weights)
                for weight, bias in candidates
                if weight[0].numel() == a.shape[1]
                for said, layer, weights in _readings(a, weight.detach().flatten(1), bias, module)
                if said.shape == output.shape
            ]
    tolerance = max(1e-3, 4 * torch.finfo(output.dtype).eps)
    near = [fit for fit in fits if fit[0] <= tolerance * output.abs().amax()]
    if near:
        own_maps = [
            fit for fit in near if fit[1].shape[1] == output.shape[1] and _is_identity(fit[2])
        ]
        _, layer, weights = min(own_maps or near, key=lambda fit: fit[0])
        return layer, weights
    raise ModelError(
        f"cam needs a network that pools its last layer into one linear layer, and {type(module).__name__} does not; "
        "use Grad-CAM ('grad_cam'), which is the same where CAM exists and works on any network"
    )


def _is_identity(weights: Tensor) -> bool:
    return torch.equal(weights, torch.eye(len(weights)).to(weights))


def _readings(
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
        yield maps.amax(places(maps)), maps, torch.eye(len(weight)).to(maps)


@one_by_one
def _fullgrad(call: Call, x: Tensor, score: ScoreFunction, *, layer: str | None) -> Tensor:
    """FullGrad (Srinivas and Fleuret, NeurIPS 2019, eq. 7): input x gradient and every layer's bias x gradient.

    Each layer's magnitudes are scaled onto [0, 1], summed over channels and brought to the input's size; >= 0.
    """
    size, found = tuple(x.shape[2:]), find_places(call, x)
    total = torch.zeros(len(x), *size, device=x.device)

    left_out = 0
    owners = {
        id(weight): name.rpartition(".")[0] for name, weight in call.module.named_parameters()
    }

    def add(field: Tensor, layout: Layout | None, extent: Extent | None = None) -> None:
        nonlocal total
        if layout is not None:  # a dense layer after pooling has no place
            total = total.to(field.device) + _laid(
                _unit(layout.to_grid(field)).sum(1), size, extent
            )

    def add_bias(field: Tensor, weight: Tensor | None) -> None:
        nonlocal left_out
        owner = owners.get(id(weight))
        layout = found.layout_of(tuple(field.shape), owner)
        left_out += (
            layout is None and sum(size > 1 for size in field.shape[1:]) > 1
        )  # else it has one place
        add(field, layout, found.extent_of(owner))

    rules = BiasGradients(add_bias)
    with Trace(call, x, layers=[INPUT], rules=rules) as trace:
        if rules.hidden:
            said = out_of_sight(rules.hidden, trace.module)
            warn(f"FullGrad leaves out the biases of {said}")
        gradient = trace.signal(score)[INPUT]
        add(trace.activations[INPUT] * gradient, Layout("channels_first", size))
    if left_out:
        said = f"FullGrad leaves out {left_out} biases whose places in the picture are not known"
        warn(f"{said}{why_unheard(call.module)}")
    return total


def _laid(field: Tensor, size: Grid, extent: Extent | None) -> Tensor:
    """A layer's map (N, h, w) where it lies in pictures of a size, zero elsewhere: (N, H, W)."""
    if extent is None:
        return resize(field, size)
    laid = resize(field, [stop - start for start, stop in extent.spans])
    around: list[int] = []  # of the last axis first
    for (start, stop), side in zip(extent.spans[::-1], size[::-1], strict=True):
        around += [start, side - stop]
    return F.pad(laid, around)  # what is negative cuts


def _unit(field: Tensor) -> Tensor:
    """Magnitudes of (N, C, h, w) scaled onto [0, 1] over each image."""
    flat = field.float().abs().flatten(1)
    flat = flat - flat.amin(1, keepdim=True)
    return (flat / flat.amax(1, keepdim=True).clamp(min=1e-30)).reshape(field.shape)


def _layer_method(
    name: str, title: str, paper: str, combine: Any, *, signed: bool = False
) -> Method:
    needs = combine.__code__.co_varnames[: combine.__code__.co_argcount]
    spelled: dict[str, Need] = {"a": "activation", "g": "gradient"}
    tensors = tuple(spelled[n] for n in needs)
    return Method(name, title, paper, "layer", combine, tensors, signed=signed)


cam = Method("cam", "CAM", "Zhou et al., CVPR 2016", "layer", run=_cam, at="head", signed=True)
grad_cam = _layer_method("grad_cam", "Grad-CAM", "Selvaraju et al., ICCV 2017", _grad_cam)
grad_cam_pp = _layer_method(
    "grad_cam_pp", "Grad-CAM++", "Chattopadhay et al., WACV 2018", _grad_cam_pp
)
xgrad_cam = _layer_method("xgrad_cam", "XGrad-CAM", "Fu et al., BMVC 2020", _xgrad_cam)
hires_cam = _layer_method(
    "hires_cam", "HiResCAM", "Draelos and Carin, 2020", _hires_cam, signed=True
)
layer_cam = _layer_method("layer_cam", "Layer-CAM", "Jiang et al., TIP 2021", _layer_cam)
elementwise_grad_cam = _layer_method(
    "elementwise_grad_cam",
    "Element-wise Grad-CAM",
    "after Selvaraju et al., ICCV 2017",
    _elementwise_grad_cam,
)
eigen_cam = _layer_method(
    "eigen_cam", "Eigen-CAM", "Muhammad and Yeasin, IJCNN 2020", _eigen_cam, signed=True
)
eigen_grad_cam = _layer_method(
    "eigen_grad_cam",
    "Eigen-Grad-CAM",
    "after Muhammad and Yeasin, IJCNN 2020",
    _eigen_grad_cam,
    signed=True,
)
fem = _layer_method("fem", "FEM", "Fuad et al., IPTA 2020", _fem, signed=True)
fullgrad = Method(
    "fullgrad",
    "FullGrad",
    "Srinivas and Fleuret, NeurIPS 2019",
    "gradient",
    run=_fullgrad,
    at="input",
)
