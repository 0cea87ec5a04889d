"""`seewhy evaluate --task localisation`: methods against metrics over a data set that has boxes or masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from ..data import LabeledImages
from ..data.disk import Json
from ..data.run_folder import RunFolder, usable_folder
from ..data.sources import find_data
from ..methods.formula import Options
from ..metrics import Figure, ImageMetric
from ..metrics.base import ANY_KIND
from ..metrics.evaluation import Row
from ..metrics.localization.evaluate import CHANCES, METRICS, evaluate_localization
from ..metrics.localization.evaluation import CASES_NAME, KIND, LocalizationEvaluation
from ..models.model import Model
from . import parsing
from .evaluate_asked import OfData, Scoring
from .groups import Asked, How
from .interrupts import interruptible
from .metric_texts import metric_of
from .results import print_json
from .saving import forecasting, remark
from .show import bold, console, progress, said, table, tell_remarks, tell_skipped


def evaluate_data(
    of_data: OfData, asked: Asked, methods: Sequence[str], scoring: Scoring, how: How
) -> int:
    """Scores methods on a data set and writes what came out; returns 1 where some picture was unreadable."""
    task = _Localization(of_data, asked, methods, scoring, how)
    found, other = task.pictures()
    usable_folder(scoring.out)
    model = parsing.loaded_model(asked, how)
    unreadable = dict(found.skipped)
    run = RunFolder(scoring.out, kind=KIND, request=task.request(model), tell=remark)
    with interruptible(lambda: _what_is_saved(run)), run:
        study = task.scored(model, found, other, run, unreadable)
        path = study.write(run)
    mended = {name: list(notes) for name, notes in {**found.notes, **study.notes}.items()}
    if how.as_json:
        print_json(task.told(path, unreadable, mended))
    else:
        _tell_scores(study, scoring.out)
        tell_remarks(study.remarks)
    tell_skipped(unreadable.values())
    _tell_mended(mended)
    return 1 if unreadable else 0


@dataclass(frozen=True)
class _Localization:
    """What the command line asks."""

    of_data: OfData
    asked: Asked
    methods: Sequence[str]
    scoring: Scoring
    how: How

    @property
    def spec(self) -> str:
        return self.of_data.data or "scenes"

    @cached_property
    def metrics(self) -> dict[str, ImageMetric]:
        return {text: metric_of(text, ANY_KIND) for text in self.scoring.metric or METRICS}

    @cached_property
    def options(self) -> Options:
        return parsing.options(self.asked.option or [])

    def pictures(self) -> tuple[LabeledImages, LabeledImages | None]:
        """Those that are scored, and those that thresholds are fitted on."""
        validation = self.of_data.validation
        other = None if validation is None else self._pictures_of(validation)
        return self._pictures_of(self.of_data.split), other

    def _pictures_of(self, split: str) -> LabeledImages:
        found = find_data(
            self.spec,
            split=split,
            seed=self.of_data.seed,
            on_error="skip",
            max_pixels=self.how.max_pixels,
            trust_paths=self.how.trust_paths,
        )
        if self.of_data.count is None:
            return found
        return found.subset(range(min(self.of_data.count, len(found))))

    def request(self, model: Model) -> Json:
        """What the answers depend on."""
        return {
            "model": model.identity(),
            **asdict(self.of_data),
            "methods": list(self.methods),
            "metrics": list(self.metrics),
            "layers": self.asked.layer,
            "chance": self.scoring.chance,
            "options": self.options,
        }

    def scored(
        self,
        model: Model,
        found: LabeledImages,
        other: LabeledImages | None,
        run: RunFolder,
        unreadable: dict[str, str],
    ) -> LocalizationEvaluation:
        """Scores the pictures, and notes those that cannot be read."""
        with progress("Evaluating", len(found), told=True) as show:
            return evaluate_localization(
                model,
                found,
                methods=self.methods,
                metrics=self.metrics,
                layers=parsing.layers(self.asked.layer),
                validation=other,
                rule=self.of_data.rule,
                chance=CHANCES if self.scoring.chance else (),
                seed=self.of_data.seed,
                batch_size=self.asked.batch_size,
                options=self.options,
                progress=forecasting(show, _what_is_left),
                on_bad_image=lambda name, error: unreadable.update({name: str(error)}),
                on_part=lambda part: part.write(run),
                keep=run,
            )

    def told(
        self, path: Path, unreadable: Mapping[str, str], mended: Mapping[str, Sequence[str]]
    ) -> Json:
        """For programs: the file, what was asked, and what was left out or mended."""
        told: Json = json.loads(path.read_text(encoding="utf-8"))
        skipped = [{"name": name, "error": error} for name, error in unreadable.items()]
        asked = {"data": self.spec, "split": self.of_data.split, "out": str(self.scoring.out)}
        return {**told, **asked, "skipped": skipped, "mended": mended}


def _tell_mended(mended: Mapping[str, Sequence[str]]) -> None:
    for name, notes in mended.items():
        text = said(f"{name}: " + "; ".join(notes))
        console.print(f"[yellow]mended[/yellow] {text}", soft_wrap=True)


def _what_is_left(total: int, left: str) -> str:
    return f"{total:,} pictures take about {left} more; stopped, the same command goes on"


def _what_is_saved(run: RunFolder) -> str:
    """For an interrupt: the table is written every half minute, and then."""
    if not run.is_begun:
        return "nothing was finished"
    return f"the table of the first pictures is saved in {run.folder}; run the same command again to go on"


def _tell_scores(study: LocalizationEvaluation, out: Path) -> None:
    """For people: the scores with their figures side by side, and where the pictures are."""
    for metric in dict.fromkeys(row.metric for row in study):
        _tell_metric(metric, [row for row in study if row.metric == metric])
    pictures = f"{study.title}, {len(study.names)} objects' classes, {study.model}"
    console.print(f"\n{pictures}. In brackets: what knows no model.")
    console.print(f"The table as CSV, Parquet and JSON, and the curves, are in {bold(out)}")
    if study.cases:
        where = bold(out / CASES_NAME)
        console.print(f"Look at {where} first: boxes of the maps in cyan, true ones in green")


def _tell_metric(metric: str, rows: Sequence[Row]) -> None:
    """One table: the methods, and what knows no model."""
    better = "higher is better" if rows[0].result.higher_is_better else "lower is better"
    lines = [*map(_scores_line, rows), *_chance_lines(rows[0])]
    columns = dict.fromkeys(chain.from_iterable(lines))
    whole = [{column: line.get(column, "") for column in columns} for line in lines]
    table(f"{metric}, {better}", whole)


def _scores_line(row: Row) -> dict[str, object]:
    result = row.result
    only = {"mean": Figure(result.mean, result.low, result.high)}
    return {
        "method": row.method,
        "layer": row.layer or "",
        **_figure_cells(result.figures or only),
        "n": result.n,
        "no answer": _status_counts(result.failed),
        "left out": _status_counts(result.left_out),
    }


def _chance_lines(row: Row) -> list[dict[str, object]]:
    """What maps that know no model come to."""
    return [
        {"method": f"({name})", "layer": "", **_figure_cells(found.figures), "n": found.n}
        for name, found in row.chance.items()
    ]


def _figure_cells(figures: Mapping[str, Figure]) -> dict[str, str]:
    """Each figure with its interval; those of single classes are left to the files."""
    told = {}
    for name, figure in figures.items():
        if name.startswith("class "):
            continue
        known = figure.mean == figure.mean  # NaN is not itself
        has_interval = figure.low == figure.low
        interval = f" ({figure.low:.2f} to {figure.high:.2f})" if has_interval else ""
        told[name] = f"{figure.mean:.3f}{interval}" if known else ""
    return told


def _status_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items())
