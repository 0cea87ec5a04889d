"""A picture of which something is missing is an error, in every usual format, wherever it is cut off."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from seewhy.data.images import read_image
from seewhy.errors import ImageError


def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:60, 0:80]
    slopes = np.stack([columns * 2 + 20, rows * 3 + 30, (rows + columns) % 160 + 30], axis=2)
    return Image.fromarray((slopes + rng.integers(0, 20, slopes.shape)).astype(np.uint8))


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture().convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "png": ("PNG", "RGB", {}),
    "png of a palette": ("PNG", "P", {}),
    "jpeg": ("JPEG", "RGB", {}),
    "progressive jpeg": ("JPEG", "RGB", {"progressive": True}),
    "grey jpeg": ("JPEG", "L", {}),
    "gif": ("GIF", "P", {}),
    "bmp": ("BMP", "RGB", {}),
    "webp": ("WEBP", "RGB", {}),
    "lossless webp": ("WEBP", "RGB", {"lossless": True}),
    "tiff": ("TIFF", "RGB", {}),
    "lzw tiff": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "deflated tiff": ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    "fax": ("TIFF", "1", {"compression": "group4"}),
    "jpeg 2000": ("JPEG2000", "RGB", {}),
    "ppm": ("PPM", "RGB", {}),
    "tga": ("TGA", "RGB", {"compression": "tga_rle"}),
    "pcx": ("PCX", "RGB", {}),
    "sgi": ("SGI", "RGB", {}),
}


@pytest.fixture(params=[False, True], ids=["as Pillow comes", "set to take truncated files"])
def _lenient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", request.param)
    yield
    assert request.param is ImageFile.LOAD_TRUNCATED_IMAGES, (
        "what is set for the process is left alone"
    )


@pytest.mark.usefixtures("_lenient")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_off_is_refused_and_a_whole_one_read(tmp_path: Path, kind: str) -> None:
    name, mode, options = KINDS[kind]
    if name == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("Pillow was built without OpenJPEG")
    data, path = encoded(name, mode, **options), tmp_path / "picture"
    path.write_bytes(data)
    with Image.open(path) as whole:
        expected = np.asarray(whole.convert("RGB"))
    assert np.array_equal(np.asarray(read_image(path)), expected)
    for part in (0.05, 0.3, 0.6, 0.9, 0.97):
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(
            ImageError, match=r"truncated or damaged|not an image that Pillow can read"
        ):
            read_image(path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: np.ndarray[Any, Any], height: int, *, color: int = 2, closed: bool = True) -> bytes:
    """A PNG that says it has `height` rows and holds these, with everything else in order."""
    packed = zlib.compressobj()
    data = packed.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    data += packed.flush() if closed else packed.flush(zlib.Z_SYNC_FLUSH)
    header = struct.pack(">IIBBBBB", rows.shape[1], height, 8, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.usefixtures("_lenient")
@pytest.mark.parametrize("closed", [True, False])
def test_a_png_whose_rows_end_early_though_the_file_does_not(tmp_path: Path, closed: bool) -> None:
    path, rows = tmp_path / "rows.png", np.asarray(picture())
    path.write_bytes(png(rows[:20], len(rows), closed=closed))
    with pytest.raises(ImageError, match="truncated or damaged"):
        read_image(path)
    path.write_bytes(png(rows, len(rows), closed=closed))
    assert np.array_equal(np.asarray(read_image(path)), rows)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "LA"])
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (33, 9)])
def test_black_pngs_are_whole(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    """Missing rows are black: a picture that is so is looked at closely."""
    Image.new(mode, size).save(tmp_path / "black.png")
    assert read_image(tmp_path / "black.png").size == size


def test_an_interlaced_png_is_counted_pass_by_pass(tmp_path: Path) -> None:
    """Pillow writes none: this one has only the first pixel of each pass that an 8 x 8 picture has."""
    rows = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]  # columns and rows of each pass
    raw = b"".join(b"\0" + b"\x50" * columns for columns, count in rows for _ in range(count))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    path = tmp_path / "interlaced.png"

    def write(data: bytes) -> None:
        packed = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + packed)

    write(raw)
    assert set(np.asarray(read_image(path)).ravel().tolist()) == {0x50}
    write(raw[:-9])
    with pytest.raises(ImageError, match="truncated or damaged"):
        read_image(path)


@pytest.mark.usefixtures("_lenient")
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_whose_end_marker_comes_too_soon(tmp_path: Path, mode: str) -> None:
    data, path = encoded("JPEG", mode, quality=95), tmp_path / "early.jpg"
    path.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    with pytest.raises(ImageError, match="its data end before its last row"):
        read_image(path)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 30}, {"restart_marker_rows": 1}]
)
def test_a_jpeg_that_is_mid_grey_is_whole(tmp_path: Path, options: dict[str, Any]) -> None:
    """The color of what libjpeg fills in: a picture that ends so is looked at closely."""
    path = tmp_path / "grey.jpg"
    half = Image.new("RGB", (64, 64), (128, 128, 128))
    half.paste(picture().resize((64, 20)), (0, 0))
    half.save(path, exif=Image.Exif(), **options)
    assert read_image(path).getpixel((63, 63)) == (128, 128, 128)
