"""What records refer to: ids that are there once, classes in order, and files that no two pictures share."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, SupportsFloat, TypeVar

from ...errors import InputError
from .records import Picture

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def as_id(said: object, of: str) -> int | str:
    """An id as it is compared: a whole number and its text are one, "007" is a text of its own.

    Raises:
        InputError: it is no id.
    """
    if type(said) is int:
        return said
    if type(said) is str and said:
        return int(said) if said.isdecimal() and str(int(said)) == said else said
    if isinstance(said, float) and said.is_integer():
        return int(said)
    raise InputError(f"{said!r} is no id of a {of}; give a number or a text")


def whole_number(said: object) -> int:
    """A number of pixels, or its text.

    Raises:
        InputError: it is neither.
    """
    try:
        number = float(said) if isinstance(said, str | SupportsFloat) else 0.5
    except (TypeError, ValueError, OverflowError):
        number = 0.5
    if isinstance(said, bool) or not number.is_integer():
        raise InputError(f"{said!r} is no number of pixels")
    return int(number)


def once_each(pairs: Iterable[tuple[Key, Value]], what: str, file: Path) -> dict[Key, Value]:
    """Pairs as a dictionary in which none takes the place of another.

    Raises:
        InputError: a key is there twice.
    """
    found: dict[Key, Value] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(
                f"'{file}' has {what} {key!r} twice, and nobody knows which is meant; mend it"
            )
        found[key] = value
    return found


def in_class_order(names: Iterable[str]) -> list[str]:
    """Names of classes in order: by number where all are numbers, so that "10" comes after "9"; else as texts."""
    found = sorted(set(names))
    if all(name.isascii() and name.isdecimal() for name in found):
        found.sort(key=int)
    return found


class Elsewhere(NamedTuple):
    """The files of another split.

    Attributes:
        files: lists them.
        folder: where they lie, if nowhere else but through links; then they are listed only if this is not certain.
    """

    files: Callable[[], Iterable[Path]]
    folder: Path | None = None


def elsewhere(paths: Sequence[Path], splits: Sequence[str], split: str) -> dict[str, Elsewhere]:
    """The files of the other splits, of a list of all files and the split of each."""
    found: dict[str, list[Path]] = {}
    for path, its_split in zip(paths, splits, strict=True):
        if its_split != split:
            found.setdefault(its_split, []).append(path)
    return {name: Elsewhere(partial(iter, files)) for name, files in found.items()}


def refuse_shared_files(
    title: str,
    pictures: Sequence[Picture],
    others: Mapping[str, Elsewhere],
    folder: Path | None = None,
) -> None:
    """Refuses one file twice, in a split or over several, however it is spelled.

    Args:
        title: of the split.
        pictures: in it.
        others: by the names of the other splits.
        folder: where the pictures lie, if nowhere else but through links.

    Raises:
        InputError: two of them are one file.
    """
    real = _RealFiles()
    seen = _names_of_files(title, pictures, real)
    home = real.folder(folder) if folder else ""
    inside = bool(home) and all(file.startswith(home) for file in seen)
    for split, other in others.items():
        if inside and other.folder and _apart(home, real.folder(other.folder)):
            continue
        for path in other.files():
            if (file := real.of(path)) in seen:
                raise InputError(
                    f"{title} has '{seen[file]}', which is in {split} too, as '{path}': what is held back would have "
                    "been learned from; leave one of them out"
                )


def _apart(one: str, other: str) -> bool:
    """Whether neither of two real folders lies in the other."""
    return not one.startswith(other) and not other.startswith(one)


def _names_of_files(title: str, pictures: Sequence[Picture], real: _RealFiles) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in pictures:
        file = real.of(one.path)
        if file in found:
            also = "" if found[file] == one.name else f", also as '{found[file]}'"
            raise InputError(f"{title} lists '{one.name}' twice{also}; leave one of the two out")
        found[file] = one.name
    return found


class _Names(NamedTuple):
    """What is in a folder: its real path, its files, those of them that are links, and spellings without case."""

    real: str
    files: set[str]
    links: set[str]
    by_case: dict[str, str]


class _RealFiles:
    """The real path of each of many files; each folder is looked into once, no file is opened."""

    def __init__(self) -> None:
        self._folders: dict[str, _Names] = {}

    def of(self, path: Path) -> str:
        folder, name = os.path.split(path)
        names = self._folders.get(folder)
        if names is None:
            names = self._folders[folder] = _names(folder)
        if name not in names.files:
            # as a file system that knows no case would find it
            name = names.by_case.get(_folded_name(name), name)
        whole = f"{names.real}{os.sep}{name}"
        return os.path.realpath(whole) if name in names.links else whole

    @staticmethod
    def folder(path: Path) -> str:
        return os.path.join(os.path.realpath(path), "")


def _names(folder: str) -> _Names:
    real, found = folder, {}
    # What cannot be looked into, whoever reads the pictures in it will say; a path with a zero in it is a ValueError.
    with suppress(OSError, ValueError):
        real = os.path.realpath(folder)
        with os.scandir(real) as entries:
            found = {entry.name: entry.is_symlink() for entry in entries}
    links = {name for name, is_link in found.items() if is_link}
    return _Names(real, set(found), links, {_folded_name(name): name for name in found})


def _folded_name(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
