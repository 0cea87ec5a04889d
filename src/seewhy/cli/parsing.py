"""What people type, read: targets, devices, label files, options of methods and metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..methods import find_method


def label_names(path: Path | None) -> list[str] | None:
    """The names in a text file, one a line."""
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"labels file '{path}' cannot be read: {error}; give a text file with a name a line"
        ) from error


def usable_device(name: str) -> str:
    """The device, if it can be used here."""
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}; 'cpu' always can") from error
    return name


def target(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def layers(names: Sequence[str] | None) -> str | Sequence[str] | None:
    """The layers as `explain` takes them."""
    return names[0] if names and list(names) == ["all-stages"] else names


def value(text: str) -> Any:
    """A number, true or false, none, or the text itself."""
    try:
        return json.loads({"none": "null"}.get(text.strip().lower(), text.strip().lower()))
    except json.JSONDecodeError:
        return text.strip()


def options(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The options that "rise.samples=2000" and the like give to methods.

    Raises:
        InputError: it is not METHOD.OPTION=VALUE, or there is no such method.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, equals, given = text.partition("=")
        method, _, name = place.rpartition(".")
        if not (method and name and equals):
            raise InputError(f"option {text!r} is not METHOD.OPTION=VALUE, such as rise.samples=2000")
        found.setdefault(find_method(method).name, {})[name.strip()] = value(given)
    return found
