"""Folders of pictures by class."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...arguments import checked_class
from ...errors import ImageError, InputError
from ..dataset import SPLITS, OnError, check_split
from ..images import find_images
from ..intake.intake import Intake
from ..intake.listing import Elsewhere, elsewhere, in_class_order
from ..intake.records import Picture
from .files import PictureFiles, existing_folder, hash_split

SHARES = {"val": 0.15, "test": 0.15}
_SUB_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@checked_class
class PictureFolder(PictureFiles):
    """A folder with a sub folder of pictures for each class, single-label, without boxes.

    Where it has a sub folder "train", its sub folders are the splits: "train", "val" (or "valid", "validation") and
    "test", with the classes in each. Otherwise 70 % of each class are to train, 15 % to validate and 15 % to test, by a
    hash of each picture's path: adding pictures moves few of the others.

    Args:
        root: the folder.
        split: "train", "val" or "test".
        seed: of the hash.
        on_error: as in `LabeledImages`.

    Raises:
        InputError: no such folder or split, no classes, no pictures, or a class that "train" has not.

    Example:
        >>> data = seewhy.data.PictureFolder("photos")
        >>> data.classes, data.names[0], data[0].labels
        (('blue', 'green', 'red'), 'blue/0.png', (0,))
    """

    def __init__(
        self, root: str | Path, *, split: str = "train", seed: int = 0, on_error: OnError = "raise"
    ) -> None:
        check_split(split)
        folder = existing_folder(root, "pictures by class")
        by_split = (folder / "train").is_dir() and any(
            entry.is_dir() for entry in (folder / "train").iterdir()
        )
        found = _in_split_folders(folder, split) if by_split else _divided(folder, split, seed)
        intake = Intake(found.classes, None, on_error)
        title = f"{folder.name}, {split}"
        super().__init__(
            title,
            found.classes,
            found.pictures,
            intake,
            within=folder,
            others=found.others,
            folder=found.home,
        )


class _Found(NamedTuple):
    """The pictures of a split, the folder that they lie in, and the other splits."""

    classes: list[str]
    pictures: list[Picture]
    others: dict[str, Elsewhere]
    home: Path


def _in_split_folders(folder: Path, split: str) -> _Found:
    classes = _sub_folders(folder / "train")
    home = _split_folder(folder, split)
    there = {other: _there(folder, other) for other in SPLITS if other != split}
    others = {
        other: Elsewhere(partial(_images, path), path) for other, path in there.items() if path
    }
    return _Found(classes, _pictures(folder, home, classes), others, home)


def _divided(folder: Path, split: str, seed: int) -> _Found:
    classes = _sub_folders(folder)
    pictures = _pictures(folder, folder, classes)
    names = [one.name for one in pictures]
    groups = [classes[one.labels[0]] for one in pictures]
    splits = hash_split(names, groups, seed=seed, shares=SHARES)
    of_split = [one for one, its_split in zip(pictures, splits, strict=True) if its_split == split]
    return _Found(
        classes, of_split, elsewhere([one.path for one in pictures], splits, split), folder
    )


def _sub_folders(folder: Path) -> list[str]:
    names = in_class_order(
        entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."
    )
    if not names:
        raise InputError(
            f"'{folder}' has no sub folders; give a folder with a sub folder of pictures for each class"
        )
    return names


def _there(folder: Path, split: str) -> Path | None:
    return next((folder / name for name in _SUB_FOLDERS[split] if (folder / name).is_dir()), None)


def _split_folder(folder: Path, split: str) -> Path:
    found = _there(folder, split)
    if found:
        return found
    there = ", ".join(f"'{name}'" for name in _sub_folders(folder))
    raise InputError(f"'{folder}' has no split '{split}'; it has {there}")


def _images(folder: Path) -> list[Path]:
    try:
        return find_images(folder)
    except ImageError:  # none in it
        return []


def _pictures(root: Path, folder: Path, classes: list[str]) -> list[Picture]:
    unknown = sorted(set(_sub_folders(folder)) - set(classes))
    if unknown:
        raise InputError(
            f"'{folder}' has the class '{unknown[0]}', which '{root / 'train'}' has not; add it there"
        )
    found = []
    for label, name in enumerate(classes):
        paths = _images(folder / name) if (folder / name).is_dir() else []
        found += [Picture(path.relative_to(root).as_posix(), path, (label,)) for path in paths]
    return found
