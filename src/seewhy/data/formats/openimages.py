"""OpenImages as weakly supervised localisation uses it (Choe et al., CVPR 2020)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...arguments import checked_class
from ...errors import InputError
from ..dataset import SPLITS, OnError, check_split
from ..intake.intake import Intake
from ..intake.listing import Elsewhere
from ..intake.masks import read_mask
from ..intake.records import Annotation, MarkedObject, Mask, Picture, Size
from ..paths import kept_inside
from .files import PictureFiles, existing_folder, read_rows, read_table

_FOLDERS = ("", "OpenImages", "dataset/OpenImages")


@checked_class
class OpenImages(PictureFiles):
    """OpenImages30k, single-label, 100 classes, with masks in val and test.

    Files: metadata/OpenImages/SPLIT or metadata/SPLIT with image_ids.txt, class_labels.txt and localization.txt; and,
    below the root, OpenImages/ or dataset/OpenImages/, the pictures and masks that these name. A mask is brought to its
    picture's size by the nearest pixel. Pixels to ignore are those of the ignore mask that no object has.

    Args:
        root: the folder with "metadata".
        split: "train", "val" or "test".
        on_error: as in `LabeledImages`.

    Raises:
        InputError: a file that the layout needs is missing or torn.

    Example:
        >>> data = seewhy.data.OpenImages("openimages", split="val")
        >>> data.classes, data[0].truth.masks.shape
        (('01226z', '0bt_c3'), torch.Size([1, 20, 30]))
    """

    def __init__(
        self, root: str | Path, *, split: str = "train", on_error: OnError = "raise"
    ) -> None:
        check_split(split)
        self.root = existing_folder(root, "OpenImages, with 'metadata' in it")
        lists = _metadata(self.root, split)
        ids = _ids(lists)
        numbers = read_table(lists / "class_labels.txt", "picture", ",")
        classes = _classes(lists.parent)
        intake = Intake(range(len(classes)), None, on_error)
        self._pictures = _pictures(self.root, ids)
        for name in sorted(numbers.keys() - set(ids)):
            intake.fault(name, "label in class_labels.txt: its picture is not listed")
        self._masks: dict[str, list[str]] = {}
        self._ignored: dict[str, str] = {}
        self._read_masks(lists / "localization.txt", set(ids), intake)
        pictures = []
        for name in ids:
            with intake.whole(name):
                if not numbers.get(name, "").isdecimal():
                    raise InputError(
                        f"'{lists / 'class_labels.txt'}' has no label of '{name}'; get it anew"
                    )
                pictures.append(Picture(name, self._pictures / name, (int(numbers[name]),)))
        there = {other: lists.with_name(other) for other in SPLITS if other != split}
        others = {
            other: Elsewhere(partial(_files, self._pictures, path))
            for other, path in there.items()
            if path.is_dir()
        }
        super().__init__(
            f"OpenImages, {split}", classes, pictures, intake, within=self.root, others=others
        )

    def _read_masks(self, path: Path, listed: set[str], intake: Intake) -> None:
        for name, mask, ignored in read_rows(path, "the list of masks", 3, ","):
            if name not in listed:
                intake.fault(name, f"mask '{mask}': its picture is not listed")
            if ignored and self._ignored.get(name, ignored) not in ("", ignored):
                intake.fault(
                    name, f"mask '{mask}': its row names other pixels to ignore than the row before"
                )
            self._masks.setdefault(name, []).append(mask)
            self._ignored[name] = ignored or self._ignored.get(name, "")

    def annotation(self, index: int) -> Annotation | None:
        name = self.names[index]
        if name not in self._masks:
            return None
        (label,), ignored = self.labels[index], self._ignored[name]
        objects = [
            MarkedObject(
                f"mask '{file}'",
                label,
                mask=partial(_mask, kept_inside(self._pictures / file, self.root)),
            )
            for file in self._masks[name]
        ]
        ignore = (
            partial(_mask, kept_inside(self._pictures / ignored, self.root)) if ignored else None
        )
        return Annotation(objects, ignore=ignore, scaled=True)


def _mask(path: Path, size: Size) -> Mask:
    return read_mask(path)


def _ids(lists: Path) -> list[str]:
    return [row[0] for row in read_rows(lists / "image_ids.txt", "the list of pictures", 1)]


def _files(folder: Path, lists: Path) -> list[Path]:
    return [folder / name for name in _ids(lists)]


def _classes(metadata: Path) -> list[str]:
    """The classes' names, which are their pictures' folders, from the labels of all splits."""
    rows = [
        row
        for path in metadata.glob("*/class_labels.txt")
        for row in read_rows(path, "the list of labels", 2, ",")
    ]
    names = {int(number): Path(name).parent.name for name, number in rows if number.isdecimal()}
    return [names.get(label, str(label)) for label in range(max(names, default=-1) + 1)]


def _metadata(root: Path, split: str) -> Path:
    for folder in (root / "metadata" / "OpenImages" / split, root / "metadata" / split):
        if folder.is_dir():
            return folder
    raise InputError(
        f"'{root / 'metadata'}' has no split '{split}'; give the folder that holds 'metadata'"
    )


def _pictures(root: Path, ids: list[str]) -> Path:
    """The folder that the pictures' names start from: the one with the first part of the first of them in it."""
    there = (
        root / folder
        for folder in _FOLDERS
        if ids and (root / folder / Path(ids[0]).parts[0]).is_dir()
    )
    return next(there, root)
