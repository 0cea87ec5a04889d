"""Pictures drawn at random: whatever their mode, size and turn, what is read is what was painted."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from seewhy.data.images import read_image

Pixels = npt.NDArray[np.uint8]
RANDOM = settings(max_examples=40, deadline=None, derandomize=True)
ORIENTATION = 0x112
# how the stored rows and columns lie (EXIF 2.3, 4.6.4): orientation -> upright pixels as they are stored
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],  # row 0 at the top, column 0 at the right
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),  # row 0 at the left, column 0 at the top
    6: lambda upright: np.rot90(upright, 1),  # row 0 at the right, column 0 at the top
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),  # row 0 at the left, column 0 at the bottom
}


def pixels(channels: int | None, dtype: type = np.uint8) -> st.SearchStrategy[npt.NDArray]:
    sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
    shapes = sizes.map(lambda size: size if channels is None else (*size, channels))
    return shapes.flatmap(lambda shape: arrays.arrays(dtype, shape))


def as_png(picture: Image.Image, tmp: io.BytesIO, **options: object) -> Image.Image:
    picture.save(tmp, "PNG", **options)
    return Image.open(tmp)


def read(picture: Image.Image) -> Pixels:
    found = read_image(picture)
    assert found.mode == "RGB"
    return np.asarray(found)


def as_rgb(gray: npt.NDArray) -> Pixels:
    return np.repeat(gray[:, :, None], 3, 2).astype(np.uint8)


@RANDOM
@given(pixels(3), st.sampled_from(list(STORED)))
def test_a_turned_picture_is_read_right_way_up(upright: Pixels, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(STORED[orientation](upright))
    picture = as_png(Image.fromarray(stored), io.BytesIO(), exif=exif)
    np.testing.assert_array_equal(read(picture), upright)


@RANDOM
@given(pixels(3))
def test_what_was_read_is_read_again_the_same(painted: Pixels) -> None:
    once = read_image(painted)
    np.testing.assert_array_equal(once, painted)
    np.testing.assert_array_equal(read_image(once), painted)
    np.testing.assert_array_equal(read(as_png(once, io.BytesIO())), painted)


@RANDOM
@given(pixels(None), st.sampled_from(["L", "LA", "P", "1"]))
def test_gray_is_the_same_in_every_channel(gray: Pixels, mode: str) -> None:
    if mode == "1":
        gray = np.where(gray > 127, np.uint8(255), np.uint8(0))
    painted = Image.fromarray(gray).convert(mode, dither=Image.Dither.NONE)
    np.testing.assert_array_equal(read(as_png(painted, io.BytesIO())), as_rgb(gray))


@RANDOM
@given(pixels(None, np.uint16))
def test_sixteen_bits_are_scaled_to_eight(gray: npt.NDArray[np.uint16]) -> None:
    expected = np.floor(gray / 257 + 0.5)
    np.testing.assert_array_equal(
        read(as_png(Image.fromarray(gray), io.BytesIO())), as_rgb(expected)
    )
    np.testing.assert_array_equal(read_image(gray), as_rgb(expected))


@RANDOM
@given(pixels(4))
def test_what_can_be_seen_through_lies_on_white(painted: Pixels) -> None:
    share = painted[:, :, 3:] / 255
    expected = painted[:, :, :3] * share + 255 * (1 - share)
    found = read(as_png(Image.fromarray(painted), io.BytesIO()))
    assert np.abs(found - expected).max() <= 1


@RANDOM
@given(pixels(4), st.sampled_from(["RGB", "RGBA", "CMYK", "YCbCr", "I", "F"]))
def test_the_source_stays_as_it_was(painted: Pixels, mode: str) -> None:
    shown = painted[:, :, 0] if mode in ("I", "F") else painted[:, :, :3]
    source = Image.fromarray(np.ascontiguousarray(shown)).convert(mode)
    before = source.tobytes(), source.mode, source.size
    assert read_image(source).size == source.size
    assert (source.tobytes(), source.mode, source.size) == before


@pytest.mark.parametrize("orientation", STORED)
def test_the_table_of_turns_is_that_of_the_standard(orientation: int) -> None:
    """The table above against the words of the standard: where the corner of row 0 and column 0 is seen."""
    corners = {
        1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0),
    }  # fmt: skip
    upright = np.arange(12, dtype=np.uint8).reshape(3, 4)
    stored = STORED[orientation](upright)
    assert stored[0, 0] == upright[corners[orientation]]
    assert (stored.shape == (4, 3)) == (orientation >= 5)
