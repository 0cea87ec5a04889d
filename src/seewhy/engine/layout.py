"""How a layer's output lies over the image: from any layout to (N, C, h, w).

Convolutions give (N, C, h, w); Swin-like blocks (N, h, w, C); transformers (N, L, C), (L, N, C) or (N, C, L), where
some of the L tokens (class, registers, words) lie nowhere on the image, and the others in any order. Which it is,
`places` finds by experiment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Kind = Literal["channels_first", "channels_last", "tokens", "tokens_first", "tokens_last"]
AXES: dict[Kind, tuple[int, ...]] = {  # where images, channels and places are
    "channels_first": (0, 1, 2, 3),
    "channels_last": (0, 3, 1, 2),
    "tokens": (0, 2, 1),
    "tokens_first": (1, 2, 0),
    "tokens_last": (0, 1, 2),
}


@dataclass(frozen=True)
class Layout:
    """How a tensor covers the image.

    Attributes:
        kind: the order of its dimensions.
        grid: (h, w).
        prefix: the tokens before those that lie on the image.
        order: where places do not lie row by row, for each cell, row by row, the number of its place.
    """

    kind: Kind
    grid: tuple[int, int]
    prefix: int = 0
    order: tuple[int, ...] | None = None

    @property
    def batch_dim(self) -> int:
        return AXES[self.kind][0]

    @property
    def channel_dim(self) -> int:
        return AXES[self.kind][1]

    def to_grid(self, x: Tensor) -> Tensor:
        """Returns the part that lies over the image, (N, C, h, w); a view where its places lie row by row."""
        x = x.permute(AXES[self.kind])
        if self.order is not None:
            x = x.flatten(2)[..., list(self.order)]
        elif x.ndim == 4:
            return x
        else:
            x = x[..., self.prefix : self.prefix + self.grid[0] * self.grid[1]]
        return x.reshape(*x.shape[:2], *self.grid)  # (N, C, h, w)


def covers(grid: tuple[int, ...], image_size: tuple[int, int], *, cells: int = 1) -> bool:
    """Whether a grid has the proportions of the image, up to less than so many cells, and is no finer than it."""
    (h, w), (height, width) = grid, image_size
    if h * w <= 1 or h > height or w > width:
        return False
    # h = H / stride up to less than these cells, and w likewise
    return abs(h * width - w * height) < cells * max(height, width)
