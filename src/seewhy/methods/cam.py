"""Class activation maps: weighted sums of a layer's channels.

`a` is the activation and `g` the gradient of the target there, both (N, C, h, w); a map is (N, h, w). Of volumes they
have a depth too. Maps of more than one sign say so (`signed`); a ReLU is where the paper has it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.call import Call
from ..engine.flow import Flow
from ..engine.layers import INPUT, why_unheard
from ..engine.layout import Grid, Layout
from ..engine.places.extent import Extent
from ..engine.places.places import find_places
from ..engine.precision import exact_products
from ..engine.rules.bias import BiasGradients
from ..engine.rules.hidden import out_of_sight
from ..engine.targets.classes import ScoreFunction
from ..engine.trace import Trace
from ..maps.values import resize
from ..remarks import warn
from .formula import Choose, Combine, Need, one_by_one
from .method import Method

_KRYLOV_STEPS, _KRYLOV_CHECK, _KRYLOV_TOLERANCE = 96, 6, 2e-6


def weighted(weights: Tensor, a: Tensor) -> Tensor:
    """Sum over channels: (N, C) weights, (N, C, h, w) -> (N, h, w)."""
    return torch.bmm(weights[:, None], a.flatten(2)).view(len(a), *a.shape[2:])


def places(a: Tensor) -> tuple[int, ...]:
    """The dimensions of (N, C, h, w), or (N, C, d, h, w), that are places."""
    return tuple(range(2, a.ndim))


def _grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1-2): ReLU of the channels, each weighted by its mean gradient."""
    return F.relu(weighted(g.mean(places(g)), a))


def _grad_cam_pp(a: Tensor, g: Tensor) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, eq. 5, 19): places weigh by alpha = g^2 / (2 g^2 + g^3 sum A).

    Up to the positive factor exp(score) of the paper's exponential output. At the last layer it hardly knows the class:
    channels that speak against it weigh nothing, and most others alike.
    """
    # divided by g^2, which underflows where gradients are small: alpha = 1 / (2 + g sum A)
    rising = F.relu(g)
    denominator = (rising * a.sum(places(a), keepdim=True)).add_(2)
    alpha_g = (rising / denominator).nan_to_num_(
        nan=torch.nan, posinf=0.0, neginf=0.0
    )  # alpha is 0 at its pole
    return F.relu(weighted(alpha_g.sum(places(a)), a))


def _xgrad_cam(a: Tensor, g: Tensor) -> Tensor:
    """XGrad-CAM (Fu et al., BMVC 2020, eq. 8): the gradients of a channel are averaged by its activation."""
    total = a.sum(places(a))
    weights = (g * a).sum(places(a)) / torch.where(total != 0, total, 1)
    return F.relu(weighted(torch.where(total != 0, weights, 0), a))


def _hires_cam(a: Tensor, g: Tensor) -> Tensor:
    """HiResCAM (Draelos and Carin, 2020, eq. 2): gradient x activation, summed over channels; signed."""
    return (g * a).sum(1)


def _layer_cam(a: Tensor, g: Tensor) -> Tensor:
    """Layer-CAM (Jiang et al., TIP 2021, eq. 5-7): each place weighs by its own positive gradient.

    Without a layer it reads the stage before the last. At the last layer it hardly knows the class: what speaks against
    the class is dropped, and nearly everything active has some channel that speaks for it.
    """
    return F.relu((F.relu(g) * a).sum(1))


def _stage_before_the_last(flow: Flow, layers: Sequence[str]) -> Sequence[Sequence[str]]:
    if len(layers) == 1:
        return [[flow.stage_before_the_last]]
    return [[layer] for layer in layers]


def _elementwise_grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Element-wise Grad-CAM: the positive part of gradient times activation, summed over channels.

    At the last layer it hardly knows the class: what speaks against it is dropped at each place and channel.
    """
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
    # matrix times vector is bound by memory: TF32 would save nothing, and never reach the tolerance
    with exact_products(m.device.type):
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
    return weighted(mean.flatten(1), (a > mean + 2 * std).to(a))


@one_by_one
def _fullgrad(call: Call, x: Tensor, score: ScoreFunction, *, layer: str | None) -> Tensor:
    """FullGrad (Srinivas and Fleuret, NeurIPS 2019, eq. 7): input x gradient and every layer's bias x gradient.

    Each layer's magnitudes are scaled onto [0, 1], summed over channels and brought to the input's size; >= 0.
    It hardly knows the class: a magnitude that speaks against it counts as one that speaks for it.
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
            total = total.to(field.device) + _laid_in_picture(
                _to_unit_range(layout.to_grid(field)).sum(1), size, extent
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


def _laid_in_picture(field: Tensor, size: Grid, extent: Extent | None) -> Tensor:
    """A layer's map (N, h, w) where it lies in pictures of a size, zero elsewhere: (N, H, W)."""
    if extent is None:
        return resize(field, size)
    laid = resize(field, [stop - start for start, stop in extent.spans])
    around: list[int] = []  # of the last axis first
    for (start, stop), side in zip(extent.spans[::-1], size[::-1], strict=True):
        around += [start, side - stop]
    return F.pad(laid, around)  # what is negative cuts


def _to_unit_range(field: Tensor) -> Tensor:
    """Magnitudes of (N, C, h, w) scaled onto [0, 1] over each image."""
    flat = field.float().abs().flatten(1)
    flat = flat - flat.amin(1, keepdim=True)
    return (flat / flat.amax(1, keepdim=True).clamp(min=1e-30)).reshape(field.shape)


def _layer_method(
    name: str,
    title: str,
    paper: str,
    combine: Combine,
    *,
    signed: bool = False,
    choose: Choose | None = None,
) -> Method:
    needs = inspect.signature(combine).parameters
    spelled: dict[str, Need] = {"a": "activation", "g": "gradient"}
    tensors = tuple(spelled[n] for n in needs)
    return Method(name, title, paper, "layer", combine, tensors, signed=signed, choose=choose)


grad_cam = _layer_method("grad_cam", "Grad-CAM", "Selvaraju et al., ICCV 2017", _grad_cam)
grad_cam_pp = _layer_method(
    "grad_cam_pp", "Grad-CAM++", "Chattopadhay et al., WACV 2018", _grad_cam_pp
)
xgrad_cam = _layer_method("xgrad_cam", "XGrad-CAM", "Fu et al., BMVC 2020", _xgrad_cam)
hires_cam = _layer_method(
    "hires_cam", "HiResCAM", "Draelos and Carin, 2020", _hires_cam, signed=True
)
layer_cam = _layer_method(
    "layer_cam",
    "Layer-CAM",
    "Jiang et al., TIP 2021",
    _layer_cam,
    choose=_stage_before_the_last,
)
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
