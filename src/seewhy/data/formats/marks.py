"""From an annotation, which may be wrong, to a Truth, which is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ...errors import InputError
from ..dataset import OnError
from ..truth import Truth

Box = tuple[float, float, float, float]  # x0, y0, x1, y1, half-open
Masks = npt.NDArray[np.bool_]  # (..., H, W)

_ROUNDING = 1.0  # pixels by which a box may overhang: coordinates are rounded in more ways than one


@dataclass(frozen=True, eq=False)
class Marks:
    """What an annotation says of the objects of one picture.

    Attributes:
        boxes: half-open; perhaps without area, or beyond the picture.
        labels: of each box.
        masks: (B, H, W) of each object, or None.
        difficult: of each box; empty for none.
        ignore: (H, W), pixels that count neither way, or None.
        size: (H, W) of the picture that the annotation is of, where it says so.
    """

    boxes: Sequence[Box]
    labels: Sequence[int]
    masks: Masks | None = None
    difficult: Sequence[bool] = ()
    ignore: Masks | None = None
    size: tuple[int, int] | None = None

    def truth(self, size: tuple[int, int], name: str, on_error: OnError) -> tuple[Truth | None, tuple[str, ...]]:
        """The truth of a picture of this size (H, W), and notes of what was mended.

        Overhang of up to a pixel is rounding, and clipped. Further boxes beyond the picture are clipped, those
        without area left out, and all marks of another size: with a note, or with an InputError, as `on_error` says.
        """
        notes: list[str] = []

        def fault(said: str) -> None:
            if on_error == "raise":
                raise InputError(f"annotation of '{name}': {said}; mend it, or pass on_error='skip'")
            notes.append(said)

        if self.size not in (None, size):
            fault(f"it is of a picture of {self.size} (height, width), and the picture has {size}")
            return None, tuple(notes)
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        edges = np.array([size[1], size[0], size[1], size[0]], np.float32)
        kept: list[int] = []
        for i, box in enumerate(boxes):
            shown = np.round(box, 2).tolist()
            beyond = max((box - edges).max(), (-box).max())
            if beyond > _ROUNDING:
                fault(f"box {shown} reaches beyond the picture of {size[1]} x {size[0]}")
            clipped = np.clip(box, 0, edges)
            if not (clipped[0] < clipped[2] and clipped[1] < clipped[3]):  # NaN fails it too
                fault(f"box {shown} has no area in the picture")
                continue
            boxes[i] = clipped
            kept.append(i)
        truth = Truth(
            size,
            torch.from_numpy(boxes[kept]),
            torch.tensor(self.labels, dtype=torch.long)[kept],
            None if self.masks is None else torch.from_numpy(self.masks[kept]),
            torch.tensor(self.difficult, dtype=torch.bool)[kept] if self.difficult else None,
            None if self.ignore is None else torch.from_numpy(self.ignore),
        )
        return truth, tuple(notes)


def box_of(mask: Masks) -> Box:
    """The tight half-open box of a mask (H, W); (0, 0, 0, 0) where it is empty."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(cols[0]), float(rows[0]), float(cols[-1] + 1), float(rows[-1] + 1)


def read_mask(path: Path, size: tuple[int, int], *, above: int = 0) -> npt.NDArray[np.bool_]:
    """The mask (H, W) of a grey picture: its pixels above a value, brought to the size by the nearest pixel.

    An object that falls between those has all pixels that it touches.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with Image.open(path) as picture:
            grey = picture.convert("L")
    except Exception as error:  # decoders meet damage with whatever their parsing trips over
        raise InputError(f"mask '{path}' cannot be read ({error}); get it anew") from error
    mask = np.asarray(grey) > above
    if mask.shape == size:
        return mask
    marked = Image.fromarray(mask.astype(np.float32))
    nearest = np.asarray(marked.resize((size[1], size[0]), Image.Resampling.NEAREST)) > 0
    if nearest.any() or not mask.any():
        return nearest
    return np.asarray(marked.resize((size[1], size[0]), Image.Resampling.BOX)) > 0
