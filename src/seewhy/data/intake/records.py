"""What readers of annotation files hand on: records, with everything as it stands in the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Box = tuple[float, float, float, float]  # x0, y0, x1, y1, half-open
Mask = npt.NDArray[np.bool_]  # (H, W)
Size = tuple[int, int]  # height, width
MaskReader = Callable[[Size], Mask]


class Picture(NamedTuple):
    """One line of a data set: a file and what it shows.

    Attributes:
        name: its id in the data set.
    """

    name: str
    path: Path
    labels: tuple[int, ...]


class MarkedObject(NamedTuple):
    """One object of an annotation, unread: whatever is wrong with it is found by the intake.

    Attributes:
        called: what an error calls it, such as "annotation 17" or "line 5".
        category: the id of its class.
        box: four numbers, in the reader's convention.
        mask: reads its mask, of whatever size it has; the size of the photo is given. None for none.
        difficult: "0" or "1", or a bool; None for no word on it.
        crowd: its pixels count neither way, and it has no box.
    """

    called: str
    category: object
    box: object = None
    mask: MaskReader | None = None
    difficult: object = None
    crowd: bool = False


@dataclass(frozen=True)
class Annotation:
    """What a file says of one picture.

    Attributes:
        objects: in the order of the file.
        size: height and width of the picture that was marked, as they are written; None for no word on them.
        ignore: reads the pixels that count neither way, less those of objects; None for none.
        scaled: whether masks may have been drawn on a smaller or larger copy of the photo.
    """

    objects: Sequence[MarkedObject]
    size: tuple[object, object] | None = None
    ignore: MaskReader | None = None
    scaled: bool = False
