"""Masks: the box of one, one in a file, one brought to the size of a photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from ..opened import load_whole, opened
from .records import Box, Mask, Size

_STRETCH = 0.05  # by which the edges of a scaled copy may differ in proportion, beyond what rounding them makes


def box_of(mask: Mask) -> Box:
    """The tight half-open box of a mask (H, W); (0, 0, 0, 0) where it is empty."""
    rows = np.flatnonzero(mask.any(1))
    cols = np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(cols[0]), float(rows[0]), float(cols[-1] + 1), float(rows[-1] + 1)


def read_mask(path: Path, *, above: int = 0) -> Mask:
    """The mask (H, W) of a grey picture: its pixels above a value.

    Raises:
        InputError: the file cannot be read.
    """
    with opened(path, "mask") as picture:
        load_whole(picture, f"mask '{path}'")
        gray = picture.convert("L")
    return np.asarray(gray) > above


def scaled_mask(mask: Mask, size: Size) -> Mask:
    """A mask brought to a size by the nearest pixel; an object that falls between has all pixels that it touches."""
    if mask.shape == size:
        return mask
    marked = Image.fromarray(mask.astype(np.float32))
    nearest = np.asarray(marked.resize((size[1], size[0]), Image.Resampling.NEAREST)) > 0
    if nearest.any() or not mask.any():
        return nearest
    return np.asarray(marked.resize((size[1], size[0]), Image.Resampling.BOX)) > 0


def fitted_mask(mask: Mask, size: Size, *, scaled: bool) -> Mask:
    """A mask of a photo of this size; of another one only if it may be `scaled`, and has the photo's proportions.

    Raises:
        InputError: it is of another picture, or of one that was resized or turned since.
    """
    if mask.shape == size:
        return mask
    (height, width), (rows, cols) = size, mask.shape
    slack = 1 + _STRETCH * min(rows, height * cols / width)  # in rows of the mask
    if scaled and rows and cols and abs(rows - height * cols / width) <= slack:
        return scaled_mask(mask, size)
    raise InputError(f"its mask has {cols} x {rows} pixels, the photo {width} x {height}")
