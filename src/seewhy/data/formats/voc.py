"""Pascal VOC (Everingham et al., IJCV 2010), and sets that are laid out like it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from ..dataset import OnError, check_split
from .annotation_xml import read_objects
from .files import Picture, PictureFiles, existing_folder, read_rows
from .marks import Marks

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle",
    "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_BORDER = 255  # in SegmentationObject: pixels that belong to nothing for certain


class PascalVOC(PictureFiles):
    """Pascal VOC, multi-label, with boxes, "difficult", and masks where it has them.

    Files: ImageSets/Main/{train,val,test}.txt, JPEGImages/*.jpg, Annotations/*.xml, SegmentationObject/*.png. Boxes are
    written with the first pixel as 1 and the last one inside, and become half-open from 0. Classes are VOC's twenty;
    where others occur, all names of the annotations, sorted. Difficult objects count as labels.

    Args:
        root: VOCdevkit/VOC2007, VOCdevkit/VOC2012 or alike.
        split: "train", "val" or "test".
        on_error: as in `LabelledImages`.

    Raises:
        InputError: a file that the layout needs is missing or torn.
    """

    def __init__(self, root: str | Path, *, split: str = "train", on_error: OnError = "raise") -> None:
        check_split(split)
        self.root = existing_folder(root, "VOC: VOCdevkit/VOC2007 or alike")
        rows = read_rows(self.root / "ImageSets" / "Main" / f"{split}.txt", "the list of pictures", 1)
        ids = [row[0].split()[0] for row in rows]
        objects = [read_objects(self._annotation(name)) for name in ids]
        shown = {one.name for each in objects for one in each}
        classes: tuple[str, ...] = CLASSES
        if not shown <= set(CLASSES):
            every = sorted((self.root / "Annotations").glob("*.xml"))
            classes = tuple(sorted({one.name for path in every for one in read_objects(path)}))
        self._number = {name: label for label, name in enumerate(classes)}
        pictures = [
            Picture(name, self.root / "JPEGImages" / f"{name}.jpg", tuple(sorted({self._number[o.name] for o in each})))
            for name, each in zip(ids, objects, strict=True)
        ]
        super().__init__(f"{self.root.name}, {split}", classes, pictures, multi_label=True, on_error=on_error)

    def _annotation(self, name: str) -> Path:
        return self.root / "Annotations" / f"{name}.xml"

    def marks(self, index: int, size: tuple[int, int]) -> Marks:
        name = self.names[index]
        objects = read_objects(self._annotation(name))
        boxes = [(x0 - 1, y0 - 1, x1, y1) for x0, y0, x1, y1 in (one.corners for one in objects)]
        marks = Marks(boxes, [self._number[one.name] for one in objects], difficult=[one.difficult for one in objects])
        path = self.root / "SegmentationObject" / f"{name}.png"
        if not path.exists():
            return marks
        numbers = _object_numbers(path)
        if numbers.shape != size:
            raise InputError(f"masks '{path}' have shape {numbers.shape}, the picture {size}; get them anew")
        masks = numbers[None] == np.arange(1, len(objects) + 1)[:, None, None]
        # A few pictures have objects in one file only; then nobody knows which mask is whose.
        whole = bool(masks.any((1, 2)).all()) and set(np.unique(numbers)) <= {0, *range(1, len(objects) + 1), _BORDER}
        return Marks(
            marks.boxes, marks.labels, masks if whole else None, marks.difficult, numbers == _BORDER if whole else None
        )


def _object_numbers(path: Path) -> np.ndarray:
    """The palette indices (H, W) of a SegmentationObject: objects from 1 in the annotation's order, 255 borders."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture)
    except Exception as error:  # decoders meet damage with whatever their parsing trips over
        raise InputError(f"masks '{path}' are damaged ({error}); get them anew") from error
