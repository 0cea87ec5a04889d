"""Random projections of gradients, in blocks from a seed: inner products keep their mean, and no matrix is stored."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ...errors import InputError

Distribution = Literal["rademacher", "normal"]
_BLOCK = 4096  # parameters whose rows are drawn together
_KEPT = 2**29  # bytes of drawn blocks that are kept rather than drawn anew


class Projection:
    """(B, P) -> (B, dim): g -> g R / sqrt(dim), E[(g R)(g' R)^T] / dim = g g'^T (Johnson and Lindenstrauss, 1984).

    The error of an inner product deviates by sqrt((|g|^2 |g'|^2 + (g g')^2) / dim), a little less for signs.

    Args:
        dim: numbers kept of each gradient.
        seed: of R; with `stream`, which tells the matrices of several checkpoints apart.
        distribution: of R's entries: -1 and 1, or standard normal.
    """

    def __init__(
        self, dim: int, *, seed: int = 0, stream: int = 0, distribution: Distribution = "rademacher"
    ) -> None:
        if dim < 1:
            raise InputError(
                f"dim={dim} cannot be used; accepted: 1 or more numbers for each gradient"
            )
        if distribution not in get_args(Distribution):
            raise InputError(
                f"distribution={distribution!r} is not known; use 'rademacher' or 'normal'"
            )
        self.dim, self._normal = dim, distribution == "normal"
        self._key = (seed * 1_000_003 + stream) * 1_000_033
        self._kept: dict[int, Tensor] = {}

    def __call__(self, vectors: Tensor) -> Tensor:
        total = vectors.new_zeros(len(vectors), self.dim)
        values = vectors.new_empty(
            min(_BLOCK, vectors.shape[1]), self.dim
        )  # one for all: new memory is slow
        for index, part in enumerate(torch.split(vectors, _BLOCK, 1)):
            total.addmm_(part, values[: part.shape[1]].copy_(self._block(index, part.shape[1])))
        return total / math.sqrt(self.dim)

    def _block(self, index: int, rows: int) -> Tensor:
        """R's rows of these parameters, (rows, dim); drawn on the CPU, where a seed always means the same."""
        if index in self._kept:
            return self._kept[index]
        generator = torch.Generator().manual_seed((self._key + index) % 2**63)
        size = rows, self.dim
        block = (
            torch.randn(size, generator=generator, dtype=torch.float32)
            if self._normal
            else _signs(*size, generator)
        )
        if (len(self._kept) + 1) * _BLOCK * self.dim * block.element_size() <= _KEPT:
            self._kept[index] = block
        return block


def _signs(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """-1 and 1 at random, (rows, count) int8: one for each bit of drawn words, which is faster than drawing each."""
    words = torch.randint(-(2**63), 2**63 - 1, (rows, -(-count // 64)), generator=generator)
    bits = torch.arange(256)[:, None] >> torch.arange(8) & 1
    signs = (
        (2 * bits - 1).to(torch.int8).view(torch.int64)[:, 0]
    )  # (256,): of each byte its eight signs
    return signs[words.view(torch.uint8).long()].view(torch.int8)[:, :count]


def kept_bytes(parameters: int, dim: int) -> int:
    """What a projection of so many parameters keeps of its matrix."""
    return min(_KEPT, parameters * dim)
