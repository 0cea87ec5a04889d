"""What people call a layer: which stage of the network it is in, and how large the grid is there.

A stage is a run of layers on the trunk with one grid. A network that has one grid all along, as a ViT, is counted by
its layers: the parts that follow each other in one container (blocks.0, blocks.1, ...), or else all of the trunk.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from .layers import LayerRecord
from .layout import Grid

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
        if self.unit == "stage" and self.number == self.count:
            return "last stage"
        return (
            f"{self.beside} {self.unit} {self.number} of {self.count}".strip() if self.unit else ""
        )

    @property
    def title(self) -> str:
        """Such as "last stage, 7 x 7"."""
        return f"{self.place}, {grid_words(self.grid)}" if self.place else grid_words(self.grid)


def grid_words(grid: Iterable[int]) -> str:
    """Such as "7 x 7"."""
    return " x ".join(map(str, grid))


def title_of_layers(records: Sequence[LayerRecord], label: str) -> str | None:
    """What people call a layer, or several that are named as one ("a + b", "a + 3 more + c"); None if no picture.

    Args:
        records: every layer's output, in the order in which the layers finished.
        label: their dotted names.
    """
    parts = label.split(" + ")
    found = [r for part in parts if (r := _record_called(records, part)) and r.layout]
    stages = stages_of(records)
    return _joined([stages[r.name] for r in found], _is_run(parts)) if found else None


def _record_called(records: Sequence[LayerRecord], name: str) -> LayerRecord | None:
    """The record of a layer, which may have the name of a module around it."""
    return next((r for r in records if name in _names(r)), None)


def _names(record: LayerRecord) -> list[str]:
    """Of the modules that return its tensor, from the outermost to the one that made it."""
    if not f"{record.maker}.".startswith(f"{record.name}."):
        return [record.name]
    inner = record.maker[len(record.name) :].strip(".").split(".")
    between = [".".join([record.name, *inner[:i]]) for i in range(1, len(inner) + 1)]
    return [record.name, *between] if inner != [""] else [record.name]


def _is_run(parts: Sequence[str]) -> bool:
    return any(_MORE.fullmatch(part) for part in parts)


def _joined(stages: Sequence[Stage], is_run: bool) -> str:
    """One title of several, such as "stages 3 + 4 of 5, 28 x 28 + 14 x 14"."""
    between = " to " if is_run else " + "
    titles = dict.fromkeys(stage.title for stage in stages)
    first = stages[0]
    alike = {(stage.unit, stage.count, stage.beside) for stage in stages}
    if len(titles) == 1 or alike != {(first.unit, first.count, "")} or not first.unit:
        return between.join(titles)
    numbers = between.join(dict.fromkeys(str(stage.number) for stage in stages))
    grids = between.join(dict.fromkeys(grid_words(stage.grid) for stage in stages))
    return f"{first.unit}s {numbers} of {first.count}, {grids}"


def stages_of(records: Sequence[LayerRecord]) -> dict[str, Stage]:
    """For the name of each layer that is a picture where it stands.

    Args:
        records: every layer's output, in the order in which the layers finished.
    """
    pictures = [record for record in records if record.layout]
    trunk = [record for record in pictures if record.trunk] or pictures
    runs = [list(run) for _, run in groupby(trunk, key=_grid)]
    runs = [run for run in runs if not all(record.pools for record in run)]
    order = {record.name: i for i, record in enumerate(records)}
    if len(runs) == 1:
        layers = _layers_in(runs[0], {outer for r in records for outer in _outer_names(r.maker)})
        return {r.name: _in_layers(r, layers, order) for r in pictures}
    return {record.name: _in_runs(record, runs, order) for record in pictures}


def _grid(record: LayerRecord) -> Grid:
    return record.layout.grid if record.layout else ()


def _in_runs(
    record: LayerRecord, runs: Sequence[Sequence[LayerRecord]], order: dict[str, int]
) -> Stage:
    """Its run, which for a layer on a branch is the next one with its grid, or else the last."""
    alike = [k for k, run in enumerate(runs) if _grid(run[0]) == _grid(record)]
    if not alike:
        return Stage(_grid(record))
    ends_later = (k for k in alike if order[runs[k][-1].name] >= order[record.name])
    return Stage(_grid(record), "stage", next(ends_later, alike[-1]) + 1, len(runs))


def _layers_in(run: Sequence[LayerRecord], with_parts: set[str]) -> dict[str, LayerRecord]:
    """The layers that are counted, by name: those of the container that has most with parts, or else all."""
    whole = {r.name: [name for name in _names(r) if name in with_parts] for r in run}
    containers = Counter(_container(name) for names in whole.values() for name in names)
    most = max(containers, key=lambda each: (containers[each], len(each)), default="")
    if containers[most] < 2:
        return {r.name: r for r in run if not r.pools}
    return {name: r for r in run for name in whole[r.name] if _container(name) == most}


def _outer_names(name: str) -> list[str]:
    """Of the modules around one."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _container(name: str) -> str:
    return name.rpartition(".")[0]


def _in_layers(record: LayerRecord, layers: dict[str, LayerRecord], order: dict[str, int]) -> Stage:
    """The layer that it is or lies in, or else the one that it follows."""
    count, names = len(layers), _names(record)
    for number, name in enumerate(layers, start=1):
        if name in names or record.name.startswith(f"{name}."):
            return Stage(_grid(record), "layer", number, count)
    done = sum(order[layer.name] < order[record.name] for layer in layers.values())
    return Stage(_grid(record), "layer", max(done, 1), count, "after" if done else "before")
