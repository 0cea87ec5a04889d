"""Reading pictures, preparing them as the libraries do, and placing maps back on the photo."""

from __future__ import annotations

import io
import os
import struct
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.images import find_images, read_image
from seewhy.data.placement import Placement
from seewhy.data.preprocess import IMAGENET, Preprocess, tensor_to_photos
from seewhy.errors import ArgumentTypeError, ImageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners() -> Image.Image:
    """A 48 x 32 picture with a different colour in each quarter: red, green / blue, white."""
    picture = Image.new("RGB", (48, 32), WHITE)
    picture.paste(RED, (0, 0, 24, 16))
    picture.paste(GREEN, (24, 0, 48, 16))
    picture.paste(BLUE, (0, 16, 24, 32))
    return picture


def pixel(picture: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    value = picture.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(
        rng.integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), dtype=np.uint8)
    )
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def assert_corners(picture: Image.Image, tolerance: int = 0) -> None:
    assert picture.mode == "RGB"
    assert picture.size == (48, 32)
    for at, colour in {(4, 4): RED, (44, 4): GREEN, (4, 28): BLUE, (44, 28): WHITE}.items():
        assert np.abs(np.subtract(pixel(picture, *at), colour)).max() <= tolerance, (
            at,
            pixel(picture, *at),
        )


# What a camera stores for each EXIF orientation, made with the inverse of the way a viewer undoes it.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_every_exif_orientation_comes_out_right_way_up(
    tmp_path: Path, orientation: int, ending: str
) -> None:
    how = STORED_AS[orientation]
    stored = corners() if how is None else corners().transpose(how)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{ending}"
    stored.save(path, exif=exif, **({"quality": 95} if ending in ("jpg", "webp") else {}))
    assert_corners(read_image(path), tolerance=12)
    with Image.open(path) as opened:
        assert_corners(read_image(opened), tolerance=12)


def test_reading_twice_does_not_turn_twice(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    corners().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert_corners(read_image(read_image(tmp_path / "a.png")))


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize(
    "other",
    [
        (0x100, 7, 4, b"abcd"),  # ImageWidth as bytes
        (0x11A, 2, 4, b"72\0\0"),  # XResolution as text
        (
            0x128,
            5,
            1,
            b"\xff\xff\xff\x7f",
        ),  # ResolutionUnit as a fraction that lies beyond the data
        (0x10F, 13, 1, b"abcd"),  # Make of a type that is none
        (0x8769, 4, 1, b"\xff\xff\0\0"),  # further data beyond these
    ],
)
def test_one_tag_turns_whatever_the_others_are(
    tmp_path: Path, orientation: int, other: tuple[int, int, int, bytes]
) -> None:
    turn = (0x112, 3, 1, struct.pack("<HH", orientation, 0))
    entries = b"".join(struct.pack("<HHL", *one[:3]) + one[3] for one in sorted((turn, other)))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + b"\0\0\0\0"
    how = STORED_AS[orientation]
    stored = corners() if how is None else corners().transpose(how)
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert_corners(read_image(tmp_path / "photo.jpg"), tolerance=12)


@pytest.mark.parametrize(
    "turn",
    [(3, struct.pack("<HH", 9, 0)), (3, struct.pack("<HH", 0, 0)), (2, b"six\0"), (7, b"\6\0\0\0")],
)
def test_a_tag_that_is_no_orientation_turns_nothing(
    tmp_path: Path, turn: tuple[int, bytes]
) -> None:
    entry = struct.pack("<HHL", 0x112, turn[0], 1 if turn[0] == 3 else 4) + turn[1]
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + b"\0\0\0\0"
    corners().save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert_corners(read_image(tmp_path / "photo.jpg"), tolerance=12)


def test_a_pil_picture_is_not_changed() -> None:
    picture = Image.new("RGBA", (4, 3), (255, 0, 0, 0))
    assert pixel(read_image(picture)) == WHITE
    assert picture.mode == "RGBA"
    plain = corners()
    read_image(plain).paste(WHITE, (0, 0, 48, 32))
    assert_corners(plain)


def test_path_kinds(tmp_path: Path) -> None:
    corners().save(tmp_path / "a.png")
    assert_corners(read_image(tmp_path / "a.png"))
    assert_corners(read_image(str(tmp_path / "a.png")))


@pytest.mark.parametrize(
    "mode", ["L", "1", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_every_pil_mode_gives_rgb(mode: str) -> None:
    if mode in ("La", "PA", "RGBa"):
        step = {"La": "LA", "PA": "P", "RGBa": "RGBA"}[mode]
        picture = Image.new("RGB", (5, 4), WHITE).convert(step).convert(mode)
    else:
        picture = Image.new("RGB", (5, 4), WHITE).convert(mode)
    made = read_image(picture)
    assert (made.mode, made.size, pixel(made)) == ("RGB", (5, 4), WHITE)


def test_half_transparent_is_composited_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "rgba.png")
    assert pixel(read_image(tmp_path / "rgba.png")) == (255, 127, 127)
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "la.png")
    assert pixel(read_image(tmp_path / "la.png")) == WHITE


def test_palette_with_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 2))
    picture.putpalette([0, 0, 0, *GREEN])
    picture.paste(1, (2, 0, 4, 2))
    for name, transparency in {"index.png": 0, "table.png": b"\x00\xff", "index.gif": 0}.items():
        picture.save(tmp_path / name, transparency=transparency)
        made = read_image(tmp_path / name)
        assert (pixel(made, 0), pixel(made, 3)) == (WHITE, GREEN), name


def test_rgb_with_one_transparent_colour(tmp_path: Path) -> None:
    corners().save(tmp_path / "key.png", transparency=RED)
    assert pixel(read_image(tmp_path / "key.png"), 4, 4) == WHITE
    assert pixel(read_image(tmp_path / "key.png"), 44, 4) == GREEN


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_cmyk_is_not_inverted(tmp_path: Path, ending: str) -> None:
    # Pillow writes CMYK JPEGs the inverted way, with an Adobe marker, as Photoshop does.
    corners().convert("CMYK").save(
        tmp_path / f"ink.{ending}", **({"quality": 95} if ending == "jpg" else {})
    )
    if ending == "jpg":
        assert b"Adobe" in (tmp_path / "ink.jpg").read_bytes()
    assert_corners(read_image(tmp_path / f"ink.{ending}"), tolerance=12)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, ending: str) -> None:
    values = np.array([[0, 257, 1000], [32896, 60000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{ending}")
    made = np.asarray(read_image(tmp_path / f"deep.{ending}"))
    assert np.array_equal(made[..., 0], np.rint(values / 257))
    assert np.array_equal(made[..., 0], made[..., 2])


def test_deep_grey_modes() -> None:
    values = np.array([[0, 65535]], np.int32)
    assert np.asarray(read_image(Image.fromarray(values)))[0, :, 1].tolist() == [0, 255]
    assert np.asarray(read_image(Image.fromarray(values - 32768)))[0, :, 1].tolist() == [0, 255]
    assert np.asarray(read_image(Image.fromarray(values * 100)))[0, :, 1].tolist() == [0, 255]
    assert pixel(read_image(Image.new("I", (2, 2), 32896))) == (128, 128, 128)
    assert pixel(read_image(Image.new("I;16B", (2, 2), 32896))) == (128, 128, 128)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-5.0, 0.0, 5.0], [0, 128, 255]),
    ],
)
def test_float_tiff_by_its_range(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "float.tif")
    assert np.asarray(read_image(tmp_path / "float.tif"))[0, :, 0].tolist() == expected


def test_float_tiff_constant_and_nan(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), -3, np.float32)).save(tmp_path / "flat.tif")
    assert pixel(read_image(tmp_path / "flat.tif")) == (0, 0, 0)
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ImageError, match=r"nan\.tif' holds NaN"):
        read_image(tmp_path / "nan.tif")


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_animation_gives_its_first_frame(tmp_path: Path, ending: str) -> None:
    others = [Image.new("RGB", (48, 32), colour) for colour in (RED, BLUE)]
    path = tmp_path / f"film.{ending}"
    corners().save(
        path,
        save_all=True,
        append_images=others,
        **({"lossless": True} if ending == "webp" else {}),
    )
    with Image.open(path) as film:
        assert getattr(film, "n_frames", 1) == 3
    assert_corners(read_image(path))


def test_one_bit(tmp_path: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.asarray(read_image(tmp_path / "bits.png"))[..., 0].tolist() == [[255, 0], [0, 255]]


def test_missing_file_suggests_a_near_one(tmp_path: Path) -> None:
    corners().save(tmp_path / "zebra.jpg")
    with pytest.raises(
        ImageError, match=r"zebar\.jpg' does not exist; did you mean 'zebra\.jpg'\?"
    ):
        read_image(tmp_path / "zebar.jpg")
    with pytest.raises(ImageError, match=r"does not exist: there is no folder '.*nowhere'; give"):
        read_image(tmp_path / "nowhere" / "x.jpg")


def test_folder_text_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ImageError, match="not an image that Pillow can read; "):
        read_image(tmp_path / "text.jpg")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="is empty"):
        read_image(tmp_path / "empty.png")


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_truncated(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"cut.{ending}"
    noise(200, 150).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match="is truncated or damaged"):
        read_image(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    corners().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image(tmp_path / "a.png")


def test_no_file_stays_open(tmp_path: Path) -> None:
    corners().save(tmp_path / "good.gif", save_all=True, append_images=[Image.new("RGB", (48, 32))])
    corners().save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:80])
    (tmp_path / "text.jpg").write_text("hello")
    kept: list[Any] = []
    before = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for name in ("good.gif", "cut.png", "text.jpg"):
            try:
                kept.append(read_image(tmp_path / name))
            except ImageError as error:
                kept.append(error)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3), (2, 3, 4)])
@pytest.mark.parametrize(
    ("dtype", "top"),
    [
        ("uint8", 255),
        ("uint16", 65535),
        (">u2", 65535),
        ("bool", True),
        ("float16", 1),
        ("float32", 1),
        ("float64", 1),
    ],
)
def test_arrays(shape: tuple[int, ...], dtype: str, top: float) -> None:
    white, black = np.full(shape, top, dtype), np.zeros(shape, dtype)
    made = read_image(white)
    assert (made.mode, made.size, pixel(made)) == ("RGB", (3, 2), WHITE)
    assert pixel(read_image(black)) == (WHITE if shape[-1] == 4 else (0, 0, 0))


def test_array_values_are_rounded() -> None:
    assert pixel(read_image(np.full((2, 2), 0.5))) == (128, 128, 128)
    assert pixel(read_image(np.full((2, 2), 32896, np.uint16))) == (128, 128, 128)
    assert_corners(read_image(np.asarray(corners())[::1]))
    assert_corners(read_image(np.asfortranarray(np.asarray(corners()))))


def test_array_errors() -> None:
    for bad in (np.full((2, 2), 1.5), np.full((2, 2), -0.1), np.full((2, 2), np.nan)):
        with pytest.raises(ImageError, match=r"floats from .*accepted: floats in \[0, 1\]"):
            read_image(bad)
    with pytest.raises(ArgumentTypeError, match="int64"):
        read_image(np.zeros((2, 2), np.int64))
    with pytest.raises(ArgumentTypeError, match="object"):
        read_image(np.zeros((2, 2), object))
    with pytest.raises(ImageError, match=r"\(3, 8, 9\).*transpose\(1, 2, 0\)"):
        read_image(np.zeros((3, 8, 9), np.uint8))
    for shape in ((4,), (2, 2, 2), (1, 2, 2, 3), ()):
        with pytest.raises(ImageError, match="has shape"):
            read_image(np.zeros(shape, np.uint8))
    for shape in ((0, 4), (4, 0, 3)):
        with pytest.raises(ImageError, match="no pixels"):
            read_image(np.zeros(shape, np.uint8))


def test_tensors() -> None:
    hwc = torch.from_numpy(np.array(corners()))
    assert_corners(read_image(hwc.permute(2, 0, 1)))
    assert_corners(read_image((hwc.permute(2, 0, 1) / 255).requires_grad_()))
    assert_corners(read_image((hwc.permute(2, 0, 1) / 255).bfloat16()))
    for shape in ((2, 3), (1, 2, 3)):
        assert pixel(read_image(torch.ones(shape))) == WHITE
        assert read_image(torch.ones(shape)).size == (3, 2)


def test_tensor_errors() -> None:
    with pytest.raises(ImageError, match=r"\(1, 3, 4, 4\).*with \[0\]"):
        read_image(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ImageError, match="has shape"):
        read_image(torch.zeros(4, 4, 3))
    with pytest.raises(ImageError, match="undo the normalisation"):
        read_image(torch.randn(3, 8, 8))
    with pytest.raises(ImageError, match="no pixels"):
        read_image(torch.zeros(3, 0, 8))
    with pytest.raises(ArgumentTypeError, match="int64"):
        read_image(torch.zeros(3, 4, 4, dtype=torch.int64))


def test_other_sources() -> None:
    with pytest.raises(ImageError, match="no pixels"):
        read_image(Image.new("RGB", (0, 5)))
    for wrong in (None, 3, b"bytes", [[0]], io.BytesIO()):
        with pytest.raises(ArgumentTypeError, match="a path or a picture or an array"):
            read_image(wrong)  # type: ignore[arg-type]


def test_find_images(tmp_path: Path) -> None:
    for name in (
        "b.JPG",
        "a.png",
        "deep/c.webp",
        ".hidden.png",
        ".git/d.png",
        "notes.txt",
        "film.mpg",
        "data.h5",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    expected = [tmp_path / name for name in ("a.png", "b.JPG", "deep/c.webp")]
    assert find_images(tmp_path) == expected
    assert find_images([str(tmp_path)]) == expected
    odd = tmp_path / "notes.txt"
    assert find_images([odd, tmp_path / "deep", "missing.jpg"]) == [
        odd,
        expected[2],
        Path("missing.jpg"),
    ]
    assert find_images("missing.jpg") == [Path("missing.jpg")]
    assert find_images(tmp_path / ".hidden.png") == [tmp_path / ".hidden.png"]


def test_find_images_in_a_folder_under_a_hidden_one(tmp_path: Path) -> None:
    (tmp_path / ".cache" / "photos").mkdir(parents=True)
    (tmp_path / ".cache" / "photos" / "a.png").touch()
    assert len(find_images(tmp_path / ".cache" / "photos")) == 1


def test_find_images_finds_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for nothing in (tmp_path, [tmp_path], []):
        with pytest.raises(ImageError, match="no image in"):
            find_images(nothing)


# -- Placement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box", [(10.0, 5.0, 34.0, 29.0), (-3.0, -2.0, 51.0, 34.0), (10.4, 5.3, 33.1, 28.9)]
)
@pytest.mark.parametrize("shape", [(7, 7), (24, 24), (200, 90), (1, 1)])
def test_a_constant_field_stays_constant_inside_and_nan_outside(
    box: tuple[float, float, float, float], shape: tuple[int, int]
) -> None:
    placed = Placement((32, 48), box).place(np.full(shape, 0.7))
    y, x = np.mgrid[0:32, 0:48] + 0.5
    inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
    assert placed.dtype == np.float32
    assert np.array_equal(~np.isnan(placed), inside)
    assert np.allclose(placed[inside], 0.7, atol=1e-6)


def test_a_field_of_the_photos_size_is_returned_as_it_is() -> None:
    field = np.random.default_rng(0).normal(size=(32, 48))
    assert np.allclose(Placement((32, 48), (0, 0, 48, 32)).place(field), field, atol=1e-6)
    shifted = Placement((32, 48), (2, 1, 50, 33)).place(field)
    assert np.allclose(shifted[1:, 2:], field[:-1, :-2], atol=1e-6)
    assert np.isnan(shifted[0]).all()


@pytest.mark.parametrize("shape", [(7, 9), (40, 30)])
def test_placing_is_aligned_below_a_pixel(shape: tuple[int, int]) -> None:
    # A ramp says at each point where that point is, so bilinear placing must give the photo's own coordinates.
    box = (4.3, 2.6, 90.8, 70.1)
    cells_x = box[0] + (np.arange(shape[1]) + 0.5) * (box[2] - box[0]) / shape[1]
    cells_y = box[1] + (np.arange(shape[0]) + 0.5) * (box[3] - box[1]) / shape[0]
    placement = Placement((80, 100), box)
    across = placement.place(np.tile(cells_x, (shape[0], 1)))
    down = placement.place(np.tile(cells_y[:, None], (1, shape[1])))
    y, x = np.mgrid[0:80, 0:100] + 0.5
    inner = (x > cells_x[0]) & (x < cells_x[-1]) & (y > cells_y[0]) & (y < cells_y[-1])
    assert np.allclose(across[inner], x[inner], atol=1e-3)
    assert np.allclose(down[inner], y[inner], atol=1e-3)


def test_placing_agrees_with_grid_sample() -> None:
    field = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    x0, y0, x1, y1 = box = (3.7, -4.2, 60.1, 50.9)
    placed = Placement((40, 64), box).place(field)
    y, x = np.mgrid[0:40, 0:64] + 0.5
    grid = np.stack([2 * (x - x0) / (x1 - x0) - 1, 2 * (y - y0) / (y1 - y0) - 1], -1).astype(
        np.float32
    )
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(field)[None, None],
        torch.from_numpy(grid)[None],
        padding_mode="border",
        align_corners=False,
    )[0, 0].numpy()
    inside = ~np.isnan(placed)
    assert inside.sum() > 1000
    assert np.allclose(placed[inside], sampled[inside], atol=1e-4)


def test_placing_on_a_photo_smaller_than_the_field_averages() -> None:
    field = np.random.default_rng(0).normal(size=(224, 224))
    placed = Placement((4, 4), (0, 0, 4, 4)).place(field)
    assert np.isfinite(placed).all()
    assert abs(placed).max() < 0.2


def test_placing_beside_the_photo_and_bad_fields() -> None:
    assert np.isnan(Placement((4, 4), (10, 10, 20, 20)).place(np.ones((2, 2)))).all()
    with pytest.raises(ImageError, match=r"\(3, 2, 2\)"):
        Placement((4, 4), (0, 0, 4, 4)).place(np.ones((3, 2, 2)))
    with pytest.raises(ImageError, match="box with an area"):
        Placement((4, 4), (0, 0, 0, 4)).place(np.ones((2, 2)))


@pytest.mark.parametrize("size", [(640, 480), (480, 641), (200, 90), (333, 333)])
@pytest.mark.parametrize(
    "preprocess",
    [
        IMAGENET,
        Preprocess((224, 224), (224, 224), (0.5,) * 3, (0.5,) * 3, "bicubic"),
        Preprocess((224, 192), None, (0.5,), (0.5,), "bilinear"),
        Preprocess((128, 224), (128, 224), (0.5,) * 3, (0.5,) * 3, "bilinear", fit="contain"),
        Preprocess((128, 224), (150, 250), (0.5,) * 3, (0.5,) * 3, "bilinear", fit="cover"),
    ],
)
def test_a_bright_patch_comes_back_to_its_place(
    size: tuple[int, int], preprocess: Preprocess
) -> None:
    width, height = size
    # Near enough to the centre that every crop shows it, and off it in both directions.
    left, top, edge = width // 2 + 12, height // 2 - 31, 17
    photo = Image.new("RGB", size)
    photo.paste(WHITE, (left, top, left + edge, top + edge))
    x, placement = preprocess(photo)
    low, high = preprocess.bounds
    placed = np.nan_to_num(placement.place(((x - low) / (high - low)).mean(0).numpy()))
    assert placed.shape == (height, width)
    rows, cols = np.mgrid[0:height, 0:width] + 0.5
    weight = placed / placed.sum()
    assert (rows * weight).sum() == pytest.approx(top + edge / 2, abs=0.05)
    assert (cols * weight).sum() == pytest.approx(left + edge / 2, abs=0.05)
    assert placed.sum() == pytest.approx(edge * edge, rel=0.05)


# -- Preprocess, against the libraries -----------------------------------------------------------------------------

SIZES = [(300, 200), (201, 307), (100, 80), (224, 224), (513, 256), (331, 331)]


def worst(preprocess: Preprocess, transform: Any, sizes: list[tuple[int, int]] = SIZES) -> float:
    """The largest difference to a transform, over photos of many sizes."""
    gaps = []
    for seed, size in enumerate(sizes):
        photo = noise(*size, seed)
        ours, theirs = preprocess(photo)[0], transform(photo)
        assert ours.shape == theirs.shape
        assert ours.dtype == torch.float32
        gaps.append(float((ours - theirs).abs().max()))
    return max(gaps)


OLD_TIMM = tuple(map(int, version("timm").split(".")[:3])) < (1, 0, 31)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("tf_efficientnet_lite0", {}),
        ("vit_base_patch16_224", {}),
        ("convnext_tiny", {}),
        ("convnext_tiny", {"crop_mode": "squash"}),
        ("convnext_tiny", {"crop_mode": "squash", "crop_pct": 1.0}),
        ("convnext_tiny", {"crop_mode": "border"}),
        ("convnext_tiny", {"crop_mode": "border", "input_size": (3, 160, 256)}),
        pytest.param(
            *("convnext_tiny", {"input_size": (3, 160, 256)}),
            marks=pytest.mark.skipif(
                OLD_TIMM, reason="timm before 1.0.31 forgets the interpolation here"
            ),
        ),
        (
            "convnext_tiny",
            {"input_size": (3, 288, 288), "crop_pct": 1.0, "interpolation": "nearest"},
        ),
        ("convnext_tiny", {"interpolation": "lanczos"}),
    ],
)
def test_as_timm(name: str, changed: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    config = (
        timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
        | changed
    )
    transform = timm.data.create_transform(**config, is_training=False)
    assert worst(Preprocess.from_timm(config), transform) <= 1e-6


def test_timm_config_of_a_model() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18")
    config = timm.data.resolve_model_data_config(model)
    made = Preprocess.from_timm(config)
    assert made.size == (224, 224)
    assert worst(made, timm.data.create_transform(**config, is_training=False), SIZES[:2]) <= 1e-6
    grey = Preprocess.from_timm(config | {"input_size": (1, 224, 224)})
    assert grey(noise(300, 200))[0].shape == (1, 224, 224)


@pytest.mark.parametrize(
    "weights",
    [
        "ResNet50_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "MobileNet_V3_Large_Weights.IMAGENET1K_V1",
        "MobileNet_V2_Weights.IMAGENET1K_V2",
        "Swin_T_Weights.IMAGENET1K_V1",
        "ViT_B_16_Weights.IMAGENET1K_V1",
        "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1",
    ],
)
def test_as_torchvision(weights: str) -> None:
    models = pytest.importorskip("torchvision.models")
    transforms = models.get_weight(weights).transforms()
    assert worst(Preprocess.from_torchvision(transforms), transforms) <= 1e-6


def test_torchvision_presets_of_another_kind_are_refused() -> None:
    models = pytest.importorskip("torchvision.models")
    detection = models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.transforms()
    for other in (detection, None, lambda photo: photo):
        with pytest.raises(ArgumentTypeError, match=r"weights\.transforms\(\)"):
            Preprocess.from_torchvision(other)


def test_imagenet_is_torchvisions_resnet_preset() -> None:
    models = pytest.importorskip("torchvision.models")
    assert (
        Preprocess.from_torchvision(models.ResNet50_Weights.IMAGENET1K_V1.transforms()) == IMAGENET
    )


PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("ViTImageProcessor", {}),
    ("ViTImageProcessor", {"size": {"height": 160, "width": 240}, "do_normalize": False}),
    ("ViTImageProcessor", {"do_rescale": False, "do_normalize": False}),
    ("ViTImageProcessor", {"image_mean": 0.4, "image_std": 0.3, "rescale_factor": 1 / 127.5}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 288}, "crop_pct": 0.95}),
    ("ConvNextImageProcessor", {}),
    ("BitImageProcessor", {}),
    ("BitImageProcessor", {"size": {"shortest_edge": 256}}),
    ("CLIPImageProcessor", {}),
    ("CLIPImageProcessor", {"do_resize": False}),
    ("DeiTImageProcessor", {}),
    ("BeitImageProcessor", {}),
    ("SiglipImageProcessor", {}),
    ("MobileNetV2ImageProcessor", {}),
    ("MobileViTImageProcessor", {}),
    ("EfficientNetImageProcessor", {}),
    ("EfficientNetImageProcessor", {"rescale_offset": True, "include_top": False}),
    ("LevitImageProcessor", {}),
    ("PoolFormerImageProcessor", {}),
]


@pytest.mark.parametrize(("name", "changed"), PROCESSORS)
@pytest.mark.parametrize("slow", [False, True])
def test_as_hugging_face(name: str, changed: dict[str, Any], slow: bool) -> None:
    transformers = pytest.importorskip("transformers")
    if slow and not hasattr(transformers, f"{name}Pil"):
        pytest.skip("this version has no slow twin")
    processor = getattr(transformers, name + "Pil" * slow)(**changed)
    preprocess = Preprocess.from_huggingface(processor)

    def transform(photo: Image.Image) -> torch.Tensor:
        values: torch.Tensor = processor(images=photo, return_tensors="pt")["pixel_values"][0]
        return values

    # One level of 255 is what two libraries' rounding may differ by, a second one what two passes may add.
    low, high = preprocess.bounds
    photo_sizes = [(300, 201), (203, 307), (226, 513)]
    if not processor.do_resize:
        # Padding an odd number of pixels, the slow and the fast processors differ by one from each other.
        photo_sizes = [(300, 202), (204, 308), (226, 513)]
    assert worst(preprocess, transform, photo_sizes) <= 2.01 / 255 * float((high - low).max())
    photo = noise(*photo_sizes[0])
    mean_gap = (preprocess(photo)[0] - transform(photo)).abs().mean()
    assert mean_gap / float((high - low).max()) <= 1e-3


def test_hugging_face_wrappers() -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor()

    class Both:
        image_processor = processor

    assert Preprocess.from_huggingface(Both()) == Preprocess.from_huggingface(processor)
    timm = pytest.importorskip("timm")
    wrapped = transformers.TimmWrapperImageProcessor(
        timm.get_pretrained_cfg("convnext_tiny").to_dict()
    )
    assert Preprocess.from_huggingface(wrapped) == Preprocess.from_timm(wrapped.data_config)


def test_hugging_face_processors_that_do_something_else_are_refused() -> None:
    transformers = pytest.importorskip("transformers")
    for processor in (
        transformers.PerceiverImageProcessor(),
        transformers.ImageGPTImageProcessor(clusters=[[0.0, 0.0, 0.0]]),
        transformers.BitImageProcessor(do_center_crop=False),
        transformers.ViTImageProcessor(do_resize=False),
        object(),
    ):
        with pytest.raises(ImageError, match=r"processor \w+ .*Preprocess\(size"):
            Preprocess.from_huggingface(processor)


# -- Preprocess, by itself -----------------------------------------------------------------------------------------


def test_the_box_of_a_centre_crop() -> None:
    x, placement = IMAGENET(noise(512, 256))
    assert x.shape == (3, 224, 224)
    assert placement == Placement((256, 512), (144.0, 16.0, 368.0, 240.0))
    _, large = IMAGENET(noise(1024, 512))
    assert large.box == (288.0, 32.0, 736.0, 480.0)
    _, small = Preprocess((224, 224), None, (0.5,) * 3, (0.5,) * 3, "bilinear")(noise(100, 300))
    assert small.box == (-62.0, 38.0, 162.0, 262.0)


def test_padding_is_black_or_the_fill() -> None:
    for fill in ((0, 0, 0), (255, 0, 128)):
        preprocess = Preprocess((8, 8), None, (0.0,) * 3, (1.0,) * 3, "bilinear", fill=fill)
        x, _ = preprocess(Image.new("RGB", (4, 4), WHITE))
        assert (x[:, 0, 0] * 255).round().tolist() == list(fill)
        assert x[:, 2:6, 2:6].eq(1).all()


def test_bounds_and_invert() -> None:
    for preprocess in (
        IMAGENET,
        Preprocess(
            (9, 7), (9, 7), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "nearest", scale=1 / 127.5, bgr=True
        ),
        Preprocess((9, 7), (9, 7), (0.0,) * 3, (1.0,) * 3, "nearest", scale=1.0),
    ):
        low, high = preprocess.bounds
        assert low.shape == high.shape == (3, 1, 1)
        height, width = preprocess.size
        black, white = (preprocess(Image.new("RGB", (300, 300), (v, v, v)))[0] for v in (0, 255))
        assert torch.allclose(black, low.expand(3, height, width), atol=1e-5)
        assert torch.allclose(white, high.expand(3, height, width), atol=1e-5)
        photo = noise(width, height)
        once = Preprocess(
            preprocess.size,
            None,
            *[getattr(preprocess, n) for n in ("mean", "std", "interpolation")],
        )
        x, _ = once.batch([photo, photo])
        assert np.array_equal(once.invert(x), np.stack([np.asarray(photo)] * 2))
    assert IMAGENET.invert(torch.full((1, 3, 2, 2), 99.0)).max() == 255
    assert IMAGENET.invert(torch.full((1, 3, 2, 2), float("nan"))).shape == (1, 2, 2, 3)
    with pytest.raises(ImageError, match=r"accepted: \(N, 3, H, W\)"):
        IMAGENET.invert(torch.zeros(3, 4, 4))
    with pytest.raises(ImageError, match=r"accepted: \(N, 3, H, W\)"):
        IMAGENET.invert(torch.zeros(1, 1, 4, 4))


def test_bgr_goes_in_and_comes_back() -> None:
    preprocess = Preprocess((4, 4), None, (0.0,) * 3, (1.0,) * 3, "bilinear", bgr=True)
    x, _ = preprocess(Image.new("RGB", (4, 4), RED))
    assert x[:, 0, 0].tolist() == [0, 0, 1]
    assert preprocess.invert(x[None])[0, 0, 0].tolist() == list(RED)


def test_grey_models() -> None:
    preprocess = Preprocess((8, 8), 8, (0.5,), (0.5,), "bilinear", fill=(7, 7, 7))
    x, _ = preprocess(Image.new("RGB", (16, 8), (100, 100, 100)))
    assert x.shape == (1, 8, 8)
    assert x[0, 0, 0] == pytest.approx((100 / 255 - 0.5) / 0.5, abs=1e-6)
    assert preprocess.bounds[0].shape == (1, 1, 1)
    assert preprocess.invert(x[None]).shape == (1, 8, 8, 3)
    assert preprocess.invert(x[None])[0, 0, 0].tolist() == [100, 100, 100]


def test_batch() -> None:
    photos = [noise(300, 200), noise(100, 400, 1)]
    x, placements = IMAGENET.batch(photos)
    assert x.shape == (2, 3, 224, 224)
    assert torch.equal(x[1], IMAGENET(photos[1])[0])
    assert [placement.photo_size for placement in placements] == [(200, 300), (400, 100)]
    with pytest.raises(ImageError, match="at least one"):
        IMAGENET.batch([])


def test_extreme_photos() -> None:
    x, placement = IMAGENET(noise(1, 1))
    assert x.shape == (3, 224, 224)
    assert placement.photo_size == (1, 1)
    assert np.isfinite(placement.place(np.ones((7, 7)))).all()
    with pytest.raises(ImageError, match="too elongated"):
        IMAGENET(Image.new("RGB", (1, 20000)))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("std", (0.5,), "one value each"),
        ("mean", (0.5, 0.5), "one value each"),
        ("std", (0.0, 1.0, 1.0), "above 0"),
        ("size", (0, 4), "above 0"),
        ("resize", 0, "above 0"),
        ("scale", 0.0, "above 0"),
        ("interpolation", "cubic", "accepted: nearest"),
        ("fit", "crop", "accepted: stretch"),
    ],
)
def test_impossible_preprocesses(field: str, value: Any, message: str) -> None:
    fields = {
        "size": (8, 8),
        "resize": 8,
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "interpolation": "bilinear",
    }
    with pytest.raises(ImageError, match=message):
        Preprocess(**(fields | {field: value}))


def test_tensor_to_photos() -> None:
    photo = noise(224, 224)
    x, _ = Preprocess((224, 224), None, IMAGENET.mean, IMAGENET.std, "bilinear").batch([photo])
    assert np.array_equal(np.asarray(tensor_to_photos(x, IMAGENET)[0]), np.asarray(photo))
    for channels in (1, 2, 3, 13):
        batch = torch.randn(2, channels, 5, 6, requires_grad=True)
        pictures = tensor_to_photos(batch * torch.tensor([1.0, 50.0]).reshape(2, 1, 1, 1), None)
        assert [(picture.mode, picture.size) for picture in pictures] == [("RGB", (6, 5))] * 2
        for picture in pictures:
            pixels = np.asarray(picture)
            assert (pixels.min(), pixels.max()) == (0, 255)
            assert (channels == 3) != np.array_equal(pixels[..., 0], pixels[..., 1])
    assert pixel(tensor_to_photos(torch.full((1, 3, 4, 4), 7.0), None)[0]) == (0, 0, 0)
    for bad in (torch.zeros(3, 4, 4), torch.zeros(1, 3, 0, 4)):
        with pytest.raises(ImageError, match=r"\(N, C, H, W\)"):
            tensor_to_photos(bad, None)
