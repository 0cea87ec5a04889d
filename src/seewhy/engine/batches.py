"""Whether the images of a batch depend on each other: found by an experiment, once for a model and a size of batch.

Batch normalization without running statistics, scales that are taken over a batch and the like make an image's answer,
and so its map, depend on what happens to be beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_structure, tree_unflatten

from ..remarks import warn
from .call import Call
from .exchange import neighbors_matter
from .keys import Remembered

_known: Remembered[bool] = Remembered()
_told: ContextVar[set[str] | None] = ContextVar("told", default=None)


def images_depend(call: Call, x: Tensor, answer: object) -> bool:
    """Whether what a model says of an image depends on the images beside it.

    It is tried once for a model with the weights that it has and a size of batch (`exchange`); one image has no
    neighbors.

    Args:
        call: of all these images.
        x: (N, C, H, W).
        answer: what the model says of them together.
    """
    if len(x) == 1:
        return False
    asked = (call.asked, tuple(x.shape), str(x.dtype), str(x.device))
    return _known.get(call.module, asked, lambda: neighbors_matter(call, x, answer), weights=True)


def tell(module: nn.Module) -> None:
    """Warns that a model's images are run one by one; within `once`, once."""
    say_once(
        f"the images of a batch depend on each other in {type(module).__name__}, as by batch normalization without "
        "running statistics or by scales of a whole batch: each picture is run by itself"
    )


def say_once(warning: str) -> None:
    """Warns; within `once`, once of the same."""
    told = _told.get()
    if told is not None and warning in told:
        return
    if told is not None:
        told.add(warning)
    warn(warning)


@contextmanager
def once() -> Iterator[None]:
    """Within it `say_once` says the same once."""
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
        return [
            record for answer in answers if isinstance(answer, list) for record in answer
        ]  # a detector's
    parts = zip(*map(tree_leaves, answers), strict=True)
    return tree_unflatten(list(map(_rows_joined, parts)), tree_structure(first))


def _rows_joined(parts: Sequence[object]) -> object:
    rows = [part if part.ndim else part[None] for part in parts if isinstance(part, Tensor)]
    return torch.cat(rows) if rows else parts[0]
