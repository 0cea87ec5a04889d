"""What an explanation holds, and what it can do: select, fuse, draw, save, report."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.disk import number, own_version, writable_folder, write_json
from ..data.preprocess import Placement
from ..errors import InputError, MissingPackageError
from ..maps import values as maps
from ..maps.attribution import Attribution, Prediction
from ..names import REPR, at_most
from ..remarks import Remarks, together
from ..render.on_photos import OnPhotos
from ..render.overlay import attribution_picture
from ..render.report import ReportPage, html_report
from ..render.sheet import explanation_sheet, stacked
from ..safe_names import file_stem, shown, within_bytes
from .choosing import chosen

if TYPE_CHECKING:
    from pandas import DataFrame

_SHEETS, _NAMED = 3, 5  # that a notebook and a repr show
_COLUMNS = ("label", "method", "layer", "target", "probability", "score", "status", "minimum", "maximum", "peak")
JSON_NAME, SCHEMA = "explanation.json", 1


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a model said what it said of N photos: for each method, layer and target an `Attribution` of all of them.

    Attributes:
        attributions: in the order methods x layers x targets; also by index and iteration.
        predictions: for each photo the model's best answers, best first; empty for what is no classifier.
        photos: for each photo the picture, of 2,048 pixels at most along either side; a larger one is reduced.
        names, placements: what to call each, and which part of it the model saw, in the photo's own pixels.
        model: the model's name.
    """

    model: str
    names: tuple[str, ...]
    photos: tuple[Image.Image, ...]
    placements: tuple[Placement, ...]
    predictions: tuple[tuple[Prediction, ...], ...]
    attributions: tuple[Attribution, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.attributions)

    def __getitem__(self, index: int) -> Attribution:
        return self.attributions[index]

    def __iter__(self) -> Iterator[Attribution]:
        return iter(self.attributions)

    def select(
        self, *, method: str | None = None, layer: str | None = None, target: int | str | None = None
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

    def fuse(
        self, over: Literal["layer", "method"] = "layer", *, how: Literal["mean", "max", "product"] = "mean"
    ) -> Explanation:
        """Adds, for each group that differs only in its layer or method, one attribution that fuses them.

        Raises:
            InputError: `over` is neither, or no two attributions differ in it alone.
        """
        if over not in ("layer", "method"):
            raise InputError(f"over={over!r} cannot be fused over; use 'layer' or 'method'")
        groups: dict[tuple[str | None, ...], list[Attribution]] = {}
        for a in self:
            groups.setdefault((a.target, a.method if over == "layer" else a.layer), []).append(a)
        fused = [_fused(group, over, how) for group in groups.values() if len(group) > 1]
        if not fused:
            one = ", ".join(dict.fromkeys(str(getattr(a, over)) for a in self))
            raise InputError(f"over={over!r} would fuse nothing: for each target there is one {over} only ({one})")
        return dataclasses.replace(self, attributions=(*self.attributions, *fused))

    def picture(self, attribution: Attribution, index: int = 0, *, style: str | None = None) -> Image.Image:
        """Draws one attribution over its photo, at the size of that in `photos`."""
        photo = self.photos[index]
        placement = self.placements[index].scaled(photo.size[::-1])
        return attribution_picture(attribution, index, photo, placement, style=style)

    def sheet(self, index: int = 0, *, style: str | None = None) -> Image.Image:
        """Draws all attributions of one photo side by side, with what the model said."""
        return explanation_sheet(
            self.photos[index],
            self.placements[index],
            self.predictions[index],
            self.attributions,
            index,
            title=f"{shown(self.names[index], 60)} · {self.model}",
            style=style,
        )

    def _repr_png_(self) -> bytes | None:
        """How notebooks show it: the sheets of its photos, of many the first, which it says."""
        if not (self.photos and self.attributions):
            return None
        sheets = [self.sheet(i) for i in range(min(len(self.photos), _SHEETS))]
        more = len(self.photos) - len(sheets)
        said = f"{len(sheets)} of {len(self.photos)} photos; .sheet(i) draws photo i, .report(path) all" if more else ""
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
        rows = [
            {"photo": name, **{k: v for k, v in told.items() if k in _COLUMNS}, "remarks": "; ".join(told["remarks"])}
            for i, name in enumerate(self.names)
            for told in image_entry(self, i)["attributions"]
        ]
        return pandas.DataFrame(rows, columns=["photo", *_COLUMNS, "remarks"])

    def __repr__(self) -> str:
        photos = f"{len(self.names)} photo{'' if len(self.names) == 1 else 's'}"
        said = [f"{name}: {best[0].label}" for name, best in zip(self.names, self.predictions, strict=True) if best]
        maps_of = [f"[{i}] {a.method}{f' at {a.layer}' if a.layer else ''} of {a.target}" for i, a in enumerate(self)]
        listed = "; ".join(filter(None, map(_first_few, (said, maps_of))))
        unsure = sum(bool(each) for a in self for each in a.remarks)
        remarks = f"; remarks on {unsure} of its maps (.remarks of each)" if unsure else ""
        return at_most(f"<Explanation of {photos} by {self.model}: {listed}{remarks}", REPR - 1) + ">"

    def save(self, folder: str | PathLike[str], *, style: str | None = None) -> Path:
        """Writes a sheet and pictures of every photo, the maps as numbers, and explanation.json; returns its path."""
        with ExplanationWriter(folder, style=style) as writer:
            writer.add(self)
        return writer.json_path

    def report(self, path: str | PathLike[str]) -> Path:
        """Writes one self-contained HTML page about all photos; returns its path."""
        pages = [
            ReportPage(self.photos[i], name, self.placements[i], self.predictions[i], self.attributions, i)
            for i, name in enumerate(self.names)
        ]
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html_report(pages, title="Why this answer?", model_name=self.model), encoding="utf-8")
        return path


def _first_few(words: Sequence[str]) -> str:
    return ", ".join(words[:_NAMED]) + (", ..." if len(words) > _NAMED else "")


def _fused(group: Sequence[Attribution], over: str, how: Literal["mean", "max", "product"]) -> Attribution:
    fused = maps.fuse([a.map for a in group], how=how)
    parts = " + ".join(dict.fromkeys(str(a.layer if over == "layer" else a.title) for a in group))
    return dataclasses.replace(
        group[0],
        method=group[0].method if over == "layer" else "+".join(a.method for a in group),
        title=group[0].title if over == "layer" else parts,
        family=group[0].family if len({a.family for a in group}) == 1 else None,
        style=group[0].style if over == "layer" else None,
        layer=parts if over == "layer" else group[0].layer,
        map=fused,
        status=maps.statuses(fused),
        signed=False,
        pixels=None,
        interval=None,
        facts=(),
        ledgers=(),
        remarks=_remarks_on_parts(group, fused),
        options={"fused_over": over, "how": how},
    )


def _remarks_on_parts(group: Sequence[Attribution], fused: Tensor) -> Remarks:
    """What is to know of a fused map: its own status, and what is said of the maps that it is made of."""
    of_parts: list[Remarks] = []
    for a in group:
        whose = f"{a.title}{'' if a.layer is None else f' at {a.layer}'}"
        of_parts.append(tuple(tuple(f"{whose}: {said}" for said in each) for each in a.remarks))
    return together(of_parts, len(fused))


def join(parts: Sequence[Explanation]) -> Explanation:
    """One explanation of the photos of several batches, which differ in nothing else."""
    names = tuple(name for part in parts for name in part.names)
    photos = tuple(photo for part in parts for photo in part.photos)
    placements = tuple(placement for part in parts for placement in part.placements)
    drawn = OnPhotos(photos, placements, names)
    return dataclasses.replace(
        parts[0],
        names=names,
        photos=photos,
        placements=placements,
        predictions=tuple(prediction for part in parts for prediction in part.predictions),
        attributions=tuple(_joined([part[i] for part in parts], drawn) for i in range(len(parts[0]))),
    )


def _joined(parts: Sequence[Attribution], photos: OnPhotos) -> Attribution:
    pixels = [a.pixels for a in parts if a.pixels is not None]
    intervals = [a.interval for a in parts if a.interval is not None]
    return dataclasses.replace(
        parts[0],
        map=torch.cat([a.map for a in parts]),
        pixels=torch.cat(pixels) if pixels else None,
        status=tuple(status for a in parts for status in a.status),
        labels=tuple(label for a in parts for label in a.labels),
        scores=tuple(score for a in parts for score in a.scores),
        probabilities=tuple(p for a in parts for p in a.probabilities),
        interval=torch.cat(intervals) if intervals else None,
        facts=tuple(fact for a in parts for fact in a.facts),
        ledgers=tuple(ledger for a in parts for ledger in a.ledgers),
        remarks=tuple(said for a in parts for said in a.remarks),
        photos=photos,
    )


class ExplanationWriter:
    """Writes explanations into a folder, batch by batch; what was added is on disk and listed, also after an interrupt.

    ```
    with ExplanationWriter("out") as writer:
        for part in explain_batches(model, photos):
            writer.add(part)
    ```

    For a photo cat.jpg: cat/sheet.png, cat/METHOD.LAYER.TARGET.png, and cat/maps.npz with the maps as the paper has
    them (float32, h x w, or d x h x w), under the same names; NAME.interval holds the half-width of the 95 % interval
    of each place.

    Args:
        folder: made if it does not exist; files of the same names in it are replaced.
        style: how pictures are drawn, see `seewhy.render.attribution_picture`.
        sheets: also one sheet for each photo.
    """

    def __init__(self, folder: str | os.PathLike[str], *, style: str | None = None, sheets: bool = True) -> None:
        self.folder, self.style, self.sheets = Path(folder), style, sheets
        self.json_path = self.folder / JSON_NAME
        self.entries: list[dict[str, Any]] = []
        self._head: dict[str, Any] = {}
        self._taken = {JSON_NAME, "report.html"}

    def __enter__(self) -> ExplanationWriter:
        writable_folder(self.folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.entries:
            self._write_json()

    def add(self, part: Explanation) -> None:
        """Writes the photos of one explanation, and lists them."""
        self._head = summary_head(part)
        for i, name in enumerate(part.names):
            stem = self._free_stem(Path(name).stem)
            (self.folder / stem).mkdir(exist_ok=True)
            entry = image_entry(part, i)
            arrays: dict[str, Any] = {}
            for attribution, key, told in zip(part, file_keys(part), entry["attributions"], strict=True):
                arrays[key] = attribution.map[i].numpy()
                if attribution.interval is not None:
                    arrays[f"{key}.interval"] = attribution.interval[i].numpy()
                path = self.folder / stem / f"{key}.png"
                part.picture(attribution, i, style=self.style).save(path)
                told["picture"] = str(path.relative_to(self.folder))
                told["map"] = {"file": f"{stem}/maps.npz", "key": key, "shape": list(attribution.map.shape[1:])}
            np.savez(self.folder / stem / "maps.npz", **arrays)
            if self.sheets:
                part.sheet(i, style=self.style).save(self.folder / stem / "sheet.png")
                entry["sheet"] = f"{stem}/sheet.png"
            self.entries.append(entry)
        self._write_json()

    def _free_stem(self, stem: str) -> str:
        """A folder name that no other photo of this explanation has."""
        return _free(file_stem(stem), self._taken)

    def _write_json(self) -> None:
        write_json(self.json_path, {**self._head, "images": self.entries})


def file_keys(attributions: Iterable[Attribution]) -> list[str]:
    """METHOD.LAYER.TARGET for each, of characters that every file system takes; no two are the same."""
    taken: set[str] = set()
    named = [(a.method, a.layer, a.target) for a in attributions]
    keys = [".".join(re.sub(r"[^\w+-]+", "_", part).strip("_") for part in parts if part) for parts in named]
    return [_free(within_bytes(key, 180), taken) for key in keys]


def _free(name: str, taken: set[str]) -> str:
    """The name, or the first of name-2, name-3 ... that is not taken; and takes it."""
    free, n = name, 2
    while free.lower() in taken:  # some file systems do not tell A from a
        free, n = f"{name}-{n}", n + 1
    taken.add(free.lower())
    return free


def summary_head(explanation: Explanation) -> dict[str, Any]:
    """What explanation.json says of the whole."""
    return {
        "schema": SCHEMA,
        "seewhy": own_version(),
        "torch": torch.__version__,
        "model": explanation.model,
    }


def image_entry(explanation: Explanation, i: int) -> dict[str, Any]:
    """What explanation.json says of one photo: plain numbers and strings; what is not finite is null."""
    placement = explanation.placements[i]
    return {
        "name": explanation.names[i],
        "size": list(explanation[0].image_size if placement.frames else placement.photo_size),
        **({"frames": list(placement.frames)} if placement.frames else {}),
        "seen_box": [round(v, 2) for v in placement.box],
        "predictions": [
            {"index": p.index, "label": p.label, "probability": number(p.probability), "score": number(p.score)}
            for p in explanation.predictions[i]
        ],
        "attributions": [_attribution_entry(a, explanation, i) for a in explanation],
    }


def _attribution_entry(a: Attribution, explanation: Explanation, i: int) -> dict[str, Any]:
    values = a.map[i]
    return {
        "method": a.method,
        "layer": a.layer,
        "target": a.target,
        "label": a.labels[i],
        "score": number(a.scores[i]),
        "probability": number(a.probabilities[i]),
        "status": a.status[i],
        "remarks": list(a.remarks[i]) if a.remarks else [],
        "signed": a.signed,
        "minimum": number(float(values.min())),
        "maximum": number(float(values.max())),
        "peak": _peak(a, explanation, i),
        "options": _plain(a.options),
        **({"facts": dict(a.facts[i])} if a.facts else {}),
        **({"ledger": [asdict(entry) for entry in a.ledgers[i].entries]} if a.ledgers else {}),
    }


def _peak(a: Attribution, explanation: Explanation, i: int) -> list[float] | None:
    """The photo's pixel (x, y) under the centre of the map's strongest place; of a volume (x, y, z), of the input."""
    if a.status[i] not in maps.READABLE:
        return None
    if a.map.ndim == 4:
        place = torch.unravel_index(a.map[i].argmax(), a.map.shape[1:])
        peak = []
        for at, cells, side in zip(place, a.map.shape[1:], a.image_size, strict=True):
            peak.append(round((int(at) + 0.5) / cells * side, 1))
        return peak[::-1]
    h, w = a.map.shape[1:]
    y, x = divmod(int(a.map[i].argmax()), w)
    x0, y0, x1, y1 = explanation.placements[i].box
    return [round(x0 + (x + 0.5) / w * (x1 - x0), 1), round(y0 + (y + 0.5) / h * (y1 - y0), 1)]


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, str | int | float | bool | None) else repr(v)[:80] for k, v in options.items()}
