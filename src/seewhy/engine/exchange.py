"""An experiment on a batch: some of its images are exchanged for very different ones, and the others must say the same.

Each pass exchanges some of the images, by a code that each has. What is told of an image as it is, and of what it was
exchanged for, must not change from pass to pass. Of two images with other codes one then stays while the other changes,
in both directions: what an image takes from one other alone is seen too. Images of one code are exchanged together; up
to six there are none.

The batch keeps its size, so kernels round alike, and what they round counts for little.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .call import Call
from .defaults import type_that_models_are_cast_to
from .pictures import matching_input
from .precision import products_are_exact
from .targets.rows import row_of

# for each code in which passes; one that is exchanged once is seen as it is beside any other that is exchanged
CODES = torch.tensor(
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.bool
)
LOUD = (
    -3.0,
    6.0,
)  # of the largest number of the batch: mean, range and spread are beyond those of its images
# of the largest of an answer: what counts as the same where the model repeats itself, and where it nearly does
SAME, ROUNDING, ROUNDING_OF_FAST_PRODUCTS = 1e-5, 1e-4, 1e-2
STEPS_OF_SAME, STEPS = 2, 8  # of the least precise type that may have been at work
EXACTLY, NEARLY, BEYOND_NOISE = 0, 1, 4  # times the rounding; exactly is without

_Rows = list[list[Tensor]]  # for each image what is said of it


def neighbors_matter(call: Call, x: Tensor, answer: object) -> bool:
    """Whether what a model says of an image depends on the images beside it.

    It takes two passes of a batch of two, three of others; where something changes one or two more and one image.
    What a model draws from torch's generators is the same in each pass, and what it writes into its buffers is taken
    back. A model that says something else each time all the same has no such images, nor has one that takes no single
    image.

    Args:
        call: of all these images.
        x: (N, C, H, W).
        answer: what the model says of them together.
    """
    lowest, highest = float(x.min()), float(x.max())
    reach = max(-lowest, highest) or 1.0
    exchanged = exchanged_in_passes(len(x))
    for low, high in ((LOUD[0] * reach, LOUD[1] * reach), (lowest, highest)):
        try:
            return _Experiment(call, x, answer, exchanged).shows(
                _loud_and_quiet(x, low, high, exchanged.sum(0) == 1)
            )
        except (
            Exception
        ):  # it may refuse numbers out of its range; what cannot be tried at all stays as it is
            continue
    return False


def exchanged_in_passes(n: int) -> Tensor:
    """(passes, n): which of n images are exchanged in each pass."""
    if n <= CODES.shape[1]:
        return torch.eye(n, dtype=torch.bool)
    codes = len(CODES)
    if (
        n > codes
    ):  # neither the first and the last image, nor those at one place of equal parts, have one code
        codes = next(
            (several for several in (codes, codes - 1, codes - 2) if n % several > 1), codes
        )
    return CODES[(n - 1 - torch.arange(n)) % codes].T


def _loud_and_quiet(x: Tensor, low: float, high: float, loud: Tensor) -> Tensor:
    """A picture for each image: a loud one, of low and high numbers, each other than the rest, or a quiet one."""
    if not x.is_floating_point():
        held = torch.iinfo(x.dtype)
        low, high = max(low, held.min), min(high, held.max)
    coin = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(0)) < 0.5
    quiet = min(max(0.0, low), high)
    strength = (1 - torch.arange(len(x)) / (2 * len(x))) * loud
    of_each = strength.view(-1, *[1] * (x.ndim - 1))
    loudest = torch.where(coin, high, low) - quiet
    return (quiet + of_each * loudest).to(x)


class _Experiment:
    def __init__(self, call: Call, x: Tensor, answer: object, exchanged: Tensor) -> None:
        self.call, self.x, self.exchanged = call, x.detach(), exchanged.to(x.device)
        self.before = self._copied_rows(answer)
        device = matching_input(call.module, x[:1]).device
        self.devices = [device] if device.type == "cuda" else []

    def shows(self, others: Tensor) -> bool:
        """Whether what is said of an image changes as others are exchanged."""
        passes = [
            self._rows_said_of(self._exchanged_pictures(others, exchanged))
            for exchanged in self.exchanged
        ]
        if not self._tells_otherwise(self.before, passes, EXACTLY):
            return False
        again = self._rows_said_of(
            self.x
        )  # hooks and compilers may have had a part in the answer that was given
        if not self._tells_otherwise(again, passes, EXACTLY):
            return False
        slack = EXACTLY
        if not _are_alike(again, self.before, EXACTLY):
            repeated = self._rows_said_of(self.x)
            if not _are_alike(
                again, repeated, NEARLY
            ):  # it says something else of one image each time
                return False
            slack = EXACTLY if _are_alike(again, repeated, EXACTLY) else BEYOND_NOISE
        self._rows_said_of(self.x[:1], [0])  # raises where there is no other way than together
        return self._tells_otherwise(again, passes, slack)

    def _exchanged_pictures(self, others: Tensor, exchanged: Tensor) -> Tensor:
        pictures = self.x.clone()  # in the memory format that it has
        rows = exchanged.nonzero()[:, 0]
        pictures[rows] = others[rows]
        return pictures

    def _tells_otherwise(self, before: _Rows, passes: list[_Rows], slack: int) -> bool:
        """Whether an image is told something else than before, or than where it was exchanged first."""
        first: dict[tuple[int, bool], list[Tensor]] = {
            (i, False): row for i, row in enumerate(before)
        }
        for exchanged, said in zip(self.exchanged.tolist(), passes, strict=True):
            for i, row in enumerate(said):
                if not _are_alike([first.setdefault((i, exchanged[i]), row)], [row], slack):
                    return True
        return False

    def _rows_said_of(self, pictures: Tensor, images: list[int] | None = None) -> _Rows:
        call = self.call if images is None else self.call.rows(images)
        with torch.random.fork_rng(devices=self.devices), _buffers_kept(call.module):
            return self._copied_rows(call.answer(pictures))

    def _copied_rows(self, answer: object) -> _Rows:
        """Copies, since a model may answer in the same memory each time."""
        rows = (tree_leaves(row_of(answer, i, len(self.x))) for i in range(len(self.x)))
        return [[leaf.detach().clone() for leaf in row if isinstance(leaf, Tensor)] for row in rows]


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """What a model writes into its buffers within it, such as statistics of all it has seen, is taken back."""
    held = [
        (part, name, tensor, tensor._version, tensor.clone())
        for part in module.modules()
        for name, tensor in part.named_buffers(recurse=False)
        if not tensor.is_inference()
    ]
    try:
        yield
    finally:
        for part, name, tensor, version, was in held:
            if getattr(part, name) is not tensor:
                setattr(part, name, tensor)
            if tensor._version != version:
                with torch.no_grad():
                    tensor.resize_(was.shape).copy_(was)


def said_alike(one: object, other: object) -> bool:
    """Whether two answers are the same up to rounding."""
    tensors = [
        [leaf.detach() for leaf in tree_leaves(said) if isinstance(leaf, Tensor)]
        for said in (one, other)
    ]
    return _are_alike(tensors[:1], tensors[1:], NEARLY)


def _are_alike(rows: _Rows, others: _Rows, slack: int) -> bool:
    """Whether what is said of images is the same, as far as it can be compared."""
    return all(
        len(row) == len(other)
        and all(_is_near(a, b, slack) for a, b in zip(row, other, strict=True))
        for row, other in zip(rows, others, strict=True)
    )


def _is_near(a: Tensor, b: Tensor, slack: int) -> bool:
    if a.shape != b.shape:
        return False
    share, kind = _share_of_rounding(a, slack), torch.promote_types(a.dtype, torch.float32)
    a, b = a.to(kind), b.to(kind)
    apart = (a - b).abs().masked_fill((a == b) | (a.isnan() & b.isnan()), 0)  # infinities, too
    largest = torch.maximum(a.abs(), b.abs()).nan_to_num(0, 0, 0)
    return not a.numel() or bool(apart.max() <= share * largest.max())


def _share_of_rounding(said: Tensor, slack: int) -> float:
    """The share of the largest number of an answer that may be rounding."""
    device = said.device.type
    kind = said.dtype if said.is_floating_point() else torch.float32
    eps = torch.finfo(type_that_models_are_cast_to(device) or kind).eps
    if slack == EXACTLY:
        return max(SAME, STEPS_OF_SAME * eps)
    full = device == "cpu" and products_are_exact(device)
    return slack * max(ROUNDING if full else ROUNDING_OF_FAST_PRODUCTS, STEPS * eps)
