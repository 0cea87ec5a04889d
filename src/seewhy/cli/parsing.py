"""What people type, read: devices, label files, options of methods and metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from ..engine.masking import Running
from ..engine.targets.names import ClassNames
from ..errors import InputError
from ..methods.catalog import find_method
from ..models.devices import usable_device
from ..models.load import load_model
from ..models.model import Model
from .show import console


def label_names(path: Path | None) -> ClassNames | None:
    """The names in a file."""
    return None if path is None else ClassNames.read(path)


def loaded_model(spec: str, *, labels: Path | None, device: str) -> Model:
    """The model of --model, with the names in a file, on a device."""
    with console.status(f"Loading {escape(spec)}"):
        return load_model(spec, labels=label_names(labels), device=usable_device(device))


def layers(names: Sequence[str] | None) -> str | Sequence[str] | None:
    """The layers as `explain` takes them."""
    return names[0] if names and list(names) == ["all-stages"] else names


def value(text: str, *, of: str = "", default: Any = None) -> Any:
    """A number, true or false, none, or the text itself, for an option with that default.

    Raises:
        InputError: it is a word, and the option's default is a number, or true or false.
    """
    try:
        return json.loads({"none": "null"}.get(text.strip().lower(), text.strip().lower()))
    except json.JSONDecodeError as error:
        if isinstance(default, bool | int | float):
            accepted = "true or false" if isinstance(default, bool) else "a number"
            raise InputError(f"option {of}={text.strip()!r} is not {accepted}; its default is {default}") from error
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
        chosen, name = find_method(method), name.strip()
        default = chosen.options.get(name)
        read = value(given, of=f"{chosen.name}.{name}", default=default)
        if type(default) is int and isinstance(read, float):
            raise InputError(f"option {text!r} is not a whole number; its default is {default}")
        found.setdefault(chosen.name, {})[name] = read
    return found


def with_progress(
    methods: Sequence[str], options: dict[str, dict[str, Any]], within: Callable[[int, int], None]
) -> dict[str, dict[str, Any]]:
    """The options, with methods that run many passes told to say how far they are."""
    for method in map(find_method, methods):
        if "running" in method.options:
            options.setdefault(method.name, {})["running"] = Running(progress=within)
    return options
