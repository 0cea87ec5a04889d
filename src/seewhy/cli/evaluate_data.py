"""`seewhy evaluate --task localisation`: methods against metrics over a data set that has boxes or masks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import LabeledImages
from ..data.opened import MAX_PIXELS
from ..data.run_folder import RunFolder, usable_folder
from ..data.sources import find_data
from ..metrics import Figure, ImageMetric
from ..metrics.localization.evaluate import CHANCES, METRICS, evaluate_localisation
from ..metrics.localization.evaluation import CASES_NAME, KIND, LocalisationEvaluation
from ..models.load import DEFAULT_MODEL
from . import parsing
from .evaluate import metric_of
from .interrupts import interruptible
from .saving import forecasting, remark
from .show import bold, console, progress, said, table, tell_remarks, tell_skipped


def evaluate_data(
    data: str,
    *,
    split: str = "test",
    validation: str | None = None,
    count: int | None = None,
    model: str = DEFAULT_MODEL,
    methods: Sequence[str],
    metrics: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    rule: str = "cam2016",
    out: Path,
    chance: bool = True,
    device: str = "cpu",
    labels: Path | None = None,
    options: Sequence[str] = (),
    batch_size: int = 8,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    trust_paths: bool = False,
    as_json: bool = False,
) -> int:
    """Scores methods on a data set and writes what came out; returns 1 where some picture was unreadable."""
    chosen = {text: metric_of(text, ImageMetric) for text in metrics or METRICS}  # type: ignore[type-abstract]
    asked: dict[str, Any] = {
        "seed": seed,
        "on_error": "skip",
        "max_pixels": max_pixels,
        "trust_paths": trust_paths,
    }
    found = _some(find_data(data, split=split, **asked), count)
    other = None
    if validation is not None:
        other = _some(find_data(data, split=validation, **asked), count)
    unreadable = dict(found.skipped)
    usable_folder(out)
    loaded = parsing.loaded_model(model, labels=labels, device=device, trust_paths=trust_paths)
    given = parsing.options(options)
    request: dict[str, object] = {
        "data": data,
        "split": split,
        "validation": validation,
        "count": count,
        "seed": seed,
    }
    request["rule"] = rule
    request |= {
        "methods": list(methods),
        "metrics": list(chosen),
        "layers": layers,
        "chance": chance,
        "options": given,
    }
    run = RunFolder(out, kind=KIND, request={"model": loaded.identity(), **request}, tell=remark)
    with interruptible(lambda: _what_is_saved(run)), run:
        with progress("Evaluating", len(found), told=True) as show:
            study = evaluate_localisation(
                loaded,
                found,
                methods=methods,
                metrics=chosen,
                layers=parsing.layers(layers),
                validation=other,
                rule=rule,
                chance=CHANCES if chance else (),
                seed=seed,
                batch_size=batch_size,
                options=given,
                progress=forecasting(show, _what_is_left),
                on_bad_image=lambda name, error: unreadable.update({name: str(error)}),
                on_part=lambda part: part.write(run),
            )
        path = study.write(run)
    mended = {name: list(notes) for name, notes in {**found.notes, **study.notes}.items()}
    skipped = [{"name": name, "error": said} for name, said in unreadable.items()]
    if as_json:
        told = json.loads(path.read_text(encoding="utf-8"))
        print(
            json.dumps(
                {
                    **told,
                    "data": data,
                    "split": split,
                    "out": str(out),
                    "skipped": skipped,
                    "mended": mended,
                }
            )
        )
    else:
        _tell(study, out)
        tell_remarks(study.remarks)
    tell_skipped(unreadable.values())
    for name, notes in mended.items():
        console.print(
            f"[yellow]mended[/yellow] {said(f'{name}: ' + '; '.join(notes))}", soft_wrap=True
        )
    return 1 if skipped else 0


def _what_is_left(total: int, left: str) -> str:
    return f"{total:,} pictures take about {left} more; the table of what is done is written every half minute"


def _what_is_saved(run: RunFolder) -> str:
    """For an interrupt: the table is written every half minute."""
    if not run.is_begun:
        return "nothing was finished"
    return f"the table of the first pictures is saved in {run.folder}; the same command begins anew"


def _some(data: LabeledImages, count: int | None) -> LabeledImages:
    return data if count is None else data.subset(range(min(count, len(data))))


def _tell(study: LocalisationEvaluation, out: Path) -> None:
    """For people: the scores with their figures side by side, and where the pictures are."""
    for metric in dict.fromkeys(row.metric for row in study):
        rows = [row for row in study if row.metric == metric]
        better = "higher is better" if rows[0].result.higher_is_better else "lower is better"
        shown: list[dict[str, Any]] = [
            {
                "method": row.method,
                "layer": row.layer or "",
                **_cells(
                    row.result.figures
                    or {"mean": Figure(row.result.mean, row.result.low, row.result.high)}
                ),
                "n": row.result.n,
                "no answer": _counts(row.result.failed),
                "left out": _counts(row.result.left_out),
            }
            for row in rows
        ]
        levels = [
            {
                "method": f"({name})",
                "layer": "",
                **_cells(found.figures),
                "n": found.n,
                "no answer": "",
                "left out": "",
            }
            for name, found in rows[0].chance.items()
        ]
        columns = dict.fromkeys(column for line in (*shown, *levels) for column in line)
        table(
            f"{metric}, {better}",
            [{c: line.get(c, "") for c in columns} for line in (*shown, *levels)],
        )
    console.print(
        f"\n{study.title}, {len(study.names)} objects' classes, {study.model}. In brackets: what knows no model."
    )
    console.print(f"The table as CSV, Parquet and JSON, and the curves, are in {bold(out)}")
    if study.cases:
        console.print(
            f"Look at {bold(out / CASES_NAME)} first: boxes of the maps in cyan, true ones in green"
        )


def _cells(figures: Any) -> dict[str, str]:
    """Each figure with its interval; those of single classes are left to the files."""
    told = {}
    for name, figure in figures.items():
        if not name.startswith("class "):
            interval = (
                "" if figure.low != figure.low else f" ({figure.low:.2f} to {figure.high:.2f})"
            )  # NaN is not itself
            told[name] = "" if figure.mean != figure.mean else f"{figure.mean:.3f}{interval}"
    return told


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items())
