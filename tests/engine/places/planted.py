"""Networks whose places are planted: where each number lies in the picture is known, whatever the mechanism finds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Grid = tuple[int, int]


class Planted(nn.Module):
    """A ViT of one block whose tokens are put in an order of their own, after and before others; `at` gives them.

    Args:
        grid: of patches of 4 x 4.
        order: for each token its cell; row by row unless given.
        before, after: so many tokens that are learned.
        dims: of `at`'s output, of (N, L, C): (1, 0, 2) is tokens first, (0, 2, 1) channels before tokens.
        convolved: the patches come from a convolution, else from pixels that are folded out.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        order: Sequence[int] | None = None,
        before: int = 1,
        after: int = 0,
        dims: tuple[int, int, int] = (0, 1, 2),
        convolved: bool = True,
        width: int = 16,
    ) -> None:
        super().__init__()
        self.grid, self.dims, self.before = grid, dims, before
        self.order = list(range(grid[0] * grid[1])) if order is None else list(order)
        self.patches = nn.Conv2d(3, width, 4, 4) if convolved else nn.Linear(48, width)
        self.first, self.last = (nn.Parameter(torch.empty(1, n, width)) for n in (before, after))
        self.at = nn.Identity()
        self.block = nn.TransformerEncoderLayer(width, 2, 32, 0.0, batch_first=True)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.patches, nn.Conv2d):
            tokens = self.patches(x).flatten(2).mT
        else:
            tokens = self.patches(nn.functional.unfold(x, 4, stride=4).mT)
        ends = (end.expand(len(x), -1, -1) for end in (self.first, self.last))
        tokens = torch.cat([next(ends), tokens[:, self.order], next(ends)], 1)
        seen = self.at(tokens.permute(self.dims) * 1.0).permute(
            self.dims
        )  # each of these orders is its own inverse
        return self.head(self.block(seen).mean(1))

    def truth(self, seen: Tensor) -> Tensor:
        """What `at` gave, (N, C, h, w)."""
        cells = torch.tensor(self.order).argsort() + self.before
        return seen.permute(self.dims)[:, cells].mT.unflatten(-1, self.grid)


class Channels(nn.Module):
    """Convolutions whose pictures `at` gives with these dimensions, of (N, C, h, w)."""

    def __init__(
        self, channels: int, dims: tuple[int, ...] = (0, 1, 2, 3), stride: int | Grid = 4
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, stride, stride), nn.ReLU())
        self.dims, self.at = dims, nn.Identity()
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        back = [self.dims.index(d) for d in range(4)]
        seen = self.at(self.stem(x).permute(self.dims) * 1.0).permute(back)
        return self.head(seen.mean((2, 3)))
