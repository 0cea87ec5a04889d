"""`seewhy methods`, `layers` and `labels`: what there is to ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, TargetError, did_you_mean
from . import sources
from .arguments import JsonOption
from .results import print_json
from .show import starting, table

if TYPE_CHECKING:
    from ..data.disk import Json


_PLACES = {"head": "the pooled layer", "layer": "any layer", "input": "the input"}


def methods(as_json: JsonOption = False) -> None:
    """Lists the attribution methods."""
    rows: list[Json] = [
        {
            "name": name,
            "title": m.title,
            "paper": m.paper,
            "map over": _PLACES[m.at],
            "signed": m.signed,
            "options": m.defaults,
        }
        for name, m in sources.methods().items()
    ]
    if as_json:
        print_json({"methods": rows})
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
    with starting():
        from .. import list_layers

        flow = list_layers(model)
    rows = flow.table(every=every)
    if as_json:
        told = {"model": model, "default": flow.default, "all-stages": flow.chosen}
        print_json({**told, "layers": rows})
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
    known, wanted = _labels_of(model), part.strip().casefold()
    found = [(i, label) for i, label in enumerate(known) if wanted in label.casefold()]
    if not found:
        way_out = did_you_mean(part, known) or "; without it all are listed"
        raise TargetError(f"no label of {model} has {part!r} in it{way_out}")
    if as_json:
        listed = [{"class": i, "label": label} for i, label in found]
        print_json({"model": model, "labels": listed})
    else:
        table(f"Labels of {model}", [{"label": label, "class": str(i)} for i, label in found])


def _labels_of(model: str) -> Sequence[str]:
    own = sources.imagenet_labels() if model == sources.embedded_model() else None
    if own is not None:
        return own
    with starting():
        from ..models.load import load_model

        named = load_model(model, pretrained=False).labels
    if named is None:
        raise InputError(
            f"model {model!r} names no classes; --target takes their numbers, --labels gives them names"
        )
    return named
