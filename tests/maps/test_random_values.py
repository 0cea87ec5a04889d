"""Maps drawn at random: what normalizing, resizing, smoothing and fusing leave as it was."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seewhy.maps.values import fuse, normalize, resize, smooth, statuses

RANDOM = settings(max_examples=50, deadline=None, derandomize=True)
HOW = ("max", "minmax", "absmax", "rank")


@st.composite
def drawn_maps(draw: st.DrawFn) -> Tensor:
    """(N, h, w) of numbers that floats hold exactly, ties among them."""
    n, h, w = (draw(st.integers(1, most)) for most in (3, 7, 7))
    values = draw(st.lists(st.integers(-40, 40), min_size=n * h * w, max_size=n * h * w))
    return torch.tensor(values).view(n, h, w) / 8


MAPS = drawn_maps()


@RANDOM
@given(MAPS, st.sampled_from(HOW), st.integers(-5, 5))
def test_normalizing_knows_no_units(maps: Tensor, how: str, exponent: int) -> None:
    found = normalize(maps, how=how)
    torch.testing.assert_close(normalize(maps * 2.0**exponent, how=how), found)
    assert found.amax() <= 1
    assert found.amin() >= (-1 if how == "absmax" else 0)
    torch.testing.assert_close(normalize(found, how=how), found)


@RANDOM
@given(MAPS, st.sampled_from(HOW))
def test_normalizing_keeps_the_order_and_each_image_to_itself(maps: Tensor, how: str) -> None:
    found = normalize(maps, how=how)
    for one, given_map in zip(found, maps, strict=True):
        torch.testing.assert_close(one, normalize(given_map[None], how=how)[0])
        falling = given_map.flatten().sort(descending=True).indices
        assert (one.flatten()[falling].diff() <= 1e-7).all()


@RANDOM
@given(MAPS, st.integers(-9, 9))
def test_the_range_and_the_ranks_know_no_zero(maps: Tensor, shift: int) -> None:
    for how in ("minmax", "rank"):
        torch.testing.assert_close(normalize(maps + shift, how=how), normalize(maps, how=how))
    torch.testing.assert_close(normalize(maps**3, how="rank"), normalize(maps, how="rank"))


@RANDOM
@given(MAPS)
def test_a_map_that_can_be_read_has_a_highest_place_of_one(maps: Tensor) -> None:
    highest = normalize(maps).flatten(1).amax(1)
    readable = [bool((one > 0).any()) for one in maps]
    torch.testing.assert_close(highest, torch.tensor(readable).float())
    for one, status in zip(maps, statuses(maps), strict=True):
        if (one == one.flatten()[0]).all() and one.numel() > 1:
            assert status in ("constant", "empty")
        else:
            assert status == ("ok" if (one > 0).any() else "empty")


def test_a_single_column_is_resized_as_a_row_is() -> None:
    row = torch.tensor([[[0.0, 1.0]]])
    torch.testing.assert_close(resize(row.mT, (4, 1)), resize(row, (1, 4)).mT)


@RANDOM
@given(MAPS, st.integers(1, 20), st.integers(1, 20), st.integers(-4, 4))
def test_resizing_is_linear_mirrors_and_stays_in_range(
    maps: Tensor, height: int, width: int, shift: int
) -> None:
    found = resize(maps, (height, width))
    assert found.shape == (len(maps), height, width)
    assert (found.flatten(1).amax(1) <= maps.flatten(1).amax(1) + 1e-5).all()
    assert (found.flatten(1).amin(1) >= maps.flatten(1).amin(1) - 1e-5).all()
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(
        resize(2 * maps + shift, (height, width)), 2 * found + shift, **close
    )
    mirrored = resize(maps.flip(1, 2), (height, width)).flip(1, 2)
    torch.testing.assert_close(mirrored, found, **close)


@RANDOM
@given(MAPS, st.integers(1, 4), st.integers(1, 4))
def test_resizing_by_whole_factors_keeps_the_mean(maps: Tensor, down: int, across: int) -> None:
    _, h, w = maps.shape
    found = resize(maps, (h * down, w * across))
    torch.testing.assert_close(found.mean((1, 2)), maps.mean((1, 2)), rtol=1e-5, atol=1e-5)
    assert torch.equal(resize(maps, (h, w)), maps)


@RANDOM
@given(MAPS, st.sampled_from([0.3, 1.0, 2.5]))
def test_smoothing_is_linear_and_stays_in_range(maps: Tensor, sigma: float) -> None:
    found = smooth(maps, sigma)
    torch.testing.assert_close(smooth(3 * maps + 1, sigma), 3 * found + 1, rtol=1e-5, atol=1e-5)
    assert found.amax() <= maps.amax() + 1e-5
    assert found.amin() >= maps.amin() - 1e-5


@RANDOM
@given(MAPS, st.data(), st.sampled_from(["mean", "max", "product"]))
def test_the_order_of_what_is_fused_counts_not(maps: Tensor, data: st.DataObject, how: str) -> None:
    others = [resize(maps.roll(1, 2), (2, 3)), -maps]
    several = data.draw(st.permutations([maps, *others]))
    torch.testing.assert_close(fuse(several, how=how), fuse([maps, *others], how=how))
    torch.testing.assert_close(fuse([maps], how=how), normalize(maps))
