"""How masked pictures are run."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from ...errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]
MemoryFormat = Literal["auto", "contiguous", "channels_last"]

MOST_SAMPLES = 2**24  # of masks for one picture: what plans them holds them all
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class Running:
    """How masked pictures are run.

    None of it changes what is computed by more than rounding, except `precision`. What is found by measuring is found
    once for a model and a size of picture, and only where there are enough pictures to be worth it.

    Attributes:
        batch_size: pictures in a forward pass; None: doubled as long as a picture gets faster, within `memory`.
        memory: bytes for a batch; None: 1 GiB on a CPU, a quarter of a GPU's memory.
        precision: "float32" is the model's own; "bfloat16" runs it under autocast; "auto" does where that is faster
            and the ranking of scores holds (Spearman's correlation at least 0.99).
        memory_format: of the pictures; "auto" takes the faster one. The model's weights stay as they are.
        progress: called with (done, all) masked pictures after every batch.

    Example:
        >>> seewhy.masking.Running(batch_size=8)
        Running(batch_size=8, memory=None, precision='float32', memory_format='auto', progress=None)
    """

    batch_size: int | None = None
    memory: int | None = None
    precision: Precision = "float32"
    memory_format: MemoryFormat = "auto"
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        for name, kind in (("precision", Precision), ("memory_format", MemoryFormat)):
            if getattr(self, name) not in get_args(kind):
                accepted = ", ".join(map(repr, get_args(kind)))
                raise InputError(f"{name}={getattr(self, name)!r} is not known; use {accepted}")
        for name in ("batch_size", "memory"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(
                    f"{name}={value} is too small; give at least 1, or None to have it found"
                )


def keep_allocator_memory() -> bool:
    """Lets the C allocator keep what large batches free, so that the next batch need not fetch it page by page.

    For the whole process, and its resident memory then stays at its peak: therefore only when asked for. It halves the
    time of large batches on a CPU under glibc; elsewhere it does nothing.

    Returns:
        Whether it took effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    )
