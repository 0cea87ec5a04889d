"""What people type, read: devices, label files, options of methods and metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..engine.masking import Running
from ..engine.targets.names import ClassNames
from ..engine.targets.resolve import FORMS, TargetLike
from ..errors import InputError
from ..methods.catalog import find_method
from ..methods.method import Method
from ..methods.request import Request
from ..models.devices import usable_device
from ..models.load import load_model
from ..models.model import Model
from ..names import Spellings, split_names, split_targets
from .groups import Asked, How
from .show import console, said

_RUNNING = "running"  # the option of methods that run many passes


def label_names(path: Path | None) -> ClassNames | None:
    """The names in a file."""
    return None if path is None else ClassNames.read(path)


def loaded_model(asked: Asked, how: How) -> Model:
    """The model of --model, with the names in a file, on a device, seeing what --crop and --resize say."""
    with console.status(f"Loading {said(asked.model)}"):
        model = load_model(
            asked.model,
            labels=label_names(asked.labels),
            device=usable_device(how.device),
            trust_paths=how.trust_paths,
        )
    is_asked = asked.crop is not None or asked.resize is not None
    return model.seeing(crop=asked.crop, resize=asked.resize) if is_asked else model


def targets(texts: Sequence[str], model: Model) -> list[TargetLike]:
    """The targets of --target, each one or several with commas; a label that has a comma is one."""
    spelled = None if model.labels is None else Spellings(model.labels)
    return [target for text in texts for target in split_targets(text, spelled, FORMS)]


def layers(names: Sequence[str] | None) -> str | Sequence[str] | None:
    """The layers as `explain` takes them, of --layer, each one or several with commas."""
    if not names:
        return names
    split = [name for text in names for name in split_names(text)]
    return split[0] if split == ["all-stages"] else split


def value(text: str, *, of: str = "", default: object = None) -> object:
    """A number, true or false, none, or the text itself, for an option with that default.

    Raises:
        InputError: it is a word, and the option's default is a number, or true or false.
    """
    try:
        return json.loads({"none": "null"}.get(text.strip().lower(), text.strip().lower()))
    except json.JSONDecodeError as error:
        if isinstance(default, bool | int | float):
            accepted = "true or false" if isinstance(default, bool) else "a number"
            raise InputError(
                f"option {of}={text.strip()!r} is not {accepted}; its default is {default}"
            ) from error
        return text.strip()


def options(texts: Sequence[str]) -> dict[str, dict[str, object]]:
    """The options that "rise.samples=2000" and the like give to methods.

    That each is METHOD.OPTION=VALUE of what there is, was checked before anything was loaded (`asked`).

    Raises:
        InputError: a value is not of the kind of the option's default.
    """
    found: dict[str, dict[str, object]] = {}
    for text in texts:
        place, _, given = text.partition("=")
        method, _, name = place.rpartition(".")
        chosen, name = find_method(method), name.strip()
        default = chosen.options.get(name)
        read = value(given, of=f"{chosen.name}.{name}", default=default)
        if type(default) is int and isinstance(read, float):
            raise InputError(f"option {text!r} is not a whole number; its default is {default}")
        found.setdefault(chosen.name, {})[name] = read
    return found


def with_progress(
    request: Request, within: Callable[[int, int], None]
) -> dict[str, dict[str, object]]:
    """The options of a request, with methods that run many passes told to say how far they are."""
    found = {name: dict(settings) for name, settings in request.options.items()}
    for method in request.methods:
        if _RUNNING in method.options:
            found.setdefault(method.name, {})[_RUNNING] = Running(progress=within)
    return found


def samples(methods: Iterable[Method], photos: int, batch_size: int) -> int:
    """How many samples of many passes are drawn: of each method that draws any, one for each batch."""
    return -(-photos // batch_size) * sum(_RUNNING in method.options for method in methods)
