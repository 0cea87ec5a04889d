"""`seewhy influence`: an index of the training data, the pictures that taught an answer, and labels that look wrong."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from ..data.disk import Json, png_bytes, writable_folder, write_json
from ..data.images import find_images
from ..data.opened import MAX_PIXELS
from ..data.run_folder import RunFolder, usable_folder
from ..engine.spread import world
from ..errors import ImageError, InputError
from ..influence import InfluenceIndex, InfluenceQuery, Suspect, find_solver, mislabeled
from ..influence.answers.sheets import influence_sheet, mislabeled_sheet, own_losses
from ..influence.index.index import Dtype
from ..influence.index.manifest import model_photo
from ..influence.solvers.solver import is_calibrated
from ..methods.photos import photo_digest
from ..models.load import DEFAULT_MODEL
from ..safe_names import shown
from . import parsing
from .influence_data import (
    Limits,
    index_identity,
    model_and_data,
    open_index,
    trust_hint,
    what_is_indexed,
)
from .interrupts import interruptible
from .saving import forecasting, remark, what_is_saved
from .show import Shown, bold, console, progress, table, tell_remarks, tell_skipped

QUERY_NAME, MISLABELLED_NAME = "influence", "mislabelled"


def fit_index(
    data: str,
    *,
    model: str = DEFAULT_MODEL,
    solver: str = "last_layer",
    options: Sequence[str] = (),
    l2: float = 0.0,
    parameters: Sequence[str] = (),
    labels: Path | None = None,
    out: Path,
    split: str = "train",
    seed: int = 0,
    on_error: Literal["raise", "skip"] = "raise",
    device: str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    dtype: str | None = None,
    self_influence: bool = False,
    max_pixels: int = MAX_PIXELS,
    trust_paths: bool = False,
    as_json: bool = False,
) -> int:
    """Makes the index of a training set; goes on where an earlier run stopped.

    Args:
        options: settings of the solver, each NAME=VALUE.
        parameters: names of the weights that count; what the solver takes where there are none.
        labels: a text file with a name for each class of the model.
        on_error: "skip" opens every picture first, and leaves out those that cannot be read.
        self_influence: computes what `list_mislabeled` needs, which else does so itself.
    """
    stored = next((known for known in get_args(Dtype) if known == dtype), None)
    if dtype is not None and stored is None:
        raise InputError(f"dtype {dtype!r} is not known; accepted: float16, float32 or float64")
    first = _first_of_all()
    chosen = find_solver(solver, **parse_settings(options))
    names = parsing.label_names(labels)
    made_of: dict[str, Any] = {"model": model, "data": data, "split": split, "seed": seed}
    made_of |= {} if names is None else {"labels": names}
    limits = Limits(max_pixels, trust_paths=trust_paths)
    loaded, examples = model_and_data(made_of, limits, device=device, on_error=on_error)
    made_of["skipped"] = list(examples.skipped)
    writable_folder(out)
    with (
        interruptible(lambda: what_is_indexed(out)),
        progress("Indexing", len(examples), told=True) as show,
    ):
        index = InfluenceIndex.fit(
            loaded,
            examples,
            solver=chosen,
            l2=l2,
            parameters=list(parameters) or None,
            out=out,
            batch_size=batch_size,
            workers=workers,
            dtype=stored,
            about=made_of,
            announce=lambda cost: console.print(str(cost)),
            progress=_telling(show),
        )
        if self_influence:
            index.self_influence(progress=_forecasting(show))
    tell_skipped(examples.skipped.values())
    if as_json and first:
        told = {
            "solver": solver,
            "l2": l2,
            "examples": len(index),
            "self_influence": self_influence,
        }
        print(json.dumps({"index": str(out), **made_of, **told}))
    elif not as_json:
        once = "" if self_influence else "  # computes self-influence first, once"
        console.print(f"The index of {len(index):,} examples is in {bold(out)}. Ask it:")
        index_of = f"--index {shown(out)}{trust_hint(made_of, out)}"
        for line in (f"query PHOTO {index_of}", f"mislabelled {index_of}{once}"):
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
    max_pixels: int = MAX_PIXELS,
    trust_paths: bool = False,
    as_json: bool = False,
) -> int:
    """Finds for each photo the training pictures that helped and harmed most, and draws them.

    Returns 1 where a photo could not be read; the others are answered, and what is done is on disk at any moment: the
    same command goes on.
    """
    first, paths = _first_of_all(), find_images(photos)
    usable_folder(out)
    limits = Limits(max_pixels, trust_paths=trust_paths)
    opened = open_index(index, model=model, data=data, device=device, limits=limits)
    wanted = None if label is None else opened.classes.column(label, asked="label")
    skipped: list[dict[str, str]] = []
    about = _told(opened)

    def told(names: Iterable[str] | None = None) -> Json:
        return {**about, "queries": _queries(run, names), "skipped": skipped}

    def read(path: Path) -> Image.Image:
        return model_photo(opened.model, path, max_pixels=max_pixels)[0]

    def answer(photo: Image.Image, title: str) -> tuple[InfluenceQuery, Image.Image]:
        (found,) = opened.query(
            [photo], k, labels=None if wanted is None else [wanted], target=target
        )
        settings: dict[str, Any] = {"label": wanted, "target": target, "layer": layer}
        return found, influence_sheet(
            opened, [photo], found, title=f"What taught this answer: {title}", **settings
        )

    asked = {"k": k, "target": target, "label": wanted, "layer": layer}
    request = {"index": index_identity(index), **asked}
    run = RunFolder(
        out,
        kind="influence",
        request=request,
        tell=remark,
        close=lambda run: _write_queries(run, told()),
    )
    names = list(map(str, paths))
    with interruptible(lambda: what_is_saved(run, names)), run if first else nullcontext():
        with progress("Asking", len(paths)) as show:
            for done, path in enumerate(paths, start=1):
                _ask(run, path, read, answer, skipped, first=first)
                show(done, len(paths))
        if len(skipped) == len(paths):
            error = skipped[0]["error"]
            raise ImageError(f"none of the {len(paths)} pictures can be read; the first: {error}")
    if as_json and first:
        print(json.dumps(told(names)))
    elif first:
        queries = _queries(run, names)
        for query in queries:
            _tell(query, opened)
        console.print(f"\nSheets and {QUERY_NAME}.json are in {bold(out)}")
        console.print(f"Look at {bold(queries[0]['sheet'])} first")
    tell_skipped(one["error"] for one in skipped)
    return 1 if skipped else 0


def _ask(
    run: RunFolder,
    path: Path,
    read: Callable[[Path], Image.Image],
    answer: Callable[[Image.Image, str], tuple[InfluenceQuery, Image.Image]],
    skipped: list[dict[str, str]],
    *,
    first: bool,
) -> None:
    """Asks about one photo, if that is not done; of several processes all ask, and the first writes."""
    try:
        photo = read(path)
    except ImageError as error:
        skipped.append({"photo": str(path), "error": str(error)})
        return
    digest = photo_digest(path)
    known = first and run.has(str(path), digest)
    if known and world().size == 1:
        return
    found, picture = answer(photo, path.name)
    if first and not known:
        with run.entry(str(path), digest) as draft:
            draft.record = {
                "photo": str(path),
                **asdict(found),
                "sheet": draft.save("sheet.png", png_bytes(picture)),
            }


def _queries(run: RunFolder, names: Iterable[str] | None) -> list[Json]:
    """The answers about some photos, or all; the sheets as paths from here."""
    records = (entry.record for entry in run.entries(names))
    return [{**record, "sheet": str(run.folder / record["sheet"])} for record in records]


def _write_queries(run: RunFolder, told: Json) -> None:
    run.view_json(f"{QUERY_NAME}.json", told)


def list_mislabeled(
    *,
    index: Path,
    top: int = 24,
    model: str | None = None,
    data: str | None = None,
    out: Path,
    device: str = "cpu",
    batch_size: int = 32,
    max_pixels: int = MAX_PIXELS,
    trust_paths: bool = False,
    as_json: bool = False,
) -> int:
    """Lists and draws the training pictures with the largest influence on themselves: wrong labels come first.

    Self-influence is computed where the index does not have it yet, and kept there; interrupted, it goes on with the
    shard that was not finished.
    """
    first = _first_of_all()
    writable_folder(out)
    limits = Limits(max_pixels, trust_paths=trust_paths)
    opened = open_index(
        index, model=model, data=data, device=device, batch_size=batch_size, limits=limits
    )
    with (
        interruptible(lambda: what_is_indexed(index)),
        progress("Self-influence", len(opened), told=True) as show,
    ):
        suspects = mislabeled(opened, top, progress=_forecasting(show))
    sheet = out / f"{MISLABELLED_NAME}.png"
    if first:
        mislabeled_sheet(opened, suspects).save(sheet)
    losses = own_losses(opened, suspects)
    examples = [{**asdict(one), "loss": loss} for one, loss in zip(suspects, losses, strict=True)]
    told = {**_told(opened), "examples": examples, "sheet": str(sheet)}
    _write(out / f"{MISLABELLED_NAME}.json", told, as_json=as_json, first=first)
    if not as_json:
        rows = [_suspect_row(*both) for both in zip(suspects, losses, strict=True)]
        table(f"Labels to check first, of {len(opened):,}", rows)
        tell_remarks(opened.remarks)
        console.print(f"\nLook at {bold(sheet)} first")
    return 0


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """The settings that "damping=0.01" and the like give to a solver."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, given = text.partition("=")
        if not (name and equals):
            raise InputError(f"option {text!r} is not NAME=VALUE, such as damping=0.01")
        found[name.strip()] = parsing.value(given)
    return found


def _first_of_all() -> bool:
    """Whether this is the first process, or the only one: under torchrun it alone writes, and the others are silent."""
    first = world().rank == 0
    if not first:
        console.quiet = True
        warnings.simplefilter("ignore")
    return first


def _write(path: Path, told: dict[str, Any], *, as_json: bool, first: bool) -> None:
    """Writes an answer, and prints it where that is asked for."""
    if first:
        write_json(path, told)
        if as_json:
            print(json.dumps(told))


def _telling(show: Shown) -> Callable[[int, int], None]:
    """Progress of several stages, each of its own length."""
    return lambda done, total: show.bar.update(show.photos, completed=done, total=total)


def _forecasting(show: Shown) -> Callable[[int, int], None]:
    """The same, which says once what self-influence takes if that is much."""
    return forecasting(
        _telling(show),
        lambda total, left: (
            f"Self-influence of {total:,} examples takes about {left} more; interrupted, it goes on with the file of "
            "the index that it was at"
        ),
    )


def _told(index: InfluenceIndex) -> dict[str, Any]:
    """What the answers are of."""
    told = {
        "index": str(index.folder),
        "solver": index.solver.name,
        "calibrated": is_calibrated(index.solver),
    }
    return {**told, "remarks": list(index.remarks)}


def _tell(query: Json, index: InfluenceIndex) -> None:
    calibrated = is_calibrated(index.solver)
    number = "influence" if calibrated else "score"

    def row(kind: str, one: Json) -> dict[str, Any]:
        return {
            "": kind,
            "training picture": one["name"],
            "label": one["label_name"],
            number: f"{one['score']:+.3g}",
        }

    rows = [row(kind, one) for kind in ("helpful", "harmful") for one in query[kind]]
    ranks = "" if calibrated else f" by {index.solver.name}, of which only the ranks count"
    table(
        f"{Path(query['photo']).name}: {query['predicted']}; {number} on {query['about']}{ranks}",
        rows,
    )
    tell_remarks(query["remarks"])


def _suspect_row(one: Suspect, loss: float) -> dict[str, Any]:
    return {
        "example": one.name,
        "labelled": one.label_name,
        "the model says": one.predicted,
        "probability": f"{one.probability:.0%}",
        "loss": f"{loss:.3g}",
        "self-influence": f"{one.score:.3g}",
    }
