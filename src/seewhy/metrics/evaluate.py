"""Methods against metrics: photos and a model in, a table with intervals and chance levels out, and the curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..arguments import checked
from ..data.opened import MAX_PIXELS
from ..engine.answers import OutputLike
from ..engine.batches import answers
from ..engine.call import Call
from ..engine.defaults import on_the_cpu
from ..engine.flow import find_flow
from ..engine.inputs import settled_input
from ..engine.targets.numbers import numbers_of
from ..engine.targets.resolve import (
    OWN,
    ResolvedTarget,
    TargetLike,
    as_targets,
    check_one_each,
    one_each,
    part_of,
    resolve,
)
from ..errors import ImageError, InputError
from ..maps.attribution import Attribution
from ..methods.catalog import find_method
from ..methods.explain import ALL_STAGES, BATCH_SIZE, LayersLike, ModelLike, Progress, explain
from ..methods.method import Method
from ..methods.photos import ImageLike, Source
from ..methods.remarks import named_remarks, naming
from ..models.call import model_and_call
from ..models.load import DEFAULT_MODEL
from .baselines import CHANCES, Chance, ChanceMethod, chance_maps
from .catalog import find_metric
from .evaluation import Evaluation, Parts, Row
from .metric import ExplanationMetric
from .sanity.rerun import BoundMethod, MethodMetric, bind

MetricsLike = str | ExplanationMetric | Iterable[str | ExplanationMetric] | Mapping[str, str | ExplanationMetric]


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
    parts = Parts(on_part)

    def so_far(*, finished: bool = False) -> Evaluation:
        return Evaluation(model.name, tuple(seen), board.rows(), finished=finished)

    for start in range(0, len(source), batch_size):
        stop = min(start + batch_size, len(source))
        batch = source.batch(start, stop)
        if batch.names:
            called, x = settled_input(call.rows(batch.indices), batch.x)
            resolved = _resolved(called, x, wanted, batch.indices, model.labels)
            with naming(batch.names, model.label):
                explained = explain(
                    called,
                    x,
                    methods=chosen,
                    targets=[each.score for each in resolved],
                    layers=layers,
                    batch_size=len(x),
                    options=options,
                )
            board.add(called, x, resolved, explained.attributions)
            board.remark(batch.names, resolved, explained.attributions)
            seen += batch.names
            parts.offer(so_far)
        if progress:
            progress(stop, len(source))
    if not seen:
        raise ImageError(f"none of the {len(source)} pictures can be read; the first: {source.first_error}")
    return so_far(finished=True)


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
        self._scored: dict[tuple[str, str | None, str, str], ExplanationMetric] = {}
        self._remarks: dict[tuple[str, str | None, str], list[str]] = {}
        self._by_chance: dict[tuple[str, str, Chance], ExplanationMetric] = {}

    def add(
        self, call: Call, x: Tensor, targets: Sequence[ResolvedTarget], attributions: Sequence[Attribution]
    ) -> None:
        """Scores the maps of a batch; targets are the innermost of the attributions' order."""
        for i, attribution in enumerate(attributions):
            target = targets[i % len(targets)]
            for name, metric in self.metrics.items():
                key = (attribution.method, attribution.layer, target.name, name)
                if key not in self._scored:
                    self._scored[key] = metric.for_method(self._bound(attribution, metric, call, x))
                self._scored[key].update(attribution.map, call, x, target.score)
        drawn = chance_maps(x, seed=self.seed) if self.chances else {}
        for target in targets:
            for name, metric in self.metrics.items():
                for chance, method in self.chances.items():
                    place = (target.name, name, chance)
                    if place not in self._by_chance:
                        # a constant map is what a chance level is of
                        judged = [status for status in metric.leave_out if status != "constant"]
                        self._by_chance[place] = metric.for_method(method, leave_out=judged)
                    self._by_chance[place].update(drawn[chance], call, x, target.score)

    def remark(
        self, names: Sequence[str], targets: Sequence[ResolvedTarget], attributions: Sequence[Attribution]
    ) -> None:
        """Notes what is said of the maps of a batch, as `add` takes them."""
        for i, a in enumerate(attributions):
            place = (a.method, a.layer, targets[i % len(targets)].name)
            self._remarks.setdefault(place, []).extend(named_remarks(names, a))

    def rows(self) -> tuple[Row, ...]:
        found = {place: metric.compute() for place, metric in self._by_chance.items()}
        return tuple(
            Row(
                *key,
                metric.compute(),
                {c: found[key[2], key[3], c] for c in self.chances},
                tuple(self._remarks.get(key[:3], ())),
            )
            for key, metric in self._scored.items()
        )

    def _bound(self, attribution: Attribution, metric: ExplanationMetric, call: Call, x: Tensor) -> Any:
        """The method as metrics that run it again have to: at the attribution's layer."""
        if not isinstance(metric, MethodMetric):
            return None
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
        listed = [find_metric(m) for m in ([metrics] if isinstance(metrics, str | ExplanationMetric) else metrics)]
        found = {metric.name: metric for metric in listed}
        if len(found) < len(listed):
            raise InputError("metrics has one of a kind twice; name them: metrics={'step 224': Deletion(), ...}")
    if not found:
        raise InputError("metrics is empty; give at least one, such as 'deletion'")
    return found


def _resolved(
    call: Call, x: Tensor, targets: Sequence[TargetLike], images: Sequence[int], labels: Sequence[str] | None
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
