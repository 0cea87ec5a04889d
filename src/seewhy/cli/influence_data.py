"""The model and the training pictures of an index, the classes of the one as those of the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape

from ..data.dataset import LabelledImages, OnError
from ..data.sources import find_data
from ..data.store import Store
from ..errors import InputError, ModelError
from ..influence import InfluenceIndex
from ..models.classes import in_classes_of
from ..models.devices import usable_device
from ..models.load import load_model
from ..models.model import Model
from .show import console


def model_and_data(
    made_of: Mapping[str, Any], *, device: str, on_error: Literal["raise", "skip"] = "raise"
) -> tuple[Model, LabelledImages]:
    """What an index is made of, from what its manifest says: model, labels, data, split, seed, skipped.

    Args:
        on_error: "skip" opens every picture, and leaves out those that cannot be read.

    Raises:
        ModelError: a class of the data is none of the model's.
    """
    with console.status(f"Loading {escape(made_of['model'])}"):
        model = load_model(made_of["model"], labels=made_of.get("labels"), device=usable_device(device))
        # What was wrong with annotations was settled when the index was made.
        lenient: OnError = "skip" if "skipped" in made_of else on_error
        division = {"split": made_of.get("split", "train"), "seed": made_of.get("seed", 0)}
        data = find_data(made_of["data"], **division, on_error=lenient)
    data = data.readable() if on_error == "skip" else data
    skipped = set(made_of.get("skipped", ()))
    if skipped:
        data = data.subset(i for i, name in enumerate(data.names) if name not in skipped)
    return model, _in_classes_of(model, data)


def _in_classes_of(model: Model, data: LabelledImages) -> LabelledImages:
    try:
        return in_classes_of(model, data)
    except ModelError as error:
        raise ModelError(
            f"{str(error).partition(';')[0]}; give a model that was trained on these classes ('seewhy train' makes "
            "one), or the names of its classes with --labels"
        ) from error


def open_index(
    folder: Path, *, model: str | None, data: str | None, device: str, batch_size: int = 64
) -> InfluenceIndex:
    """Opens an index with the model and the data that it says it was made of, or with those given.

    Raises:
        InputError: there is none, or the model or the data are not there, or do not fit it.
    """
    store = Store(folder)
    if not store.load():
        raise InputError(f"'{folder}' holds no influence index; 'seewhy influence fit' makes one")
    about: Mapping[str, Any] = store.head["about"]
    given = {name: value for name, value in (("model", model), ("data", data)) if value is not None}
    made_of = {**about, **given}
    missing = [name for name in ("model", "data") if made_of.get(name) is None]
    if missing:
        raise InputError(
            f"the index in '{folder}' does not say what it was made of; give {' and '.join(f'--{m}' for m in missing)}"
        )
    usable = usable_device(device)
    try:
        loaded, examples = model_and_data(made_of, device=usable)
    except InputError as error:
        if len(given) == 2:
            raise
        raise type(error)(
            f"what the index in '{folder}' was made of cannot be had: {error}; --model and --data say where it is now"
        ) from error
    return InfluenceIndex.open(folder, loaded, data=examples, batch_size=batch_size)


def index_identity(folder: Path) -> dict[str, object]:
    """What tells an index from others, in JSON's types: where it is, what its rows and its examples depend on."""
    store = Store(folder)
    store.load()
    kept = ("curvature", "data", "removed", "classes")
    return {"folder": str(folder.resolve()), **{name: store.head[name] for name in kept}}


def what_is_indexed(folder: Path) -> str:
    """For an interrupt: what an index keeps."""
    store = Store(folder)
    if not store.load() or not store.files:
        return "nothing was finished"
    files = "1 file" if len(store.files) == 1 else f"{len(store.files)} files"
    return f"{files} of the index in {folder} are whole; run the same command again to go on"
