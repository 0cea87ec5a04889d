"""Names, whatever characters are in them: as people see them, as files are called after them, and in spreadsheets.

In JSON a name stays what it is (`data.disk.json_bytes`): bytes that are no UTF-8, which Python holds as lone
surrogates, are written as JSON's own escapes (`\\udcff`), and read back as the same name.
"""

from __future__ import annotations

import re

# What moves a cursor, breaks a line or turns the direction of what follows; and bytes that are no UTF-8.
_NOT_SHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_LINE_ENDS = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_RESERVED = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE
)  # devices, on Windows
_OURS = re.compile(
    r".*\.(part|lock|jsonl?|npz|html|csv|parquet|png)", re.IGNORECASE
)  # what we write beside
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def shown(name: object, most: int | None = None) -> str:
    """A name as people see it, on one line: what would act, break or fail to be written is told as `\\x1b`.

    Args:
        name: a text, a path, or what `str` makes one.
        most: how many characters at most; a longer one gives way in its middle.
    """
    text = _NOT_SHOWN.sub(_escape, str(name))
    if most is None or len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as os.fsdecode gives it
        code -= 0xDC00
    return _LINE_ENDS.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def file_stem(name: str, most: int = 120) -> str:
    """What files or a folder can be called after a name, on every system: letters, digits, and `_.-`.

    It is no device of Windows, and looks like no file that we write ourselves.

    Args:
        name: any text.
        most: bytes at most; endings and numbers follow, and a file's name has 255 at most.
    """
    stem = within_bytes(re.sub(r"[^\w.-]+", "_", name), most).strip(".") or "image"
    return f"{stem}_" if _RESERVED.fullmatch(stem) or _OURS.fullmatch(stem) else stem


def within_bytes(text: str, most: int) -> str:
    """As much of the beginning of a text as has so many bytes in UTF-8."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")


def cell(value: object) -> object:
    """A cell of a CSV file: a text that a spreadsheet would run as a formula has an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = shown(value)
    return f"'{text}" if value.startswith(_FORMULA) else text
