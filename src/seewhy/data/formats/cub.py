"""Caltech-UCSD Birds 200-2011 (Wah et al., 2011)."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from ..dataset import OnError, check_split
from .files import Picture, PictureFiles, existing_folder, hash_split, read_rows
from .marks import Box, Marks, read_mask

_HELD_OUT = {"val": 0.1}


class Cub(PictureFiles):
    """CUB-200-2011, single-label, with a box for each bird, and its mask where "segmentations" is there.

    Files: images.txt, classes.txt, train_test_split.txt, image_class_labels.txt, bounding_boxes.txt, images/. Boxes (x,
    y, width, height), from 0, become half-open corners. A mask's pixels are those that more than half of the annotators
    marked. The authors have no "val": a tenth of each class's training pictures, by a hash of their paths, is it, and
    is not in "train".

    Args:
        root: CUB_200_2011.
        split: "train", "val" or "test".
        seed: of the hash.
        on_error: as in `LabelledImages`.

    Raises:
        InputError: a file that the layout needs is missing or torn.
    """

    def __init__(self, root: str | Path, *, split: str = "train", seed: int = 0, on_error: OnError = "raise") -> None:
        check_split(split)
        folder = existing_folder(root, "CUB-200-2011: CUB_200_2011")
        names = self._table(folder / "images.txt")
        classes = self._table(folder / "classes.txt")
        number = {key: label for label, key in enumerate(classes)}
        label_of = self._table(folder / "image_class_labels.txt", known=names)
        trained_on = self._table(folder / "train_test_split.txt", known=names)
        unknown = sorted(set(label_of.values()) - set(number))
        if unknown:
            raise InputError(f"'{folder / 'image_class_labels.txt'}' has class {unknown[0]}, which classes.txt has not")
        keys = [key for key in names if trained_on[key] == "1"]
        held_out = hash_split([names[k] for k in keys], [label_of[k] for k in keys], seed=seed, shares=_HELD_OUT)
        split_of = dict.fromkeys(names, "test") | dict(zip(keys, held_out, strict=True))
        chosen = [key for key in names if split_of[key] == split]
        boxes = self._table(folder / "bounding_boxes.txt", known=names)
        self._boxes = [_half_open(boxes[key], folder / "bounding_boxes.txt") for key in chosen]
        masks = [folder / "segmentations" / Path(names[key]).with_suffix(".png") for key in chosen]
        self._masks = [path if path.exists() else None for path in masks]
        pictures = [Picture(names[k], folder / "images" / names[k], (number[label_of[k]],)) for k in chosen]
        titles = (name.split(".", 1)[-1].replace("_", " ") for name in classes.values())
        super().__init__(f"CUB-200-2011, {split}", titles, pictures, on_error=on_error)

    @staticmethod
    def _table(path: Path, known: dict[str, str] | None = None) -> dict[str, str]:
        """What a file says of each key; an InputError where it leaves out one that is known."""
        found = dict(read_rows(path, "the list", 2))
        missing = [key for key in known or () if key not in found]
        if missing:
            raise InputError(f"'{path}' says nothing of picture {missing[0]}, which images.txt has; get it anew")
        return found

    def marks(self, index: int, size: tuple[int, int]) -> Marks:
        path = self._masks[index]
        masks = None if path is None else read_mask(path, size, above=127)[None]
        return Marks([self._boxes[index]], self.labels[index], masks)


def _half_open(text: str, path: Path) -> Box:
    try:
        x, y, width, height = (float(number) for number in text.split())
    except ValueError as error:
        raise InputError(f"'{path}' is torn: box {text!r}, expected x, y, width and height; get it anew") from error
    return x, y, x + width, y + height
