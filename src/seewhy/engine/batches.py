"""Whether the images of a batch depend on each other: found by running one of them alone, once for a model and a size.

Batch normalization without running statistics, scales that are taken over a batch and the like make an image's answer,
and so its map, depend on what happens to be beside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_structure, tree_unflatten

from ..errors import SeewhyWarning
from .call import Call, matching_input
from .keys import Remembered
from .targets.rows import row_of

# of the largest of an answer: what an image's place in a batch may change, by other kernels that round otherwise
ROUNDING, ROUNDING_OF_FAST_PRODUCTS = 1e-4, 1e-2
STEPS = 8  # of the least precise type that may have been at work

_known: Remembered[bool] = Remembered()
_told: ContextVar[set[int] | None] = ContextVar("told", default=None)


def images_depend(call: Call, x: Tensor, answer: object) -> bool:
    """Whether what a model says of an image depends on the images beside it.

    The images of the smallest and of the largest range are run alone: what is taken over a batch is another's for one
    of them at least. A model that says something else of one image each time has no such images.

    Args:
        call: of all these images.
        x: (N, C, H, W).
        answer: what the model says of them together.
    """
    if not tells(x):
        return False
    asked = (call.asked, tuple(x.shape[1:]), str(x.dtype), str(x.device))
    return _known.get(call.module, asked, lambda: _differs_alone(call, x, answer))


def tells(x: Tensor) -> bool:
    """Whether a batch can show that its images depend on each other: it is of several, and not of one several times."""
    return len(x) > 1 and not bool((x == x[:1]).all())


def _differs_alone(call: Call, x: Tensor, answer: object) -> bool:
    ranges = x.detach().flatten(1).abs().amax(1)
    device = matching_input(call.module, x[:1]).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return any(_differs(call, x, image, answer) for image in (int(ranges.argmin()), int(ranges.argmax())))


def _differs(call: Call, x: Tensor, image: int, answer: object) -> bool:
    alone, picture = call.rows([image]), x[image : image + 1]
    try:
        said = alone.answer(picture)
        return not alike(row_of(answer, image, len(x)), said) and alike(alone.answer(picture), said)
    except Exception:  # a model of a fixed batch size, or a service that is gone: what cannot be tried stays as it is
        return False


def alike(one: object, other: object) -> bool:
    """Whether two answers about one image are the same up to rounding, as far as they can be compared."""
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=False)
    return all(_near(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor))


def _near(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not a.is_floating_point() or not a.numel():
        return True
    device = a.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else a.dtype
    exact = device == "cpu" and torch.get_float32_matmul_precision() == "highest"
    share = max(ROUNDING if exact else ROUNDING_OF_FAST_PRODUCTS, STEPS * torch.finfo(kind).eps)
    a, b = a.detach(), b.detach()
    return bool((a - b).abs().max() <= share * torch.maximum(a.abs().max(), b.abs().max()))


def tell(module: nn.Module) -> None:
    """Warns that a model's images are run one by one; within `once`, once."""
    told = _told.get()
    if told is not None and id(module) in told:
        return
    if told is not None:
        told.add(id(module))
    warnings.warn(
        f"the images of a batch depend on each other in {type(module).__name__}, as by batch normalization without "
        "running statistics or by scales of a whole batch: each picture is run by itself",
        SeewhyWarning,
        stacklevel=4,
    )


@contextmanager
def once() -> Iterator[None]:
    """Within it `tell` warns once of a model."""
    if _told.get() is not None:
        yield
        return
    token = _told.set(set())
    try:
        yield
    finally:
        _told.reset(token)


def answers(call: Call, x: Tensor) -> object:
    """What a model says of the images, of each by itself where they depend on each other; without a graph."""
    said: object = call.answer(x)
    if not images_depend(call, x, said):
        return said
    tell(call.module)
    return joined([call.rows([i]).answer(x[i : i + 1]) for i in range(len(x))])


def joined(answers: Sequence[object]) -> object:
    """The answer to a batch, from those to its images one by one, in whatever they are packed."""
    first = answers[0]
    if isinstance(first, list) and len(first) == 1 and isinstance(first[0], Mapping):
        return [record for answer in answers if isinstance(answer, list) for record in answer]  # a detector's
    parts = zip(*map(tree_leaves, answers), strict=True)
    return tree_unflatten(list(map(_rows_joined, parts)), tree_structure(first))


def _rows_joined(parts: Sequence[object]) -> object:
    rows = [part if part.ndim else part[None] for part in parts if isinstance(part, Tensor)]
    return torch.cat(rows) if rows else parts[0]
