"""Whether a picture is all there: decoders fill what is missing with grey or black, and mostly say so; not always.

Pillow says of a file that is cut off that it is truncated, unless somebody has set `LOAD_TRUNCATED_IMAGES`. It says
nothing where the data end early and the file does not: of a PNG whose compressed stream is closed after some rows, and
of a JPEG whose end marker comes too soon.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from ..errors import ImageError

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's colour types
_PASSES = (
    (0, 8, 0, 8),
    (4, 8, 0, 8),
    (0, 4, 4, 8),
    (2, 4, 0, 4),
    (0, 2, 2, 4),
    (1, 2, 0, 2),
    (0, 1, 1, 2),
)  # Adam7
_END, _SCAN = b"\xff\xd9", 0xDA
_JPEG2000_TAIL = 4096
_GRAY = 128  # what libjpeg fills in
_OTHER = bytes(
    i * 167 % 251 for i in range(4096)
)  # data that no picture goes on with, without a marker


class ToTheEnd(io.BufferedReader):
    """A file, of which a decoder that asks for more than there is is told so, whatever Pillow is set to.

    Attributes:
        suffices: a whole file is enough for what reads it now, which asks for no more than that.
    """

    suffices = False

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if not found and size and self.suffices and ImageFile.LOAD_TRUNCATED_IMAGES:
            raise OSError("image file is truncated")
        return found


def check_whole(picture: Image.Image, file: BinaryIO, name: str) -> None:
    """Refuses a decoded picture of whose pixels some were not in its file.

    Raises:
        ImageError: so many are missing.
    """
    checks = {
        "PNG": _png_lacks,
        "JPEG": _jpeg_lacks,
        "MPO": _jpeg_lacks,
        "JPEG2000": _jpeg2000_lacks,
    }
    lacks = checks.get(picture.format or "")
    if lacks and lacks(picture, file):
        raise ImageError(
            f"{name} is truncated or damaged: its data end before its last row; get it anew"
        )


def _png_lacks(picture: Image.Image, file: BinaryIO) -> bool:
    """Whether the stream of a PNG holds fewer rows than its header says."""
    interlaced = bool(picture.info.get("interlace"))
    last = picture.crop((0, picture.height - 1, picture.width, picture.height))
    if not interlaced and last.tobytes().strip(b"\0"):  # what is missing stays zero
        return False
    file.seek(8)
    needed, found, stream = 1, 0, zlib.decompressobj()
    while found < needed and len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IHDR":
            needed = _png_bytes(file.read(length))
        elif kind == b"IDAT":
            found += _inflated(stream, file, length, needed - found)
        else:
            file.seek(length, io.SEEK_CUR)
        file.seek(4, io.SEEK_CUR)
    return found < needed


def _png_bytes(header: bytes) -> int:
    """How many bytes the rows of a PNG have, each with the number of its filter before it."""
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header[:13])
    bits, total = depth * _CHANNELS[color], 0
    for x, across, y, down in _PASSES if interlaced else ((0, 1, 0, 1),):
        columns = -(-(width - x) // across)
        rows = -(-(height - y) // down)
        total += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    return total


def _inflated(stream: zlib._Decompress, file: BinaryIO, length: int, most: int) -> int:
    """How many bytes a chunk unpacks to, counted and let go; no more than a little over `most`."""
    found = 0
    while length:
        data = file.read(min(length, 1 << 16))
        if not data:
            break
        length -= len(data)
        while data and found < most and not stream.eof:
            found += len(stream.decompress(data, 1 << 20))
            data = stream.unconsumed_tail
    return found


def _jpeg_lacks(picture: Image.Image, file: BinaryIO) -> bool:
    """Whether a JPEG comes out otherwise where other data stand before its end marker: then it had not all it needs.

    Looked at only where the last pixel is what libjpeg fills in.
    """
    corner = picture.getpixel((picture.width - 1, picture.height - 1))
    if set(corner if isinstance(corner, tuple) else (corner,)) != {_GRAY}:
        return False
    file.seek(0)
    data = file.read()
    end = data.find(_END, _scan_start(data))
    return end >= 0 and _small(data) != _small(data[:end] + _OTHER + data[end:])


def _jpeg2000_lacks(picture: Image.Image, file: BinaryIO) -> bool:
    """Whether the code stream of a JPEG 2000 has no end; some other box may follow it."""
    file.seek(0)
    return _END not in file.read()[-_JPEG2000_TAIL:]


def _scan_start(data: bytes) -> int:
    """Where the first scan of a JPEG begins: tables and thumbnails before it may hold end markers of their own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big") if data[at + 1] != 0xFF else 1
    return at


def _small(data: bytes) -> bytes:
    """A JPEG at an eighth of its size."""
    picture = JpegImageFile(io.BytesIO(data))
    picture.draft(None, (max(1, picture.width // 8), max(1, picture.height // 8)))
    return picture.tobytes()
