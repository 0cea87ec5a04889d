"""OpenImages as weakly supervised localisation uses it (Choe et al., CVPR 2020)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import InputError
from ..dataset import OnError, check_split
from .files import Picture, PictureFiles, existing_folder, read_rows
from .marks import Marks, box_of, read_mask

_FOLDERS = ("", "OpenImages", "dataset/OpenImages")


class OpenImages(PictureFiles):
    """OpenImages30k, single-label, 100 classes, with masks in val and test.

    Files: metadata/OpenImages/SPLIT or metadata/SPLIT with image_ids.txt, class_labels.txt and localization.txt; and,
    below the root, OpenImages/ or dataset/OpenImages/, the pictures and masks that these name. A mask is brought to its
    picture's size by the nearest pixel. Pixels to ignore are those of the ignore mask that no object has.

    Args:
        root: the folder with "metadata".
        split: "train", "val" or "test".
        on_error: as in `LabelledImages`.

    Raises:
        InputError: a file that the layout needs is missing or torn.
    """

    def __init__(self, root: str | Path, *, split: str = "train", on_error: OnError = "raise") -> None:
        check_split(split)
        self.root = existing_folder(root, "OpenImages, with 'metadata' in it")
        lists = _metadata(self.root, split)
        ids = [row[0] for row in read_rows(lists / "image_ids.txt", "the list of pictures", 1)]
        numbers = dict(read_rows(lists / "class_labels.txt", "the list of labels", 2, ","))
        missing = [name for name in ids if not numbers.get(name, "").isdecimal()]
        if missing:
            raise InputError(f"'{lists / 'class_labels.txt'}' has no label of '{missing[0]}'; get it anew")
        self._pictures = _pictures(self.root, ids)
        self._masks: dict[str, list[str]] = {}
        self._ignored: dict[str, str] = {}
        for name, mask, ignored in read_rows(lists / "localization.txt", "the list of masks", 3, ","):
            self._masks.setdefault(name, []).append(mask)
            self._ignored[name] = ignored or self._ignored.get(name, "")
        classes = _classes(lists.parent)
        pictures = [Picture(name, self._pictures / name, (int(numbers[name]),)) for name in ids]
        super().__init__(f"OpenImages, {split}", classes, pictures, on_error=on_error)

    def marks(self, index: int, size: tuple[int, int]) -> Marks | None:
        name = self.names[index]
        if name not in self._masks:
            return None
        masks = np.stack([read_mask(self._pictures / mask, size) for mask in self._masks[name]])
        ignore = None
        if self._ignored[name]:
            ignore = read_mask(self._pictures / self._ignored[name], size) & ~masks.any(0)
        return Marks([box_of(mask) for mask in masks], list(self.labels[index]) * len(masks), masks, ignore=ignore)


def _classes(metadata: Path) -> list[str]:
    """The classes' names, which are their pictures' folders, from the labels of all splits."""
    rows = [
        row for path in metadata.glob("*/class_labels.txt") for row in read_rows(path, "the list of labels", 2, ",")
    ]
    names = {int(number): Path(name).parent.name for name, number in rows if number.isdecimal()}
    return [names.get(label, str(label)) for label in range(max(names, default=-1) + 1)]


def _metadata(root: Path, split: str) -> Path:
    for folder in (root / "metadata" / "OpenImages" / split, root / "metadata" / split):
        if folder.is_dir():
            return folder
    raise InputError(f"'{root / 'metadata'}' has no split '{split}'; give the folder that holds 'metadata'")


def _pictures(root: Path, ids: list[str]) -> Path:
    """The folder that the pictures' names start from: the one with the first part of the first of them in it."""
    there = (root / folder for folder in _FOLDERS if ids and (root / folder / Path(ids[0]).parts[0]).is_dir())
    return next(there, root)
