"""Attributions of input pixels: (N, C, H, W) for each colour channel, taken together to a map (N, H, W)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..arguments import brief
from ..engine.call import Call
from ..engine.draws import image_seed
from ..engine.layers import INPUT
from ..engine.masking.masks import linear
from ..engine.readings import checked_later
from ..engine.targets.classes import ScoreFunction
from ..engine.trace import Trace
from ..errors import InputError
from ..maps.attribution import Estimate
from .cam import grad_cam
from .formula import one_by_one
from .method import Method
from .shared import shared_pass


def channel_sum(pixels: Tensor) -> Tensor:
    return pixels.sum(1)


def channel_maximum(pixels: Tensor) -> Tensor:
    return pixels.abs().amax(1)


def _saliency(input_gradient: Tensor) -> Tensor:
    """Saliency (Simonyan et al., ICLR 2014 workshop, section 3.1): the gradient; the map is its largest magnitude
    over the colour channels, >= 0."""
    return input_gradient


def _input_x_gradient(x: Tensor, input_gradient: Tensor) -> Tensor:
    """Input x gradient (Shrikumar et al., 2016): the first-order contribution of each value; signed."""
    return x * input_gradient


def _guided_backprop(guided: Tensor) -> Tensor:
    """Guided Backpropagation (Springenberg et al., ICLR 2015 workshop): rectifiers pass only positive gradient back.

    Signed. Shows edges that excite the network; it barely depends on the class (Adebayo et al., NeurIPS 2018).
    """
    return guided


def _deconvnet(signal: Tensor) -> Tensor:
    """Deconvnet (Zeiler and Fergus, ECCV 2014): rectifiers pass back what is positive, active or not; signed."""
    return signal


def _guided_grad_cam(a: Tensor, g: Tensor, guided: Tensor) -> Tensor:
    """Guided Grad-CAM (Selvaraju et al., ICCV 2017, section 3.2): Guided Backpropagation times Grad-CAM, upsampled
    bilinearly; signed."""
    assert grad_cam.combine is not None
    coarse = grad_cam.combine(a, g)[:, None]  # (N, 1, h, w)
    return guided * linear(coarse, guided.shape[2:])


_MOST_NOISE = 1e6
_MOST_STEPS = 4096  # Gauss and Legendre's nodes take a matrix of its square


@one_by_one
def _integrated_gradients(
    call: Call,
    x: Tensor,
    score: ScoreFunction,
    *,
    layer: str | None,
    steps: int,
    baseline: Tensor | float,
) -> Tensor:
    """Integrated gradients (Sundararajan et al., ICML 2017, eq. 1): (x - baseline) x the mean gradient between them.

    Signed; adds up to score(x) - score(baseline), here by Gauss-Legendre quadrature.

    Args:
        call: the model, and how it is called.
        x: (N, C, H, W).
        score: of the target, from what the model answers.
        layer: None: the map lies over the input.
        steps: points of the path at which the gradient is taken.
        baseline: a number or (1 or N, C, H, W), in the model's input space.
    """
    if not 1 <= steps <= _MOST_STEPS:
        raise InputError(
            f"steps={steps}: integrated gradients takes 1 to {_MOST_STEPS}, usually 32"
        )
    base = _baseline_like(x, baseline)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(x, dtype=torch.float32)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        with Trace(call, base + float(node) * (x - base), layers=[INPUT]) as trace:
            total += float(weight) * trace.signal(score)[INPUT].to(total)
    return (x - base) * total


def _baseline_like(x: Tensor, baseline: Tensor | float) -> Tensor:
    """A baseline as one of the pictures' shape.

    Raises:
        InputError: it has another shape, or is no dense tensor of finite numbers.
    """
    try:
        if isinstance(baseline, int | float):
            given = torch.full((), baseline, dtype=x.dtype, device=x.device)
        else:
            given = torch.as_tensor(baseline, dtype=x.dtype, device=x.device)
        found = given.expand_as(x)
    except (RuntimeError, TypeError) as error:
        accepted = f"a number, or a dense tensor that goes with {tuple(x.shape)}"
        raise InputError(f"baseline={brief(baseline)} cannot be used; give {accepted}") from error
    checked_later([given], functools.partial(_check_finite, baseline))
    return found


def _check_finite(baseline: Tensor | float, given: Tensor) -> None:
    if not given.isfinite().all():
        raise InputError(
            f"baseline={brief(baseline)} is not finite; give numbers of the model's input"
        )


def noisy_copies(x: Tensor, samples: int, noise: float, seed: int) -> Iterator[Tensor]:
    """Copies of a batch with Gaussian noise of `noise` times each image's range.

    The noise of an image depends on the seed and on the image alone, not on its place in a batch.
    """
    generators = [torch.Generator().manual_seed(image_seed(image, seed)) for image in x.cpu()]
    dims = tuple(range(1, x.ndim))
    scale = noise * (x.amax(dims, keepdim=True) - x.amin(dims, keepdim=True))
    for _ in range(samples):
        drawn = torch.stack(
            [
                torch.randn(x.shape[1:], generator=generator, dtype=torch.float32)
                for generator in generators
            ]
        )
        yield x + scale * drawn.to(x)


def smoothed(base: Method, *, name: str | None = None, title: str | None = None) -> Method:
    """SmoothGrad over a method: the mean of its attributions of noisy copies of the image.

    Options are `samples`, `noise` (standard deviation as a part of the image's range) and `seed`.

    Example:
        >>> smooth = seewhy.methods.smoothed(seewhy.methods.saliency)
        >>> smooth.name, smooth(net, x, target=0, samples=4).shape
        ('smooth_saliency', torch.Size([1, 16, 16]))
    """

    return Method(
        name or f"smooth_{base.name}",
        title or f"SmoothGrad of {base.title}",
        "Smilkov et al., 2017",
        base.family,
        run=functools.partial(_smooth_grad, base),
        style=base.style,
        at=base.at,
        choose=base.choose,
        fuse=base.fuse,
        reduce=base.reduce,
        signed=base.signed,
        options={"samples": 25, "noise": 0.15, "seed": 0},
    )


def _smooth_grad(
    base: Method,
    call: Call,
    x: Tensor,
    scores: Sequence[ScoreFunction],
    *,
    layer: str | None,
    samples: int,
    noise: float,
    seed: int,
) -> list[Estimate]:
    """SmoothGrad (Smilkov et al., 2017, eq. 1): the mean attribution of noisy copies of the image."""
    if samples < 1 or not 0 <= noise < _MOST_NOISE:
        raise InputError(
            f"samples={samples}, noise={noise}: SmoothGrad needs at least 1 sample, and noise from 0 to "
            f"{_MOST_NOISE:g} of a picture's range, usually 0.15"
        )
    found = []
    for score in scores:
        copies = noisy_copies(x, samples, noise, seed)
        parts = (_of_copy(base, call, copy, score, layer) for copy in copies)
        found.append(Estimate(functools.reduce(torch.add, parts) / samples))
    return found


def _of_copy(
    base: Method, call: Call, copy: Tensor, score: ScoreFunction, layer: str | None
) -> Tensor:
    """A method's attribution of a changed image: of its colours where it has one, (N, C, H, W), else (N, h, w)."""
    if base.run:
        (found,) = base.run(call, copy, [score], layer=layer, **base.options)
        return found.map
    layers = [] if layer is None else [layer]  # "" is the model itself
    result = shared_pass(call, copy, methods=[base], targets=[score], layers=layers).results[0]
    return result.map if result.pixels is None else result.pixels


saliency = Method(
    "saliency",
    "Saliency",
    "Simonyan et al., ICLR 2014",
    "gradient",
    _saliency,
    ("input_gradient",),
    at="input",
    reduce=channel_maximum,
)
input_x_gradient = Method(
    "input_x_gradient",
    "Input x gradient",
    "Shrikumar et al., 2016",
    "gradient",
    _input_x_gradient,
    ("input", "input_gradient"),
    at="input",
    reduce=channel_sum,
    signed=True,
)
integrated_gradients = Method(
    "integrated_gradients",
    "Integrated gradients",
    "Sundararajan et al., ICML 2017",
    "gradient",
    run=_integrated_gradients,
    at="input",
    reduce=channel_sum,
    signed=True,
    options={"steps": 32, "baseline": 0.0},
)
guided_backprop = Method(
    "guided_backprop",
    "Guided Backpropagation",
    "Springenberg et al., ICLR 2015",
    "guided",
    _guided_backprop,
    ("guided",),
    at="input",
    reduce=channel_sum,
    signed=True,
    style="grey",
)
deconvnet = Method(
    "deconvnet",
    "Deconvnet",
    "Zeiler and Fergus, ECCV 2014",
    "guided",
    _deconvnet,
    ("deconvnet",),
    at="input",
    reduce=channel_sum,
    signed=True,
    style="grey",
)
guided_grad_cam = Method(
    "guided_grad_cam",
    "Guided Grad-CAM",
    "Selvaraju et al., ICCV 2017",
    "guided",
    _guided_grad_cam,
    ("activation", "gradient", "guided"),
    reduce=channel_sum,
    signed=True,
    style="grey",
)
smooth_grad = smoothed(saliency, name="smooth_grad", title="SmoothGrad")
