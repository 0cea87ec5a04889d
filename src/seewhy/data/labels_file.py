"""Names of classes from a file: text, JSON or a table."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path

from ..errors import InputError

_NUMBERED = re.compile(r"(\d+)\s*[,:;\t]\s*(.*\S)")
_ACCEPTED = "give a text file with a name a line, or JSON: a list of names or {index: name}"


def given_labels(labels: object) -> object:
    """Labels as they are given: names, or the path of a file of them."""
    return read_labels(labels) if isinstance(labels, str | os.PathLike) else labels


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """The names in a file, in the order of the model's classes; "" for a class without one.

    A text file has a name a line. Where each line begins with a number and one of ",:;" or a tab, and the numbers are
    those from 0 on, they are the classes. A .json file has a list, {index: name}, {name: index}, or such as "id2label";
    several names of one class become its synonyms. A .csv or .tsv file has a column of names, beside one of numbers.

    Raises:
        InputError: it cannot be read, is empty, or its numbers are not those from 0 on.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = _READERS.get(path.suffix.lower(), _of_lines)(text)
    except (OSError, ValueError, csv.Error) as error:
        said = error.strerror if isinstance(error, OSError) else ""
        said = said or str(error).splitlines()[0]
        raise InputError(f"labels file '{path}' cannot be read: {said}; {_ACCEPTED}") from error
    if not any(names):
        raise InputError(f"labels file '{path}' has no names; {_ACCEPTED}")
    return names


def _of_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    numbered = [match for line in lines if (match := _NUMBERED.fullmatch(line))]
    if lines and len(numbered) == len(lines):
        return _in_order([(int(match[1]), match[2]) for match in numbered])
    return lines


def _of_table(delimiter: str, text: str) -> list[str]:
    """The names in a table of one column, or of two of which one has numbers, with a header or without."""
    rows = _rows(delimiter, text)
    widths = sorted({len(row) for row in rows})
    if widths == [1]:
        return [row[0] for row in rows]
    if widths != [2]:
        raise ValueError(
            f"its rows have {' or '.join(map(str, widths))} columns, not a number and a name"
        )
    backwards = [row[::-1] for row in rows]
    for pairs in (rows, rows[1:], backwards, backwards[1:]):
        if _are_numbered(pairs):
            return _in_order([(int(number), name) for number, name in pairs])
    raise ValueError("neither of its columns has the numbers of the classes")


def _rows(delimiter: str, text: str) -> list[list[str]]:
    read = csv.reader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    return [[cell.strip() for cell in row] for row in read if any(row)]


def _are_numbered(pairs: Sequence[Sequence[str]]) -> bool:
    return bool(pairs) and all(number.isdecimal() for number, _ in pairs)


def _of_json(text: str) -> list[str]:
    content = json.loads(text)
    if isinstance(content, dict):
        return _of_mapping(content.get("id2label", content))
    if isinstance(content, list):
        return [_name(item) for item in content]
    raise ValueError(f"it holds a {type(content).__name__}")


def _of_mapping(content: Mapping[str, object]) -> list[str]:
    """The names in {index: name} or {name: index}."""
    backwards = all(type(value) is int for value in content.values())
    pairs = [(str(value), key) if backwards else (key, value) for key, value in content.items()]
    wrong = next((key for key, _ in pairs if not key.isdecimal()), None)
    if wrong is not None:
        raise ValueError(f"its key {wrong!r} is no number of a class")
    return _in_order([(int(key), _name(value)) for key, value in pairs])


def _name(value: object) -> str:
    """A name; several, as ImageNet's ["n01440764", "tench"], are synonyms."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} in it is no name")
    return str(value).strip()


def _in_order(pairs: Sequence[tuple[int, str]]) -> list[str]:
    pairs = sorted(pairs)
    numbers = [number for number, _ in pairs]
    last = len(numbers) - 1
    if numbers != list(range(len(numbers))):
        shown = f"{numbers[0]} to {numbers[-1]}"
        raise ValueError(
            f"its {len(numbers)} numbers are {shown}, where a model's classes are 0 to {last}"
        )
    return [name for _, name in pairs]


_READERS: Mapping[str, Callable[[str], list[str]]] = {
    ".json": _of_json,
    ".csv": partial(_of_table, ","),
    ".tsv": partial(_of_table, "\t"),
}
