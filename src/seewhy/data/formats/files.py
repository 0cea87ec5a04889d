"""Pictures in files, with labels from somewhere else: what the data sets on disk have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError, did_you_mean
from ..dataset import Example, LabelledImages, OnError, check_listed, check_on_error
from ..images import read_image
from .marks import Marks


class Picture(NamedTuple):
    """One line of a data set: a file and what it shows."""

    name: str
    path: Path
    labels: tuple[int, ...]


class PictureFiles(LabelledImages):
    """Pictures in files; a subclass says how their objects are marked.

    Raises:
        InputError: no picture, or one name for two.
    """

    def __init__(
        self,
        title: str,
        classes: Iterable[str],
        pictures: Sequence[Picture],
        *,
        multi_label: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        check_on_error(on_error)
        self.title, self.classes, self.multi_label, self.on_error = title, tuple(classes), multi_label, on_error
        self.names = [picture.name for picture in pictures]
        self.paths = [picture.path for picture in pictures]
        self.labels = [picture.labels for picture in pictures]
        check_listed(self)

    def __getitem__(self, index: int) -> Example:
        name, labels = self.names[index], self.labels[index]
        photo = read_image(self.paths[index])
        size = (photo.height, photo.width)
        marks = self.marks(index, size)
        truth, notes = (None, ()) if marks is None else marks.truth(size, name, self.on_error)
        return Example(name, photo, labels, truth, notes)

    def marks(self, index: int, size: tuple[int, int]) -> Marks | None:
        """Where the objects of a picture of size (H, W) are; None where nobody marked them."""
        return None


def existing_folder(root: str | Path, what: str) -> Path:
    """The folder as a path; an InputError where it is none."""
    folder = Path(root).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"'{root}' is a file; give the folder of {what}")
    near = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
    raise InputError(f"'{root}' does not exist{did_you_mean(folder.name, near)}; give the folder of {what}")


def read_text(path: Path, what: str) -> str:
    """What a text file holds; an InputError where it is missing, unreadable or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} '{path}' is damaged: no UTF-8 text ({error.reason}); get it anew") from error
    except OSError as error:
        raise InputError(f"{what} '{path}' cannot be read ({error.strerror}); check the data set's folder") from error


def read_rows(path: Path, what: str, columns: int, separator: str | None = None) -> list[list[str]]:
    """The lines of a text file, each split into `columns`, the last of which may hold more separators.

    Raises:
        InputError: the file cannot be read, or a line has fewer columns.
    """
    rows = []
    for number, line in enumerate(read_text(path, what).splitlines(), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.strip().split(separator, columns - 1)]
        if len(cells) < columns:
            raise torn(path, what, number, line, f"{columns} columns")
        rows.append(cells)
    return rows


def torn(path: Path, what: str, number: int, line: str, expected: str) -> InputError:
    """The error of a line that does not read."""
    return InputError(f"{what} '{path}' is torn at line {number}: {line.strip()[:60]!r}, expected {expected}")


def hash_split(names: Sequence[str], groups: Sequence[str], *, seed: int, shares: Mapping[str, float]) -> list[str]:
    """Assigns each name to a split, by a hash of the name and the seed, so that each group is shared out alike.

    Args:
        names: unique.
        groups: of each name, its class.
        seed: another one, another division.
        shares: of each split but "train", which has the rest. A group of n has at least one in each, where n is larger
            than the number of shares, and otherwise is all in "train".
    """
    members: dict[str, list[int]] = {}
    for i, its_group in enumerate(groups):
        members.setdefault(its_group, []).append(i)
    found = ["train"] * len(names)
    for group in members.values():
        if len(group) <= len(shares):
            continue
        ordered = sorted(group, key=lambda i: hashlib.blake2b(f"{seed}/{names[i]}".encode()).digest())
        start = 0
        for split, share in shares.items():
            stop = start + max(1, round(share * len(group)))
            for i in ordered[start:stop]:
                found[i] = split
            start = stop
    return found
