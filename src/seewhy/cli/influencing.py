"""`seewhy influence`: an index of the training data, the pictures that taught an answer, and labels that look wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from ..data import find_data
from ..errors import InputError, did_you_mean
from ..images import find_images, read_image
from ..influence import InfluenceIndex, InfluenceQuery, Influential, find_solver, mislabelled
from ..influence.solvers.solver import is_calibrated
from ..influence.store import Store
from ..models.load import DEFAULT_MODEL, load_model
from ..render.influence import influence_sheet, mislabelled_sheet
from . import parsing
from .showing import Shown, bold, console, progress, table, tell_skipped

QUERY_NAME, MISLABELLED_NAME = "influence", "mislabelled"
_LONG = 10.0  # seconds


def fit_index(
    data: str,
    *,
    model: str = DEFAULT_MODEL,
    solver: str = "last_layer",
    options: Sequence[str] = (),
    l2: float = 0.0,
    out: Path,
    split: str = "train",
    seed: int = 0,
    on_error: Literal["raise", "skip"] = "raise",
    device: str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    dtype: str | None = None,
    self_influence: bool = False,
    as_json: bool = False,
) -> int:
    """Makes the index of a training set; goes on where an earlier run stopped.

    Args:
        options: settings of the solver, each NAME=VALUE.
        on_error: "skip" opens every picture first, and leaves out those that cannot be read.
        self_influence: computes what `list_mislabelled` needs, which else does so itself.
    """
    if dtype not in (None, "float16", "float32", "float64"):
        raise InputError(f"dtype {dtype!r} is not known; accepted: float16, float32 or float64")
    settings = parse_settings(options)
    with console.status(f"Loading {model}"):
        loaded = load_model(model, device=parsing.usable_device(device))
        examples = find_data(data, split=split, seed=seed, on_error=on_error)
        examples = examples.readable() if on_error == "skip" else examples
    made_of = {"model": model, "data": data, "split": split, "seed": seed, "skipped": list(examples.skipped)}
    with progress("Indexing", len(examples)) as show:
        index = InfluenceIndex.fit(
            loaded,
            examples,
            solver=find_solver(solver, **settings),
            l2=l2,
            out=out,
            batch_size=batch_size,
            workers=workers,
            dtype=dtype,  # type: ignore[arg-type]  # checked above
            about=made_of,
            announce=lambda cost: console.print(str(cost)),
            progress=_telling(show),
        )
        if self_influence:
            index.self_influence(progress=_forecasting(show))
    tell_skipped(examples.skipped.values())
    if as_json:
        told = {"solver": solver, "l2": l2, "examples": len(index), "self_influence": self_influence}
        print(json.dumps({"index": str(out), **made_of, **told}))
    else:
        once = "" if self_influence else "  # computes self-influence first, once"
        console.print(f"The index of {len(index):,} examples is in {bold(out)}. Ask it:")
        for line in (f"query PHOTO --index {out}", f"mislabelled --index {out}{once}"):
            console.print(f"seewhy influence {line}", soft_wrap=True, markup=False)
    return 0


def query_photos(
    photos: Sequence[Path],
    *,
    index: Path,
    model: str | None = None,
    data: str | None = None,
    k: int = 5,
    target: str | None = None,
    label: str | None = None,
    layer: str | None = None,
    out: Path,
    device: str = "cpu",
    as_json: bool = False,
) -> int:
    """Finds for each photo the training pictures that helped and harmed most, and draws them."""
    paths = find_images(photos)
    opened = open_index(index, model=model, data=data, device=device)
    wanted = None if label is None else _class_index(opened.classes, label)
    asked = None if target is None else parsing.target(target)
    _make_folder(out)
    queries: list[dict[str, Any]] = []
    with progress("Asking", len(paths)) as show:
        for done, path in enumerate(paths, start=1):
            photo = read_image(path)
            (found,) = opened.query([photo], k, labels=None if wanted is None else [wanted], target=asked)
            picture = influence_sheet(
                opened,
                [photo],
                found,
                title=f"What taught this answer: {path.name}",
                label=wanted,
                target=asked,
                layer=layer,
            )
            sheet = _free(out, path.stem, queries)
            picture.save(sheet)
            queries.append({"photo": path.name, **asdict(found), "sheet": str(sheet)})
            show(done, len(paths))
            if not as_json:
                _tell(path.name, found, opened)
    _write(out / f"{QUERY_NAME}.json", {**_told(opened), "queries": queries}, as_json)
    if not as_json:
        console.print(f"\nSheets and {QUERY_NAME}.json are in {bold(out)}")
        console.print(f"Look at {bold(queries[0]['sheet'])} first")
    return 0


def list_mislabelled(
    *,
    index: Path,
    top: int = 24,
    model: str | None = None,
    data: str | None = None,
    out: Path,
    device: str = "cpu",
    batch_size: int = 32,
    as_json: bool = False,
) -> int:
    """Lists and draws the training pictures with the largest influence on themselves: wrong labels come first.

    Self-influence is computed where the index does not have it yet, and kept there; interrupted, it goes on with the
    shard that was not finished.
    """
    opened = open_index(index, model=model, data=data, device=device, batch_size=batch_size)
    with progress("Self-influence", len(opened)) as show:
        suspects = mislabelled(opened, top, progress=_forecasting(show))
    _make_folder(out)
    sheet = out / f"{MISLABELLED_NAME}.png"
    mislabelled_sheet(opened, suspects).save(sheet)
    told = {**_told(opened), "examples": [asdict(one) for one in suspects], "sheet": str(sheet)}
    _write(out / f"{MISLABELLED_NAME}.json", told, as_json)
    if not as_json:
        rows = [
            {
                "example": one.name,
                "labelled": one.label_name,
                "the model says": one.predicted,
                "probability": f"{one.probability:.0%}",
                "self-influence": f"{one.score:.3g}",
            }
            for one in suspects
        ]
        table(f"Labels to check first, of {len(opened):,}", rows)
        console.print(f"\nLook at {bold(sheet)} first")
    return 0


def open_index(
    folder: Path, *, model: str | None, data: str | None, device: str, batch_size: int = 64
) -> InfluenceIndex:
    """Opens an index with the model and the data that it says it was made of, or with those given.

    Raises:
        InputError: there is none, or the model or the data do not fit it.
    """
    store = Store(folder)
    if not store.load():
        raise InputError(f"'{folder}' holds no influence index; 'seewhy influence fit' makes one")
    about: Mapping[str, Any] = store.head["about"]
    model, data = model or about.get("model"), data or about.get("data")
    if model is None or data is None:
        raise InputError(f"the index in '{folder}' does not say what it was made of; give --model and --data")
    with console.status(f"Loading {model}"):
        loaded = load_model(model, device=parsing.usable_device(device))
        examples = find_data(data, split=about.get("split", "train"), seed=about.get("seed", 0))
        skipped = set(about.get("skipped", ()))
        if skipped:
            examples = examples.subset(i for i, name in enumerate(examples.names) if name not in skipped)
        return InfluenceIndex.open(folder, loaded, data=examples, batch_size=batch_size)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """The settings that "damping=0.01" and the like give to a solver."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, given = text.partition("=")
        if not (name and equals):
            raise InputError(f"option {text!r} is not NAME=VALUE, such as damping=0.01")
        found[name.strip()] = parsing.value(given)
    return found


def _telling(show: Shown) -> Callable[[int, int], None]:
    """Progress of several stages, each of its own length."""
    return lambda done, total: show.bar.update(show.photos, completed=done, total=total)


def _forecasting(show: Shown) -> Callable[[int, int], None]:
    """The same, which says once what self-influence takes if that is much, by its second batch: the first is slow."""
    tell, seen = _telling(show), list[tuple[float, int]]()

    def told(done: int, total: int) -> None:
        tell(done, total)
        if len(seen) == 2:
            return
        seen.append((time.perf_counter(), done))
        if len(seen) == 2:
            (begun, first), (now, second) = seen
            left = (now - begun) / (second - first) * (total - second)
            if left > _LONG:
                console.print(
                    f"Self-influence of {total:,} examples takes about {timedelta(seconds=round(left))} (h:mm:ss) "
                    "more; interrupted, it goes on with the file of the index that it was at",
                    soft_wrap=True,
                )

    return told


def _class_index(classes: Sequence[str], label: str) -> int:
    if label in classes:
        return classes.index(label)
    if label.isdecimal():
        return int(label)
    raise InputError(f"label {label!r} is no class of the index{did_you_mean(label, classes)}")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={str(out)!r} cannot be made a folder: {error.strerror}") from error


def _free(out: Path, stem: str, taken: Sequence[Mapping[str, Any]]) -> Path:
    """A sheet's path that no other photo of this run has."""
    names, n = {query["sheet"] for query in taken}, 1
    while str(path := out / f"{stem}{f'-{n}' if n > 1 else ''}.{QUERY_NAME}.png") in names:
        n += 1
    return path


def _write(path: Path, told: Mapping[str, Any], as_json: bool) -> None:
    path.write_text(json.dumps(told, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(told))


def _told(index: InfluenceIndex) -> dict[str, Any]:
    """What the answers are of."""
    return {"index": str(index.folder), "solver": index.solver.name, "calibrated": is_calibrated(index.solver)}


def _tell(photo: str, found: InfluenceQuery, index: InfluenceIndex) -> None:
    calibrated = is_calibrated(index.solver)
    number = "influence" if calibrated else "score"

    def row(kind: str, one: Influential) -> dict[str, Any]:
        return {"": kind, "training picture": one.name, "label": one.label_name, number: f"{one.score:+.3g}"}

    rows = [row("helpful", one) for one in found.helpful] + [row("harmful", one) for one in found.harmful]
    ranks = "" if calibrated else f" by {index.solver.name}, of which only the ranks count"
    table(f"{photo}: {found.predicted}; {number} on {found.about}{ranks}", rows)
