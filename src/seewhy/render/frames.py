"""A volume or video as a picture: up to eight of its frames side by side, each with its number."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from ..maps import values as maps
from . import drawing

_MOST, _IN_ONE_ROW = 8, 5


def frames_shown(depth: int) -> tuple[int, ...]:
    """The numbers, from 0, of the frames that stand for so many: evenly spaced from the first to the last."""
    count = min(depth, _MOST)
    return tuple(round(i * (depth - 1) / max(count - 1, 1)) for i in range(count))


def frames_of(field: Tensor, image_size: tuple[int, ...], *, fine: bool) -> Tensor:
    """The parts of a map that are drawn side by side: itself (1, h, w), or of a volume the frames shown (n, h, w).

    Args:
        field: (h, w), or (d, h, w) of a volume, which is brought to the input's depth.
        image_size: (H, W), or (D, H, W).
        fine: a volume's are brought to the input's height and width too, so that frames do not run into each other.
    """
    if field.ndim == 2:
        return field[None]
    size = image_size if fine else (image_size[0], *field.shape[1:])
    return maps.resize(field[None], size)[0, list(frames_shown(image_size[0]))]


def side_by_side(frames: Tensor) -> Tensor:
    """Lays frames (..., n, h, w) out row by row, (..., rows h, columns w)."""
    *before, count, h, w = frames.shape
    tiles = frames.reshape(*before, -1, _columns(count), h, w)
    return tiles.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)


def number_frames(picture: Image.Image, numbers: Sequence[int]) -> None:
    """Draws the lines between the frames of a picture, and in the corner of each its number."""
    across = _columns(len(numbers))
    wide = picture.width / across
    high = picture.height / (len(numbers) // across)
    face = drawing.font(max(8, min(14, round(min(wide, high) / 7))))
    draw = ImageDraw.Draw(picture)
    for i, number in enumerate(numbers):
        row, column = divmod(i, across)
        left, top = round(column * wide), round(row * high)
        if column:
            draw.line((left, top, left, round(top + high)), fill=drawing.PAPER)
        if row:
            draw.line((left, top, round(left + wide), top), fill=drawing.PAPER)
        right = left + round(face.getlength(str(number))) + 5
        bottom = top + drawing.line_height(face)
        draw.rectangle((left, top, right, bottom), fill=drawing.INK)
        draw.text((left + 3, top), str(number), font=face, fill=drawing.PAPER)


def _columns(count: int) -> int:
    """In one row, or in two of as many."""
    return count if count <= _IN_ONE_ROW or count % 2 else count // 2
