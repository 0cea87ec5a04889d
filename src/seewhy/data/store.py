"""Tensors on disk: safetensors files that are whole or not there, and a manifest that vouches for each of them.

A folder holds manifest.json, files of tensors, and until all of them are written a journal of each writer: a line for
each file that is done. Whatever moment the writer is killed at, what the journal lists can be gone on from; what is
damaged since is found by its checksum. Files are memory-mapped when read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..safe_names import shown
from .disk import Json, read_json, write_whole
from .paths import is_plain

MANIFEST, FORMAT = "manifest.json", 4
_OURS = re.compile(
    r"(journal-\d+\.jsonl|[a-z]+-[0-9a-f]{12}(-\d+)?\.safetensors)(\.part)?|manifest\.json\.part"
)
_SCALE = ".scale"


@dataclass(frozen=True)
class Entry:
    """A file of tensors: its bytes, their SHA-256, and how many rows it holds from which example on."""

    size: int
    sha256: str
    start: int
    count: int


class Store:
    """A folder of tensors.

    Args:
        folder: made when something is written.
        writer: which of several processes this is; each has a journal of its own.

    Attributes:
        head: what the manifest says besides the files.
        files: what is vouched for, by name.
    """

    def __init__(self, folder: str | os.PathLike[str], *, writer: int = 0) -> None:
        self.folder, self.writer = Path(folder), writer
        self.head: Json = {}
        self.files: dict[str, Entry] = {}
        self._sound: set[str] = set()
        if not _is_utf8(str(self.folder.absolute())):
            raise InputError(
                f"folder '{shown(self.folder)}' is called by bytes that are no UTF-8, which safetensors cannot open; "
                "give another"
            )

    def load(self) -> bool:
        """Reads the manifest and the journals; returns whether there is a manifest.

        Raises:
            InputError: it is damaged, or of another format.
        """
        path = self.folder / MANIFEST
        if not path.is_file():
            return False
        given, told, found = _read_manifest(path)
        if given != FORMAT:
            raise InputError(
                f"index '{self.folder}' has format {given}, this seewhy reads {FORMAT}; fit it again"
            )
        self.head, self.files = told, found
        lines = [
            line
            for journal in self.folder.glob("journal-*.jsonl")
            for line in _read_journal(journal)
        ]
        self.files |= {name: entry for _, name, entry in sorted(lines, key=lambda line: line[0])}
        return True

    def begin(self, head: Mapping[str, object]) -> None:
        """Writes the manifest of what is not complete yet; what is listed already stays."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"out={str(self.folder)!r} cannot be made a folder: {error.strerror}"
            ) from error
        self.head = {**head, "complete": False}
        self._write_manifest()

    def write(
        self,
        name: str,
        tensors: Mapping[str, Tensor],
        *,
        start: int = 0,
        names: Sequence[str] = (),
        remarks: Sequence[str] = (),
    ) -> None:
        """Writes a file whole, then vouches for it in the journal.

        Args:
            name: of the file.
            tensors: with the same first dimension, the rows, where `names` are given.
            start: the example of the first row.
            names: of the rows.
            remarks: on what is stored.
        """
        from safetensors.torch import save

        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        data = save(
            plain, metadata={"names": json.dumps(list(names)), "remarks": json.dumps(list(remarks))}
        )
        entry = Entry(len(data), hashlib.sha256(data).hexdigest(), start, len(names))
        path = self.folder / name
        try:
            write_whole(path, data)
            with (self.folder / f"journal-{self.writer}.jsonl").open(
                "a", encoding="utf-8"
            ) as journal:
                line = {
                    "file": name,
                    **asdict(entry),
                    "at": time.time_ns(),
                }  # another writer may have made it before
                journal.write("\n" + json.dumps(line) + "\n")  # a torn line may come before
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            raise InputError(
                f"'{path}' cannot be written: {error.strerror}; make room and start again"
            ) from error
        self.files[name] = entry
        self._sound.add(name)

    def commit(self, head: Mapping[str, object], keep: Iterable[str]) -> None:
        """Writes the manifest of what is complete: these files, as far as there are any; others of ours go."""
        self.files = {name: self.files[name] for name in keep if name in self.files}
        self.head = {**head, "complete": True}
        self._write_manifest()
        for path in self.folder.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in self.files:
                path.unlink(missing_ok=True)

    def forget(self, *names: str) -> None:
        """Takes files away, whatever a journal says of them.

        Raises:
            InputError: a file cannot be removed, or is none of the folder.
        """
        for name in names:
            if not is_plain(name):
                raise InputError(
                    f"{name!r} is no file of '{self.folder}', and is not removed; fit the index anew"
                )
            self.files.pop(name, None)
            self._sound.discard(name)
            path = self.folder / name
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(
                    f"'{path}' cannot be made anew: {error.strerror}; give a folder to write to"
                ) from error

    def intact(self, name: str, *, full: bool = True) -> bool:
        """Whether the file is there as it was written: by its size, and with `full` by its checksum too."""
        entry, path = self.files.get(name), self.folder / name
        if entry is None or not path.is_file() or path.stat().st_size != entry.size:
            return False
        if full and name not in self._sound:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                    return False
            self._sound.add(name)
        return True

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file, memory-mapped; checked by its checksum when first read.

        Raises:
            InputError: the file is not what was written.
        """
        from safetensors import safe_open

        self._demand(name, full=True)
        with safe_open(self.folder / name, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)

    def column(self, name: str, key: str) -> tuple[Tensor, list[str]]:
        """One small tensor of a file, and the names of its rows; checked by the file's size alone."""
        from safetensors import safe_open

        self._demand(name, full=False)
        with safe_open(self.folder / name, framework="pt") as file:
            return file.get_tensor(key), json.loads(file.metadata()["names"])

    def remarks(self, name: str) -> tuple[str, ...]:
        """What was remarked on what a file holds."""
        from safetensors import safe_open

        self._demand(name, full=False)
        with safe_open(self.folder / name, framework="pt") as file:
            return tuple(json.loads(file.metadata().get("remarks", "[]")))

    def check(self, names: Iterable[str], *, full: bool = False) -> None:
        """Checks files, by size or in full.

        Raises:
            InputError: a file is not what was written.
        """
        for name in names:
            self._demand(name, full=full)

    def _demand(self, name: str, *, full: bool) -> None:
        if not self.intact(name, full=full):
            raise InputError(
                f"'{self.folder / name}' is missing, torn or damaged (its checksum differs); fit the index again into "
                "the same folder: only this file is made anew"
            )

    def _write_manifest(self) -> None:
        files = {name: asdict(entry) for name, entry in sorted(self.files.items())}
        text = json.dumps(
            {"format": FORMAT, **self.head, "files": files}, indent=1, ensure_ascii=False
        )
        write_whole(self.folder / MANIFEST, (text + "\n").encode(errors="backslashreplace"))


def _read_manifest(path: Path) -> tuple[object, Json, dict[str, Entry]]:
    """What a manifest says: its format, what stands at its head, and its files, all of its own folder."""
    try:
        told = read_json(path)
        given = told.pop("format")
        found = {name: Entry(**entry) for name, entry in told.pop("files").items()}
    except KeyError as error:
        raise InputError(
            f"index manifest '{path}' does not say its {error}; fit the index again"
        ) from error
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"index manifest '{path}' cannot be read: {error}; fit the index again"
        ) from error
    outside = next((name for name in found if not is_plain(name)), None)
    if outside is not None:
        raise InputError(
            f"index manifest '{path}' names {outside!r}, which is no file of its folder; fit it again"
        )
    return given, told, found


def _read_journal(path: Path) -> list[tuple[int, str, Entry]]:
    """When and for what a journal vouches; a line that was torn by a crash vouches for nothing."""
    found: list[tuple[int, str, Entry]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            told = json.loads(line)
            at, name = told.pop("at"), told.pop("file")
            found += [(int(at), name, Entry(**told))] if is_plain(name) else []
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
    return found


def pack(rows: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Rows (B, ...) as they are stored: floating point in `dtype`; None leaves them as they are.

    float16 holds gradients badly, which span more than its range: each row is divided by its largest magnitude, which
    is stored beside it.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in rows.items():
        if dtype is None or not tensor.is_floating_point():
            packed[name] = tensor
        elif dtype == torch.float16:
            flat = tensor.reshape(len(tensor), -1)
            scale = (
                flat.abs().amax(1, keepdim=True) if flat.shape[1] else flat.new_zeros(len(flat), 1)
            )
            packed[name] = (flat / torch.where(scale > 0, scale, 1)).to(dtype).reshape(tensor.shape)
            packed[name + _SCALE] = scale[:, 0].float()
        else:
            packed[name] = tensor.to(dtype)
    return packed


def unpack(stored: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """What `pack` was given, floating point in `dtype`; what has it already is not copied."""
    rows: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(_SCALE):
            continue
        value = tensor.to(dtype) if tensor.is_floating_point() else tensor
        scale = stored.get(name + _SCALE)
        if scale is not None:
            value = value.mul_(scale.to(dtype).reshape(-1, *[1] * (value.ndim - 1)))
        rows[name] = value
    return rows


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
