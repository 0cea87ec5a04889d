"""Pascal VOC (Everingham et al., IJCV 2010), and sets that are laid out like it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...arguments import checked_class
from ...errors import InputError
from ..dataset import SPLITS, OnError, check_split
from ..intake.intake import Intake
from ..intake.listing import Elsewhere, in_class_order
from ..intake.records import Annotation, Box, Mask, Picture, Size
from ..opened import load_whole, opened
from ..paths import kept_inside
from .annotation_xml import read_annotation
from .files import PictureFiles, existing_folder, files_by_stem, read_rows

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle",
    "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_BORDER = 255  # in SegmentationObject: pixels that belong to nothing for certain


@checked_class
class PascalVOC(PictureFiles):
    """Pascal VOC, multi-label, with boxes, "difficult", and masks where it has them.

    Files: ImageSets/Main/{train,val,test}.txt, JPEGImages/*.jpg, Annotations/*.xml, SegmentationObject/*.png. Boxes are
    written with the first pixel as 1 and the last one inside, and become half-open from 0. Classes are VOC's twenty;
    where others occur, all names of the annotations, sorted. Difficult objects count as labels. Pictures may have
    other endings than .jpg.

    Args:
        root: VOCdevkit/VOC2007, VOCdevkit/VOC2012 or alike.
        split: "train", "val" or "test".
        on_error: as in `LabeledImages`.

    Raises:
        InputError: a file that the layout needs is missing or torn.

    Example:
        >>> data = seewhy.data.PascalVOC("VOCdevkit/VOC2007")
        >>> data[0].truth.boxes, data[0].truth.difficult
        (tensor([[ 0.,  0., 10.,  5.],
                [20., 10., 30., 20.]]), tensor([False,  True]))
    """

    def __init__(
        self, root: str | Path, *, split: str = "train", on_error: OnError = "raise"
    ) -> None:
        check_split(split)
        self.root = existing_folder(root, "VOC: VOCdevkit/VOC2007 or alike")
        self._files = files_by_stem(self.root / "JPEGImages")
        intake = Intake((), _from_one, on_error)
        annotations: dict[str, Annotation] = {}
        ids = self._ids(split)
        for name in ids:
            with intake.whole(name):
                annotations[name] = read_annotation(kept_inside(self._annotation(name), self.root))
        classes = self._classes(annotations, on_error)
        intake.know(classes)
        pictures = [
            Picture(name, self._photo(name), intake.shown(name, annotations[name].objects))
            for name in ids
            if name in annotations
        ]
        lists = {other: self._list(other) for other in SPLITS if other != split}
        others = {
            other: Elsewhere(partial(self._photos, other))
            for other, path in lists.items()
            if path.exists()
        }
        super().__init__(
            f"{self.root.name}, {split}",
            classes,
            pictures,
            intake,
            within=self.root,
            others=others,
            multi_label=True,
        )

    def _list(self, split: str) -> Path:
        return self.root / "ImageSets" / "Main" / f"{split}.txt"

    def _ids(self, split: str) -> list[str]:
        return [
            row[0].split()[0] for row in read_rows(self._list(split), "the list of pictures", 1)
        ]

    def _photo(self, name: str) -> Path:
        return self.root / "JPEGImages" / self._files.get(name, f"{name}.jpg")

    def _photos(self, split: str) -> list[Path]:
        return [self._photo(name) for name in self._ids(split)]

    def _annotation(self, name: str) -> Path:
        return self.root / "Annotations" / f"{name}.xml"

    def _classes(self, annotations: dict[str, Annotation], on_error: OnError) -> Sequence[str]:
        """VOC's twenty, or all that any annotation names, also one of another split."""
        if _named(annotations.values()) <= set(CLASSES):
            return CLASSES
        every = []
        for path in sorted((self.root / "Annotations").glob("*.xml")):
            try:
                every.append(read_annotation(path))
            except InputError:  # whoever reads its split is told
                if on_error == "raise":
                    raise
        return in_class_order(_named(every))

    def annotation(self, index: int) -> Annotation:
        name = self.names[index]
        found = read_annotation(self._annotation(name))
        path = self.root / "SegmentationObject" / f"{name}.png"
        if not path.exists():
            return found
        numbers, count = _object_numbers(path), len(found.objects)
        # A few pictures have objects in one file only; then nobody knows which mask is whose.
        if set(np.unique(numbers)) - {0, _BORDER} != set(range(1, count + 1)):
            return found
        objects = [
            one._replace(mask=partial(_pixels, numbers, i))
            for i, one in enumerate(found.objects, 1)
        ]
        return replace(found, objects=objects, ignore=partial(_pixels, numbers, _BORDER))


def _from_one(x0: float, y0: float, x1: float, y1: float) -> Box:
    return x0 - 1, y0 - 1, x1, y1


def _named(annotations: Iterable[Annotation]) -> set[str]:
    return {str(one.category) for each in annotations for one in each.objects} - {""}


def _pixels(numbers: npt.NDArray[np.uint8], number: int, size: Size) -> Mask:
    return np.equal(numbers, number)


def _object_numbers(path: Path) -> npt.NDArray[np.uint8]:
    """The palette indices (H, W) of a SegmentationObject: objects from 1 in the annotation's order, 255 borders."""
    with opened(path, "masks") as picture:
        load_whole(picture, f"masks '{path}'")
        return np.asarray(picture)
