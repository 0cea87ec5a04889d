"""What an explanation holds, and what it can do: select, fuse, draw, save, report."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..arguments import checked
from ..data.disk import Json, own_version, png_bytes, unwritable
from ..data.manifest import Entry
from ..data.placement import Placement
from ..data.run_folder import Draft, RunFolder
from ..errors import InputError, MissingPackageError
from ..maps.attribution import Attribution, Prediction
from ..maps.together import fused as fuse_group
from ..names import REPR, at_most
from ..render.overlay import attribution_picture
from ..render.report import ReportPage, write_report
from ..render.sheet import explanation_sheet, stacked
from ..safe_names import shown
from .choosing import chosen
from .photos import photo_digest
from .records import (
    COLUMNS,
    attribution_arrays,
    attribution_exact,
    attribution_record,
    file_keys,
    photo_exact,
    photo_record,
    table_rows,
)

if TYPE_CHECKING:
    from pandas import DataFrame

_SHEETS, _NAMED = 3, 5  # that a notebook and a repr show
JSON_NAME, MAPS, SCHEMA = "explanation.json", "maps.npz", 1
KIND, TITLE = "explanation", "Why this answer?"


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a model said what it said of N photos: for each method, layer and target an `Attribution` of all of them.

    Attributes:
        attributions: in the order methods x layers x targets; also by index and iteration.
        predictions: for each photo the model's best answers, best first; empty for what is no classifier.
        photos: for each photo the picture, of 2,048 pixels at most along either side; a larger one is reduced.
        names, placements: what to call each, and which part of it the model saw, in the photo's own pixels.
        model: the model's name.
        paths: for each photo the file that it came from, None where it came from none; () where none did.

    Example:
        >>> seewhy.explain(model, photo, targets=["red", "blue"]).select(target="blue")[0].status
        ('empty',)
    """

    model: str
    names: tuple[str, ...]
    photos: Sequence[Image.Image]
    placements: tuple[Placement, ...]
    predictions: tuple[tuple[Prediction, ...], ...]
    attributions: tuple[Attribution, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    paths: tuple[Path | None, ...] = ()

    def __len__(self) -> int:
        return len(self.attributions)

    def __getitem__(self, index: int) -> Attribution:
        return self.attributions[index]

    def __iter__(self) -> Iterator[Attribution]:
        return iter(self.attributions)

    @checked
    def select(
        self,
        *,
        method: str | None = None,
        layer: str | None = None,
        target: int | str | None = None,
    ) -> list[Attribution]:
        """The attributions of a method, a layer and a target, as people write them; never none.

        Args:
            method: its name or title ("Grad-CAM").
            layer: its name.
            target: its name ("top1"), its place among the targets, or the label it is of in some photo ("tiger cat").

        Raises:
            InputError: nothing fits; the error says what there is.
        """
        return chosen(self.attributions, method=method, layer=layer, target=target)

    @checked
    def fuse(
        self,
        over: Literal["layer", "method"] = "layer",
        *,
        how: Literal["mean", "max", "product"] = "mean",
    ) -> Explanation:
        """Adds, for each group that differs only in its layer or method, one attribution that fuses them.

        Raises:
            InputError: `over` is neither, or no two attributions differ in it alone.
        """
        groups: dict[tuple[str | None, ...], list[Attribution]] = {}
        for a in self:
            groups.setdefault((a.target, a.method if over == "layer" else a.layer), []).append(a)
        fused = [fuse_group(group, over, how) for group in groups.values() if len(group) > 1]
        if not fused:
            one = ", ".join(dict.fromkeys(str(getattr(a, over)) for a in self))
            raise InputError(
                f"over={over!r} would fuse nothing: for each target there is one {over} only ({one})"
            )
        return dataclasses.replace(self, attributions=(*self.attributions, *fused))

    @checked
    def picture(
        self, attribution: Attribution, index: int = 0, *, style: str | None = None
    ) -> Image.Image:
        """Draws one attribution over its photo, at the size of that in `photos`."""
        photo = self._photo_at(index)
        placement = self.placements[index].scaled(photo.size[::-1])
        return attribution_picture(attribution, index, photo, placement, style=style)

    @checked
    def sheet(self, index: int = 0, *, style: str | None = None) -> Image.Image:
        """Draws all attributions of one photo side by side, with what the model said."""
        return explanation_sheet(
            self._photo_at(index),
            self.placements[index],
            self.predictions[index],
            self.attributions,
            index,
            title=f"{shown(self.names[index], 60)} · {self.model}",
            style=style,
        )

    def _photo_at(self, index: int) -> Image.Image:
        if not -len(self.names) <= index < len(self.names):
            raise InputError(
                f"index={index}: the explanation has {len(self.names)} photos, counted from 0"
            )
        return self.photos[index]

    def _repr_png_(self) -> bytes | None:
        """How notebooks show it: the sheets of its photos, of many the first, which it says."""
        if not (self.photos and self.attributions):
            return None
        sheets = [self.sheet(i) for i in range(min(len(self.photos), _SHEETS))]
        more = len(self.photos) - len(sheets)
        said = (
            f"{len(sheets)} of {len(self.photos)} photos; .sheet(i) draws photo i, .report(path) all"
            if more
            else ""
        )
        return stacked(sheets, said)._repr_png_()

    def to_dataframe(self) -> DataFrame:
        """A row for each photo and map, with what explanation.json says of it in plain numbers and texts.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingPackageError("to_dataframe()", "pandas") from error
        rows = table_rows(self.names, self.placements, self.attributions)
        return pandas.DataFrame(rows, columns=["photo", *COLUMNS, "remarks"])

    def __repr__(self) -> str:
        photos = f"{len(self.names)} photo{'' if len(self.names) == 1 else 's'}"
        said = [
            f"{name}: {best[0].label}"
            for name, best in zip(self.names, self.predictions, strict=True)
            if best
        ]
        maps_of = [
            f"[{i}] {a.method}{f' at {a.layer}' if a.layer else ''} of {a.target}"
            for i, a in enumerate(self)
        ]
        listed = "; ".join(filter(None, map(_first_few, (said, maps_of))))
        unsure = sum(bool(each) for a in self for each in a.remarks)
        remarks = f"; remarks on {unsure} of its maps (.remarks of each)" if unsure else ""
        return (
            at_most(f"<Explanation of {photos} by {self.model}: {listed}{remarks}", REPR - 1) + ">"
        )

    @checked
    def save(self, folder: str | PathLike[str], *, style: str | None = None) -> Path:
        """Writes a sheet and pictures of every photo, the maps as numbers, and explanation.json; returns its path.

        `seewhy.open(folder)` gives the explanation back.
        """
        with ExplanationWriter(folder, style=style) as writer:
            writer.add(self)
        return writer.run.folder / JSON_NAME

    @checked
    def report(self, path: str | PathLike[str]) -> Path:
        """Writes one self-contained HTML page about all photos; returns its path.

        Raises:
            InputError: it cannot be written; an older page stays.
        """
        path = Path(path)
        unfinished = path.parent / f"{path.name}.part"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_report(
                unfinished,
                report_pages([self]),
                count=len(self.names),
                title=TITLE,
                model_name=self.model,
            )
            unfinished.replace(path)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        return path


def _first_few(words: Sequence[str]) -> str:
    return ", ".join(words[:_NAMED]) + (", ..." if len(words) > _NAMED else "")


def report_pages(parts: Iterable[Explanation]) -> Iterator[ReportPage]:
    """The pages of a report about the photos of several explanations, one at a time."""
    for part in parts:
        for i, name in enumerate(part.names):
            yield ReportPage(
                part.photos[i], name, part.placements[i], part.predictions[i], part.attributions, i
            )


class ExplanationWriter:
    """Writes explanations into a folder, batch by batch; what was added is on disk and listed, also after an interrupt.

    >>> with seewhy.ExplanationWriter("out") as writer:
    ...     for part in seewhy.explain_batches(model, "photos"):
    ...         writer.add(part)
    >>> seewhy.open("out").names[:2]
    ('blue/0.png', 'blue/1.png')

    For a photo cat.jpg: cat/sheet.png, cat/METHOD.LAYER.TARGET.png, and cat/maps.npz with the maps as the paper has
    them (float32, h x w, or d x h x w), under the same names; NAME.interval holds the half-width of the 95 % interval
    of each place, NAME.pixels what each colour has. A photo that came from no file is kept as cat/photo.png.
    `seewhy.open(folder)` makes the explanation of it again; entries.jsonl has a line for each photo as it is done, and
    explanation.json all of them at the end. See `seewhy.data.run_folder`.

    Args:
        folder: made if it does not exist; what another run of seewhy wrote in it is replaced.
        style: how pictures are drawn, see `seewhy.render.attribution_picture`.
        sheets: also one sheet for each photo.
        request: what was asked, in JSON's types: a folder with the same is gone on with, and photos that are done stay.
        tell: is given a line on what will be replaced.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        style: str | None = None,
        sheets: bool = True,
        request: Mapping[str, object] | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        self.style, self.sheets = style, sheets
        self.run = RunFolder(folder, kind=KIND, request=request, tell=tell, close=_write_summary)
        self.added: dict[str, str] = {}  # name -> digest, of what was there before too

    def __enter__(self) -> ExplanationWriter:
        self.run.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.run.__exit__(kind, error, tb)

    def add(self, part: Explanation) -> None:
        """Writes the photos of one explanation, and lists them; those that are there already stay.

        Raises:
            InputError: a file cannot be written, as on a full disk; what was added before stays.
        """
        for i in range(len(part.names)):
            path = part.paths[i] if part.paths else None
            digest = photo_digest(part.photos[i] if path is None else path)
            name = self._own_name(part.names[i], digest)
            if not self.run.has(name, digest):
                with self.run.entry(name, digest) as draft:
                    self._write(draft, name, part, i, path)
            self.added[name] = digest

    def _own_name(self, name: str, digest: str) -> str:
        """A name that no other photo added here has, as the first of each of several tensors is "image 0"."""
        own, n = name, 2
        while self.added.get(own, digest) != digest:
            own, n = f"{name} ({n})", n + 1
        return own

    def _write(self, draft: Draft, name: str, part: Explanation, i: int, path: Path | None) -> None:
        placement, predictions, records = part.placements[i], part.predictions[i], []
        draft.record = photo_record(name, placement, predictions, part[0].image_size)
        arrays: dict[str, npt.NDArray[np.float32]] = {}
        for attribution, key in zip(part, file_keys(part), strict=True):
            arrays |= attribution_arrays(attribution, i, key)
            picture = draft.save(
                f"{key}.png", png_bytes(part.picture(attribution, i, style=self.style))
            )
            of_map = {
                "file": f"{draft.folder}/{MAPS}",
                "key": key,
                "shape": list(attribution.map.shape[1:]),
            }
            records.append(
                {**attribution_record(attribution, i, placement), "picture": picture, "map": of_map}
            )
        draft.save(MAPS, _npz_bytes(arrays))
        draft.record["attributions"] = records
        if self.sheets:
            draft.record["sheet"] = draft.save(
                "sheet.png", png_bytes(part.sheet(i, style=self.style))
            )
        kept = (
            {"path": str(path.absolute())}
            if path
            else {"file": draft.save("photo.png", png_bytes(part.photos[i]))}
        )
        exact = [attribution_exact(attribution, i) for attribution in part]
        draft.exact = {
            "model": part.model,
            "photo": kept,
            **photo_exact(placement, predictions),
            "attributions": exact,
        }


def summary(entries: Iterable[Entry]) -> Json:
    """What explanation.json says of some photos, at least one."""
    told, models = list[Json](), list[str]()
    for entry in entries:
        told.append(entry.record)
        models.append(entry.exact["model"])
    return {
        "schema": SCHEMA,
        "seewhy": own_version(),
        "torch": torch.__version__,
        "model": models[0],
        "images": told,
    }


def _write_summary(run: RunFolder) -> None:
    run.view_json(JSON_NAME, summary(run.entries()))


def _npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
