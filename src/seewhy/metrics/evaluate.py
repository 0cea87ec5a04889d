"""Methods against metrics: photos and a model in, a table with intervals and chance levels out, and the curves."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..arguments import checked
from ..data.opened import MAX_PIXELS
from ..data.run_folder import RunFolder
from ..engine.answers import OutputLike
from ..engine.batches import answers
from ..engine.call import Call
from ..engine.defaults import on_the_cpu
from ..engine.flow import find_flow
from ..engine.inputs import settled_input
from ..engine.targets.classes import ScoreFunction
from ..engine.targets.numbers import numbers_of
from ..engine.targets.resolve import (
    ResolvedTarget,
    TargetLike,
    as_targets,
    check_one_each,
    one_each,
    part_of,
    resolve,
)
from ..engine.targets.rows import OWN
from ..errors import ImageError, InputError
from ..maps.attribution import Attribution
from ..methods.catalog import find_method
from ..methods.explain import ALL_STAGES, BATCH_SIZE, LayersLike, ModelLike, Progress, explain
from ..methods.method import Method
from ..methods.photos import ImageLike, Source
from ..methods.remarks import naming, remarks_of_each
from ..models.call import model_and_call
from ..models.load import DEFAULT_MODEL
from .baselines import CHANCES, Chance, ChanceMethod, chance_maps
from .catalog import find_metric
from .cost import EvaluationCost, estimate
from .evaluation import Evaluation, Parts, Row
from .keeping import BatchKept, KeptScores, Photo, PhotoRemarks, Unit
from .metric import ExplanationMetric, Kept
from .sanity.rerun import BoundMethod, MethodMetric, bind

MetricsLike = (
    str
    | ExplanationMetric
    | Iterable[str | ExplanationMetric]
    | Mapping[str, str | ExplanationMetric]
)


@checked
@on_the_cpu()
def evaluate(
    model: ModelLike = DEFAULT_MODEL,
    images: ImageLike | Iterable[ImageLike] = (),
    *,
    methods: str | Method | Iterable[str | Method] = "grad_cam",
    metrics: MetricsLike = ("insertion", "deletion"),
    targets: TargetLike | Iterable[TargetLike] = "top1",
    layers: LayersLike = None,
    chance: Sequence[Chance] = CHANCES,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    output: OutputLike | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
    on_bad_image: Callable[[Any, ImageError], None] | None = None,
    on_part: Callable[[Evaluation], object] | None = None,
    within: Progress | None = None,
    announce: Callable[[EvaluationCost], object] | None = None,
    keep: RunFolder | None = None,
) -> Evaluation:
    """Explains photos by methods, and scores the maps, and maps that know nothing of the model, by metrics.

    Args:
        model, images, methods, targets, layers, options, args, kwargs, inputs, output: as in `seewhy.explain`.
        metrics: names from `seewhy.metrics.METRICS` or metrics with settings of their own; a mapping names them.
        chance: the chance maps that each metric also scores; () leaves them out, which saves their forward passes.
        seed: of the random chance map.
        batch_size: photos in one pass. Changes speed and memory, not the answer.
        max_pixels: as in `seewhy.explain`.
        progress: called with the number of photos done and of all.
        on_bad_image: called with each picture that cannot be read and the reason, and the picture is left out.
        on_part: called every half minute with the evaluation of the photos so far, to be saved or shown.
        within: called with the number of scores done and of all, of the photos at hand.
        announce: told, before anything is scored, what it will take, as far as a sample tells.
        keep: a folder of a run of the same request, open for writing: scores are kept in it as they are found, and what
            it holds is not computed again.

    Raises:
        SeewhyError: what cannot be used, in one line.
    """
    model, call = model_and_call(model, args=args, kwargs=kwargs, inputs=inputs, output=output)
    chosen = [find_method(m) for m in ([methods] if isinstance(methods, str | Method) else methods)]
    board = _Board(chosen, _named(metrics), chance, seed, layers, options or {})
    source, wanted = Source(images, model, on_bad_image, max_pixels), as_targets(targets)
    call.check_rows(len(source))
    call = source.settled(call)
    for target in wanted:
        check_one_each(target, len(source))
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} is too small; give 1 or more")
    seen: list[str] = []
    parts, kept = Parts(on_part), None if keep is None else KeptScores(keep)

    def so_far(*, finished: bool = False) -> Evaluation:
        return Evaluation(model.name, tuple(seen), board.rows(), finished=finished)

    with parts.also_when_interrupted(so_far, lambda: bool(seen)):
        for start in range(0, len(source), batch_size):
            stop = min(start + batch_size, len(source))
            done = kept.whole(source, start, stop) if kept else []
            batch = None if done else source.batch(start, stop)
            if kept and done:
                board.restore(kept, done)
                seen += [photo.name for photo in done]
            elif batch and batch.names:
                called, x = settled_input(call.rows(batch.indices), batch.x)
                resolved = _resolved(called, x, wanted, batch.indices, model.labels)
                with naming(batch.names, model.label):
                    work = _explained(called, x, resolved, chosen, layers, options)
                tasks = board.tasks(work)
                if announce:
                    announce(_cost(work, tasks, len(source) - start))
                    announce = None
                board.add(
                    work, tasks, BatchKept(kept, batch), within, _remarks_of(batch.names, work)
                )
                seen += batch.names
                parts.offer(so_far)
            if progress:
                progress(stop, len(source))
    if not seen:
        raise ImageError(
            f"none of the {len(source)} pictures can be read; the first: {source.first_error}"
        )
    return so_far(finished=True)


@dataclass(frozen=True, eq=False)
class _Work:
    """A batch that is explained, in so many seconds, and to be scored; targets are the innermost of the order."""

    call: Call
    x: Tensor
    targets: Sequence[ResolvedTarget]
    attributions: Sequence[Attribution]
    seconds: float


def _explained(
    call: Call,
    x: Tensor,
    targets: Sequence[ResolvedTarget],
    methods: Sequence[Method],
    layers: LayersLike,
    options: Mapping[str, Mapping[str, Any]] | None,
) -> _Work:
    begun, scores = time.perf_counter(), [each.score for each in targets]
    found = explain(
        call, x, methods=methods, targets=scores, layers=layers, batch_size=len(x), options=options
    )
    return _Work(call, x, targets, found.attributions, time.perf_counter() - begun)


def _cost(work: _Work, tasks: Sequence[_Task], photos: int) -> EvaluationCost:
    """What so many photos like those of a batch will take."""
    asked = [(task.unit, task.metric) for task in tasks]
    explaining = work.seconds / len(work.x) / len(work.attributions)
    return estimate(work.call, work.x, asked, photos=photos, explaining=explaining)


@dataclass(frozen=True, eq=False)
class _Task:
    """Maps of a batch to be scored: an attribution, or chance maps (N, H, W)."""

    unit: Unit
    metric: ExplanationMetric
    score: ScoreFunction
    shown: Attribution | Tensor


def _remarks_of(names: Sequence[str], work: _Work) -> list[PhotoRemarks]:
    """For each photo of a batch what is said of its maps, with its name and what is explained."""
    told: list[PhotoRemarks] = [[] for _ in names]
    for i, a in enumerate(work.attributions):
        target = work.targets[i % len(work.targets)].name
        for of_photo, said in zip(told, remarks_of_each(names, a), strict=False):
            of_photo += [(a.method, a.layer, target, one) for one in said]
    return told


class _Board:
    """The metrics of every method, layer and target, and of the chance maps, as photos come in."""

    def __init__(
        self,
        methods: Sequence[Method],
        metrics: Mapping[str, ExplanationMetric],
        chance: Sequence[Chance],
        seed: int,
        layers: LayersLike,
        options: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.metrics, self.layers, self.options = metrics, layers, options
        self.methods = {method.name: method for method in methods}
        self.chances = {name: ChanceMethod(name, seed=seed) for name in chance}
        self.seed = seed
        self._scored: dict[Unit, ExplanationMetric] = {}
        self._remarks: dict[tuple[str, str | None, str], list[str]] = {}

    def tasks(self, work: _Work) -> list[_Task]:
        """What is to be scored of a batch: the maps of methods, then those of chance."""
        tasks = []
        for i, attribution in enumerate(work.attributions):
            target = work.targets[i % len(work.targets)]
            for name, metric in self.metrics.items():
                unit = Unit(attribution.method, attribution.layer, target.name, name)
                tasks.append(_Task(unit, metric, target.score, attribution))
        drawn = chance_maps(work.x, seed=self.seed) if self.chances else {}
        for target in work.targets:
            for name, metric in self.metrics.items():
                for chance in self.chances:
                    unit = Unit(chance, None, target.name, name, by_chance=True)
                    tasks.append(_Task(unit, metric, target.score, drawn[chance]))
        return tasks

    def add(
        self,
        work: _Work,
        tasks: Sequence[_Task],
        keeping: BatchKept,
        within: Progress | None,
        remarks: Sequence[PhotoRemarks],
    ) -> None:
        """Does the tasks of a batch, but those whose scores are kept; the batch counts as a whole, or not yet."""
        found = []
        for done, task in enumerate(tasks, start=1):
            known = keeping.read(task.unit)
            if known is None:
                known = self._score(work, task)
                keeping.write(task.unit, known)
            found.append((task.unit, known))
            if within:
                within(done, len(tasks))
        for unit, known in found:
            self._metric(unit).restore(known)
        keeping.finish([unit for unit, _ in found], remarks)
        self._remark(remarks)

    def _score(self, work: _Work, task: _Task) -> Kept:
        metric, shown = self._fresh(task.unit), task.shown
        if isinstance(shown, Attribution):
            if isinstance(metric, MethodMetric):
                metric.method = self._bound(shown, work.call, work.x)
            shown = shown.map
        metric.update(shown, work.call, work.x, task.score)
        return metric.newest()

    def restore(self, kept: KeptScores, photos: Sequence[Photo]) -> None:
        """Adds photos all of whose scores are kept."""
        units = kept.units(photos[0])
        known = [kept.read(unit, photos) for unit in units]
        for unit, found in zip(units, known, strict=True):
            if found is None:
                raise InputError(
                    f"'{kept.run.folder}' lacks scores of {photos[0].name!r}; give another folder"
                )
            self._metric(unit).restore(found)
        self._remark([kept.remarks(photo) for photo in photos])

    def _remark(self, remarks: Sequence[PhotoRemarks]) -> None:
        """Notes what is said of maps of photos."""
        for of_photo in remarks:
            for method, layer, target, said in of_photo:
                self._remarks.setdefault((method, layer, target), []).append(said)

    def rows(self) -> tuple[Row, ...]:
        found = {unit: metric.compute() for unit, metric in self._scored.items()}
        return tuple(
            Row(
                unit.method,
                unit.layer,
                unit.target,
                unit.metric,
                result,
                {
                    c: found[Unit(c, None, unit.target, unit.metric, by_chance=True)]
                    for c in self.chances
                },
                tuple(self._remarks.get((unit.method, unit.layer, unit.target), ())),
            )
            for unit, result in found.items()
            if not unit.by_chance
        )

    def _metric(self, unit: Unit) -> ExplanationMetric:
        if unit not in self._scored:
            self._scored[unit] = self._fresh(unit)
        return self._scored[unit]

    def _fresh(self, unit: Unit) -> ExplanationMetric:
        metric = self.metrics[unit.metric]
        if not unit.by_chance:
            return metric.for_method(None)
        (method,) = (each for name, each in self.chances.items() if name == unit.method)
        # a constant map is what a chance level is of
        judged = [status for status in metric.leave_out if status != "constant"]
        return metric.for_method(method, leave_out=judged)

    def _bound(self, attribution: Attribution, call: Call, x: Tensor) -> Any:
        """The method as metrics that run it again have to: at the attribution's layer."""
        method, options = self.methods[attribution.method], self.options.get(attribution.method, {})
        if method.at == "layer" and (self.layers is None or self.layers == ALL_STAGES):
            flow = find_flow(call, x)
            layers = flow.chosen if self.layers else flow.chosen[-1:]
            return BoundMethod(method, layers, flow, options, attribution.layer)
        return bind(method, call, x, layer=attribution.layer, options=options)


def _named(metrics: MetricsLike) -> dict[str, ExplanationMetric]:
    if isinstance(metrics, Mapping):
        found = {name: find_metric(metric) for name, metric in metrics.items()}
    else:
        listed = [
            find_metric(m)
            for m in ([metrics] if isinstance(metrics, str | ExplanationMetric) else metrics)
        ]
        found = {metric.name: metric for metric in listed}
        if len(found) < len(listed):
            raise InputError(
                "metrics has one of a kind twice; name them: metrics={'step 224': Deletion(), ...}"
            )
    if not found:
        raise InputError("metrics is empty; give at least one, such as 'deletion'")
    return found


def _resolved(
    call: Call,
    x: Tensor,
    targets: Sequence[TargetLike],
    images: Sequence[int],
    labels: Sequence[str] | None,
) -> list[ResolvedTarget]:
    """The targets of a batch, settled on what the model says of it, under names that are the same in every batch."""
    output = answers(call, x)
    numbers = numbers_of(call, output)
    found = [(t, resolve(part_of(t, images), output, labels, numbers=numbers)) for t in targets]
    return [
        resolved if one_each(target) is None else dataclasses.replace(resolved, name=OWN)
        for target, several in found
        for resolved in several
    ]
