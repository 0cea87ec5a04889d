"""What an evaluation of localisation holds: the table with every figure, and the best and the worst maps to look at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from ...data.disk import Json, png_bytes
from ...data.placement import Placement
from ...data.run_folder import RunFolder
from ...data.truth import Truth
from ...maps.attribution import Attribution
from ...maps.boxes import Boxes
from ...render.boxes import FOUND, MARKED, outline
from ...render.overlay import attribution_picture
from ...render.sheet import contact_sheet
from ..evaluation import Evaluation, Row, figure_cells

CASES_NAME, KIND = "best_and_worst.png", "localisation"
_SHOWN = 240  # pixels along the shorter edge, at least


@dataclass(frozen=True, eq=False)
class Case:
    """One map to look at.

    Attributes:
        attribution: of this picture alone.
        kind: "best" or "worst".
        name, label: the picture, and the class that is explained.
        value: of the first metric.
        photo: as the model saw it.
        found: the boxes of the map, in pixels of the photo.
        truth: what is marked of the class.
    """

    attribution: Attribution
    kind: str
    name: str
    label: str
    value: float
    photo: Image.Image
    found: Boxes
    truth: Truth

    def picture(self) -> Image.Image:
        """The map over the photo, its boxes in cyan, the true ones dashed in green."""
        zoom = max(1, -(-_SHOWN // min(self.photo.size)))
        width, height = (zoom * edge for edge in self.photo.size)
        placement = Placement((height, width), (0.0, 0.0, float(width), float(height)))
        photo = self.photo.resize((width, height), Image.Resampling.BICUBIC)
        picture = attribution_picture(self.attribution, 0, photo, placement, style="heatmap")
        for boxes, color in ((self.truth.boxes, MARKED), (self.found.boxes, FOUND)):
            for box in (torch.as_tensor(boxes) * zoom).tolist():
                outline(picture, box, color, 2, dashed=color is MARKED)
        return picture


@dataclass(frozen=True, eq=False)
class LocalizationEvaluation(Evaluation):
    """How well methods localise, over a data set.

    Attributes:
        names: of every picture with each of its classes: the order of the values of metrics that score them.
        title: of the data set.
        cases: the best and the worst maps of each method and layer.
        notes: for pictures whose annotations were mended, how.
    """

    title: str = ""
    cases: tuple[Case, ...] = ()
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def table(self) -> list[Json]:
        """One line for each row, and one for each of its figures, which `figure` names."""
        return [line for row in self.rows for line in _lines_of_figures(row)]

    def cases_picture(self) -> Image.Image:
        """The cases side by side: a line for the best and one for the worst of each method and layer."""
        groups = [(c.attribution.method, c.attribution.layer, c.kind) for c in self.cases]
        captions = [
            f"{c.attribution.method}, {c.kind}: {c.value:.2f}, {c.label} in {c.name}"
            for c in self.cases
        ]
        columns = max(map(groups.count, groups))
        return contact_sheet(
            [(case.picture(), caption) for case, caption in zip(self.cases, captions, strict=True)],
            columns=columns,
        )

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """As `Evaluation.save`, and best_and_worst.png: found boxes in cyan, true ones dashed in green."""
        with RunFolder(folder, kind=KIND) as run:
            return self.write(run)

    def write(self, run: RunFolder) -> Path:
        """As `save`, into a folder that is open for writing."""
        if self.cases:
            run.view(CASES_NAME, lambda path: path.write_bytes(png_bytes(self.cases_picture())))
        return super().write(run)

    def about(self) -> Json:
        """What is known beside the rows' results, in JSON's types."""
        return {
            **super().about(),
            "title": self.title,
            "notes": {name: list(each) for name, each in self.notes.items()},
        }


def _lines_of_figures(row: Row) -> Iterator[Json]:
    cells = row.cells()
    yield {**cells, "figure": "", "thresholds": ""}
    for name, figure in row.result.figures.items():
        told = figure_cells(figure)
        levels = {
            f"chance_{chance}": figure_cells(found.figures[name])["mean"]
            if name in found.figures
            else None
            for chance, found in row.chance.items()
        }
        thresholds = " ".join(f"{each:g}" for each in told.pop("thresholds"))
        yield {**cells, **told, **levels, "figure": name, "thresholds": thresholds}
