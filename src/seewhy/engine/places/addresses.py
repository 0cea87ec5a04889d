"""Where each token of a layer lies in the picture: an address by code.

Cells of a grid have numbers, their row's and their column's, and in a volume their slice's. For each binary digit of
these the cells that have it are changed in one pass, and all others in another. A token answers more to the pass that
changes its own cell, digit by digit, wherever it stands in the layer, and however many others it has heard of; one that
never answers is of no cell.
Coarser grids, of every second row and column, are read from the leading digits; a volume's slices may be thinned out
less, or not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import Grid

_LEVELS = 6
_AGREED = 0.3  # of -1 to 1; true ones have more but where attention averages
_CHANCE = 1e-3  # that what agrees so much is no address
_EACH_DIGIT = 0.25  # of that: in an order of their own tokens may agree on some digits, and know nothing of others
_FEWEST = 9  # cells: of fewer some order fits by chance
_MUTUAL = 0.9  # share of cells whose token is nearest to them, and they to it
_MOST_OTHERS = (
    32  # tokens of no place among those of an order of their own: of many some would fit by chance
)


@dataclass(frozen=True)
class Address:
    """The tokens of a grid: in a row after so many others, or each by its number."""

    grid: Grid
    prefix: int
    order: tuple[int, ...] | None = None


class Code:
    """The passes that tell the cells of a grid apart."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._digits = tuple((n - 1).bit_length() for n in grid)

    def masks(self) -> Tensor:
        """Which cells each pass changes, (P, h, w): those with a digit, then those without it."""
        numbers = _numbers_of_cells(self.grid)
        digits = [
            (n >> d & 1).bool()
            for n, count in zip(numbers, self._digits, strict=True)
            for d in range(count)
        ]
        return torch.stack([mask for digit in digits for mask in (digit, ~digit)])

    def read(self, energy: Tensor, known: Iterable[Address] = ()) -> Address | None:
        """The address of L tokens by how much they answer to each pass, (P, L), at the finest grid that fits.

        Args:
            energy: of each pass, and of each token.
            known: orders of as many tokens elsewhere, which these may be in too.
        """
        contrast = _contrast(energy).T.cpu()  # (L, digits)
        orders = [address for address in known if address.order]
        for levels in self._levels_of_axes():
            for grid in self._coarser_grids(levels):
                if math.prod(grid) <= len(contrast):
                    digits, signs = self._signs_of_cells(levels, grid)
                    found = _address_read(
                        contrast[:, digits], signs, grid, [a for a in orders if a.grid == grid]
                    )
                    if found:
                        return found
        return None

    def _levels_of_axes(self) -> Iterator[Grid]:
        """From which digit on each axis is read, from fine to coarse."""
        if len(self.grid) == 2:
            yield from ((level, level) for level in range(_LEVELS))
            return
        of_depth = range(min(_LEVELS, self._digits[0] + 1))
        pairs = product(of_depth, range(_LEVELS))
        for deep, level in sorted(pairs, key=lambda pair: pair[0] + 2 * pair[1]):
            yield deep, level, level

    def _coarser_grids(self, levels: Grid) -> Iterator[Grid]:
        """The grids of every 2^level-th row and column, with and without what is left at the border."""
        up = tuple(-(-n >> level) for n, level in zip(self.grid, levels, strict=True))
        down = tuple(n >> level for n, level in zip(self.grid, levels, strict=True))
        yield from (grid for grid in dict.fromkeys((up, down)) if math.prod(grid) > 1)

    def _signs_of_cells(self, levels: Grid, grid: Grid) -> tuple[list[int], Tensor]:
        """Which digits count at a level, and for each cell of its grid 1 where it has one, else -1: (cells, digits)."""
        firsts = accumulate(self._digits, initial=0)
        axes = zip(firsts, self._digits, levels, _numbers_of_cells(grid), strict=False)
        digits, signs = [], []
        for first, count, level, numbers in axes:
            for digit in range(level, count):
                digits.append(first + digit)
                signs.append((numbers.flatten() >> (digit - level) & 1) * 2 - 1)
        return digits, torch.stack(signs, 1).float()


def _numbers_of_cells(grid: Grid) -> Sequence[Tensor]:
    """For each axis the number of every cell on it."""
    return torch.meshgrid(*map(torch.arange, grid), indexing="ij")


def _address_read(
    heard: Tensor, signs: Tensor, grid: Grid, known: Sequence[Address]
) -> Address | None:
    """The address of tokens that heard so much of each digit (L, digits), in a grid of cells that have these."""
    cells, others = len(signs), len(heard) - len(signs)
    if cells < _FEWEST:
        return None
    fit = heard @ signs.T
    order = _one_to_one(fit) if others <= _MOST_OTHERS else None
    if order is None:
        return _likeliest_address(heard, signs, grid, known)
    start = _start_of_run(order, len(heard))
    return Address(grid, others, tuple(order)) if start is None else Address(grid, start)


def _start_of_run(order: Sequence[int], tokens: int) -> int | None:
    """Where nearly all cells' tokens are in a row, and what is missing in it is no other cell's; None in no row.

    A token beside, such as a register that attends to one place, may have heard more of a cell than the cell's own.
    """
    cells = len(order)
    start, count = Counter(token - cell for cell, token in enumerate(order)).most_common(1)[0]
    run = range(start, start + cells)
    if count < _MUTUAL * cells or start < 0 or run.stop > tokens:
        return None
    elsewhere = {token for cell, token in enumerate(order) if token != run[cell]}
    return None if elsewhere & set(run) else start


def _likeliest_address(
    heard: Tensor, signs: Tensor, grid: Grid, known: Sequence[Address]
) -> Address | None:
    """The run of tokens, or the known order, that agrees with the cells' digits by more than chance, on each digit."""
    cells = len(signs)
    runs = _agreement(heard, signs)
    prefix, enough = int(runs.argmax()), _least_agreement(signs.numel(), len(runs) + len(known))
    elsewhere = torch.cat([runs[: max(0, prefix - cells + 1)], runs[prefix + cells :]])
    candidates = [Address(grid, prefix)] if not (elsewhere >= enough).any() else []
    # where several runs of tokens lie there, each is a part of a finer grid
    agreed = [
        (_agreement_of_address(heard, signs, address), address) for address in (*candidates, *known)
    ]
    best, address = max(agreed, key=lambda pair: pair[0].mean(), default=(torch.zeros(1), None))
    clear = address is not None and best.mean() >= enough and best.min() > _EACH_DIGIT * best.mean()
    return address if clear else None


def _agreement_of_address(heard: Tensor, signs: Tensor, address: Address) -> Tensor:
    """The correlation of an address's tokens with the cells, digit by digit."""
    tokens = address.order or range(address.prefix, address.prefix + len(signs))
    own = heard[list(tokens)]
    return F.cosine_similarity(own - own.mean(0), signs - signs.mean(0), dim=0)


def loudness(energy: Tensor) -> float:
    """How unlike the answers to a digit and to its absence are, over all places."""
    return float(_contrast(energy).abs().mean())


def _contrast(energy: Tensor) -> Tensor:
    """From -1 to 1 for each digit and place: which of its two passes it answers to."""
    on, off = energy[0::2], energy[1::2]
    return (on - off) / (on + off).clamp(min=torch.finfo(torch.float32).tiny)


def _agreement(heard: Tensor, signs: Tensor) -> Tensor:
    """The correlation of what tokens heard (L, digits) with the cells' digits, from each token on, (L - cells + 1,).

    What all tokens heard alike is of no place, and counts for nothing.
    """
    cells, signs = len(signs), signs - signs.mean(0)
    windows = heard.unfold(0, cells, 1)  # (starts, digits, cells)
    windows = windows - windows.mean(2, keepdim=True)
    return F.cosine_similarity(windows.flatten(1), signs.T.flatten()[None])


def _least_agreement(votes: int, starts: int) -> float:
    """The least agreement of so many votes that chance does not give at any of so many starts."""
    return max(_AGREED, math.sqrt(2 * math.log(starts / _CHANCE) / votes))


def _one_to_one(fit: Tensor) -> list[int] | None:
    """For each cell its token, where nearly all of them are each other's nearest; else None."""
    tokens, cells = fit.argmax(0), fit.argmax(1)
    mutual = (cells[tokens] == torch.arange(fit.shape[1])).float().mean()
    if mutual < _MUTUAL:
        return None
    if len(set(tokens.tolist())) == len(tokens):
        return [int(token) for token in tokens]
    from scipy.optimize import linear_sum_assignment  # takes a while to load, and is seldom needed

    rows, columns = linear_sum_assignment(fit.numpy(), maximize=True)
    return [int(rows[i]) for i in columns.argsort()]
