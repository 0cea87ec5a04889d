"""Pictures in files, with labels from somewhere else: what the data sets on disk have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...errors import ImageError, InputError, did_you_mean
from ...safe_names import shown
from ..dataset import Example, LabeledImages, check_listed
from ..images import picture_endings, read_image
from ..intake.intake import Intake
from ..intake.listing import Elsewhere, once_each, refuse_shared_files
from ..intake.records import Annotation, Picture
from ..paths import TRUST, leads_out


class PictureFiles(LabeledImages):
    """Pictures in files; a subclass says what their annotations hold.

    Args:
        title: as in `LabeledImages`.
        classes: likewise.
        pictures: in order.
        intake: what annotations go through.
        within: the folder that all of it lies in.
        others: the files of the other splits.
        folder: where the pictures lie, if nowhere else but through links.
        multi_label: as in `LabeledImages`.

    Raises:
        InputError: no picture, one name for two, or one file for two, over all splits.
    """

    def __init__(
        self,
        title: str,
        classes: Iterable[str],
        pictures: Sequence[Picture],
        intake: Intake,
        *,
        within: Path,
        others: Mapping[str, Elsewhere] | None = None,
        folder: Path | None = None,
        multi_label: bool = False,
    ) -> None:
        self.title = title
        self.classes = tuple(classes)
        self.multi_label = multi_label
        self.intake = intake
        self.on_error = intake.on_error
        self.within = within
        self.notes, self.skipped = intake.notes, intake.skipped
        self.names = [picture.name for picture in pictures]
        self.paths = [picture.path for picture in pictures]
        self.labels = [picture.labels for picture in pictures]
        refuse_shared_files(title, pictures, others or {}, folder)
        check_listed(self)

    def __getitem__(self, index: int) -> Example:
        name, labels = self.names[index], self.labels[index]
        if not self.trust_paths and leads_out(self.paths[index], self.within):
            raise ImageError(
                f"image '{shown(name)}' of {self.title} is outside of '{self.within}'; {TRUST}"
            )
        photo = read_image(self.paths[index], max_pixels=self.max_pixels)
        truth, notes = self.intake.truth(
            name, lambda: self.annotation(index), (photo.height, photo.width)
        )
        return Example(name, photo, labels, truth, (*self.notes.get(name, ()), *notes))

    def annotation(self, index: int) -> Annotation | None:
        """What is marked in a picture; None where nobody marked it. An InputError where it cannot be read."""
        return None


def existing_folder(root: str | Path, what: str) -> Path:
    """The folder as a path; an InputError where it is none."""
    folder = Path(root).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"'{root}' is a file; give the folder of {what}")
    near = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
    raise InputError(
        f"'{root}' does not exist{did_you_mean(folder.name, near)}; give the folder of {what}"
    )


def read_text(path: Path, what: str) -> str:
    """What a text file holds; an InputError where it is missing, unreadable or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} '{path}' is damaged: no UTF-8 text ({error.reason}); get it anew"
        ) from error
    except OSError as error:
        raise InputError(
            f"{what} '{path}' cannot be read ({error.strerror}); check the data set's folder"
        ) from error


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


def read_table(path: Path, what: str, separator: str | None = None) -> dict[str, str]:
    """What a text file says of each key, the first column; an InputError where it says two things of one."""
    return once_each(
        ((key, said) for key, said in read_rows(path, "the list", 2, separator)), what, path
    )


def files_by_stem(folder: Path) -> dict[str, str]:
    """The names of the pictures in a folder, whatever their endings, by their names without these.

    Raises:
        InputError: two pictures differ in their endings alone.
    """
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    parts = ((os.path.splitext(name), name) for name in names)
    return once_each(
        ((stem, name) for (stem, end), name in parts if end.lower() in picture_endings()),
        "the picture",
        folder,
    )


def torn(path: Path, what: str, number: int, line: str, expected: str) -> InputError:
    """The error of a line that does not read."""
    return InputError(
        f"{what} '{path}' is torn at line {number}: {line.strip()[:60]!r}, expected {expected}"
    )


def hash_split(
    names: Sequence[str], groups: Sequence[str], *, seed: int, shares: Mapping[str, float]
) -> list[str]:
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
        ordered = sorted(
            group, key=lambda i: hashlib.blake2b(f"{seed}/{names[i]}".encode()).digest()
        )
        start = 0
        for split, share in shares.items():
            stop = start + max(1, round(share * len(group)))
            for i in ordered[start:stop]:
                found[i] = split
            start = stop
    return found
