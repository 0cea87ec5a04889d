"""Standard output, which is for results alone: what the code of a model prints meanwhile goes to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import TextIO

_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


@contextmanager
def results_apart() -> Iterator[None]:
    """Within it only what goes to `output` is on standard output."""
    token = _results.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results.reset(token)


def output() -> TextIO:
    """Where results go."""
    return _results.get() or sys.stdout


def print_json(told: Mapping[str, object]) -> None:
    """Prints a result as one JSON object."""
    print(json.dumps(told), file=output(), flush=True)
