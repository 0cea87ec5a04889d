"""The model and the training pictures of an index, the classes of the one as those of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from ..data.dataset import LabeledImages, OnError
from ..data.disk import Json
from ..data.opened import MAX_PIXELS
from ..data.paths import TRUST, leads_out
from ..data.sources import data_paths, find_data
from ..data.store import Store
from ..errors import InputError, ModelError
from ..influence import InfluenceIndex
from ..models.classes import in_classes_of
from ..models.devices import usable_device
from ..models.factory import read_factory
from ..models.load import load_model, model_files
from ..models.model import Model
from ..safe_names import shown
from .groups import How
from .influence_asked import OfIndex
from .show import console, said


class Limits(NamedTuple):
    """How many pixels a picture may have, and whether what files name may lie outside of their folders."""

    max_pixels: int = MAX_PIXELS
    trust_paths: bool = False


AS_USUAL = Limits()


def limits_of(how: How) -> Limits:
    """Those that a command line sets."""
    return Limits(how.max_pixels, trust_paths=how.trust_paths)


def model_and_data(
    made_of: Json,
    limits: Limits,
    *,
    device: str,
    on_error: Literal["raise", "skip"] = "raise",
) -> tuple[Model, LabeledImages]:
    """What an index is made of, from what its manifest says: model, labels, data, split, seed, skipped.

    Args:
        made_of: the manifest's entries, or the same of a command line.
        limits: of the pictures, and whether paths in data sets are trusted.
        device: where the model is put.
        on_error: "skip" opens every picture, and leaves out those that cannot be read.

    Raises:
        ModelError: a class of the data is none of the model's.
    """
    with console.status(f"Loading {said(made_of['model'])}"):
        names, usable = made_of.get("labels"), usable_device(device)
        model = load_model(
            made_of["model"], labels=names, device=usable, trust_paths=limits.trust_paths
        )
        # What was wrong with annotations was settled when the index was made.
        lenient: OnError = "skip" if "skipped" in made_of else on_error
        division = {"split": made_of.get("split", "train"), "seed": made_of.get("seed", 0)}
        data = find_data(made_of["data"], **division, on_error=lenient, **limits._asdict())
    data = data.readable() if on_error == "skip" else data
    skipped = set(made_of.get("skipped", ()))
    if skipped:
        data = data.subset(i for i, name in enumerate(data.names) if name not in skipped)
    return model, _in_classes_of(model, data)


def _in_classes_of(model: Model, data: LabeledImages) -> LabeledImages:
    try:
        return in_classes_of(model, data)
    except ModelError as error:
        raise ModelError(
            f"{str(error).partition(';')[0]}; give a model that was trained on these classes ('seewhy train' makes "
            "one), or the names of its classes with --labels"
        ) from error


def trust_hint(made_of: Mapping[str, object], folder: Path) -> str:
    """The option without which an index that was made of this is not opened by what it says."""
    return " --trust-paths" if any(_leading_out(made_of, folder)) else ""


def _leading_out(about: Mapping[str, object], folder: Path) -> Iterator[tuple[str, str]]:
    """Which entries of what an index is made of name files outside its folder, or code; and what they name."""
    model, data, labels = (about.get(key) for key in ("model", "data", "labels"))
    factory = read_factory(str(model))
    if factory is not None:
        yield "model", str(model)
    named = [("model", file) for file in model_files(str(model))] if model else []
    named += [("data", path) for path in data_paths(str(data))] if data else []
    named += [("labels", labels)] if isinstance(labels, str) else []
    yield from ((key, path) for key, path in named if leads_out(path, folder))


def _made_of(store: Store, given: Mapping[str, str], limits: Limits) -> Json:
    """What an index was made of, as its manifest says, but for what is given.

    Raises:
        InputError: it does not say it, or names what lies elsewhere and is not trusted.
    """
    about, folder = store.head.get("about"), store.folder
    if not isinstance(about, dict):
        raise InputError(
            f"the manifest in '{folder}' does not say what the index is of (about); fit it again"
        )
    made_of = {**about, **given}
    missing = [name for name in ("model", "data") if made_of.get(name) is None]
    if missing:
        raise InputError(
            f"the index in '{folder}' does not say what it was made of; give {' and '.join(f'--{m}' for m in missing)}"
        )
    own = {key: about.get(key) for key in about.keys() - given}
    for key, path in () if limits.trust_paths else _leading_out(own, folder):
        raise InputError(
            f"the index in '{folder}' says that its {key} is '{shown(path)}', which is outside of it; {TRUST}, or "
            "--model and --data say where they are"
        )
    return made_of


def open_index(
    of_index: OfIndex, limits: Limits = AS_USUAL, *, device: str = "cpu", batch_size: int = 64
) -> InfluenceIndex:
    """Opens an index with the model and the data that it says it was made of, or with those given.

    Raises:
        InputError: there is none, or the model or the data are not there, or do not fit it.
    """
    folder, store = of_index.index, Store(of_index.index)
    if not store.load():
        raise InputError(f"'{folder}' holds no influence index; 'seewhy influence fit' makes one")
    asked = {"model": of_index.model, "data": of_index.data}
    given = {name: value for name, value in asked.items() if value is not None}
    made_of = _made_of(store, given, limits)
    usable = usable_device(device)
    try:
        loaded, examples = model_and_data(made_of, limits, device=usable)
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
