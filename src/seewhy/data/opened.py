"""Picture files, opened: what is a file, within limits, and read by Pillow alone."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError, InputError
from ..no_file import not_there
from ..safe_names import shown
from .whole import ToTheEnd, check_whole

MAX_PIXELS = 200_000_000
# Pillow recognises these containers and has no pixels of them to give; for the last it would run another program.
NO_PIXELS = {"BUFR", "GRIB", "HDF5", "MPEG", "EPS"}
_BYTES_OF_A_PIXEL, _LEAST_BYTES = 8, 1 << 28
_KINDS = {
    stat.S_ISFIFO: "a FIFO",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISDIR: "a folder",
}


@contextmanager
def opened(
    path: str | os.PathLike[str], what: str = "image", *, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """A picture file, whose pixels are not decoded yet; whatever goes wrong while it is open is an ImageError.

    Args:
        path: of a regular file, or a link to one.
        what: it is called so in errors.
        max_pixels: that it may have; its bytes may be 8 for each of them, and at least 256 MB.
    """
    name = f"{what} '{shown(path)}'"
    try:
        _check_file(path, name, max_pixels)
        with ToTheEnd(open(path, "rb", buffering=0)) as file:
            picture = _recognized(file)
            file.suffices = picture.format != "JPEG2000"
            check_pixels(picture.size, name, max_pixels)
            yield picture
    except InputError:
        raise
    except UnidentifiedImageError as error:
        said = "is not an image that Pillow can read" if os.path.getsize(path) else "is empty"
        raise ImageError(f"{name} {said}; accepted: image files; convert to PNG or JPEG") from error
    except Exception as error:  # decoders meet damage with whatever their parsing trips over
        why = getattr(error, "strerror", None) or f"it is truncated or damaged: {shown(error)}"
        raise ImageError(
            f"{name} cannot be opened ({why}); check its rights, or get it anew"
        ) from error


def load_whole(picture: Image.Image, name: str) -> None:
    """Decodes an opened picture.

    Raises:
        ImageError: some of its pixels are not in the file.
    """
    file: BinaryIO | None = getattr(picture, "fp", None)
    picture.load()
    if file is not None and not file.closed:
        check_whole(picture, file, name)


def check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Refuses a picture (width, height) without pixels, or with more than may be.

    Raises:
        InputError: so it is, or the limit is none.
    """
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError(
            f"max_pixels={max_pixels!r} is no limit; give a whole number of pixels, 1 or more"
        )
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels: {width} x {height}; accepted: at least 1 x 1")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels; accepted: at most {max_pixels:,}; make it smaller, or allow more "
            f"with max_pixels={width * height} (--max-pixels)"
        )


def _check_file(path: str | os.PathLike[str], name: str, max_pixels: int) -> None:
    """Refuses what is no regular file, and one that is larger than pictures are."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} {not_there(path, error)}") from error
    kind = next((kind for test, kind in _KINDS.items() if test(found.st_mode)), None)
    if kind:
        hint = "; find_images() lists those in a folder" if kind == "a folder" else ""
        raise ImageError(f"{name} is {kind}; accepted: one image file{hint}")
    most = (
        max(_LEAST_BYTES, _BYTES_OF_A_PIXEL * max_pixels)
        if isinstance(max_pixels, int)
        else _LEAST_BYTES
    )
    if found.st_size > most:
        raise ImageError(
            f"{name} has {found.st_size:,} bytes; accepted: at most {most:,}; make it smaller, or allow more with "
            f"max_pixels={-(-found.st_size // _BYTES_OF_A_PIXEL)} (--max-pixels)"
        )


def _recognized(file: BinaryIO) -> Image.Image:
    """What `Image.open` gives, without its limit: that is one for all of a process, and half of ours.

    Raises:
        UnidentifiedImageError: no format takes it.
    """
    Image.init()
    beginning = file.read(16)
    for kind in Image.ID:
        if kind not in NO_PIXELS:
            factory, accept = Image.OPEN[kind]
            try:
                taken = accept(beginning) if accept else True
                if taken and not isinstance(taken, str):  # a text says what Pillow lacks for it
                    file.seek(0)
                    return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue
    raise UnidentifiedImageError
