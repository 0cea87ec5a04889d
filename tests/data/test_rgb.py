"""Pictures as RGB band by band: what they are in one go; reduced, the mean of what each pixel covers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.data import rgb
from seewhy.data.images import LARGE, SHOWN_SIDE, drawn_photo, read_photo
from seewhy.data.preprocess import IMAGENET

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "I;16", "I", "F")


def of_mode(mode: str, width: int = 70, height: int = 90) -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode in ("I;16", "I", "F"):
        deep = (
            values[..., 0].astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]) * 100
        )
        return Image.fromarray(deep)
    if mode in ("PA", "LA"):
        return Image.fromarray(values[..., :2], "LA").convert(mode)
    return Image.fromarray(values if mode in ("RGBA", "CMYK") else values[..., :3]).convert(mode)


@pytest.mark.parametrize("mode", MODES)
def test_bands_are_what_one_go_gives(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = of_mode(mode)
    whole = np.asarray(rgb.upright_rgb(picture, "it"))
    small = rgb.upright_rgb(picture, "it", (11, 13))
    monkeypatch.setattr(rgb, "_BAND", 200)
    assert np.array_equal(np.asarray(rgb.upright_rgb(picture, "it")), whole)
    banded = rgb.upright_rgb(picture, "it", (11, 13))
    assert np.abs(np.asarray(small, int) - np.asarray(banded, int)).max() <= 1  # rounded


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "I;16"])
def test_a_reduced_pixel_is_the_mean_of_what_it_covers(mode: str) -> None:
    picture = of_mode(mode, 60, 90)
    whole = np.asarray(rgb.upright_rgb(picture, "it"), np.float64)
    means = whole.reshape(15, 6, 12, 5, 3).mean((1, 3))
    assert (
        np.abs(np.asarray(rgb.upright_rgb(picture, "it", (12, 15)), np.float64) - means).max() <= 1
    )


def test_a_large_photo_is_reduced_and_its_size_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (LARGE, SHOWN_SIDE) == (50_000_000, 2048)
    monkeypatch.setattr("seewhy.data.images.LARGE", 300 * 200)
    monkeypatch.setattr("seewhy.data.images.SHOWN_SIDE", 100)

    def least(height: int, width: int) -> tuple[int, int]:
        return height // 2, width // 5

    untouched = read_photo(Image.new("L", (300, 200)), least=least)
    assert (untouched.picture.size, untouched.size) == ((300, 200), (200, 300))
    reduced = read_photo(Image.new("L", (400, 200)), least=least)
    assert (reduced.picture.size, reduced.size) == (
        (200, 100),
        (200, 400),
    )  # half is needed along one side


def test_a_large_photo_on_its_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.data.images.LARGE", 1000)
    monkeypatch.setattr("seewhy.data.images.SHOWN_SIDE", 40)
    lying = Image.new("RGB", (400, 200))
    lying.paste((255, 255, 255), (0, 0, 200, 200))
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by a quarter, clockwise
    for ending in ("jpg", "png", "tif"):
        lying.save(tmp_path / f"a.{ending}", exif=exif)
        photo = read_photo(tmp_path / f"a.{ending}", least=lambda height, width: (1, 1))
        assert (photo.picture.size, photo.size) == ((20, 40), (400, 200))
        assert photo.picture.getpixel((10, 5)) == (255, 255, 255)
        assert photo.picture.getpixel((10, 35)) == (0, 0, 0)


def test_the_input_of_a_reduced_photo_is_nearly_that_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (60, 90, 3), dtype=np.uint8))
    photo = coarse.resize((3600, 2400), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "a.jpg", quality=95)
    whole = IMAGENET(read_photo(tmp_path / "a.jpg", least=IMAGENET.enough).picture)[0]
    monkeypatch.setattr("seewhy.data.images.LARGE", 1000)
    monkeypatch.setattr("seewhy.data.images.SHOWN_SIDE", 1024)
    small = read_photo(tmp_path / "a.jpg", least=IMAGENET.enough)
    assert (small.picture.size, small.size) == ((1152, 768), (2400, 3600))
    difference = (IMAGENET(small.picture)[0] - whole) * 0.225 * 255
    assert difference.abs().mean() < 1.5  # of 255
    assert difference.abs().max() < 12


def test_a_photo_is_drawn_at_a_stated_size() -> None:
    assert drawn_photo(Image.new("RGB", (4096, 1000))).size == (2048, 500)
    small = Image.new("RGB", (2048, 7))
    assert drawn_photo(small).size == (2048, 7)
    assert drawn_photo(small) is not small
