"""Shapes as COCO writes them, polygons and run lengths, read as masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...errors import InputError, MissingExtraError
from ..intake.listing import whole_number
from ..intake.records import Mask, Size


def check_decoder() -> None:
    """Raises a MissingExtraError where pycocotools is not installed."""
    try:
        import pycocotools.mask
    except ImportError as error:
        raise MissingExtraError("the data set 'coco'", "coco") from error
    del pycocotools


def read_shape(shape: object, size: Size) -> Mask:
    """The mask of a list of polygons, at the photo's size, or of run lengths, at their own.

    Raises:
        InputError: it is neither, or not whole.
    """
    if isinstance(shape, Mapping):
        return _of_run_lengths(shape)
    if not isinstance(shape, list):
        raise InputError(f"its mask is {str(shape)[:60]!r}; give polygons or run lengths")
    from pycocotools import mask as coder

    # It hangs on NaN, takes two points for a box, and walks along edges of any length.
    polygons = [_polygon(one, size) for one in shape]
    merged = coder.merge(coder.frPyObjects(polygons, *size))
    return _of_run_lengths({"size": list(size), "counts": merged["counts"].decode("ascii")})


def _polygon(said: object, size: Size) -> list[float]:
    if not isinstance(said, list) or len(said) < 6 or len(said) % 2:
        raise InputError(f"polygon {str(said)[:60]}; give x and y of three points at least")
    points = np.array(said, float)
    limits = np.tile((2 * size[1], 2 * size[0]), len(points) // 2)
    if not (np.abs(points) <= limits).all():  # NaN fails it too
        raise InputError(
            f"polygon {str(said)[:60]} reaches far beyond the picture of {size[1]} x {size[0]}"
        )
    found: list[float] = points.tolist()
    return found


def _of_run_lengths(said: Mapping[str, object]) -> Mask:
    """Runs of zeros and ones in turn, down one column after the other; where they fall short, pycocotools reads on."""
    height, width = _edges(said.get("size"))
    counts = said.get("counts")
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(
        type(run) is int and 0 <= run <= height * width for run in runs
    ):
        raise InputError(
            f"its run lengths are {str(counts)[:60]}; give a list of whole numbers, or COCO's text"
        )
    if sum(runs) != height * width:
        raise InputError(
            f"its run lengths have {sum(runs)} pixels, and their size {width} x {height}"
        )
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _edges(size: object) -> Size:
    if not isinstance(size, list) or len(size) != 2 or min(map(whole_number, size)) < 1:
        raise InputError(f"the size of its run lengths is {str(size)[:60]}; give height and width")
    return whole_number(size[0]), whole_number(size[1])


def _unpacked(text: str) -> list[int]:
    """COCO's run lengths as text: five bits a letter, the low ones first; from the fourth on, less the last but one."""
    runs: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise InputError(
                f"its run lengths {text[:60]!r} hold {letter!r}, which stands for nothing"
            )
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        number -= (1 << shift) if bits & 16 else 0
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise InputError(f"its run lengths {text[:60]!r} are cut short")
    return runs
