"""Layouts drawn at random: each place of a grid is one number of the layer, and the right one."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seewhy.engine.layout import Layout, axes

RANDOM = settings(max_examples=50, deadline=None, derandomize=True)
PICTURES, TOKENS = ("channels_first", "channels_last"), ("tokens", "tokens_first", "tokens_last")
SIZES = st.integers(1, 4)


def numbered(*shape: int) -> Tensor:
    """A tensor whose values say which they are."""
    return torch.arange(math.prod(shape)).view(shape)


@RANDOM
@given(st.sampled_from(PICTURES), SIZES, SIZES, st.lists(SIZES, min_size=2, max_size=3))
def test_a_picture_is_laid_out_one_to_one(
    kind: str, images: int, channels: int, grid: list[int]
) -> None:
    whole = numbered(images, channels, *grid)
    held = whole if kind == "channels_first" else whole.movedim(1, -1)
    layout = Layout(kind, tuple(grid))
    assert torch.equal(layout.to_grid(held), whole)
    assert (held.shape[layout.batch_dim], held.shape[layout.channel_dim]) == (images, channels)


@st.composite
def token_layouts(draw: st.DrawFn) -> tuple[Layout, int]:
    """A layout of tokens in a row or in any order, and how many tokens there are, some of them nowhere."""
    kind = draw(st.sampled_from(TOKENS))
    grid = tuple(draw(st.lists(SIZES, min_size=2, max_size=3)))
    cells, before, after = math.prod(grid), draw(st.integers(0, 3)), draw(st.integers(0, 2))
    tokens = before + cells + after
    if draw(st.booleans()):
        order = draw(st.permutations(range(tokens)))
        return Layout(kind, grid, order=tuple(order[:cells])), tokens
    return Layout(kind, grid, prefix=before), tokens


@RANDOM
@given(token_layouts(), SIZES, SIZES)
def test_tokens_are_laid_out_one_to_one(
    drawn: tuple[Layout, int], images: int, channels: int
) -> None:
    layout, tokens = drawn
    whole = numbered(images, channels, tokens)
    held = torch.empty_like(whole).permute(back(axes(layout.kind))).contiguous()
    held.permute(axes(layout.kind)).copy_(whole)
    found = layout.to_grid(held)
    cells = math.prod(layout.grid)
    places = layout.order or range(layout.prefix, layout.prefix + cells)
    assert found.shape == (images, channels, *layout.grid)
    assert torch.equal(found.flatten(2), torch.stack([whole[:, :, place] for place in places], 2))
    assert len(found.unique()) == found.numel()


def back(order: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes one."""
    return tuple(order.index(i) for i in range(len(order)))
