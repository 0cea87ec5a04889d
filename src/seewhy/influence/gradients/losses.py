"""What a loss is, told by its values: whether it is the softmax cross entropy, and whether two are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ..problem import Loss, Problem
from .per_example import quantities
from .taps import borrowed, run

R = TypeVar("R")
_NUMBERS = 2**22  # of the outputs that a loss is tried on
_VALUES = 64  # that a manifest keeps
_DIRECTIONS = 8


def check_cross_entropy(
    problem: Problem, classes: int, solver: str, *, values: bool = False
) -> None:
    """Refuses a loss that has another Hessian by the outputs than the softmax cross entropy, as class weights give it.

    Label smoothing has the same Hessian; with `values` it is refused too.

    Raises:
        InputError: it says what to do instead.
    """

    def differs(outputs: Tensor, labels: Tensor) -> bool:
        generator = torch.Generator().manual_seed(1)
        leaf = outputs.detach().requires_grad_()
        p = outputs.softmax(1)
        losses = quantities(problem, leaf, labels)
        slopes = torch.autograd.grad(losses.sum(), leaf, create_graph=True)[0] + 0 * leaf
        atol = 1e-6 if outputs.dtype == torch.float64 else 1e-3
        for _ in range(_DIRECTIONS):
            v = torch.randn(outputs.shape, generator=generator, dtype=torch.float32).to(outputs)
            moved = torch.autograd.grad(slopes, leaf, v, retain_graph=True)[0]
            if not torch.allclose(moved, p * v - p * (p * v).sum(1, keepdim=True), atol=atol):
                return True
        own = F.cross_entropy(outputs, labels, reduction="none")
        return values and not torch.allclose(losses, own, atol=atol)

    with torch.inference_mode(False), torch.enable_grad():
        if _tried(differs, classes, problem.flat()[:1]):
            raise InputError(
                f"the loss {'is not' if values else 'does not curve as'} the softmax cross entropy, which {solver} is "
                "for; use 'hessian' or 'conjugate_gradient', for a part of the parameters with parameters="
            )


def check_cross_entropy_of(
    problem: Problem, images: Tensor, solver: str, *, values: bool = False
) -> None:
    """The same for as many classes as the model says of an image."""
    with borrowed(problem.call), torch.no_grad():
        classes = run(problem.call, {}, images[:1]).shape[1]
    check_cross_entropy(problem, classes, solver, values=values)


def loss_values(loss: Loss, classes: int, like: Tensor) -> list[float]:
    """The loss of fixed outputs for the first labels: what tells losses of one name apart; `like` is a weight."""
    with torch.no_grad():
        found = _tried(loss, classes, like)
    return [round(value, 5) for value in found.flatten()[:_VALUES].tolist()]


def same_values(stored: Sequence[float], found: Sequence[float]) -> bool:
    """Whether losses agree, within what machines differ by."""
    ours, theirs = torch.tensor(found), torch.tensor(stored)
    return ours.shape == theirs.shape and torch.allclose(
        ours, theirs, rtol=1e-4, atol=1e-4, equal_nan=True
    )


def _tried(function: Callable[[Tensor, Tensor], R], classes: int, like: Tensor) -> R:
    """In float64; in the model's own type where the loss or the device cannot do with that."""
    outputs, labels = _fixed(classes)
    labels = labels.to(like.device)
    try:
        return function(outputs.to(like.device), labels)
    except (RuntimeError, TypeError):
        pass
    try:
        return function(outputs.to(like), labels)
    except TypeError as error:
        raise InputError(
            f"loss cannot be called so: {error}; give (outputs (B, K), labels (B,)) -> (B,)"
        ) from error


def _fixed(classes: int) -> tuple[Tensor, Tensor]:
    """Outputs (n, K) and labels (n,): every class, unless there are very many."""
    count = max(1, min(classes, _NUMBERS // classes))
    outputs = torch.randn(
        count, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return outputs, torch.arange(count)
