"""How a layer's output lies over the image: from any layout to (N, C, h, w), or over a volume to (N, C, d, h, w).

Convolutions give (N, C, h, w); Swin-like blocks (N, h, w, C); transformers (N, L, C), (L, N, C) or (N, C, L), where
some of the L tokens (class, registers, words) lie nowhere on the image, and the others in any order. Which it is,
`places` finds by experiment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

from torch import Tensor

Kind = Literal["channels_first", "channels_last", "tokens", "tokens_first", "tokens_last"]
Grid = tuple[int, ...]  # (h, w), or (d, h, w) of a volume
_OF_TOKENS: dict[Kind, Grid] = {
    "tokens": (0, 2, 1),
    "tokens_first": (1, 2, 0),
    "tokens_last": (0, 1, 2),
}


@cache
def axes(kind: Kind, ndim: int = 4) -> tuple[int, ...]:
    """Where images, channels and places are among so many dimensions of a picture; tokens have three."""
    if kind in _OF_TOKENS:
        return _OF_TOKENS[kind]
    places = range(2, ndim) if kind == "channels_first" else range(1, ndim - 1)
    return (0, 1 if kind == "channels_first" else ndim - 1, *places)


@dataclass(frozen=True)
class Layout:
    """How a tensor covers the image.

    Attributes:
        kind: the order of its dimensions.
        grid: (h, w), or (d, h, w) of a volume.
        prefix: the tokens before those that lie on the image.
        order: where places do not lie row by row, for each cell, row by row, the number of its place.
    """

    kind: Kind
    grid: Grid
    prefix: int = 0
    order: tuple[int, ...] | None = None

    @property
    def axes(self) -> tuple[int, ...]:
        return axes(self.kind, 2 + len(self.grid))

    @property
    def batch_dim(self) -> int:
        return self.axes[0]

    @property
    def channel_dim(self) -> int:
        return self.axes[1]

    def to_grid(self, x: Tensor) -> Tensor:
        """Returns the part that lies over the image, (N, C, *grid); a view where its places lie row by row."""
        x = x.permute(self.axes)
        if self.order is not None:
            x = x.flatten(2)[..., list(self.order)]
        elif x.ndim == 2 + len(self.grid):
            return x
        else:
            x = x[..., self.prefix : self.prefix + math.prod(self.grid)]
        return x.reshape(*x.shape[:2], *self.grid)


def covers(grid: Grid, image_size: Grid, *, cells: int = 1) -> bool:
    """Whether a grid has the proportions of the image, up to less than so many cells, and is no finer than it.

    The depth of a volume has no proportion to keep: networks thin out time and space apart.
    """
    is_finer = any(n > side for n, side in zip(grid, image_size, strict=True))
    if is_finer or math.prod(grid) <= 1:
        return False
    h, w = grid[-2:]
    height, width = image_size[-2:]
    # h = H / stride up to less than these cells, and w likewise
    return abs(h * width - w * height) < cells * max(height, width)
