"""Interrupts, which say what is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class InterruptError(Exception):
    """An interrupt, and what is saved."""


@contextmanager
def interruptible(saved: Callable[[], str]) -> Iterator[None]:
    """Says of an interrupt what is saved, and only that.

    Raises:
        InterruptError: in place of a KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptError(f"interrupted; {saved()}") from error
