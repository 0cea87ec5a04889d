"""Whether a layer's output is a picture, dimension by dimension: a few pictures, each changed in other parts of it.

The picture is divided into 4 x 4 parts of three colors, and in three passes the parts of one color are changed. Where a
layer's output answers most to the changes of a color, that color should be: the correlation over all places is 1 for a
picture, and near 0 for dimensions that are none. In the middle of a volume's depth some parts change their color.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import Grid, Kind, Layout, axes, covers

_PATTERN = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 2], [2, 2, 2, 0], [2, 1, 1, 0]])  # of no symmetry
# behind the middle of a volume's depth: alike enough that what sees all of the depth still shows rows and columns;
# turned or mirrored the whole agrees with itself by at most .53
_BEHIND = torch.tensor([[0, 1, 1, 1], [2, 2, 1, 1], [2, 2, 2, 0], [2, 2, 1, 0]])
_OF_VOLUMES = torch.stack([_PATTERN, _PATTERN, _BEHIND, _BEHIND])
_LINES_READ, _NUMBERS_READ = (
    14,
    2**16,
)  # of a layer's rows and columns, and of all of it: more say the same
_BEYOND_DOUBT = 0.8  # no second order correlates so much
CONFIRMED = 0.6  # correlation; other orders of the dimensions had at most .54 (docs/decisions.md)
PLAUSIBLE = 0.4  # where the proportions are the image's too
FEW = 9  # places: fewer say little
_APART, _AUDIBLE = 0.2, 1e-3  # from token to token; of what all answer on average
_FLAT = 0.1  # from place to place; those of pictures are .2 to .5 apart

PICTURES: tuple[Kind, ...] = ("channels_first", "channels_last")


@lru_cache(maxsize=4)
def _orders_of_dims(ndim: int) -> list[tuple[int, ...]]:
    """Dimensions but that of images as channels and places, in every order, those of pictures first."""
    usual = [axes(kind, ndim)[1:] for kind in PICTURES]
    return [*usual, *(dims for dims in permutations(range(1, ndim)) if dims not in usual)]


def changed_pictures(x: Tensor) -> Tensor:
    """(1, C, H, W) to (3, C, H, W): for each color the picture with noise in the parts of that color."""
    parts = _colored(tuple(x.shape[2:]), x.device)[:, None]  # (3, 1, H, W)
    return torch.where(parts > 0, x + noise_like(x), x)


def noise_like(x: Tensor) -> Tensor:
    """Noise of the shape of one row of x, loud beside it; the same each time."""
    generator = torch.Generator().manual_seed(0)
    if not x.is_floating_point():
        return torch.randint(1, 128, x.shape[1:], generator=generator).to(x)
    spread = float(x[:1].float().std()) if x[0].numel() > 1 else 0.0
    return torch.randn(x.shape[1:], generator=generator, dtype=torch.float32).to(x) * max(
        spread / 2, 0.1
    )


def picture_of(rows: Tensor, row: Tensor, size: Grid) -> Layout | None:
    """The layout of a layer that gives rows (3, a, b, c) for changed pictures and a row for theirs, if it has one.

    What answers clearly is a picture whatever its proportions. What answers less clearly needs the image's proportions
    too, and of fewer than nine places (in a slice), which say little, these alone count.
    """
    answers: list[_Answer] = []
    for dims in _orders_of_dims(rows.ndim):
        answers.append(
            _Answer(
                dims, _grid_of_changes(rows, dims), _correlation_with_place(rows, row, dims, size)
            )
        )
        if answers[-1].is_clear(_BEYOND_DOUBT):
            break
    best = max(answers, key=lambda answer: (answer.belief(size), answer.sure))
    return best.layout() if best.belief(size) else None


@dataclass(frozen=True)
class _Answer:
    """Dimensions read as channels, rows and columns, and how well they answer as such."""

    dims: tuple[int, ...]
    grid: Grid
    sure: float

    @property
    def cells(self) -> int:
        return math.prod(self.grid)

    def is_clear(self, enough: float) -> bool:
        return self.cells >= FEW and self.sure >= enough

    def belief(self, size: Grid) -> int:
        """3 for a clear answer, 2 for one with the image's proportions, 1 for these alone, 0 for too little."""
        if self.is_clear(CONFIRMED):
            return 3
        if not self.fits(size):
            return 0
        if self.sure >= PLAUSIBLE:
            return 2
        return int(math.prod(self.grid[-2:]) < FEW)

    def fits(self, size: Grid) -> bool:
        """Whether it is in an order that pictures have, and has the image's proportions."""
        cells = 2 if min(self.grid[-2:]) > 2 else 1  # convolutions without padding lose a rim
        return self.layout() is not None and covers(self.grid, size, cells=cells)

    def layout(self) -> Layout | None:
        """None in an order that no layer has."""
        ndim = len(self.dims) + 1
        kinds = (kind for kind in PICTURES if axes(kind, ndim)[1:] == self.dims)
        return next((Layout(kind, self.grid) for kind in kinds), None)


def lie_apart(energy: Tensor) -> bool:
    """Whether tokens that answer so much to each color (3, L) lie in several places, not alike as words and registers.

    The shares of what knows the whole picture differ little from one token to another, whichever they are.
    """
    loud = energy[:, energy.sum(0) > _AUDIBLE * energy.sum(0).mean()]
    if loud.shape[1] < FEW:
        return False
    share = loud / loud.sum(0)
    return bool((share - share.mean(1, keepdim=True)).square().mean() > _APART**2)


def pictures_in(shape: Sequence[int]) -> list[tuple[Kind, Grid]]:
    """What a tensor of four dimensions, or of a volume's five, may be, and its grid."""
    return [(kind, tuple(shape[dim] for dim in axes(kind, len(shape))[2:])) for kind in PICTURES]


def _grid_of_changes(changes: Tensor, dims: tuple[int, ...]) -> Grid:
    return tuple(changes.shape[dim] for dim in dims[1:])


def _off_mean(share: Tensor) -> Tensor:
    """Less each color's mean over the places."""
    return share - share.mean(tuple(range(1, share.ndim)), keepdim=True)


def flat_pictures(rows: Tensor, row: Tensor) -> set[Kind]:
    """As which kinds of picture all places of a layer answer to each color as much as the others, or not at all."""
    shares = {kind: _shares_of_colors(rows, row, axes(kind, rows.ndim)[1:]) for kind in PICTURES}
    unlike = {kind: _off_mean(share).square().mean() for kind, share in shares.items()}
    return {kind for kind, variance in unlike.items() if variance < _FLAT**2}


def _correlation_with_place(rows: Tensor, row: Tensor, dims: tuple[int, ...], size: Grid) -> float:
    """How well the answers to each color, of these dimensions as channels, rows and columns, are where it is."""
    grid = _grid_of_changes(rows, dims)
    is_finer = any(n > side for n, side in zip(grid, size, strict=True))
    if is_finer or math.prod(grid) < 2:
        return -1.0
    share = _shares_of_colors(rows, row, dims)
    expected = _expected_shares(grid, size, _sampling_steps(grid)).to(share.device)
    return float(torch.cosine_similarity(_off_mean(share).flatten(), expected, dim=0))


def _shares_of_colors(rows: Tensor, row: Tensor, dims: tuple[int, ...]) -> Tensor:
    """How much of what each place answers is to each color, (3, h, w); of a sample of places and channels."""
    steps = _sampling_steps(_grid_of_changes(rows, dims))
    channels = -(-row.numel() // (_NUMBERS_READ * math.prod(steps)))
    by_dim = dict(zip(dims, (channels, *steps), strict=True))
    every = [slice(None, None, by_dim[dim]) for dim in range(1, rows.ndim)]
    sample = (slice(None), *every)
    energy = (rows[sample] - row[sample]).float().square_().sum(dims[0], keepdim=True)
    energy = energy.permute(0, *dims)[:, 0]  # (3, h, w)
    return energy / energy.sum(0).clamp_(min=torch.finfo(torch.float32).tiny)


def _sampling_steps(grid: Grid) -> Grid:
    return tuple(-(-n // _LINES_READ) for n in grid)


@lru_cache(maxsize=256)
def _expected_shares(grid: Grid, size: Grid, steps: Grid) -> Tensor:
    """How much of each color is in each place that is read, less the mean over places; flat."""
    share = F.interpolate(_colored(size, torch.device("cpu"))[None], grid, mode="area")[0]
    return _off_mean(share[:, *(slice(None, None, step) for step in steps)]).flatten()


def _colored(size: Grid, device: torch.device) -> Tensor:
    """For each color where it is, (3, H, W)."""
    parts = _PATTERN if len(size) == 2 else _OF_VOLUMES
    one_hot = F.one_hot(parts, 3).movedim(-1, 0)[None].float()
    return F.interpolate(one_hot, size=size, mode="nearest")[0].to(device)
