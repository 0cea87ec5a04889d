"""Pictures listed in a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from ...arguments import checked_class
from ...errors import InputError
from ...remarks import warn
from ..dataset import SPLITS, OnError, check_split
from ..intake.intake import Intake, corners
from ..intake.listing import elsewhere, in_class_order
from ..intake.records import Annotation, MarkedObject, Picture
from .files import PictureFiles, hash_split, read_text
from .folder import SHARES

_BOXES = (("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"))
_SIZE = ("height", "width")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_NEEDED = (
    "it needs path, label and, for boxes, x0, y0, x1, y1 or xmin, ymin, xmax, ymax; split is read too, and width with "
    "height"
)


@dataclass
class _Listed:
    """What the rows of one picture say."""

    split: str
    size: tuple[str, str]
    labels: list[str] = field(default_factory=list)
    objects: list[MarkedObject] = field(default_factory=list)

    def annotation(self) -> Annotation | None:
        if not self.objects:
            return None
        return Annotation(self.objects, self.size if any(self.size) else None)

    def numbers(self, classes: Mapping[str, int]) -> tuple[int, ...]:
        """The numbers of its classes, each once, in order."""
        return tuple(sorted({classes[label] for label in self.labels}))


@checked_class
class PictureTable(PictureFiles):
    """A CSV file with the columns path, label and perhaps x0, y0, x1, y1, split, width and height.

    A picture may have several rows: one for each box, which is in half-open pixels, or for each label. Without a box,
    labels may share a cell, separated by "|"; an empty one shows no class. Paths are relative to the file. Without a
    column "split", 70 % of the pictures of each first label are to train and 15 % each to validate and to test, by a
    hash of their paths. Boxes may stand in xmin, ymin, xmax, ymax as well; width and height are those of the picture
    that was marked. Classes that are all numbers are in their order, others in that of texts. Warns of other columns.

    Args:
        path: the file, UTF-8, with the names of its columns in the first line.
        split: "train", "val" or "test".
        seed: of the hash.
        on_error: as in `LabeledImages`.

    Raises:
        InputError: the file cannot be read, or a line has no label, another label with its box, or half a box.

    Example:
        >>> data = seewhy.data.PictureTable("boxes.csv")
        >>> data.classes, data[0].truth.boxes
        (('red',), tensor([[ 8.,  4., 12.,  8.]]))
    """

    def __init__(
        self, path: str | Path, *, split: str = "train", seed: int = 0, on_error: OnError = "raise"
    ) -> None:
        check_split(split)
        file = Path(path).expanduser()
        intake = Intake((), corners, on_error)
        listed = _read(file, intake)
        splits = _splits(listed, seed)
        classes = in_class_order(label for one in listed.values() for label in one.labels)
        intake.know(classes)
        numbers = {name: number for number, name in enumerate(classes)}
        self._annotations: list[Annotation | None] = []
        pictures: list[Picture] = []
        for (name, one), its_split in zip(listed.items(), splits, strict=True):
            if its_split == split:
                intake.shown(name, one.objects)
                self._annotations.append(one.annotation())
                pictures.append(Picture(name, file.parent / name, one.numbers(numbers)))
        super().__init__(
            f"{file.name}, {split}",
            classes,
            pictures,
            intake,
            within=file.parent,
            others=elsewhere([file.parent / name for name in listed], splits, split),
            multi_label=any(len(set(one.labels)) != 1 for one in listed.values()),
        )

    def annotation(self, index: int) -> Annotation | None:
        return self._annotations[index]


def _splits(listed: Mapping[str, _Listed], seed: int) -> list[str]:
    """The split of each picture: as the file says, else by a hash of its path, class by class."""
    said = [one.split for one in listed.values()]
    if any(said):
        return said
    groups = [one.labels[0] if one.labels else "" for one in listed.values()]
    return hash_split(list(listed), groups, seed=seed, shares=SHARES)


def _read(file: Path, intake: Intake) -> dict[str, _Listed]:
    """What each picture's rows say, in the order of the file."""
    found: dict[str, _Listed] = {}
    for number, row in _rows(file, intake):
        name, split = row["path"], row.get("split", "")
        if not name:
            intake.fault(
                file.name, f"line {number}: no path; give the picture's, relative to the list"
            )
            continue
        size = row.get("height", ""), row.get("width", "")
        one = found.setdefault(name, _Listed(split, size))
        if "split" in row and (split not in SPLITS or split != one.split):
            way_out = "give 'train', 'val' or 'test', the same for all rows of a picture"
            raise InputError(f"'{file}', line {number}: split {split!r} of '{name}'; {way_out}")
        if size == one.size:
            _take_row(one, name, number, row, intake)
        else:
            intake.fault(name, f"line {number}: width and height are not those of its other rows")
    return found


def _take_row(one: _Listed, name: str, number: int, row: Mapping[str, str], intake: Intake) -> None:
    """Adds what a row says of its picture."""
    labels = [label.strip() for label in row["label"].split("|") if label.strip()]
    one.labels += labels
    box = [row[column] for columns in _BOXES for column in columns if column in row]
    if any(box) and len(labels) != 1:
        intake.fault(
            name, f"line {number}: box with the labels {labels}; give it a row with one label"
        )
    elif any(box):
        one.objects.append(MarkedObject(f"line {number}", labels[0], box))


def _rows(file: Path, intake: Intake) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The number of each line, and its cells by their columns."""
    lines = csv.reader(StringIO(read_text(file, "the list"), newline=""), skipinitialspace=True)
    try:
        columns = [name.strip() for name in next(lines, [])]
        _check_columns(file, columns)
        for cells in lines:
            if len(cells) > len(columns):
                said = f"line {lines.line_num}: {len(cells)} cells for {len(columns)} columns; quote commas"
                intake.fault(cells[columns.index("path")], said)
            elif cells:
                texts = [cell.strip() for cell in cells] + [""] * (len(columns) - len(cells))
                yield lines.line_num, dict(zip(columns, texts, strict=True))
    except csv.Error as error:
        raise InputError(
            f"'{file}', line {lines.line_num}: it does not read ({error}); mend it"
        ) from error


def _other_separator(columns: Sequence[str]) -> str:
    """What to do where what was read as one column seems to be several; nothing where it does not."""
    if len(columns) != 1:
        return ""
    marks = [name for mark, name in _SEPARATORS.items() if mark in columns[0]]
    return f"save it with commas between its cells, not {marks[0]}" if marks else ""


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    there = set(columns)
    boxes = [names for names in _BOXES if there & set(names)]
    needed = {"path", "label", *(boxes[0] if boxes else ()), *(_SIZE if there & set(_SIZE) else ())}
    if needed - there or len(boxes) > 1:
        raise InputError(
            f"'{file}' has the columns {list(columns)}; {_other_separator(columns) or _NEEDED}"
        )
    if len(there) < len(columns):
        raise InputError(
            f"'{file}' has the columns {list(columns)}, one of them twice; rename or remove one"
        )
    unread = sorted(there - needed - {"split"}, key=columns.index)
    if unread:
        read = sorted(there - set(unread), key=columns.index)
        said = f"'{file.name}' has the columns {unread}, which are not read; {read} are. In a list, {_NEEDED}"
        warn(said)
