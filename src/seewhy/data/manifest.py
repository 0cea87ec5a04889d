"""What the folder of a run says of itself: run.json of the whole, and a line of entries.jsonl for each entry.

run.json        schema, kind, versions, the request, the state, and the files that are of the whole
entries.jsonl   for each photo, or other unit: its name, a digest of what went in, its record, its files
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

import torch

from ..errors import InputError
from .disk import Json, own_version

RUN, ENTRIES, SCHEMA = "run.json", "entries.jsonl", 1
_OLDER = ("explanation.json", "boxes.json")  # what lists the files of a folder without a manifest
_PLACES = ("picture", "sheet", "file")  # where those have the names of files


@dataclass(frozen=True)
class StoredFile:
    """A file as it was written: its size in bytes, and its SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A photo, or another unit of a run.

    Attributes:
        name: what it is called, once in a folder.
        digest: of what went in.
        files: of this entry, by their path in the folder.
        record: what was found, as people and programs read it.
        exact: what else is needed to make the same records again.
    """

    name: str
    digest: str
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    record: Json = field(default_factory=dict)
    exact: Json = field(default_factory=dict)

    @classmethod
    def read(cls, line: bytes) -> Entry:
        """The entry of a line."""
        told = json.loads(line)
        return cls(**{**told, "files": files_of(told["files"])})

    def line(self) -> bytes:
        """One line, in ASCII, so that names of any bytes are kept."""
        return json.dumps(asdict(self), allow_nan=False).encode() + b"\n"


def head_of(kind: str, state: str, request: Json | None, files: Mapping[str, StoredFile]) -> Json:
    """What run.json says."""
    versions = {"seewhy": own_version(), "torch": torch.__version__}
    told = {name: asdict(file) for name, file in sorted(files.items())}
    return {
        "schema": SCHEMA,
        "kind": kind,
        **versions,
        "state": state,
        "request": request,
        "files": told,
    }


def is_run_folder(folder: Path) -> bool:
    """Whether a run was written here."""
    return (folder / RUN).is_file() and (folder / ENTRIES).is_file()


def read_head(folder: Path) -> Json | None:
    """What run.json says; None where there is none.

    Raises:
        InputError: it is no manifest, or one of a newer seewhy.
    """
    path = folder / RUN
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_bytes())
        schema, files = told["schema"], files_of(told["files"])
        head: Json = {key: told[key] for key in ("kind", "seewhy", "torch", "state", "request")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"'{path}' is no manifest of seewhy ({type(error).__name__}); give another folder"
        ) from error
    if schema != SCHEMA:
        raise InputError(
            f"'{path}' has schema {schema!r}, this seewhy reads {SCHEMA}; give another folder"
        )
    _check_inside(path, files)
    return {**head, "files": told["files"]}


def read_entries(folder: Path) -> dict[str, Entry]:
    """The entries of a folder by name, as the last line of each has it.

    Raises:
        InputError: a line cannot be read.
    """
    return {
        entry.name: entry for entry in (entry_of(folder, line) for _, line in whole_lines(folder))
    }


def whole_lines(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Where each whole line begins, and the line; the last may be torn."""
    path, at = folder / ENTRIES, 0
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield at, line
            at += len(line)


def entry_of(folder: Path, line: bytes) -> Entry:
    try:
        entry = Entry.read(line)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = line[:40].decode(errors="replace")
        raise InputError(
            f"'{folder / ENTRIES}' has a damaged line, {said!r}; give another folder"
        ) from error
    _check_inside(folder / ENTRIES, entry.files)
    return entry


def files_of(told: Mapping[str, Json]) -> dict[str, StoredFile]:
    return {name: StoredFile(**file) for name, file in told.items()}


def stored_file(path: Path) -> StoredFile:
    """A file as it is."""
    with path.open("rb") as file:
        return StoredFile(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _check_inside(path: Path, files: Iterable[str]) -> None:
    for file in files:
        parts = PurePosixPath(file).parts
        if (
            not parts
            or PurePosixPath(file).is_absolute()
            or ".." in parts
            or "\\" in file
            or ":" in parts[0]
        ):
            raise InputError(
                f"'{path}' names {file!r}, which is not in its folder; give another folder"
            )


def older_files(folder: Path) -> list[str]:
    """What the JSON of an older seewhy lists, and that JSON."""
    found: list[str] = []
    for name in _OLDER:
        try:
            told = json.loads((folder / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        found += [name, *_named_files(told)]
    inside = [file for file in dict.fromkeys(found) if ".." not in PurePosixPath(file).parts]
    return [file for file in inside if (folder / file).is_file()]


def _named_files(told: object) -> Iterator[str]:
    if isinstance(told, dict):
        yield from (told[key] for key in _PLACES if isinstance(told.get(key), str))
    inner = told.values() if isinstance(told, dict) else told if isinstance(told, list) else ()
    for each in inner:
        yield from _named_files(each)
