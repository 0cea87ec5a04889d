"""Pictures of any mode as 8-bit RGB, right way up; large ones band by band, so that no second copy of them stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import ImageError

Array = npt.NDArray[Any]
_BAND = 4_000_000  # pixels that are converted at once
_ORIENTATION = 0x112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = {_TURNS[turn] for turn in (5, 6, 7, 8)}
_SAYS_HOW_TO_TURN = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


def upright(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF data say, of which one tag is read; what else they hold may be of any type.

    Pillow's own `exif_transpose` writes all of them anew, and fails on tags of other types than it knows.
    """
    picture.load()  # some formats turn themselves, and drop the tag
    turn = _turn_of(picture)
    return picture if turn is None else _turned(picture, turn)


def upright_rgb(
    picture: Image.Image, name: str, size: tuple[int, int] | None = None
) -> Image.Image:
    """A decoded picture as 8-bit RGB, right way up, transparency on white; it may be the very one that was given.

    Args:
        picture: decoded; stays as it is.
        name: it is called so in errors.
        size: (width, height) to which it is reduced before it is turned, each pixel the mean of those that it covers.

    Raises:
        ImageError: its values are no colors.
    """
    turn = _turn_of(picture)
    plain = picture.mode == "RGB" and not picture.has_transparency_data
    if plain and size is None:
        rgb = picture
    elif plain:
        rgb = picture.resize(size or picture.size, Image.Resampling.BOX)
    else:
        rgb = _in_bands(picture, _converter(picture, name), size or picture.size)
    return rgb if turn is None else _turned(rgb, turn)


def turned_size(picture: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) of a picture once it is the right way up."""
    turn = _turn_of(picture)
    return size[::-1] if turn in _ON_ITS_SIDE else size


def eight_bit_gray(values: Array, name: str) -> npt.NDArray[np.uint8]:
    """Brings 16-bit, 32-bit or float grey (H, W) to 8 bit: by its usual range, or else from least to most."""
    return _scaled_gray(values, _gray_range([values], name))


def _turn_of(picture: Image.Image) -> Image.Transpose | None:
    turn = picture.getexif().get(_ORIENTATION)
    return _TURNS.get(turn) if type(turn) is int else None


def _turned(picture: Image.Image, turn: Image.Transpose) -> Image.Image:
    turned = picture.transpose(turn)
    for name in _SAYS_HOW_TO_TURN:
        turned.info.pop(name, None)
    return turned


def _converter(picture: Image.Image, name: str) -> Callable[[Image.Image], Image.Image]:
    """What makes a band of a picture RGB."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        bands = (np.asarray(band) for _, band in _bands(picture, picture.height))
        return partial(_gray_rgb, ends=_gray_range(bands, name))
    return _on_white if picture.has_transparency_data else _plain_rgb


def _plain_rgb(band: Image.Image) -> Image.Image:
    return band.convert("RGB")


def _on_white(band: Image.Image) -> Image.Image:
    # Pillow converts premultiplied grey to nothing but LA.
    layer = (band.convert("LA") if band.mode == "La" else band).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _gray_rgb(band: Image.Image, ends: tuple[float, float]) -> Image.Image:
    return Image.fromarray(_scaled_gray(np.asarray(band), ends)).convert("RGB")


def _in_bands(
    picture: Image.Image, convert: Callable[[Image.Image], Image.Image], size: tuple[int, int]
) -> Image.Image:
    """Converts a picture band by band, each reduced at once to its rows of the (width, height) asked for."""
    if picture.size == size and picture.width * picture.height <= _BAND:
        return convert(picture)
    done = Image.new("RGB", size)
    scale = picture.height / size[1]
    for (top, bottom), band in _bands(picture, size[1]):
        rows = convert(band)
        if picture.size != size:
            start = top * scale - math.floor(top * scale)
            box = (0.0, start, float(band.width), min(band.height, start + (bottom - top) * scale))
            rows = rows.resize((size[0], bottom - top), Image.Resampling.BOX, box=box)
        done.paste(rows, (0, top))
    return done


def _bands(picture: Image.Image, rows: int) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """Rows [top, bottom) of `rows` in all, and the part of a picture that they cover, with whole pixels."""
    scale = picture.height / rows
    step = max(1, int(_BAND / (picture.width * scale)))
    for top in range(0, rows, step):
        bottom = min(rows, top + step)
        part = (
            0,
            math.floor(top * scale),
            picture.width,
            min(picture.height, math.ceil(bottom * scale)),
        )
        yield (top, bottom), picture.crop(part)


def _gray_range(bands: Iterable[Array], name: str) -> tuple[float, float]:
    """The values of black and white of grey that comes in parts: the usual ones of its type, or least and most."""
    low, high, kind = math.inf, -math.inf, ""
    for values in bands:
        kind = values.dtype.kind
        if kind == "f" and not np.isfinite(values).all():
            raise ImageError(
                f"{name} holds NaN or infinite pixels; accepted: finite values; replace them first"
            )
        low = min(low, float(values.min()))
        high = max(high, float(values.max()))
    usual = [
        top for top in ((1.0, 255.0) if kind == "f" else (65535.0,)) if 0 <= low <= high <= top
    ]
    return (0.0, usual[0]) if usual else (low, high)


def _scaled_gray(values: Array, ends: tuple[float, float]) -> npt.NDArray[np.uint8]:
    floor, top = ends
    return np.rint((values.astype(np.float64) - floor) * (255 / ((top - floor) or 1))).astype(
        np.uint8
    )
