"""Addresses by code: tokens that answer to their own cells, in any order, among others, heard through noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seewhy.engine.places.addresses import Address, Code

Grid = tuple[int, int]


def heard(grid: Grid, cells: list[int | None], *, mixing: float = 0.0, coarse: int = 1) -> Tensor:
    """The energies (P, L) of tokens that answer to these cells of a grid `coarse` times as coarse; None to none.

    Every token also hears `mixing` of the mean over all cells, as attention does.
    """
    masks = Code(grid).masks().double()  # (P, h, w)
    padded = torch.nn.functional.pad(masks, (0, -grid[1] % coarse, 0, -grid[0] % coarse))
    blocks = torch.nn.functional.avg_pool2d(padded, coarse).flatten(1) * coarse**2  # (P, cells)
    everything = masks.mean((1, 2))
    own = [
        blocks[:, cell] if cell is not None else torch.zeros(len(masks), dtype=torch.float64)
        for cell in cells
    ]
    return torch.stack(own, 1) + mixing * everything[:, None]


GRIDS = [(4, 4), (7, 7), (14, 14), (3, 5), (1, 12), (6, 9), (28, 34)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("mixing", [0.0, 1.0, 5.0])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (5, 0), (2, 5), (0, 40)])
def test_tokens_in_a_row(grid: Grid, mixing: float, before: int, after: int) -> None:
    cells: list[int | None] = [None] * before + list(range(grid[0] * grid[1])) + [None] * after
    energy = heard(grid, cells, mixing=mixing).float()
    assert Code(grid).read(energy) == Address(grid, before)


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (14, 14), (3, 5)])
@pytest.mark.parametrize("before", [0, 1])
def test_tokens_in_any_order(grid: Grid, before: int) -> None:
    order = torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(1)).tolist()
    found = Code(grid).read(heard(grid, [*[None] * before, *order], mixing=1.0).float())
    assert found is not None
    assert found.grid == grid
    assert found.order is not None
    at = {cell: before + token for token, cell in enumerate(order)}
    assert found.order == tuple(at[cell] for cell in range(len(order)))


def test_a_register_that_hears_one_cell_takes_no_token_out_of_its_row() -> None:
    """The fourth of five registers has heard cell 4 alone, and the cell's own token more of its neighbour."""
    energy = heard((4, 4), [*[None] * 3, 4, None, *range(16)], mixing=1.0)
    cells = heard((4, 4), list(range(16)))
    energy[:, 9] = energy[:, 9] - 0.8 * cells[:, 4] + 0.4 * cells[:, 5]
    assert Code((4, 4)).read(energy.float()) == Address((4, 4), 5)


def test_two_tokens_in_each_others_place_are_an_order() -> None:
    order = [*range(20), 21, 20, *range(22, 64)]
    found = Code((8, 8)).read(heard((8, 8), [*order], mixing=1.0).float())
    assert found == Address((8, 8), 0, tuple(order))


@pytest.mark.parametrize(
    ("grid", "coarse"), [((14, 14), 2), ((56, 56), 4), ((7, 9), 2), ((28, 20), 4)]
)
def test_coarser_grids(grid: Grid, coarse: int) -> None:
    rows, columns = -(-grid[0] // coarse), -(-grid[1] // coarse)
    found = Code(grid).read(heard(grid, [None, *range(rows * columns)], coarse=coarse).float())
    assert found == Address((rows, columns), 1)


def in_units(grid: Grid, unit: int) -> list[int | None]:
    """The cells of a grid unit by unit: first the first place of every unit, then the second."""
    cells = torch.arange(grid[0] * grid[1]).view(grid[0] // unit, unit, grid[1] // unit, unit)
    return list(cells.permute(1, 3, 0, 2).flatten().tolist())


def test_tokens_in_the_order_of_mask_units() -> None:
    found = Code((56, 56)).read(heard((56, 56), in_units((28, 28), 4), coarse=2).float())
    assert found is not None
    assert (found.grid, found.prefix) == ((28, 28), 0)
    assert [in_units((28, 28), 4)[token] for token in found.order or ()] == list(range(784))


def test_a_part_of_a_finer_grid_is_no_address() -> None:
    by_unit = heard((56, 56), in_units((28, 28), 4), coarse=2).view(-1, 16, 49)
    attended = (
        by_unit.mean(1, keepdim=True).expand_as(by_unit).flatten(1)
    )  # every token hears its whole unit
    assert Code((56, 56)).read(attended.float()) is None


@pytest.mark.parametrize("seed", range(20))
def test_what_hears_of_all_alike_has_no_address(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for tokens in (16, 17, 64, 65, 100, 300):
        alike = (
            heard((8, 8), [None] * tokens, mixing=1.0) * torch.rand(tokens, generator=generator) * 3
        )
        noise = 1 + 0.3 * torch.randn(alike.shape, generator=generator)
        assert Code((8, 8)).read((alike * noise.abs()).float()) is None


def test_the_passes_are_two_for_each_digit() -> None:
    assert len(Code((14, 14)).masks()) == 2 * (4 + 4)
    assert len(Code((1, 12)).masks()) == 2 * 4
    assert (Code((5, 9)).masks()[0::2] ^ Code((5, 9)).masks()[1::2]).all()
