"""Where on a photo the model looked, and fields over its input laid there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import ImageError
from .rgb import Array


@dataclass(frozen=True)
class Placement:
    """Where on a photo the model looked.

    Attributes:
        photo_size: (height, width) of the photo in pixels.
        box: (x0, y0, x1, y1) in photo pixels, half-open; it may reach beyond the photo where the input was padded.
        frames: of a volume or video, which stands as a photo of some of its frames side by side, their numbers.
    """

    photo_size: tuple[int, int]
    box: tuple[float, float, float, float]
    frames: tuple[int, ...] = ()

    def scaled(self, size: tuple[int, int]) -> Placement:
        """The same place on the photo at another (height, width)."""
        down = size[0] / self.photo_size[0]
        across = size[1] / self.photo_size[1]
        x0, y0, x1, y1 = self.box
        return replace(self, photo_size=size, box=(x0 * across, y0 * down, x1 * across, y1 * down))

    def place(self, field: Array) -> npt.NDArray[np.float32]:
        """Lays a field over the model's input onto the photo, bilinearly.

        Args:
            field: (h, w), any size; its pixels are stretched over the whole box. Other shapes are an ImageError.

        Returns:
            (height, width) float32 of the photo, NaN where the pixel's centre is outside the box.
        """
        x0, y0, x1, y1 = self.box
        if field.ndim != 2 or field.size == 0 or x1 <= x0 or y1 <= y0:
            raise ImageError(
                f"field of shape {field.shape} on box {self.box}; accepted: (h, w) on a box with an area"
            )
        rows, top, bottom = _overlap(y0, y1, self.photo_size[0], field.shape[0])
        cols, left, right = _overlap(x0, x1, self.photo_size[1], field.shape[1])
        placed = np.full(self.photo_size, np.nan, np.float32)
        if not rows or not cols:
            return placed
        # A photo pixel with its centre inside may overhang the field, and Pillow resizes no box beyond the picture.
        margin = (
            math.ceil(max(0.0, -top, -left, bottom - field.shape[0], right - field.shape[1])) + 1
        )
        padded = Image.fromarray(np.pad(field.astype(np.float32), margin, mode="edge"))
        box = (left + margin, top + margin, right + margin, bottom + margin)
        resized = padded.resize((len(cols), len(rows)), Image.Resampling.BILINEAR, box=box)
        placed[rows.start : rows.stop, cols.start : cols.stop] = np.asarray(resized)
        return placed


def _overlap(start: float, stop: float, pixels: int, cells: int) -> tuple[range, float, float]:
    """The photo pixels with their centre in [start, stop), and the interval of field cells that they span."""
    inside = range(max(0, math.ceil(start - 0.5)), min(pixels, math.ceil(stop - 0.5)))
    per_pixel = cells / (stop - start)
    return inside, (inside.start - start) * per_pixel, (inside.stop - start) * per_pixel
