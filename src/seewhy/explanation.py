"""What an explanation holds, and what it can do: select, fuse, draw, save, report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from . import maps
from .errors import InputError, TargetError
from .images import Placement
from .render import ReportPage, attribution_picture, explanation_sheet, html_report
from .results import Attribution, Prediction
from .saving import ExplanationWriter


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model said what it said of N photos: for each method, layer and target an `Attribution` of all of them.

    Attributes:
        attributions: in the order methods x layers x targets; also by index and iteration.
        predictions: for each photo the model's best answers, best first; empty for what is no classifier.
        photos, names, placements: for each photo the picture, what to call it, and which part of it the model saw.
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
        """The attributions of a method, a layer and a target: its name ("top1"), or its place among the targets."""
        names = list(dict.fromkeys(a.target for a in self))
        if isinstance(target, int):
            if not 0 <= target < len(names):
                raise TargetError(f"target={target}: the explanation has {len(names)} targets: {', '.join(names)}")
            target = names[target]
        wanted = {"method": method, "layer": layer, "target": target}
        return [a for a in self if all(v is None or getattr(a, k) == v for k, v in wanted.items())]

    def fuse(
        self, over: Literal["layer", "method"] = "layer", *, how: Literal["mean", "max", "product"] = "mean"
    ) -> Explanation:
        """Adds, for each group that differs only in its layer or method, one attribution that fuses them."""
        if over not in ("layer", "method"):
            raise InputError(f"over={over!r} cannot be fused over; use 'layer' or 'method'")
        groups: dict[tuple[str | None, ...], list[Attribution]] = {}
        for a in self:
            groups.setdefault((a.target, a.method if over == "layer" else a.layer), []).append(a)
        fused = [_fused(group, over, how) for group in groups.values() if len(group) > 1]
        return dataclasses.replace(self, attributions=(*self.attributions, *fused))

    def picture(self, attribution: Attribution, index: int = 0, *, style: str | None = None) -> Image.Image:
        """Draws one attribution over its photo, at the photo's own size."""
        return attribution_picture(attribution, index, self.photos[index], self.placements[index], style=style)

    def sheet(self, index: int = 0, *, style: str | None = None) -> Image.Image:
        """Draws all attributions of one photo side by side, with what the model said."""
        return explanation_sheet(
            self.photos[index],
            self.placements[index],
            self.predictions[index],
            self.attributions,
            index,
            title=f"{self.names[index]} · {self.model}",
            style=style,
        )

    def _repr_png_(self) -> bytes | None:
        """How notebooks show it: the sheet of the first photo."""
        return self.sheet(0)._repr_png_() if self.photos and self.attributions else None

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


def _fused(group: Sequence[Attribution], over: str, how: Literal["mean", "max", "product"]) -> Attribution:
    fused = maps.fuse([a.map for a in group], how=how)
    parts = " + ".join(dict.fromkeys(str(a.layer if over == "layer" else a.title) for a in group))
    return dataclasses.replace(
        group[0],
        method=group[0].method if over == "layer" else "+".join(a.method for a in group),
        title=group[0].title if over == "layer" else parts,
        layer=parts if over == "layer" else group[0].layer,
        map=fused,
        status=maps.statuses(fused),
        signed=False,
        pixels=None,
        interval=None,
        facts=(),
        ledgers=(),
        options={"fused_over": over, "how": how},
    )


def join(parts: Sequence[Explanation]) -> Explanation:
    """One explanation of the photos of several batches, which differ in nothing else."""
    return dataclasses.replace(
        parts[0],
        names=tuple(name for part in parts for name in part.names),
        photos=tuple(photo for part in parts for photo in part.photos),
        placements=tuple(placement for part in parts for placement in part.placements),
        predictions=tuple(prediction for part in parts for prediction in part.predictions),
        attributions=tuple(_joined([part[i] for part in parts]) for i in range(len(parts[0]))),
    )


def _joined(parts: Sequence[Attribution]) -> Attribution:
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
    )
