"""What people call a layer: which stage of the network it is in, and how large the grid is there.

A stage is a run of layers on the trunk with one grid. A network that has one grid all along, as a ViT, is counted by
its layers: the parts that follow each other in one container (blocks.0, blocks.1, ...), or else all of the trunk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from .layers import LayerRecord
from .layout import Grid, Layout

_MORE = re.compile(r"\d+ more")  # between the first and the last of several layers


@dataclass(frozen=True)
class Stage:
    """Where a layer stands.

    Attributes:
        grid: (h, w), or (d, h, w) of a volume.
        unit: what is counted, "stage" or "layer"; "" where the layer stands beside them all.
        number, count: which of how many, from 1.
        beside: "before" or "after" that one; "" for in it.
    """

    grid: Grid
    unit: str = ""
    number: int = 0
    count: int = 0
    beside: str = ""

    @property
    def place(self) -> str:
        """Such as "last stage", "stage 3 of 5", "after layer 12 of 12"; "" where it stands beside all."""
        if not self.unit:
            return ""
        last = self.number == self.count
        if last and self.unit == "stage":
            return "last stage"
        which = f"{self.unit} {self.number}"
        return f"{self.beside} {which} of {self.count}".strip()

    @property
    def title(self) -> str:
        """Such as "last stage, 7 x 7"."""
        grid = grid_words(self.grid)
        return f"{self.place}, {grid}" if self.place else grid


def grid_words(grid: Iterable[int]) -> str:
    """Such as "7 x 7"."""
    return " x ".join(map(str, grid))


def title_of_layers(stages: Mapping[str, Stage], label: str) -> str | None:
    """What people call a layer, or several that are named as one ("a + b", "a + 3 more + c"); None if no picture.

    Args:
        stages: where each layer stands, by its name.
        label: their dotted names.
    """
    parts = label.split(" + ")
    found = [stages[part] for part in parts if part in stages]
    if not found:
        return None
    is_run = any(map(_MORE.fullmatch, parts))
    return _joined(found, " to " if is_run else " + ")


def _names(record: LayerRecord) -> list[str]:
    """Of the modules that return its tensor, from the outermost to the one that made it."""
    inside = f"{record.name}." if record.name else ""
    if not record.maker.startswith(inside):
        return [record.name]
    names = [record.name]
    for part in record.maker.removeprefix(inside).split("."):
        names.append(f"{names[-1]}.{part}".strip("."))
    return names


def _joined(stages: Sequence[Stage], between: str) -> str:
    """One title of several, such as "stages 3 + 4 of 5, 28 x 28 + 14 x 14"."""
    first = stages[0]
    titles = dict.fromkeys(s.title for s in stages)
    alike = {(s.unit, s.count, s.beside) for s in stages}
    named_alike = alike == {(first.unit, first.count, "")}
    if len(titles) == 1 or not first.unit or not named_alike:
        return between.join(titles)
    numbers = dict.fromkeys(str(s.number) for s in stages)
    grids = dict.fromkeys(grid_words(s.grid) for s in stages)
    which = f"{first.unit}s {between.join(numbers)}"
    return f"{which} of {first.count}, {between.join(grids)}"


def stages_of(records: Sequence[LayerRecord]) -> dict[str, Stage]:
    """For each name of a layer that is a picture where it stands; modules that return one tensor are all its names.

    Args:
        records: every layer's output, in the order in which the layers finished.
    """
    pictures = [record for record in records if record.layout]
    order = {record.name: i for i, record in enumerate(records)}
    runs = _runs(pictures)
    if len(runs) != 1:
        found = {r.name: _in_runs(r, runs, order) for r in pictures}
    else:
        layers = _layers_in(runs[0], records)
        found = {r.name: _in_layers(r, layers, order) for r in pictures}
    for record in pictures:
        for name in _names(record):
            found.setdefault(name, found[record.name])
    return found


def _layers_in(
    run: Sequence[LayerRecord], records: Sequence[LayerRecord]
) -> dict[str, LayerRecord]:
    """Those that are counted in a network of one grid, by name."""
    layers = _parts_in_a_row(run, records)
    return layers or {r.name: r for r in run if not r.pools}


def _runs(pictures: Sequence[LayerRecord]) -> list[list[LayerRecord]]:
    """Those on the trunk, or all where there is none, in runs of one grid; what only pools is none."""
    trunk = [record for record in pictures if record.trunk]
    runs = [list(run) for _, run in groupby(trunk or pictures, key=_grid)]
    return [run for run in runs if not all(r.pools for r in run)]


def _grid(record: LayerRecord) -> Grid:
    return record.layout.grid if record.layout else ()


def _in_runs(
    record: LayerRecord, runs: Sequence[Sequence[LayerRecord]], order: dict[str, int]
) -> Stage:
    """Its run, which for a layer on a branch is the next one with its grid, or else the last."""
    grid, at = _grid(record), order[record.name]
    alike = [k for k, run in enumerate(runs) if _grid(run[0]) == grid]
    if not alike:
        return Stage(grid)
    ends_later = (k for k in alike if order[runs[k][-1].name] >= at)
    number = next(ends_later, alike[-1]) + 1
    return Stage(grid, "stage", number, len(runs))


def _parts_in_a_row(
    run: Sequence[LayerRecord], records: Sequence[LayerRecord]
) -> dict[str, LayerRecord]:
    """By name those in the container of which most have parts of their own; none where each has one at most."""
    with_parts = set[str]()
    for record in records:
        with_parts.update(_outer_names(record.maker))
    found: dict[str, dict[str, LayerRecord]] = {}
    for record in run:
        for name in filter(with_parts.__contains__, _names(record)):
            container = found.setdefault(_container(name), {})
            container[name] = record
    if not found:
        return {}
    most = max(found, key=lambda name: (len(found[name]), len(name)))
    return found[most] if len(found[most]) > 1 else {}


def _outer_names(name: str) -> list[str]:
    """Of the modules around one."""
    names = []
    while "." in name:
        name = _container(name)
        names.append(name)
    return names


def _container(name: str) -> str:
    return name.rpartition(".")[0]


def _in_layers(record: LayerRecord, layers: dict[str, LayerRecord], order: dict[str, int]) -> Stage:
    """The layer that it is or lies in, or else the one that it follows."""
    grid, at = _grid(record), order[record.name]
    count = len(layers)
    around = {*_names(record), *_outer_names(record.name)}
    for number, name in enumerate(layers, start=1):
        if name in around:
            return Stage(grid, "layer", number, count)
    done = sum(order[r.name] < at for r in layers.values())
    if not done:
        return Stage(grid, "layer", 1, count, "before")
    return Stage(grid, "layer", done, count, "after")


def columns_of_picture(layout: Layout | None, stage: Stage | None) -> dict[str, str | int]:
    """What a table says of how a layer's output lies over the image."""
    if layout is None:
        return {"stage": "", "grid": "", "layout": "", "prefix tokens": 0}
    return {
        "stage": stage.place if stage else "",
        "grid": "x".join(map(str, layout.grid)),
        "layout": layout.kind.replace("_", " "),
        "prefix tokens": layout.prefix,
    }
