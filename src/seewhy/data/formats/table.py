"""Pictures listed in a CSV file."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ...errors import InputError
from ..dataset import SPLITS, OnError, check_split
from .files import Picture, PictureFiles, hash_split, read_text
from .folder import SHARES
from .marks import Box, Marks

_BOX = ("x0", "y0", "x1", "y1")


@dataclass
class _Listed:
    """What the rows of one picture say."""

    labels: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    box_labels: list[str] = field(default_factory=list)
    split: str = ""


class PictureTable(PictureFiles):
    """A CSV file with the columns path, label and perhaps x0, y0, x1, y1 and split.

    A picture may have several rows: one for each box, which is in half-open pixels, or for each label. Without a box,
    labels may share a cell, separated by "|"; an empty one shows no class. Paths are relative to the file. Without a
    column "split", 70 % of the pictures of each first label are to train and 15 % each to validate and to test, by a
    hash of their paths.

    Args:
        path: the file, UTF-8, with the names of its columns in the first line.
        split: "train", "val" or "test".
        seed: of the hash.
        on_error: as in `LabelledImages`.

    Raises:
        InputError: the file cannot be read, or a line has no label, another label with its box, or half a box.
    """

    def __init__(self, path: str | Path, *, split: str = "train", seed: int = 0, on_error: OnError = "raise") -> None:
        check_split(split)
        file = Path(path).expanduser()
        listed = _read(file)
        names = list(listed)
        if any(one.split for one in listed.values()):
            splits = [one.split for one in listed.values()]
        else:
            groups = [one.labels[0] if one.labels else "" for one in listed.values()]
            splits = hash_split(names, groups, seed=seed, shares=SHARES)
        classes = sorted({label for one in listed.values() for label in one.labels})
        number = {name: label for label, name in enumerate(classes)}
        of_split = {name: listed[name] for name, its_split in zip(names, splits, strict=True) if its_split == split}
        self._marks = [Marks(one.boxes, [number[label] for label in one.box_labels]) for one in of_split.values()]
        pictures = [
            Picture(name, file.parent / name, tuple(sorted({number[label] for label in one.labels})))
            for name, one in of_split.items()
        ]
        multi_label = any(len(set(one.labels)) != 1 for one in listed.values())
        super().__init__(f"{file.name}, {split}", classes, pictures, multi_label=multi_label, on_error=on_error)

    def marks(self, index: int, size: tuple[int, int]) -> Marks | None:
        return self._marks[index] if self._marks[index].boxes else None


def _read(file: Path) -> dict[str, _Listed]:
    """What each picture's rows say, in the order of the file."""
    reader = csv.DictReader(read_text(file, "the list").splitlines(), skipinitialspace=True)
    columns = reader.fieldnames or ()
    missing = [name for name in ("path", "label") if name not in columns]
    if missing or 0 < len(set(_BOX) & set(columns)) < 4:
        raise InputError(
            f"'{file}' has the columns {list(columns)}; it needs path, label and, for boxes, x0, y0, x1, y1"
        )
    found: dict[str, _Listed] = {}

    def wrong(said: str) -> NoReturn:
        raise InputError(f"'{file}', line {reader.line_num}: {said}")

    for row in reader:
        cells = {name: (cell or "").strip() for name, cell in row.items() if name and not isinstance(cell, list)}
        if not cells["path"]:
            wrong("no path; give the picture's, relative to the list")
        one = found.setdefault(cells["path"], _Listed(split=cells.get("split", "")))
        if "split" in columns and (cells["split"] not in SPLITS or cells["split"] != one.split):
            wrong(f"split {cells['split']!r}; give 'train', 'val' or 'test', the same for all rows of a picture")
        labels = [label.strip() for label in cells["label"].split("|") if label.strip()]
        one.labels += labels
        given = [cells.get(name, "") for name in _BOX]
        if not any(given):
            continue
        try:
            x0, y0, x1, y1 = (float(cell) for cell in given)
        except ValueError:
            wrong(f"box {given}; give four numbers, or none")
        if len(labels) != 1:
            wrong(f"box with the labels {labels}; give it a row with one label")
        one.boxes.append((x0, y0, x1, y1))
        one.box_labels += labels
    return found
