"""What is taken for a picture, by how it changes: planted pictures in any order, and what only has their shape."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.engine.layout import Kind, Layout
from seewhy.engine.places.grids import changed_pictures, picture_of

Grid = tuple[int, int]


def answers(grid: Grid, size: Grid, *, channels: int = 8, blur: int = 0, seed: int = 0) -> Tensor:
    """What a layer's channels change by (3, C, h, w) where they answer to what changes in their cell, or around it."""
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))
    weight = torch.randn(channels, 3, 1, 1, generator=torch.Generator().manual_seed(seed + 1))
    change = F.conv2d(changed_pictures(x) - x, weight)
    energy = F.adaptive_avg_pool2d(change.square(), grid)
    if blur:
        energy = F.avg_pool2d(F.pad(energy, [blur] * 4, mode="replicate"), 2 * blur + 1, stride=1)
    return energy.sqrt()


def found(change: Tensor, size: Grid) -> Layout | None:
    return picture_of(change, torch.zeros_like(change[:1]), size)


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (3, 5), (14, 9), (8, 40), (32, 32)])
@pytest.mark.parametrize("size", [(32, 40), (64, 64), (97, 61)])
def test_pictures_in_either_order(grid: Grid, size: Grid) -> None:
    for channels in (3, 8, grid[0]):  # as many channels as rows, too
        change = answers(grid, size, channels=channels)
        assert found(change, size) == Layout("channels_first", grid)
        assert found(change.permute(0, 2, 3, 1), size) == Layout("channels_last", grid)


def test_a_picture_of_wide_sight_is_one() -> None:
    change = answers((7, 7), (224, 224), blur=2)
    assert found(change, (224, 224)) == Layout("channels_first", (7, 7))


def scrambled(change: Tensor) -> Tensor:
    order = torch.randperm(change[0, 0].numel(), generator=torch.Generator().manual_seed(3))
    return change.flatten(2)[..., order].view_as(change)


NO_PICTURES: dict[str, Callable[[Tensor], Tensor]] = {
    "places in another order": scrambled,
    "turned": lambda change: change.transpose(2, 3),
    "mirrored": lambda change: change.flip(3),
    "upside down": lambda change: change.flip(2),
    "every place alike": lambda change: change.mean((2, 3), keepdim=True).expand_as(change),
    "no answer": torch.zeros_like,
    "noise": lambda change: torch.rand(change.shape, generator=torch.Generator().manual_seed(0)),
    "attention of queries to keys": lambda change: torch.einsum(
        "nci,ncj->ncij", change.flatten(2).softmax(-1), change.flatten(2).softmax(-1)
    ),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (14, 14)])
def test_what_only_has_the_shape_of_a_picture(kind: str, grid: Grid) -> None:
    assert found(NO_PICTURES[kind](answers(grid, (64, 64))), (64, 64)) is None


@pytest.mark.parametrize(
    ("kind", "shape"), [("channels_first", (3, 12, 2, 2)), ("channels_last", (3, 2, 2, 12))]
)
def test_few_places_are_believed_by_their_proportions(kind: Kind, shape: tuple[int, ...]) -> None:
    alike = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert found(alike, (64, 64)) == Layout(kind, (2, 2))
    assert found(alike, (64, 128)) is None


def test_a_gate_of_one_place_is_none() -> None:
    assert found(torch.rand(3, 16, 1, 1), (64, 64)) is None


def test_integer_pictures_are_changed_too() -> None:
    x = torch.full((1, 3, 16, 16), 7, dtype=torch.uint8)
    changed = changed_pictures(x)
    assert changed.dtype == torch.uint8
    assert ((changed != x).sum(0) == 1).all()  # each place in one of the three
