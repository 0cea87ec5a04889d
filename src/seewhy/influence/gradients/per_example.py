"""Gradients of test quantities and training losses by the parameters, example by example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import grad, vmap

from ...engine.call import Call
from ...engine.defaults import type_that_models_are_cast_to
from ...engine.keys import Remembered
from ...engine.precision import exact_products
from ...errors import ArgumentTypeError, InputError
from ..problem import Problem, ScoreOrLoss
from .taps import Taps, affine_layers, borrowed, few, gradients_by, in_full, run

_TRIED = 3  # images
_known: Remembered[frozenset[str]] = Remembered()


def check_labels(labels: Tensor, count: int, classes: int) -> None:
    """Says which label is none of the model's."""
    if labels.dtype not in (torch.int64, torch.int32, torch.uint8) or labels.shape != (count,):
        raise InputError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; {count} images need ({count},) integers"
        )
    wrong = (labels < 0) | (labels >= classes)
    if bool(wrong.any()):
        raise InputError(
            f"label {int(labels[wrong][0])} of image {int(wrong.nonzero()[0])} is none of the model's classes, "
            f"0 to {classes - 1}"
        )


def quantities(problem: Problem, outputs: Tensor, score: ScoreOrLoss) -> Tensor:
    """What rises where a picture gets worse, (B,): the loss of the given labels, or minus the target."""
    n, classes = outputs.shape
    if isinstance(score, Tensor):
        check_labels(score, n, classes)
        values = problem.loss(outputs, score.to(outputs.device, torch.int64))
    elif callable(score):
        values = -score(outputs)
    else:
        raise ArgumentTypeError(
            f"score is a {type(score).__name__}; give labels (T,), or a function of the outputs"
        )
    if values.shape != (n,):
        raise InputError(
            f"the loss or target has shape {tuple(values.shape)}, not one number for each of {n} images"
        )
    if not bool(values.isfinite().all()):
        raise InputError(
            "the loss or target of some image is NaN or infinite; look at the model and the images"
        )
    return values


def cotangents(problem: Problem, outputs: Tensor, score: ScoreOrLoss) -> Tensor:
    """The gradient of each quantity by its outputs: (B, K)."""
    leaf = outputs.detach().requires_grad_()
    return torch.autograd.grad(quantities(problem, leaf, score).sum(), leaf)[0]


def total_gradient(problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient (P,) of the sum of the losses of a batch."""
    with borrowed(problem.call):
        weights = {name: w.requires_grad_() for name, w in problem.weights().items()}
        total = quantities(problem, run(problem.call, weights, images), labels).sum()
        found = gradients_by(list(weights.values()), total)
    return in_full(torch.cat([g.flatten() for g in found]))


def example_gradients(
    problem: Problem, images: Tensor, score: ScoreOrLoss, *, call: Call | None = None
) -> Tensor:
    """The gradient (B, P) of each image's quantity, see `quantities`; of a training example that is its loss.

    Linear layers and convolutions take one backward pass of the batch; other parameters, and those of layers that
    were called in no usual way, a vectorised pass for each example, or one after another where that cannot be.

    Args:
        problem: says which parameters, in which order.
        images: (B, C, H, W).
        score: the labels whose loss it is, or a function from outputs to a target.
        call: the checkpoint; None is the final model.
    """
    call = problem.call if call is None else call
    module = call.module
    odd = unusual(problem, call, images)
    every = problem.weights(module)
    sizes = [weight.numel() for weight in every.values()]
    with borrowed(call):
        like = in_full(
            torch.cat([weight.reshape(-1)[:1] for weight in every.values()])
        )  # of the widest type
        rows = like.new_empty(len(images), sum(sizes))
        parts = dict(zip(every, torch.split(rows, sizes, 1), strict=True))
        with Taps(affine_layers(module, problem.names)) as taps:
            outputs = run(call, {}, images)
            weights = cotangents(problem, outputs, score)
            signals = taps.gradients(outputs, weights)
        written, strange = _by_layer(taps, signals, parts)
        others = [name for name in problem.names if name not in written or name in strange | odd]
        if others:
            for name, found in _by_example(problem, call, others, images, weights).items():
                parts[name].copy_(found)
    return rows


def unusual(problem: Problem, call: Call, images: Tensor) -> frozenset[str]:
    """The parameters whose gradients by example hooks do not see: found on a few single images, once for a model.

    A layer may be given the batch in another dimension than the first, or its weight be used without calling it.
    """

    def look() -> frozenset[str]:
        with borrowed(call), exact_products(problem.device.type):
            return _found_unusual(problem, call, images)

    return _known.get(call.module, (call.asked, problem.names), look)


def _found_unusual(problem: Problem, call: Call, images: Tensor) -> frozenset[str]:
    layers = affine_layers(call.module, problem.names)
    odd = set[str]()
    if not layers:
        return frozenset()
    for count in range(1, _TRIED + 1):  # several, for the length of a sequence may be any of them
        some = images[torch.arange(count) % len(images)]
        with Taps(layers) as taps:
            outputs = run(call, {}, some)
            weights = torch.randn(
                outputs.shape, generator=torch.Generator().manual_seed(count), dtype=torch.float32
            ).to(outputs)
            signals = taps.gradients(outputs, weights)
        parts = {n: w.new_empty(count, w.numel()) for n, w in problem.weights(call.module).items()}
        written, strange = _by_layer(taps, signals, parts)
        odd |= strange
    names = [name for name in parts if name in written - odd]
    if names:
        true = _one_by_one(
            problem, call, names, some, weights
        )  # torch.func would load the compiler: 170 MB
        eps = _rounding_of(problem, names)
        share, least = (
            max(0.01, 32 * eps),
            max(1e-6, 8 * eps) * max(float(g.norm()) for g in true.values()),
        )
        odd |= {
            n
            for n in names
            if not float((parts[n] - true[n]).norm()) <= share * float(true[n].norm()) + least
        }
    return frozenset(odd)


def _rounding_of(problem: Problem, names: Sequence[str]) -> float:
    """The rounding of the least precise type that is at work in the gradients by these parameters."""
    types = {weight.dtype for name, weight in problem.weights().items() if name in names}
    cast = type_that_models_are_cast_to(problem.device.type)
    return max(torch.finfo(dtype).eps for dtype in types | ({cast} if cast else set()))


def _by_layer(
    taps: Taps, signals: list[Tensor], into: Mapping[str, Tensor]
) -> tuple[set[str], set[str]]:
    """Writes gradients (B, numel) of layers that were given a row for each image; these names, and other layers'."""
    written, strange = set[str](), set[str]()
    for (layer, given, _), signal in zip(taps.uses, signals, strict=True):
        if given.ndim < 2 or any(len(given) != len(into[name]) for name in layer.parameters):
            strange.update(layer.parameters)
            continue
        # a few at a time: patches are larger than what they are cut from
        places = signal[0].numel() // layer.shape[0]
        size = few(layer.shape[1] * max(places, layer.shape[0]), given)
        for start in range(0, len(given), size):
            some = slice(start, start + size)
            g = layer.signals(signal[some])
            a = layer.activations(given[some])
            if g.shape[1] != a.shape[1]:  # its own forward does more than convolve
                strange.update(layer.parameters)
                break
            products = g.transpose(1, 2) @ a
            for name, part in layer.split(products).items():
                if name in written:  # the layer is used again
                    into[name][some] += part
                else:
                    into[name][some] = part
        written.update(layer.parameters)
    return written, strange


def _by_example(
    problem: Problem, call: Call, names: list[str], images: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Gradients of these parameters, (B, numel) each, without knowing what layers do."""
    every = problem.weights(call.module)
    chosen = {name: every[name] for name in names}

    def weighted(values: Mapping[str, Tensor], image: Tensor, weight: Tensor) -> Tensor:
        return (run(call, values, image[None])[0] * weight).sum()

    try:
        found = vmap(grad(weighted), in_dims=(None, 0, 0))(chosen, images, weights)
    except (
        RuntimeError,
        InputError,
    ):  # control flow that depends on the data, operations without a batching rule
        return _one_by_one(problem, call, names, images, weights)
    return {name: g.flatten(1) for name, g in found.items()}


def _one_by_one(
    problem: Problem, call: Call, names: list[str], images: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """The same with a pass for each image."""
    every = problem.weights(call.module)
    chosen = [every[name].requires_grad_() for name in names]
    live = dict(zip(names, chosen, strict=True))

    def one(image: Tensor, weight: Tensor) -> list[Tensor]:
        value = (run(call, live, image[None])[0] * weight).sum() + 0 * chosen[
            0
        ].sum()  # it may depend on none
        return gradients_by(chosen, value)

    each = [one(image, weight) for image, weight in zip(images, weights, strict=True)]
    return {
        name: torch.stack(parts).flatten(1)
        for name, parts in zip(names, zip(*each, strict=True), strict=True)
    }
