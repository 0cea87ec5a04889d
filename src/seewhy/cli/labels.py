"""`seewhy labels`: what the classes of a model are called."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..errors import InputError, TargetError, did_you_mean
from . import sources
from .show import starting, table


def list_labels(model: str, part: str = "", *, as_json: bool = False) -> int:
    """Prints the labels that have `part` in them, in any case, with their numbers.

    Raises:
        InputError: the model has no labels.
        TargetError: no label has it.
    """
    known = _labels_of(model)
    found = [
        (i, label) for i, label in enumerate(known) if part.strip().casefold() in label.casefold()
    ]
    if not found:
        raise TargetError(
            f"no label of {model} has {part!r} in it{did_you_mean(part, known) or '; without it all are listed'}"
        )
    rows = [{"label": label, "class": str(i)} for i, label in found]
    if as_json:
        print(
            json.dumps(
                {"model": model, "labels": [{"class": i, "label": label} for i, label in found]}
            )
        )
    else:
        table(f"Labels of {model}", rows)
    return 0


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
