"""Options that several commands take, as one object: declared once, and inlined into each command's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from .arguments import (
    BatchOption,
    CropOption,
    DeviceOption,
    JsonOption,
    LabelsOption,
    LayersOption,
    MaxPixelsOption,
    MethodOptions,
    MethodsOption,
    ModelOption,
    ResizeOption,
    TargetsOption,
    TrustPathsOption,
)
from .results import results_apart

Command = Callable[..., int | None]


@dataclass(frozen=True)
class Asked:
    """Which maps of which answers, of which model."""

    model: ModelOption = "efficientnet_lite0"
    method: MethodsOption = None
    target: TargetsOption = None
    layer: LayersOption = None
    option: MethodOptions = None
    labels: LabelsOption = None
    batch_size: BatchOption = 8
    crop: CropOption = None
    resize: ResizeOption = None


@dataclass(frozen=True)
class How:
    """On what a command runs, what it may read, and to whom it tells what came out."""

    device: DeviceOption = "cpu"
    trust_paths: TrustPathsOption = False
    max_pixels: MaxPixelsOption = 200_000_000
    as_json: JsonOption = False


def inlined(function: Command) -> Command:
    """A command of a function that takes groups: each field of a group is an option of the command.

    Args:
        function: each of its arguments that is annotated with a dataclass is a group.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}

    def command(**given: Any) -> int | None:
        for name, kind in groups.items():
            of_group = {each.name: given.pop(each.name) for each in fields(kind)}
            given[name] = kind(**of_group)
        with results_apart():
            return function(**given)

    options = list(_options(function, hints))
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__annotations__ = {option.name: option.annotation for option in options}
    command.__dict__["__signature__"] = inspect.Signature(options)
    return command


def _options(function: Command, hints: Mapping[str, object]) -> Iterator[inspect.Parameter]:
    """What the command line gives, in the function's order, with the fields of groups in their place."""
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if not is_dataclass(kind):
            yield _option(name, kind, parameter.default)
            continue
        of_fields = get_type_hints(kind, include_extras=True)
        for each in fields(kind):
            yield _option(each.name, of_fields[each.name], each.default)


def _option(name: str, kind: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
