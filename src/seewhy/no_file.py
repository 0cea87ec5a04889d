"""What is said of a path that leads to no photo. Loads nothing slow, so that it is said at once."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from .errors import ImageError, did_you_mean
from .safe_names import shown


def check_is_local(path: str) -> None:
    """Says of a web address that it is none of a file.

    Raises:
        ImageError: so it is.
    """
    if re.match(r"https?:/", path, re.IGNORECASE):
        raise ImageError(
            f"image '{shown(path)}' is a web address; accepted: a local file; download it first"
        )


def check_any_there(paths: Sequence[Path]) -> None:
    """Says of the first of some photos that it is not there, if none of them is.

    Where some are there, the others are left out and told of when they are read.

    Raises:
        ImageError: none is.
    """
    errors: list[ImageError] = []
    for path in paths:
        try:
            os.stat(path)
        except (OSError, ValueError) as error:
            errors.append(ImageError(f"image '{shown(path)}' {not_there(path, error)}"))
        else:
            return
    if errors:
        raise errors[0]


def not_there(path: str | os.PathLike[str], error: OSError | ValueError) -> str:
    """Why a file cannot even be looked at."""
    if isinstance(error, ValueError):
        return f"cannot be a file ({error}); give the path of one"
    if os.path.islink(path):
        if isinstance(error, FileNotFoundError):
            return f"is a link to nothing: there is no '{shown(os.readlink(path))}'; mend the link, or remove it"
        return f"is a link that leads to no file ({error.strerror}); mend the link, or remove it"
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"cannot be opened ({error.strerror}); check its rights, or give another name"
    return f"does not exist{_what_instead(os.fspath(path))}"


def _what_instead(path: str) -> str:
    """What may have been meant by a path to nothing."""
    found = len(glob.glob(path)) if glob.has_magic(path) else 0
    if found:
        return f"; as a pattern it fits {found} files: leave out the quotes, or give their folder"
    folder, last = os.path.split(path)
    if not os.path.isdir(folder or "."):
        while folder and not os.path.isdir(folder):
            path, folder = folder, os.path.dirname(folder)
        return f": there is no folder '{shown(path)}'; give the path of a file, or of a folder with pictures"
    near = did_you_mean(shown(last), map(shown, os.listdir(folder or ".")))
    return near or "; give the path of a file, or of a folder with pictures"
