"""Gradients of test quantities and training losses by the parameters, example by example."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from ..errors import ArgumentTypeError, InputError
from .layers import AffineLayer, Taps, affine_layers, borrowed, run
from .problem import Problem, ScoreOrLoss

_CHUNK = 2**25  # numbers in one layer's patches at a time
_TRIED = 3  # images
_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], frozenset[str]]] = WeakKeyDictionary()


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
        raise ArgumentTypeError(f"score is a {type(score).__name__}; give labels (T,), or a function of the outputs")
    if values.shape != (n,):
        raise InputError(f"the loss or target has shape {tuple(values.shape)}, not one number for each of {n} images")
    if not bool(values.isfinite().all()):
        raise InputError("the loss or target of some image is NaN or infinite; look at the model and the images")
    return values


def cotangents(problem: Problem, outputs: Tensor, score: ScoreOrLoss) -> Tensor:
    """The gradient of each quantity by its outputs: (B, K)."""
    leaf = outputs.detach().requires_grad_()
    return torch.autograd.grad(quantities(problem, leaf, score).sum(), leaf)[0]


def total_gradient(problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient (P,) of the sum of the losses of a batch."""
    module = problem.module
    with borrowed(module):
        weights = {name: w.requires_grad_() for name, w in problem.weights().items()}
        total = quantities(problem, run(module, weights, images), labels).sum()
        found = torch.autograd.grad(total, list(weights.values()), materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def example_gradients(
    problem: Problem, images: Tensor, score: ScoreOrLoss, *, module: nn.Module | None = None
) -> Tensor:
    """The gradient (B, P) of each image's quantity, see `quantities`; of a training example that is its loss.

    Linear layers and convolutions take one backward pass of the batch; other parameters, and those of layers that
    were called in no usual way, a vectorised pass for each example, or one after another where that cannot be.

    Args:
        problem: says which parameters, in which order.
        images: (B, C, H, W).
        score: the labels whose loss it is, or a function from outputs to a target.
        module: the checkpoint; None is the final model.
    """
    module = problem.module if module is None else module
    odd = unusual(problem, module, images)
    with borrowed(module):
        with Taps(affine_layers(module, problem.names)) as taps:
            outputs = run(module, {}, images)
            weights = cotangents(problem, outputs, score)
            signals = taps.gradients(outputs, weights)
        parts, strange = _by_layer(taps, signals, len(images))
        others = [name for name in problem.names if name not in parts or name in strange | odd]
        if others:
            parts.update(_by_example(problem, module, others, images, weights))
    return torch.cat([parts[name] for name in problem.names], 1)


def unusual(problem: Problem, module: nn.Module, images: Tensor) -> frozenset[str]:
    """The parameters whose gradients by example hooks do not see: found on a few single images, once for a module.

    A layer may be given the batch in another dimension than the first, or its weight be used without calling it.
    """
    known = _KNOWN.setdefault(module, {})
    if problem.names not in known:
        with borrowed(module):
            known[problem.names] = _found_unusual(problem, module, images)
    return known[problem.names]


def _found_unusual(problem: Problem, module: nn.Module, images: Tensor) -> frozenset[str]:
    layers, odd = affine_layers(module, problem.names), set[str]()
    if not layers:
        return frozenset()
    for count in range(1, _TRIED + 1):  # several, for the length of a sequence may be any of them
        few = images[torch.arange(count) % len(images)]
        with Taps(layers) as taps:
            outputs = run(module, {}, few)
            weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(count)).to(outputs)
            signals = taps.gradients(outputs, weights)
        parts, strange = _by_layer(taps, signals, count)
        odd |= strange
    names = [name for name in parts if name not in odd]
    if names:
        true = _one_by_one(problem, module, names, few, weights)  # torch.func would load the compiler: 170 MB
        least = 1e-6 * max(float(g.norm()) for g in true.values())
        odd |= {n for n in names if not float((parts[n] - true[n]).norm()) <= 0.01 * float(true[n].norm()) + least}
    return frozenset(odd)


def _by_layer(taps: Taps, signals: list[Tensor], count: int) -> tuple[dict[str, Tensor], set[str]]:
    """The gradients (B, numel) of what layers were given with a row for each image; the names of other layers'."""
    parts: dict[str, Tensor] = {}
    strange: set[str] = set()
    for (layer, given, _), signal in zip(taps.uses, signals, strict=True):
        if len(given) != count or given.ndim < 2:
            strange.update(layer.parameters)
            continue
        for name, part in layer.split(_products(layer, given, signal)).items():
            parts[name] = parts[name] + part if name in parts else part
    return parts, strange


def _products(layer: AffineLayer, given: Tensor, signal: Tensor) -> Tensor:
    """The examples' gradients (B, O, I), a few at a time: patches are larger than what they are cut from."""
    places = signal[0].numel() // layer.shape[0]
    size = max(1, _CHUNK // max(1, places * layer.shape[1]))
    pairs = zip(torch.split(given, size), torch.split(signal, size), strict=True)
    return torch.cat([layer.signals(g).transpose(1, 2) @ layer.activations(x) for x, g in pairs])


def _by_example(
    problem: Problem, module: nn.Module, names: list[str], images: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Gradients of these parameters, (B, numel) each, without knowing what layers do."""
    every = problem.weights(module)
    chosen = {name: every[name] for name in names}

    def weighted(values: Mapping[str, Tensor], image: Tensor, weight: Tensor) -> Tensor:
        return (run(module, values, image[None])[0] * weight).sum()

    try:
        found = vmap(grad(weighted), in_dims=(None, 0, 0))(chosen, images, weights)
    except RuntimeError:  # control flow that depends on the data, operations without a batching rule
        return _one_by_one(problem, module, names, images, weights)
    return {name: g.flatten(1) for name, g in found.items()}


def _one_by_one(
    problem: Problem, module: nn.Module, names: list[str], images: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """The same with a pass for each image."""
    every = problem.weights(module)
    chosen = [every[name].requires_grad_() for name in names]
    live = dict(zip(names, chosen, strict=True))

    def one(image: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        value = (run(module, live, image[None])[0] * weight).sum() + 0 * chosen[0].sum()  # it may depend on none
        return torch.autograd.grad(value, chosen, materialize_grads=True)

    each = [one(image, weight) for image, weight in zip(images, weights, strict=True)]
    return {name: torch.stack(parts).flatten(1) for name, parts in zip(names, zip(*each, strict=True), strict=True)}
