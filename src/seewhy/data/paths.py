"""Paths that files of others name: lists, manifests and cards may lead to what lies in their own folder."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from ..safe_names import shown

TRUST = "--trust-paths (trust_paths=True) follows it"


def leads_out(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path, as it is written, is of something outside a folder; links are the folder's owner's affair."""
    inside, home = (os.path.abspath(os.path.expanduser(each)) for each in (path, folder))
    return inside != home and not Path(inside).is_relative_to(home)


def kept_inside(path: Path, folder: Path) -> Path:
    """The path of a file that a layout has in its own folder.

    Raises:
        InputError: it leads out of that.
    """
    if leads_out(path, folder):
        raise InputError(
            f"'{shown(path)}' is outside of '{folder}'; give a data set that names its own files"
        )
    return path


def is_plain(name: object) -> bool:
    """Whether a text is the name of a file in the folder itself, and no path."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\:\0")
