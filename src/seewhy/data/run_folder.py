"""The folder of a run: what was asked, what is done, and the files of each entry, at every moment whole.

    run.json        what the folder holds: schema, kind, versions, the request, the state, files that are of the whole
    entries.jsonl   a line for each photo, or other unit: its name, a digest of what went in, its record, its files
    NAME/...        the files of an entry, in a folder of its own
    .lock           held while a process writes

An entry is written aside, moved to its place, and then listed: whatever moment the writer is killed at, what is listed
is there and whole, and what is not is known by the name it was written under, and removed when the folder is next
written to. The same request goes on with what is done; another one takes its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType

from ..errors import InputError
from ..safe_names import file_stem
from .disk import Json, json_bytes, unwritable, writable_folder, write_json, write_whole
from .lock import FolderLock, check_not_held
from .manifest import (
    ENTRIES,
    RUN,
    Entry,
    StoredFile,
    entry_of,
    files_of,
    head_of,
    older_files,
    read_head,
    stored_file,
    whole_lines,
)

_WRITING, _FILES = (
    ".writing-",
    "files",
)  # the folder of what is being written, and in it what will be moved


@dataclass(frozen=True)
class _Listed:
    """Where the line of an entry is, and what to know of it without reading that."""

    at: int
    digest: str
    files: Mapping[str, StoredFile]


class Draft:
    """An entry that is being written.

    Attributes:
        folder: what its folder will be called.
        record, exact: as in `Entry`.
    """

    def __init__(self, aside: Path, place: Path) -> None:
        self.folder = place.name
        self._aside = aside
        self._place = place
        self.files: dict[str, StoredFile] = {}
        self.record: Json = {}
        self.exact: Json = {}

    def save(self, name: str, data: bytes) -> str:
        """Writes a file; returns what it will be called in the run's folder.

        Raises:
            InputError: it cannot be written, as on a full disk.
        """
        try:
            self._aside.mkdir(parents=True, exist_ok=True)
            (self._aside / name).write_bytes(data)
        except OSError as error:
            raise unwritable(self._place / name, error) from error
        path = f"{self.folder}/{name}"
        self.files[path] = StoredFile(len(data), hashlib.sha256(data).hexdigest())
        return path


def usable_folder(folder: Path) -> None:
    """Makes a folder to write a run into, long before the first of it is written.

    Raises:
        InputError: it cannot be made, or not written into, or another process writes into it.
    """
    writable_folder(folder)
    try:
        check_not_held(folder)
    except OSError as error:
        raise unwritable(folder, error) from error


class RunFolder:
    """A folder that one process writes a run into.

    >>> from seewhy.data.run_folder import RunFolder
    >>> with RunFolder("out", kind="explanation", request={"about": "cats"}) as run:
    ...     if not run.has("cat.jpg", "digest"):
    ...         with run.entry("cat.jpg", "digest") as draft:
    ...             draft.save("sheet.png", b"a picture")
    ...             draft.record = {"cats": 1}
    'cat/sheet.png'

    What another run left is untouched until the first entry of this one is written.

    Args:
        folder: made if it is not there.
        kind: of run.
        request: what was asked, in JSON's types; None is like no other.
        tell: is given a line on what will be replaced.
        close: writes the views of the whole when all is done, and when the run stops early with some of it.

    Attributes:
        is_begun: whether something was written.

    Raises:
        InputError: the folder cannot be written, is being written by another process, or its manifest cannot be read.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        kind: str,
        request: Mapping[str, object] | None = None,
        tell: Callable[[str], object] | None = None,
        close: Callable[[RunFolder], object] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.kind = kind
        self._close = close
        self.request: Json | None = None if request is None else json.loads(json.dumps(request))
        self._tell = tell or (lambda said: None)
        self._entries: dict[str, _Listed] = {}
        self._views: dict[str, StoredFile] = {}
        self._old: list[str] = []  # files of another run
        self._end = 0  # where the next line goes
        self.is_begun = self._outdated = False

    def __enter__(self) -> RunFolder:
        writable_folder(self.folder)
        try:
            self._lock = FolderLock(self.folder)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        try:
            self._take_up()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            if self.is_begun or (kind is None and self._entries):
                self._finish("complete" if kind is None else "running")
        except InputError:
            if kind is None:
                raise
        finally:
            self._lock.release()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def has(self, name: str, digest: str) -> bool:
        """Whether an entry of that name was made of this, and all its files are there."""
        known = self._entries.get(name)
        if known is None or known.digest != digest:
            return False
        return all(_is_there(self.folder / file, told) for file, told in known.files.items())

    def entries(self, names: Iterable[str] | None = None) -> Iterator[Entry]:
        """Those of some names, in that order, as far as they are there; or all; one at a time."""
        for name in list(self._entries) if names is None else names:
            if name in self._entries:
                yield self._read(self._entries[name].at)

    @contextlib.contextmanager
    def entry(self, name: str, digest: str) -> Iterator[Draft]:
        """Writes an entry, in place of one of the same name; after that it is there and listed.

        Raises:
            InputError: a file cannot be written; what was listed before stays.
        """
        place = self.folder / self._free_folder(name)
        aside = self.folder / f"{_WRITING}{place.name}"
        draft = Draft(aside / _FILES, place)
        try:
            yield draft
            self._begin()
            self._list(
                Entry(name, digest, draft.files, draft.record, draft.exact), aside / _FILES, place
            )
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def view(self, name: str, write: Callable[[Path], object]) -> Path:
        """Has a file written that is of the whole run, such as a table; the old one or the new one is there.

        Raises:
            InputError: it cannot be written.
        """
        path = self.folder / name
        aside = self.folder / f"{_WRITING}{name}"
        try:
            aside.mkdir()
            write(aside / name)
            self._begin()
            self._views[name] = stored_file(aside / name)
            self._write_head("running")
            (aside / name).replace(path)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return path

    def view_json(self, name: str, content: Mapping[str, object]) -> Path:
        """Writes JSON as `view` does."""
        return self.view(name, lambda path: path.write_bytes(json_bytes(content)))

    def _take_up(self) -> None:
        """Reads what is there, and clears away what a killed run had not listed."""
        head = read_head(self.folder)
        listed, outdated = self._read_listed()
        kept = {file for one in listed.values() for file in one.files}
        _clear_aside(self.folder, {file.partition("/")[0] for file in kept})
        if head is not None and self._asks_the_same(head):
            self._entries, self._views = listed, files_of(head["files"])
            self._outdated = bool(outdated)
            remove_files(self.folder, outdated - kept)
            return
        self._old = (
            older_files(self.folder) if head is None else sorted({*kept, *outdated, *head["files"]})
        )
        if self._old:
            self._tell(
                f"out='{self.folder}' holds another run, whose {len(self._old)} files will be replaced, once there is "
                "a result"
            )

    def _asks_the_same(self, head: Json) -> bool:
        return self.request is not None and (head["kind"], head["request"]) == (
            self.kind,
            self.request,
        )

    def _read_listed(self) -> tuple[dict[str, _Listed], set[str]]:
        """The entries, and the files of those that were replaced by others of their name."""
        listed: dict[str, _Listed] = {}
        outdated: set[str] = set()
        for at, line in whole_lines(self.folder):
            entry = entry_of(self.folder, line)
            outdated |= listed[entry.name].files.keys() if entry.name in listed else set()
            listed[entry.name] = _Listed(at, entry.digest, entry.files)
            self._end = at + len(line)
        return listed, outdated

    def _begin(self) -> None:
        """Before the first write: what another run left goes; its list goes last, so that none is forgotten."""
        if self.is_begun:
            return
        try:
            remove_files(self.folder, self._old)
            self._old = []
            if not self._entries:
                self._end = 0
            with (self.folder / ENTRIES).open("ab") as file:
                file.truncate(self._end)  # a torn line may be the last
        except OSError as error:
            raise unwritable(self.folder / ENTRIES, error) from error
        self.is_begun = True
        self._write_head("running")

    def _list(self, entry: Entry, written: Path, place: Path) -> None:
        """Moves the files of an entry to their place, and lists them."""
        line = entry.line()
        path = self.folder / ENTRIES
        moved = False
        try:
            if entry.files:
                written.rename(place)
                moved = True
            with path.open("ab") as file:
                file.write(line)
        except BaseException as error:  # an interrupt too: it is listed, or not there
            if moved:
                place.rename(written)
            with contextlib.suppress(OSError):
                os.truncate(path, self._end)
            if isinstance(error, OSError):
                raise unwritable(path, error) from error
            raise
        before = self._entries.pop(entry.name, None)
        self._entries[entry.name] = _Listed(self._end, entry.digest, entry.files)
        self._end += len(line)
        if before is not None:
            self._outdated = True
            remove_files(self.folder, before.files.keys() - entry.files.keys())

    def _finish(self, state: str) -> None:
        self._drop_outdated()
        if self._close and self._entries:
            self._close(self)
        self._begin()
        self._write_head(state)

    def _drop_outdated(self) -> None:
        """Writes the lines anew without those of entries that were replaced."""
        if not self._outdated:
            return
        lines = [entry.line() for entry in self.entries()]
        try:
            write_whole(self.folder / ENTRIES, b"".join(lines))
        except OSError as error:
            raise unwritable(self.folder / ENTRIES, error) from error
        self._entries, _ = self._read_listed()
        self._outdated = False

    def _write_head(self, state: str) -> None:
        try:
            write_json(self.folder / RUN, head_of(self.kind, state, self.request, self._views))
        except OSError as error:
            raise unwritable(self.folder / RUN, error) from error

    def _read(self, at: int) -> Entry:
        with (self.folder / ENTRIES).open("rb") as file:
            file.seek(at)
            return entry_of(self.folder, file.readline())

    def _free_folder(self, name: str) -> str:
        """A folder for an entry, which is not there, or of which nothing will be left."""
        stem = file_stem(PurePosixPath(name).stem)
        free, n, going = stem, 2, set(self._old)
        while not _will_be_free(self.folder / free, going):
            free, n = f"{stem}-{n}", n + 1
        return free


def remove_files(folder: Path, files: Iterable[str]) -> None:
    """Removes files below a folder, and the folders that are empty then; never what lies elsewhere."""
    places = set()
    for file in files:
        path = folder / file
        if path.parent.resolve().is_relative_to(folder.resolve()) and not path.is_dir():
            path.unlink(missing_ok=True)
            places.add(path.parent)
    for place in places - {folder}:
        with contextlib.suppress(OSError):  # not empty
            place.rmdir()


def _is_there(path: Path, told: StoredFile) -> bool:
    return path.is_file() and path.stat().st_size == told.size


def _will_be_free(place: Path, going: set[str]) -> bool:
    if not os.path.lexists(place):
        return True
    if place.is_symlink() or not place.is_dir():
        return False
    inside = [path.relative_to(place.parent).as_posix() for path in place.iterdir()]
    return bool(inside) and going.issuperset(inside)


def _clear_aside(folder: Path, listed: set[str]) -> None:
    """Removes what was being written, and what had been moved to its place and is not listed."""
    for aside in folder.glob(f"{_WRITING}*"):
        place = folder / aside.name.removeprefix(_WRITING)
        moved = not (aside / _FILES).exists() and place.is_dir() and not place.is_symlink()
        if moved and place.name not in listed:
            shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
