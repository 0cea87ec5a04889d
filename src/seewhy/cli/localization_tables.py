"""The scores of localisation as people read them: one table for each metric, methods above what knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from ..metrics import Figure
from ..metrics.evaluation import Row
from ..metrics.localization.evaluation import CASES_NAME, LocalizationEvaluation
from .show import bold, console, table


def tell_localization(study: LocalizationEvaluation, out: Path, *, made: str = "") -> None:
    """For people: the scores with their figures side by side, and where the pictures are.

    Args:
        study: the scores.
        out: the folder of the tables and pictures.
        made: what is called so that there are several tables of the same metric; nothing where there is one.
    """
    for metric in dict.fromkeys(row.metric for row in study):
        _tell_metric(metric, [row for row in study if row.metric == metric], made)
    pictures = f"{study.title}, {len(study.names)} objects' classes, {study.model}"
    console.print(f"\n{pictures}. In brackets: what knows no model.")
    console.print(f"The table as CSV, Parquet and JSON, and the curves, are in {bold(out)}")
    if study.cases:
        where = bold(out / CASES_NAME)
        console.print(f"Look at {where} first: boxes of the maps in cyan, true ones in green")


def _tell_metric(metric: str, rows: Sequence[Row], made: str) -> None:
    """One table: the methods, and what knows no model."""
    better = "higher is better" if rows[0].result.higher_is_better else "lower is better"
    found = [*map(_scores_line, rows), *_chance_lines(rows[0])]
    lines = [{"pictures": made, **line} for line in found]
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
