"""Commands called as functions, with what the command line gives where nothing is said."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from seewhy.cli.groups import inlined


def called(function: Callable[..., int | None], **given: Any) -> int | None:
    """A command with these of its options."""
    command = inlined(function)
    options = {name: each.default for name, each in inspect.signature(command).parameters.items()}
    assert given.keys() <= options.keys(), f"no options: {sorted(given.keys() - options.keys())}"
    return command(**{**options, **given})
