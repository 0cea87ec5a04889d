"""What is said beside a result: a warning at the line of the caller, and a remark that stays with what it is of."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

from .errors import SeewhyWarning

_PACKAGE = os.path.join(Path(__file__).parent, "")
_listening: ContextVar[tuple[list[str], ...]] = ContextVar("listening", default=())

Remarks = tuple[tuple[str, ...], ...]  # for each image what is to know of it, a line each


def warn(message: str) -> None:
    """Warns at the line outside seewhy that called into it; what listens (`heard`) notes it too."""
    for said in _listening.get():
        said.append(message)
    warnings.warn(message, SeewhyWarning, stacklevel=_levels_to_the_caller())


@contextmanager
def heard() -> Iterator[list[str]]:
    """Notes what is warned of within it, in this thread."""
    said: list[str] = []
    token = _listening.set((*_listening.get(), said))
    try:
        yield said
    finally:
        _listening.reset(token)


def together(parts: Sequence[Remarks], images: int) -> Remarks:
    """For each image the remarks of all the parts, each once; a part without any is ()."""
    return tuple(
        tuple(dict.fromkeys(said for part in parts if part for said in part[i]))
        for i in range(images)
    )


def _levels_to_the_caller() -> int:
    """How many frames lie between `warn` and the code that called seewhy, whatever else they went through."""
    frame: FrameType | None = sys._getframe(1)
    level = outermost = 1
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            outermost = level
        frame, level = frame.f_back, level + 1
    return outermost + 1
