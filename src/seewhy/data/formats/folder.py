"""Folders of pictures by class."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...errors import ImageError, InputError
from ..dataset import SPLITS, OnError, check_split
from ..images import find_images
from ..intake.intake import Intake
from ..intake.listing import Elsewhere, elsewhere, in_class_order
from ..intake.records import Picture
from .files import PictureFiles, existing_folder, hash_split

SHARES = {"val": 0.15, "test": 0.15}
_SUB_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class PictureFolder(PictureFiles):
    """A folder with a sub folder of pictures for each class, single-label, without boxes.

    Where it has a sub folder "train", its sub folders are the splits: "train", "val" (or "valid", "validation") and
    "test", with the classes in each. Otherwise 70 % of each class are to train, 15 % to validate and 15 % to test, by a
    hash of each picture's path: adding pictures moves few of the others.

    Args:
        root: the folder.
        split: "train", "val" or "test".
        seed: of the hash.
        on_error: as in `LabelledImages`.

    Raises:
        InputError: no such folder or split, no classes, no pictures, or a class that "train" has not.
    """

    def __init__(self, root: str | Path, *, split: str = "train", seed: int = 0, on_error: OnError = "raise") -> None:
        check_split(split)
        folder = existing_folder(root, "pictures by class")
        others: dict[str, Elsewhere] = {}
        home = folder
        if (folder / "train").is_dir() and any(entry.is_dir() for entry in (folder / "train").iterdir()):
            classes, home = _sub_folders(folder / "train"), _split_folder(folder, split)
            pictures = _pictures(folder, home, classes)
            there = {other: _there(folder, other) for other in SPLITS if other != split}
            others = {other: Elsewhere(partial(_images, path), path) for other, path in there.items() if path}
        else:
            classes = _sub_folders(folder)
            all_of_them = _pictures(folder, folder, classes)
            names, groups = [p.name for p in all_of_them], [classes[p.labels[0]] for p in all_of_them]
            assigned = hash_split(names, groups, seed=seed, shares=SHARES)
            pictures = [p for p, its_split in zip(all_of_them, assigned, strict=True) if its_split == split]
            others = elsewhere([p.path for p in all_of_them], assigned, split)
        intake = Intake(classes, None, on_error)
        super().__init__(f"{folder.name}, {split}", classes, pictures, intake, others=others, folder=home)


def _sub_folders(folder: Path) -> list[str]:
    names = in_class_order(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not names:
        raise InputError(f"'{folder}' has no sub folders; give a folder with a sub folder of pictures for each class")
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
        raise InputError(f"'{folder}' has the class '{unknown[0]}', which '{root / 'train'}' has not; add it there")
    found = []
    for label, name in enumerate(classes):
        paths = _images(folder / name) if (folder / name).is_dir() else []
        found += [Picture(path.relative_to(root).as_posix(), path, (label,)) for path in paths]
    return found
