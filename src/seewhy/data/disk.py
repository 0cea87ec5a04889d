"""What is written, written once: files that are whole or not there, folders that can be written into, JSON numbers."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from ..errors import InputError

# an object of JSON's, or settings of another library: whoever reads it knows what is in it
Json: TypeAlias = dict[str, Any]


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file so that at any moment the old one or the new one is there, whole, also after a loss of power.

    Raises:
        OSError: the disk is full, or cannot be written; the old file stays.
    """
    unfinished = path.with_name(f"{path.name}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Makes a rename last, where folders can be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def json_bytes(content: object) -> bytes:
    """JSON as it is written to files: indented, in UTF-8, and never NaN or infinity.

    What of a name is no UTF-8, which Python holds as lone surrogates, is written as JSON's own escapes.

    Raises:
        ValueError: a number is not finite (`number` makes it None).
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")


def read_json(path: Path) -> Json:
    """The object that a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is torn, nested deeper than can be read, or no object; in one line.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not an object")
    return found


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes JSON as `write_whole` does."""
    write_whole(path, json_bytes(content))


def number(value: float | None) -> float | None:
    """A number for a table or JSON: to six places; None for NaN, infinity and None."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


def writable_folder(folder: Path) -> None:
    """Makes a folder to write into.

    Raises:
        InputError: it cannot be made, or not written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"out={str(folder)!r} cannot be made a folder: {error.strerror}; give one where you may write"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"out={str(folder)!r} cannot be written into; change its rights, or give another folder"
        )


def unwritable(path: Path, error: OSError) -> InputError:
    """What to raise where a file cannot be written: which one, and why."""
    why = error.strerror or error
    return InputError(
        f"'{path}' cannot be written: {why}; make room, or give another folder; what is whole stays"
    )


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def own_version() -> str:
    """The version of seewhy, for what is written to say what wrote it."""
    return metadata.version("seewhy")
