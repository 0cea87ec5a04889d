"""What an evaluation holds, and what it can do: tabulate, draw, save."""

from __future__ import annotations

import csv
import io
import os
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
from PIL import Image
from pyarrow import parquet

from ..data.disk import Json, number, png_bytes
from ..data.run_folder import RunFolder
from ..names import REPR, at_most
from ..render.curves import Panel, Scored, curves_picture
from ..safe_names import cell, shown
from .baselines import Chance
from .catalog import LOCALIZATION, METRICS
from .result import Figure, MetricResult
from .results import packed

JSON_NAME, CSV_NAME, PARQUET_NAME = "evaluation.json", "evaluation.csv", "evaluation.parquet"
PICTURE_NAME, RESULTS_NAME = "curves.png", "results.npz"
KIND, SCHEMA = "evaluation", 1
_NAMED = 6  # rows in a repr


@dataclass(frozen=True, eq=False)
class Row:
    """One method at one layer, for one target, by one metric.

    Attributes:
        method, layer, target: what was scored.
        metric: what the metric is called here.
        result: what it found.
        chance: for each chance map what the same metric finds of it.
        remarks: what is to know of single maps that were scored, each with its photo's name.
    """

    method: str
    layer: str | None
    target: str
    metric: str
    result: MetricResult
    chance: Mapping[Chance, MetricResult]
    remarks: tuple[str, ...] = ()

    @property
    def by_chance(self) -> float | None:
        """What maps that depend neither on the class nor on the model come to by this metric, where that is known."""
        uniform = self.result.figures.get("uniform")
        if uniform is not None:
            return uniform.mean
        kind = {**METRICS, **LOCALIZATION}.get(self.result.metric)
        return None if kind is None else kind.by_chance

    def cells(self) -> Json:
        """As one line of a table: plain numbers and strings; NaN is None."""
        r = self.result
        return {
            "method": self.method,
            "layer": self.layer or "",
            "target": self.target,
            "metric": self.metric,
            "mean": number(r.mean),
            "low": number(r.low),
            "high": number(r.high),
            "n": r.n,
            "left_out": sum(r.left_out.values()),
            "higher_is_better": r.higher_is_better,
            "by_chance": None if self.by_chance is None else number(self.by_chance),
            **{f"chance_{name}": number(found.mean) for name, found in self.chance.items()},
        }


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """How methods do by metrics, over photos.

    Attributes:
        model: the model's name.
        names: of the photos, in the order of each result's values.
        rows: methods x layers x targets x metrics; also by index and iteration.
        finished: whether these are all photos; else those so far.

    Example:
        >>> table = seewhy.evaluate(model, photo, metrics=["complexity", "sparsity"])
        >>> [(row["metric"], row["mean"] > 0) for row in table.table()]
        [('complexity', True), ('sparsity', True)]
    """

    model: str
    names: tuple[str, ...]
    rows: tuple[Row, ...]
    finished: bool = field(default=True, kw_only=True)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        rows = [
            f"{row.metric} of {row.method}{f' at {row.layer}' if row.layer else ''} {row.result.mean:.3g}"
            for row in self.rows
        ]
        listed = ", ".join(rows[:_NAMED]) + (
            f", ... ({len(rows)} rows: .table())" if len(rows) > _NAMED else ""
        )
        so_far = "" if self.finished else " so far"
        listed += f"; {'; '.join(self.remarks)}" if self.remarks else ""
        text = (
            f"<{type(self).__name__} of {len(self.names)} images{so_far} by {self.model}: {listed}"
        )
        return at_most(text, REPR - 1) + ">"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to know of the maps that were scored, a line for each method and layer."""
        told = {(row.method, row.layer): row.remarks for row in self.rows if row.remarks}
        return tuple(
            f"{method}{f' at {layer}' if layer else ''}: {said[0]}"
            + (f" (something is said of {len(said) - 1} more maps)" if len(said) > 1 else "")
            for (method, layer), said in told.items()
        )

    def table(self) -> list[Json]:
        """The rows as dictionaries of plain values, with the same keys."""
        return [row.cells() for row in self.rows]

    def picture(self) -> Image.Image:
        """One panel for each metric (and target), one line for each method, chance in grey dashes."""
        keys = list(dict.fromkeys((row.metric, row.target) for row in self.rows))
        several = len({target for _, target in keys}) > 1
        panels = [self._panel(metric, target, several=several) for metric, target in keys]
        photos = "1 photo" if len(self.names) == 1 else f"{len(self.names)} photos"
        so_far = "" if self.finished else " so far"
        unsure = [textwrap.shorten(said, 200, placeholder=" ...") for said in self.remarks]
        return curves_picture(panels, title=f"{self.model}, {photos}{so_far}", remarks=unsure)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes evaluation.csv and .parquet, evaluation.json (with each image's values and curves) and curves.png.

        What another run wrote there is replaced; `seewhy.open(folder)` gives the evaluation back.

        Returns:
            The path of evaluation.json.
        """
        with RunFolder(folder, kind=KIND) as run:
            return self.write(run)

    def write(self, run: RunFolder) -> Path:
        """As `save`, into a folder that is open for writing; the results as they are, bit by bit, go to results.npz."""
        table = self.table()
        lines = io.StringIO(newline="")
        writer = csv.DictWriter(lines, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows({key: cell(value) for key, value in row.items()} for row in table)
        plain = [
            {key: shown(value) if isinstance(value, str) else value for key, value in row.items()}
            for row in table
        ]
        run.view(CSV_NAME, lambda path: path.write_bytes(lines.getvalue().encode()))
        run.view(
            PARQUET_NAME, lambda path: parquet.write_table(pyarrow.Table.from_pylist(plain), path)
        )
        run.view(PICTURE_NAME, lambda path: path.write_bytes(png_bytes(self.picture())))
        run.view(RESULTS_NAME, lambda path: path.write_bytes(packed(self.about(), self._results())))
        rows = [{**row.cells(), **_json_details(row)} for row in self.rows]
        told = {
            "schema": SCHEMA,
            "model": self.model,
            "finished": self.finished,
            "images": list(self.names),
        }
        return run.view_json(JSON_NAME, {**told, "rows": rows})

    def about(self) -> Json:
        """What is known beside the rows' results, in JSON's types."""
        rows = [
            [row.method, row.layer, row.target, row.metric, list(row.chance), list(row.remarks)]
            for row in self.rows
        ]
        return {
            "model": self.model,
            "names": list(self.names),
            "finished": self.finished,
            "rows": rows,
        }

    def _results(self) -> list[MetricResult]:
        """Each row's, and those of its chance maps."""
        return [result for row in self.rows for result in (row.result, *row.chance.values())]

    def _panel(self, metric: str, target: str, *, several: bool) -> Panel:
        rows = [row for row in self.rows if (row.metric, row.target) == (metric, target)]
        first = rows[0].result
        kind = {**METRICS, **LOCALIZATION}[first.metric]
        over, of = kind.axes
        followed = first.settings.get("output")
        title = metric if metric != kind.name else kind.title
        return Panel(
            f"{title}, {target}" if several else title,
            "higher is better" if first.higher_is_better else "lower is better",
            (over, of.replace("score", str(followed)) if followed else of),
            tuple(_lines_of_panel(rows)),
        )


class Parts:
    """Hands over what there is of an evaluation every half minute, so that whatever stops it little is lost.

    Args:
        keep: what takes it, such as `lambda part: part.save(folder)`; None for nothing.
        seconds: between two parts, and at least twenty times what making and keeping one took.
    """

    def __init__(self, keep: Callable[[Evaluation], object] | None, seconds: float = 30.0) -> None:
        self._keep, self._seconds = keep, seconds
        self._next = time.monotonic() + seconds

    def offer(self, make: Callable[[], Evaluation]) -> None:
        """Makes the part, and hands it over, if it is time."""
        begun = time.monotonic()
        if self._keep and begun >= self._next:
            self._keep(make())
            done = time.monotonic()
            self._next = done + max(self._seconds, 20 * (done - begun))

    @contextmanager
    def also_when_interrupted(
        self, make: Callable[[], Evaluation], is_there: Callable[[], bool]
    ) -> Iterator[None]:
        """Hands over what there is before an interrupt goes on."""
        try:
            yield
        except KeyboardInterrupt:
            if self._keep and is_there():
                self._keep(make())
            raise


def _lines_of_panel(rows: Sequence[Row]) -> Iterator[Scored]:
    """The methods, which say their layer where there are several, and the chance maps."""
    times = Counter(row.method for row in rows)
    for row in rows:
        at_several_layers = times[row.method] > 1
        label = f"{row.method} {row.layer}" if at_several_layers else row.method
        yield _scored_line(label, row.result)
    for name, found in rows[0].chance.items():
        yield _scored_line(name, found, chance=True)


def _scored_line(label: str, result: MetricResult, *, chance: bool = False) -> Scored:
    return Scored(label, result.mean, result.low, result.high, *result.mean_curve(), chance=chance)


def _json_details(row: Row) -> Json:
    """What evaluation.json has beside the table: each image's value and status, settings and curves."""
    r = row.result
    return {
        "interval": r.interval,
        "remarks": list(row.remarks),
        "settings": dict(r.settings),
        "values": [number(value) for value in r.values],
        "status": list(r.status),
        "curves": [[number(value) for value in curve] for curve in r.curves],
        "positions": [[number(value) for value in at] for at in r.positions],
        "figures": {name: figure_cells(figure) for name, figure in r.figures.items()},
        "chance": {name: _level_of_chance(found) for name, found in row.chance.items()},
    }


def _level_of_chance(found: MetricResult) -> Json:
    at, curve = ([number(value) for value in values] for values in found.mean_curve())
    bounds = {"mean": number(found.mean), "low": number(found.low), "high": number(found.high)}
    return {**bounds, "positions": at, "curve": curve}


def figure_cells(figure: Figure) -> Json:
    """One of a metric's figures as plain values."""
    bounds = {"mean": number(figure.mean), "low": number(figure.low), "high": number(figure.high)}
    return {**bounds, "thresholds": [number(each) for each in figure.thresholds]}
