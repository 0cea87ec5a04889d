"""`seewhy methods`, `layers` and `labels`: what there is to ask for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, TargetError, did_you_mean
from . import sources
from .arguments import JsonOption

if TYPE_CHECKING:
    from ..data.disk import Json


_PLACES = {"head": "the pooled layer", "layer": "any layer", "input": "the input"}


def methods(as_json: JsonOption = False) -> None:
    """Lists the attribution methods."""
    from ..methods.catalog import METHODS
    from .show import table

    rows: list[Json] = [
        {
            "name": m.name,
            "title": m.title,
            "paper": m.paper,
            "map over": _PLACES[m.at],
            "signed": m.signed,
            "options": m.told_options,
        }
        for m in METHODS.values()
    ]
    if as_json:
        print(json.dumps({"methods": rows}))
        return
    for row in rows:
        row["options"] = ", ".join(f"{name}={value}" for name, value in row["options"].items())
    table("Methods", rows)


def layers(
    model: Annotated[
        str, typer.Argument(help="As --model of 'seewhy explain'; weights are not downloaded.")
    ],
    every: Annotated[bool, typer.Option("--all", help="Also layers that are no picture.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Lists the layers of a model with their shapes, and marks the ones that would be chosen."""
    from .. import list_layers
    from .show import table

    flow = list_layers(model)
    rows = flow.table(every=every)
    if as_json:
        told = {"model": model, "default": flow.chosen[-1], "all-stages": flow.chosen}
        print(json.dumps({**told, "layers": rows}))
    else:
        table(f"Layers of {model}", rows, highlight=lambda row: bool(row["chosen"]))


def labels(
    model: Annotated[
        str, typer.Argument(help="As --model of 'seewhy explain'; weights are not downloaded.")
    ],
    part: Annotated[
        str, typer.Argument(help="Only labels with this in them.", show_default="all")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Lists the labels of a model's classes: what --target takes."""
    from .show import table

    known, wanted = _labels_of(model), part.strip().casefold()
    found = [(i, label) for i, label in enumerate(known) if wanted in label.casefold()]
    if not found:
        raise TargetError(f"no label of {model} has {part!r} in it{did_you_mean(part, known)}")
    if as_json:
        listed = [{"class": i, "label": label} for i, label in found]
        print(json.dumps({"model": model, "labels": listed}))
    else:
        table(f"Labels of {model}", [{"label": label, "class": str(i)} for i, label in found])


def _labels_of(model: str) -> Sequence[str]:
    own = sources.imagenet_labels() if model == sources.embedded_model() else None
    if own is not None:
        return own
    from ..models.load import load_model

    named = load_model(model, pretrained=False).labels
    if named is None:
        raise InputError(
            f"model {model!r} names no classes; --target takes their numbers, --labels gives them names"
        )
    return named
