"""`seewhy explain` and `seewhy demo`: photos through the model, pictures to disk after every batch, a table or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..names import AUTO
from ..no_file import check_any_there
from .arguments import (
    CropOption,
    FuseOption,
    JsonOption,
    LedgerOption,
    OutOption,
    PhotosArgument,
    ResizeOption,
    StyleOption,
)
from .asked import asked_fuse, checked
from .groups import Asked, How
from .results import print_json
from .show import starting

if TYPE_CHECKING:
    from ..data.disk import Json
    from ..data.run_folder import RunFolder


def explain(
    photos: PhotosArgument,
    *,
    asked: Asked,
    fuse: FuseOption = None,
    style: StyleOption = None,
    out: OutOption = Path("seewhy-out"),
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html, one page to look at.")
    ] = False,
    ledger: LedgerOption = False,
    how: How,
) -> int:
    """Explains what a model says of your photos."""
    methods = checked(asked, how, style=style)
    over = asked_fuse(fuse, methods, asked.layer)
    check_any_there(photos)
    with starting():
        from ..methods.explanation import ExplanationWriter, summary
        from .interrupts import interruptible
        from .photo_run import PhotoRun
        from .saving import remark

    if ledger and methods != [AUTO]:
        _check_carries_relevance(methods)
    shared = PhotoRun(photos, asked, how, methods, out=out, ledger=ledger)
    request = {**shared.request.told(), "fuse": over, "style": style, "ledger": ledger}
    writer = ExplanationWriter(out, style=style, request=request, tell=remark)
    with interruptible(lambda: shared.what_is_saved(writer.run)), writer:
        with shared.showing("Explaining", writer.run) as show:
            for part in shared.explanations(show):
                writer.add(part.fuse(over) if over else part)
        shared.check_any_read(writer.run)
        told = summary(writer.run.entries(shared.names))
        page = _write_page(writer.run, shared.names, told) if report else None
    if how.as_json:
        where = {"out": str(out), "report": page and str(page)}
        print_json({**told, **where, "skipped": shared.skipped()})
    else:
        _tell_maps(told, out, page, ledgers=ledger)
    return shared.status()


def _check_carries_relevance(methods: Sequence[str]) -> None:
    """Says that no account of relevance can be kept, since none of the methods carries any."""
    from ..methods.catalog import find_method

    carried = {need for name in methods for need in find_method(name).needs}
    if not carried & {"relevance", "input_relevance"}:
        listed = ", ".join(methods)
        raise InputError(
            f"--ledger: {listed} carries no relevance; use --method lrp or layer_relevance"
        )


def demo(
    crop: CropOption = None,
    resize: ResizeOption = None,
    out: OutOption = Path("seewhy-demo"),
    as_json: JsonOption = False,
) -> int:
    """Explains two sample photos, a cat and a cup of coffee, with the model that comes with seewhy."""
    asked = Asked(
        method=["layer_relevance", "grad_cam", "guided_grad_cam"],
        target=["top2"],
        crop=crop,
        resize=resize,
    )
    how = How(as_json=as_json)
    checked(asked, how)  # before photos are written
    return explain(_sample_photos(out), asked=asked, out=out, report=True, how=how)


def _sample_photos(folder: Path) -> list[Path]:
    """Writes scikit-image's photos of a cat and of a cup of coffee into a folder."""
    import skimage.data
    from PIL import Image

    from ..data.disk import writable_folder

    writable_folder(folder)
    paths = []
    for name, picture in (("cat", skimage.data.chelsea()), ("coffee", skimage.data.coffee())):
        paths.append(folder / f"{name}.jpg")
        Image.fromarray(picture).save(paths[-1], quality=95)
    return paths


def _write_page(run: RunFolder, names: Sequence[str], told: Json) -> Path:
    """One page about these photos, of which one is in memory at a time."""
    from ..methods.explanation import TITLE, report_pages
    from ..methods.saved import saved_explanations
    from ..render.report import write_report

    pages = report_pages(saved_explanations(run.folder, run.entries(names)))
    about = {"count": len(told["images"]), "title": TITLE, "model_name": told["model"]}
    return run.view("report.html", lambda path: write_report(path, pages, **about))


def _tell_maps(told: Json, out: Path, page: Path | None, *, ledgers: bool) -> None:
    """For people: what was explained, how far it can be read, where the pictures are."""
    from ..methods.explanation import JSON_NAME
    from .show import bold, console, table, tell_ledgers

    entries = told["images"]
    for entry in entries if ledgers else ():
        tell_ledgers(entry)
    rows = [row for entry in entries for row in _lines_of_maps(entry)]
    table(f"Why {told['model']} said so", rows)
    where = page or out / entries[0]["sheet"]
    console.print(f"\nPictures, maps and {JSON_NAME} are in {bold(out)}")
    console.print(f"Look at {bold(where)} first")


def _layer_words(told: Json) -> str:
    layer, title = told["layer"] or "", told["layer_title"]
    return f"{title} ({layer})" if title else layer


def _lines_of_maps(entry: Json) -> list[dict[str, str]]:
    """A line for each map of a photo."""
    rows = []
    for place, told in enumerate(entry["attributions"]):
        chance, peak = told["probability"], told["peak"]
        row = {
            "photo": entry["name"] if place == 0 else "",
            "explained": told["label"],
            "probability": "" if chance is None else f"{chance:.1%}",
            "method": told["method"],
            "layer": _layer_words(told),
            "status": told["status"],
            "remarks": "; ".join(told["remarks"]),
            "peak (x, y)": "" if peak is None else "{:.0f}, {:.0f}".format(*peak),
        }
        rows.append(row)
    return rows
