"""`seewhy evaluate`: methods against metrics over photos; a table with intervals and chance levels, curves to disk."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..data.images import find_images
from ..data.opened import MAX_PIXELS
from ..data.run_folder import RunFolder, usable_folder
from ..engine.masking import Running
from ..errors import InputError
from ..metrics import CHANCES, ExplanationMetric, ImageMetric
from ..metrics.catalog import find_metric
from ..metrics.cost import EvaluationCost
from ..metrics.evaluate import evaluate
from ..metrics.evaluation import KIND, PICTURE_NAME, Evaluation, Row
from ..metrics.faithfulness.curves import MaskedMetric
from ..metrics.keeping import of_photo
from ..models.load import DEFAULT_MODEL
from . import parsing
from .interrupts import interruptible
from .saving import done_before, remark, what_is_saved
from .show import LONG, Shown, bold, console, progress, table, tell_remarks, tell_skipped

_Kind = TypeVar("_Kind", bound=ImageMetric)


def evaluate_photos(
    photos: Sequence[Path],
    *,
    model: str = DEFAULT_MODEL,
    methods: Sequence[str],
    metrics: Sequence[str],
    targets: Sequence[str],
    layers: Sequence[str] | None = None,
    out: Path,
    chance: bool = True,
    device: str = "cpu",
    labels: Path | None = None,
    options: Sequence[str] = (),
    batch_size: int = 8,
    max_pixels: int = MAX_PIXELS,
    trust_paths: bool = False,
    as_json: bool = False,
) -> int:
    """Scores methods on photos and writes what came out; returns the exit status, 1 where some photo was unreadable."""
    paths = find_images(photos)
    chosen = {text: parse_metric(text) for text in metrics}
    unreadable: dict[Path, str] = {}
    usable_folder(out)
    loaded = parsing.loaded_model(model, labels=labels, device=device, trust_paths=trust_paths)
    given = parsing.options(options)
    asked = {
        "methods": list(methods),
        "metrics": list(metrics),
        "targets": list(targets),
        "layers": layers,
    }
    request = {"model": loaded.identity(), **asked, "options": given, "chance": chance}
    run = RunFolder(out, kind=KIND, request=request, tell=remark)
    names: list[str] = []
    with interruptible(lambda: _what_is_saved(run, names)), run:
        names, _ = done_before(run, photos, loaded)
        with progress("Evaluating", len(paths), told=True) as show:
            _show_passes(chosen.values(), show)
            found = evaluate(
                loaded,
                photos,
                methods=methods,
                metrics=chosen,
                targets=parsing.targets(targets, loaded),
                layers=parsing.layers(layers),
                chance=CHANCES if chance else (),
                batch_size=batch_size,
                max_pixels=max_pixels,
                options=parsing.with_progress(methods, given, show.within),
                progress=show,
                on_bad_image=None
                if len(paths) == 1
                else lambda path, error: unreadable.update({path: str(error)}),
                on_part=lambda part: part.write(run),
                within=show.scores,
                announce=_tell_cost,
                keep=run,
            )
        path = found.write(run)
    skipped = [{"name": str(name), "error": said} for name, said in unreadable.items()]
    if as_json:
        told = json.loads(path.read_text(encoding="utf-8"))
        print(json.dumps({**told, "out": str(out), "skipped": skipped}))
    else:
        _tell(found, out)
        tell_remarks(found.remarks)
    tell_skipped(unreadable.values())
    return 1 if skipped else 0


def _what_is_saved(run: RunFolder, names: Sequence[str]) -> str:
    """For an interrupt: photos all of whose scores are there, and scores of others."""
    parts = sum(of_photo(name) not in run for name in run)
    scores = "1 score" if parts == 1 else f"{parts} scores"
    others = "others" if any(name in run for name in names) else "the first photos"
    return what_is_saved(run, names, more=f"{scores} of {others}" if parts else "")


def _tell_cost(cost: EvaluationCost) -> None:
    """Says what an evaluation will take, where that is much."""
    if cost.seconds > LONG:
        remark(f"{cost}; interrupted, the same command goes on with the score that it was at")


def _show_passes(metrics: Iterable[ExplanationMetric], show: Shown) -> None:
    """Has metrics that run many masked pictures say how far they are."""
    for metric in metrics:
        if isinstance(metric, MaskedMetric):
            # a function, since metrics are copied with what they hold
            metric.running = Running(progress=lambda done, total: show.within(done, total))


def parse_metric(text: str) -> ExplanationMetric:
    """The metric of explanations that "deletion" or "deletion:step=1792,output=logit" names, as `metric_of`."""
    return metric_of(text, ExplanationMetric)


def metric_of(text: str, kind: type[_Kind]) -> _Kind:
    """The metric that "NAME" or "NAME:OPTION=VALUE,..." names, of a kind.

    Raises:
        InputError: no such metric, no such option, or a value that it does not take.
    """
    name, _, settings = text.partition(":")
    found = find_metric(name, kind)
    if not settings:
        return found
    pairs = [setting.partition("=") for setting in settings.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise InputError(
            f"metric {text!r} is not NAME:OPTION=VALUE,...; such as deletion:step=1792,output=logit"
        )
    defaults = {
        key: each.default for key, each in inspect.signature(type(found)).parameters.items()
    }
    named = {key.strip(): value for key, _, value in pairs}
    options = {
        key: parsing.value(value, of=f"{name}:{key}", default=defaults.get(key))
        for key, value in named.items()
    }
    try:
        return type(found)(**options)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"metric {text!r} cannot be made: {str(error).splitlines()[0]}") from error


def _tell(found: Evaluation, out: Path) -> None:
    """For people: the scores, and where the curves are."""
    table(
        f"How faithful the maps are, {found.model}, {len(found.names)} photos",
        [_told(row) for row in found],
    )
    console.print(
        "\nIntervals are of the mean over photos, at 95 %. A map is worth something where it beats chance."
    )
    console.print(f"The table as CSV, Parquet and JSON, and the curves, are in {bold(out)}")
    console.print(f"Look at {bold(out / PICTURE_NAME)} first")


def _told(row: Row) -> dict[str, Any]:
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
        **{name: f"{level.mean:.4g}" for name, level in row.chance.items()},
    }
