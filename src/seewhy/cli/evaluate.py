"""`seewhy evaluate`: methods against metrics over photos, or over data; a table with intervals and chance levels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..no_file import check_any_there
from .arguments import path_of
from .asked import check_metrics, checked
from .evaluate_asked import OfData, Scoring
from .groups import Asked, How
from .results import print_json
from .show import starting

if TYPE_CHECKING:
    from ..data.disk import Json
    from ..data.run_folder import RunFolder
    from ..metrics import ExplanationMetric
    from ..metrics.cost import EvaluationCost
    from ..metrics.evaluation import Evaluation, Row
    from .photo_run import PhotoRun
    from .show import Shown


def evaluate(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures, or folders of them.", show_default=False, parser=path_of),
    ] = None,
    *,
    task: Annotated[
        str | None,
        typer.Option(
            help="faithfulness, of photos; or localisation, over --data with boxes or masks.",
            show_default="localisation of --data, else faithfulness",
        ),
    ] = None,
    of_data: OfData,
    asked: Asked,
    scoring: Scoring,
    how: How,
) -> int:
    """Scores how faithful maps are, how well they localise, or tell classes apart, beside maps that know no model.

    --metric pair_share and grid_pointing make pairs and mosaics of photos that show one object each.
    """
    methods = checked(asked, how, rule=of_data.rule)
    check_metrics(scoring.metric or [])
    if _is_of_data(task, bool(photos), of_data):
        if photos or asked.target:
            raise typer.BadParameter(
                "localisation scores the true classes of --data, and takes no photos or targets"
            )
        with starting():
            from .evaluate_data import evaluate_data

        return evaluate_data(of_data, asked, methods, scoring, how)
    if not photos or of_data.data:
        raise typer.BadParameter(
            "give photos for --task faithfulness, or --data for --task localisation",
            param_hint="'PHOTOS'",
        )
    return evaluate_photos(photos, of_data, asked, methods, scoring, how)


def _is_of_data(task: str | None, has_photos: bool, of_data: OfData) -> bool:
    """Whether the pictures of a data set are scored, as a task says or, where none is named, what is given."""
    if task is None:
        return of_data.data is not None and not has_photos
    if task not in ("faithfulness", "localisation", "localization"):
        raise typer.BadParameter("use 'faithfulness' or 'localisation'", param_hint="'--task'")
    return task != "faithfulness"


def evaluate_photos(
    photos: Sequence[Path],
    of_data: OfData,
    asked: Asked,
    methods: Sequence[str],
    scoring: Scoring,
    how: How,
) -> int:
    """Scores methods on photos, and on pictures made of them, and writes what came out; the exit status."""
    check_any_there(photos)
    with starting():
        from .evaluate_made import MadePictures, metrics_of_photos
        from .photo_run import PhotoRun

    metrics, of_made = metrics_of_photos(scoring.metric)
    if of_made and asked.target:
        raise typer.BadParameter(
            f"{next(iter(of_made))} explains the class of each photo, and takes no targets"
        )
    shared = PhotoRun(photos, asked, how, methods, out=scoring.out)
    told: Json = {}
    if of_made:
        made = MadePictures(shared.request, of_data, scoring, as_json=how.as_json)
        told |= made.scored(photos, of_made, shared.on_bad_image)
    if metrics is None or metrics:
        told |= _scored_photos(shared, metrics, scoring, how)
    if how.as_json:
        print_json({**told, "out": str(scoring.out), "skipped": shared.skipped()})
    return shared.status()


def _scored_photos(
    shared: PhotoRun, metrics: dict[str, ExplanationMetric] | None, scoring: Scoring, how: How
) -> Json:
    """Scores methods on photos by metrics, or the usual ones, and tells people; what came out for programs."""
    from ..metrics.evaluate import usual_metrics
    from ..metrics.evaluation import KIND
    from .interrupts import interruptible
    from .show import tell_remarks

    metrics = usual_metrics(shared.request.call) if metrics is None else metrics
    run = shared.run_folder(KIND, {"metrics": list(metrics), "chance": scoring.chance})
    with interruptible(lambda: _what_is_saved(run, shared)), run:
        with shared.showing("Evaluating", run, told=True) as show:
            _show_passes(metrics.values(), show)
            found = _scores_of_photos(shared, metrics, scoring, run, show)
        path = found.write(run)
    if not how.as_json:
        _tell_scores(found, scoring.out)
        tell_remarks(found.remarks)
    told: Json = json.loads(path.read_text(encoding="utf-8"))
    return told


def _scores_of_photos(
    shared: PhotoRun,
    metrics: dict[str, ExplanationMetric],
    scoring: Scoring,
    run: RunFolder,
    show: Shown,
) -> Evaluation:
    from ..metrics.baselines import CHANCES
    from ..metrics.evaluate import Listeners, evaluated

    listeners = Listeners(
        progress=show,
        within=show.scores,
        announce=_tell_cost,
        on_part=lambda part: part.write(run),
        on_bad_image=shared.on_bad_image,
    )
    chance = CHANCES if scoring.chance else ()
    return evaluated(
        shared.request, shared.photos, metrics, chance=chance, listeners=listeners, keep=run
    )


def _what_is_saved(run: RunFolder, shared: PhotoRun) -> str:
    """For an interrupt: photos all of whose scores are there, and scores of others."""
    from ..metrics.keeping import of_photo
    from .saving import what_is_saved

    parts = sum(of_photo(name) not in run for name in run)
    scores = "1 score" if parts == 1 else f"{parts} scores"
    others = "others" if any(name in run for name in shared.names) else "the first photos"
    return what_is_saved(run, shared.names, more=f"{scores} of {others}" if parts else "")


def _tell_cost(cost: EvaluationCost) -> None:
    """Says what an evaluation will take, where that is much."""
    from .saving import remark
    from .show import LONG

    if cost.seconds > LONG:
        remark(f"{cost}; interrupted, the same command goes on with the score that it was at")


def _show_passes(metrics: Iterable[ExplanationMetric], show: Shown) -> None:
    """Has metrics that run many masked pictures say how far they are."""
    from ..engine.masking import Running
    from ..metrics.faithfulness.curves import MaskedMetric

    for metric in metrics:
        if isinstance(metric, MaskedMetric):
            # a function, since metrics are copied with what they hold
            metric.running = Running(progress=lambda done, total: show.within(done, total))


def _tell_scores(found: Evaluation, out: Path) -> None:
    """For people: the scores, and where the curves are."""
    from ..metrics.evaluation import PICTURE_NAME
    from .show import bold, console, table

    table(
        f"How faithful the maps are, {found.model}, {len(found.names)} photos",
        [_line_of_scores(row) for row in found],
    )
    console.print(
        "\nIntervals are of the mean over photos, at 95 %. A map is worth something where it beats chance."
    )
    console.print(f"The table as CSV, Parquet and JSON, and the curves, are in {bold(out)}")
    console.print(f"Look at {bold(out / PICTURE_NAME)} first")


def _line_of_scores(row: Row) -> dict[str, object]:
    r = row.result
    interval = "" if r.low != r.low else f"{r.low:.3g} to {r.high:.3g}"  # NaN is not itself
    left_out = ", ".join(f"{count} {status}" for status, count in r.left_out.items())
    return {
        "metric": row.metric,
        "better": "higher" if r.higher_is_better else "lower",
        "method": row.method,
        "layer": row.layer or "",
        "target": row.target,
        "mean": f"{r.mean:.4g}",
        "95 %": interval,
        "photos": r.n,
        "left out": left_out,
        "by chance": "" if row.by_chance is None else f"{row.by_chance:g}",
        **{name: f"{level.mean:.4g}" for name, level in row.chance.items()},
    }
