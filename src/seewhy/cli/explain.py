"""`seewhy explain`: photos through the model, pictures to disk after every batch, a table for people or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from ..data.disk import Json, writable_folder
from ..data.images import find_images
from ..data.opened import MAX_PIXELS
from ..data.run_folder import RunFolder, usable_folder
from ..engine.masking import keep_allocator_memory
from ..errors import ImageError, InputError
from ..methods.catalog import find_method
from ..methods.explain import explain_batches
from ..methods.explanation import (
    JSON_NAME,
    TITLE,
    Explanation,
    ExplanationWriter,
    report_pages,
    summary,
)
from ..methods.saved import saved_explanations
from ..models.load import DEFAULT_MODEL
from ..render.report import write_report
from . import parsing
from .interrupts import interruptible
from .saving import done_before, remark, what_is_saved
from .show import bold, console, progress, table, tell_ledgers, tell_skipped


def sample_photos(folder: Path) -> list[Path]:
    """Writes scikit-image's photos of a cat and of a cup of coffee into a folder."""
    import skimage.data
    from PIL import Image

    writable_folder(folder)
    paths = []
    for name, picture in (("cat", skimage.data.chelsea()), ("coffee", skimage.data.coffee())):
        paths.append(folder / f"{name}.jpg")
        Image.fromarray(picture).save(paths[-1], quality=95)
    return paths


def explain_photos(
    photos: Sequence[Path],
    *,
    model: str = DEFAULT_MODEL,
    methods: Sequence[str],
    targets: Sequence[str],
    layers: Sequence[str] | None = None,
    fuse: Literal["layer", "method"] | None = None,
    style: str | None = None,
    out: Path,
    report: bool = False,
    ledger: bool = False,
    device: str = "cpu",
    labels: Path | None = None,
    options: Sequence[str] = (),
    batch_size: int = 8,
    max_pixels: int = MAX_PIXELS,
    trust_paths: bool = False,
    as_json: bool = False,
) -> int:
    """Explains photos and writes what came out; returns the exit status, 1 where some photo could not be read."""
    if ledger and not any(
        "seed" in find_method(m).options or find_method(m).seeds for m in methods
    ):
        raise InputError(
            f"--ledger: {', '.join(methods)} carries no relevance; use --method lrp or layer_relevance"
        )
    paths = find_images(photos)
    unreadable: dict[Path, str] = {}
    usable_folder(out)
    loaded = parsing.loaded_model(model, labels=labels, device=device, trust_paths=trust_paths)
    chosen = parsing.options(options)
    asked: dict[str, object] = {
        "methods": list(methods),
        "targets": list(targets),
        "layers": layers,
        "options": chosen,
    }
    asked |= {"fuse": fuse, "style": style, "ledger": ledger}
    keep_allocator_memory()
    request = {"model": loaded.identity(), **json.loads(json.dumps(asked))}
    writer = ExplanationWriter(out, style=style, request=request, tell=remark)
    names: list[str] = []
    with interruptible(lambda: what_is_saved(writer.run, names)), writer:
        names, done = done_before(writer.run, photos, loaded)
        samples = parsing.samples(methods, len(paths), batch_size)
        with progress("Explaining", len(paths), samples=samples) as show:
            parts = explain_batches(
                loaded,
                photos,
                methods=methods,
                targets=parsing.targets(targets, loaded),
                layers=parsing.layers(layers),
                batch_size=batch_size,
                max_pixels=max_pixels,
                ledger=ledger,
                options=parsing.with_progress(methods, chosen, show.within),
                progress=show,
                # one bad file does not stop a folder
                on_bad_image=None
                if len(paths) == 1
                else lambda path, error: unreadable.update({path: str(error)}),
                without=done,
            )
            for part in _fused(parts, fuse):
                writer.add(part)
        if not any(name in writer.run for name in names):
            first = next(iter(unreadable.values()))
            raise ImageError(f"none of the {len(paths)} pictures can be read; the first: {first}")
        told = summary(writer.run.entries(names))
        page = _report(writer.run, names, told) if report else None
    skipped = [{"name": str(path), "error": said} for path, said in unreadable.items()]
    if as_json:
        print(
            json.dumps(
                {**told, "out": str(out), "report": str(page) if page else None, "skipped": skipped}
            )
        )
    else:
        for entry in told["images"] if ledger else ():
            tell_ledgers(entry)
        _tell(told["model"], told["images"], out, page)
    tell_skipped(unreadable.values())
    return 1 if skipped else 0


def _report(run: RunFolder, names: Sequence[str], told: Json) -> Path:
    """One page about these photos, of which one is in memory at a time."""
    pages = report_pages(saved_explanations(run.folder, run.entries(names)))
    about = {"count": len(told["images"]), "title": TITLE, "model_name": told["model"]}
    return run.view("report.html", lambda path: write_report(path, pages, **about))


def _fused(
    parts: Iterator[Explanation], over: Literal["layer", "method"] | None
) -> Iterator[Explanation]:
    for part in parts:
        yield part.fuse(over) if over else part


def _tell(model: str, entries: Sequence[Json], out: Path, page: Path | None) -> None:
    """For people: what was explained, how far it can be read, where the pictures are."""
    rows = []
    for entry in entries:
        for i, told in enumerate(entry["attributions"]):
            chance = told["probability"]
            rows.append(
                {
                    "photo": entry["name"] if i == 0 else "",
                    "explained": told["label"],
                    "probability": "" if chance is None else f"{chance:.1%}",
                    "method": told["method"],
                    "layer": told["layer"] or "",
                    "status": told["status"],
                    "remarks": "; ".join(told["remarks"]),
                    "peak (x, y)": ""
                    if told["peak"] is None
                    else "{:.0f}, {:.0f}".format(*told["peak"]),
                }
            )
    table(f"Why {model} said so", rows)
    where = page or out / entries[0]["sheet"]
    console.print(f"\nPictures, maps and {JSON_NAME} are in {bold(out)}")
    console.print(f"Look at {bold(where)} first")
