"""Methods x layers x metrics over a data set with boxes or masks: how well a classifier's maps say where things are.

The class of each map is given, as in the "GT-known" protocol (Choe et al., CVPR 2020), save where a metric asks what
the model itself answers. Maps and truth are compared in the model's input: what the preprocessing crops away counts
for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...arguments import checked
from ...data.dataset import LabeledImages
from ...engine.targets.resolve import TargetLike
from ...errors import InputError
from ...maps.attribution import Attribution
from ...maps.boxes import BoxRule, RuleLike, boxes, find_rule
from ...methods.catalog import find_method
from ...methods.explain import BATCH_SIZE, PREDICTIONS, LayersLike, ModelLike, Progress, explain
from ...methods.method import Method
from ...methods.remarks import named_remarks, naming
from ...models.call import model_and_call
from ...models.classes import class_indices
from ...models.load import DEFAULT_MODEL
from ...models.model import Model
from ..base import ImageMetric
from ..baselines import Chance, chance_maps
from ..catalog import find_metric
from ..evaluation import Evaluation, Parts, Row
from .box_metrics import MaxBoxAccuracy, TopKLocalization
from .evaluation import Case, LocalisationEvaluation
from .marked import Marked, read_marked
from .metric import LocalizationMetric
from .mosaics import Focus, GridPointing
from .point_metrics import LocationAveragePrecision

METRICS = ("max_box_accuracy", "pixel_ap", "pointing_game", "energy_pointing")
CHANCES: tuple[Chance, ...] = ("centre", "edges", "random")
TRUE_CLASS = "true class"
MetricsLike = str | ImageMetric | Iterable[str | ImageMetric] | Mapping[str, str | ImageMetric]
OnBadImage = Callable[[str, InputError], None]
_Place = tuple[str, str | None]  # a method and its layer
_Pair = tuple[int, int]  # a picture of the batch or the data, and a class of the data


@checked
def evaluate_localisation(
    model: ModelLike = DEFAULT_MODEL,
    data: LabeledImages | None = None,
    *,
    methods: str | Method | Iterable[str | Method] = "grad_cam",
    metrics: MetricsLike = METRICS,
    layers: LayersLike = None,
    validation: LabeledImages | None = None,
    rule: RuleLike = "cam2016",
    classes: Mapping[str, int | str] | None = None,
    chance: Sequence[Chance] = CHANCES,
    cases: int = 4,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
    on_bad_image: OnBadImage | None = None,
    on_part: Callable[[Evaluation], object] | None = None,
) -> LocalisationEvaluation:
    """Explains the true classes of a data set's pictures by methods, and scores where the maps point.

    Args:
        model: a classifier with its preprocessing, or a spec.
        data: pictures with boxes or masks; those without are counted, and score nothing.
        methods, layers, options: as in `seewhy.explain`.
        metrics: names from `seewhy.metrics.LOCALIZATION`, or metrics with settings of their own; a mapping names them.
        validation: other pictures, on which `max_box_accuracy` fits the threshold of its figure "validation".
        rule: how maps become the guesses of `topk_localization`, and the boxes that are drawn.
        classes: the model's class for names of the data's classes; found by name unless given (`class_indices`).
        chance: maps that know nothing of the model, scored beside the methods.
        cases: how many of the best and of the worst maps of each method are kept to look at.
        seed: of the random chance map.
        batch_size: pictures in one pass. Changes speed and memory, not the answer.
        progress: called with the number of pictures done and of all, first of `validation`, then of `data`.
        on_bad_image: called with the name of each picture that cannot be read, or its annotation, and the reason; None
            raises.
        on_part: called every half minute with the evaluation of the pictures so far, without cases.

    Raises:
        SeewhyError: what cannot be used, in one line.
    """
    if data is None or not len(data):
        raise InputError(
            "data has no pictures; give a data set, such as seewhy.data.find_data('scenes', split='test')"
        )
    if batch_size < 1 or cases < 0:
        raise InputError(f"batch_size={batch_size}, cases={cases}: give 1 or more, and 0 or more")
    model, _ = model_and_call(model)
    found = [find_method(m) for m in ([methods] if isinstance(methods, str | Method) else methods)]
    chosen = list({method.name: method for method in found}.values())
    layers = (
        layers
        if layers is None or isinstance(layers, str | nn.Module)
        else list(dict.fromkeys(layers))
    )
    named = _named(metrics)
    study = _Study(
        model,
        chosen,
        layers,
        options or {},
        class_indices(model, data, classes),
        find_rule(rule),
        batch_size,
    )
    boxed = {name: metric for name, metric in named.items() if isinstance(metric, MaxBoxAccuracy)}
    fitted: Mapping[tuple[_Place, str], tuple[float, ...]] = {}
    if validation is not None and boxed:
        fitted = (
            _Scores(boxed, (), seed, {}).of(study, validation, on_bad_image, progress).thresholds()
        )
    scores = _Scores(named, chance, seed, fitted).of(
        study, data, on_bad_image, progress, Parts(on_part)
    )
    shown = [
        case
        for (method, layer), best, worst in scores.extremes(cases)
        for kind, pairs in (("best", best), ("worst", worst))
        for case in study.cases(data, method, layer, kind, pairs)
    ]
    return scores.evaluation(study, data, cases=tuple(shown))


def _named(metrics: MetricsLike) -> dict[str, ImageMetric]:
    if isinstance(metrics, Mapping):
        named = {name: _found(metric) for name, metric in metrics.items()}
    else:
        found = [
            _found(m) for m in ([metrics] if isinstance(metrics, str | ImageMetric) else metrics)
        ]
        named = {metric.name: metric for metric in found}
        if len(named) < len(found):
            raise InputError(
                "metrics has one of a kind twice; name them: metrics={'V1': MaxBoxAccuracy(version=1)}"
            )
    if not named:
        raise InputError("metrics is empty; give at least one, such as 'max_box_accuracy'")
    for name, metric in named.items():
        if isinstance(metric, GridPointing | Focus):
            way_out = "feed it mosaics: seewhy.metrics.grid_mosaics, focus_mosaics"
            raise InputError(f"metric {name!r} judges mosaics of photos, not a data set; {way_out}")
        if not isinstance(metric, LocalizationMetric | TopKLocalization):
            raise InputError(
                f"metric {name!r} does not compare with what is marked; 'seewhy evaluate' has it"
            )
        if isinstance(metric, TopKLocalization) and metric.k > PREDICTIONS:
            raise InputError(
                f"k={metric.k} guesses are more than the {PREDICTIONS} of a prediction; give fewer"
            )
    return named


def _found(metric: str | ImageMetric) -> ImageMetric:
    return find_metric(metric, ImageMetric)  # type: ignore[type-abstract]


@dataclass(frozen=True, eq=False)
class _Batch:
    """Pictures, and what was explained of them.

    Attributes:
        pairs: every picture with each class it shows.
        columns: which target explains the class of a pair; and, where all are explained, every pair.
        guesses: for each picture the data's classes that the model answers, best first; -1 for others.
        guessed: the targets that explain the guesses.
        rule: how maps become boxes of guesses.
    """

    marked: Marked
    pairs: list[_Pair]
    columns: Mapping[_Pair, int]
    guesses: list[list[int]]
    guessed: slice
    rule: BoxRule

    def feed(
        self, metric: ImageMetric, maps: Sequence[Tensor], scores: Sequence[Sequence[float]]
    ) -> None:
        """Adds the maps of one method, (N, h, w) for each target, with the targets' scores."""
        if isinstance(metric, TopKLocalization):
            self._feed_guesses(metric, maps[self.guessed])
            return
        every = isinstance(metric, LocationAveragePrecision)
        pairs = [pair for pair in self.columns if self._known(*pair)] if every else self.pairs
        if not pairs:
            return
        picked = torch.stack([maps[self.columns[pair]][pair[0]] for pair in pairs])
        truths, labels = [self.marked.truths[i] for i, _ in pairs], [label for _, label in pairs]
        if isinstance(metric, LocationAveragePrecision):
            metric.update(
                picked, truths, labels=labels, scores=[scores[self.columns[p]][p[0]] for p in pairs]
            )
        elif isinstance(metric, LocalizationMetric):
            metric.update(picked, truths, labels=labels)

    def _known(self, picture: int, label: int) -> bool:
        """Whether it is known where a class is in a picture, or that it is not there."""
        truth = self.marked.truths[picture]
        return (
            label not in self.marked.labels[picture]
            or truth is None
            or bool((truth.labels == label).any())
        )

    def _feed_guesses(self, metric: TopKLocalization, maps: Sequence[Tensor]) -> None:
        size = (self.marked.x.shape[2], self.marked.x.shape[3])
        found = [
            boxes(each, rule=self.rule, size=size) for each in maps
        ]  # for each guess one for each picture
        nowhere = torch.zeros(1, 4, dtype=torch.long)
        placed = [
            torch.cat([one[i].boxes[:1] if len(one[i]) else nowhere for one in found])
            for i in range(len(self.marked))
        ]
        metric.update(
            [classes[: len(found)] for classes in self.guesses], placed, self.marked.truths
        )


@dataclass(frozen=True, eq=False)
class _Study:
    """What is explained of pictures, and how."""

    model: Model
    methods: Sequence[Method]
    layers: LayersLike
    options: Mapping[str, Mapping[str, Any]]
    classes: tuple[int, ...]  # the model's, for each of the data's
    rule: BoxRule
    batch_size: int

    def explained(
        self,
        data: LabeledImages,
        indices: range,
        *,
        every: bool,
        guesses: int,
        on_bad_image: OnBadImage | None,
    ) -> tuple[_Batch, list[tuple[_Place, list[Attribution]]]] | None:
        """A batch, and its maps: for each method and layer one attribution for each target."""
        marked = read_marked(data, indices, self.model, on_bad_image)
        if marked is None:
            return None
        targets, columns = self._targets(marked, every=every)
        count = len(targets)
        guesses = min(guesses, len(self.model.labels or self.classes))
        with naming(marked.names):
            ex = explain(
                self.model,
                marked.x.to(self.model.device),
                methods=self.methods,
                targets=[*targets, *([f"top{guesses}"] if guesses else [])],
                layers=self.layers,
                batch_size=len(marked),
                options=self.options,
            )
        count += guesses
        mine = {index: label for label, index in enumerate(self.classes)}
        batch = _Batch(
            marked,
            marked.pairs,
            columns,
            [[mine.get(said.index, -1) for said in answers] for answers in ex.predictions],
            slice(count - guesses, count),
            self.rule,
        )
        groups = [
            list(ex.attributions[start : start + count]) for start in range(0, len(ex), count)
        ]
        return batch, [((group[0].method, group[0].layer), group) for group in groups]

    def _targets(self, marked: Marked, *, every: bool) -> tuple[list[TargetLike], dict[_Pair, int]]:
        """What to explain so that each class that a picture shows has its map, or each class there is."""
        if every:
            columns = {
                (i, label): label for i in range(len(marked)) for label in range(len(self.classes))
            }
            return list(self.classes), columns
        most = max(1, max(map(len, marked.labels)))
        # a picture with fewer classes repeats its first, or any
        filled = [(*labels, *([*labels, 0][:1] * (most - len(labels)))) for labels in marked.labels]
        targets: list[TargetLike] = [
            [self.classes[labels[j]] for labels in filled] for j in range(most)
        ]
        return targets, {
            (i, label): j
            for i, labels in enumerate(marked.labels)
            for j, label in enumerate(labels)
        }

    def cases(
        self,
        data: LabeledImages,
        method: str,
        layer: str | None,
        kind: str,
        pairs: Sequence[tuple[_Pair, float]],
    ) -> Iterator[Case]:
        """The maps of some pictures once more, to look at."""
        chosen = next(m for m in self.methods if m.name == method)
        for (index, label), value in pairs:
            marked = read_marked(data, [index], self.model)
            assert marked is not None
            assert marked.truths[0] is not None
            ex = explain(
                self.model,
                marked.x.to(self.model.device),
                methods=chosen,
                targets=self.classes[label],
                layers=layer if chosen.at == "layer" else None,
                options=self.options,
            )
            found = boxes(ex[0].heatmap(), rule=self.rule)[0]
            truth = marked.truths[0].of(label)
            yield Case(
                ex[0], kind, marked.names[0], data.classes[label], value, ex.photos[0], found, truth
            )


class _Scores:
    """The metrics of every method and layer, and of the chance maps, as pictures come in."""

    def __init__(
        self,
        metrics: Mapping[str, ImageMetric],
        chance: Sequence[Chance],
        seed: int,
        fitted: Mapping[tuple[_Place, str], tuple[float, ...]],
    ) -> None:
        self.metrics, self.chance, self.seed, self.fitted = metrics, tuple(chance), seed, fitted
        self.every = any(
            isinstance(metric, LocationAveragePrecision) for metric in metrics.values()
        )
        self.guesses = max(
            (m.k for m in metrics.values() if isinstance(m, TopKLocalization)), default=0
        )
        self.pairs: list[_Pair] = []
        self.notes: dict[str, tuple[str, ...]] = {}
        self.remarks: dict[_Place, list[str]] = {}
        self._scored: dict[tuple[_Place, str], ImageMetric] = {}
        self._by_chance: dict[tuple[Chance, str], ImageMetric] = {}

    def of(
        self,
        study: _Study,
        data: LabeledImages,
        on_bad_image: OnBadImage | None,
        progress: Progress | None,
        parts: Parts | None = None,
    ) -> _Scores:
        """Scores a data set, and returns this."""
        for start in range(0, len(data), study.batch_size):
            indices = range(start, min(start + study.batch_size, len(data)))
            explained = study.explained(
                data, indices, every=self.every, guesses=self.guesses, on_bad_image=on_bad_image
            )
            if explained is not None:
                self._add(*explained)
                if parts:
                    parts.offer(lambda: self.evaluation(study, data, finished=False))
            if progress:
                progress(indices.stop, len(data))
        if not self.pairs:
            raise InputError(
                f"no picture of {data.title} that can be read shows a class; localisation needs some"
            )
        return self

    def _add(self, batch: _Batch, groups: Sequence[tuple[_Place, list[Attribution]]]) -> None:
        scores = [attribution.scores for attribution in groups[0][1]]
        for place, group in groups:
            for attribution in group:
                self.remarks.setdefault(place, []).extend(
                    named_remarks(batch.marked.names, attribution)
                )
            for name, metric in self.metrics.items():
                if (place, name) not in self._scored:
                    fresh = metric.for_method(None)
                    if (place, name) in self.fitted and isinstance(fresh, MaxBoxAccuracy):
                        fresh.validation = self.fitted[place, name]
                    self._scored[place, name] = fresh
                batch.feed(
                    self._scored[place, name], [attribution.map for attribution in group], scores
                )
        drawn = chance_maps(batch.marked.x, seed=self.seed) if self.chance else {}
        for chance in self.chance:
            for name, metric in self.metrics.items():
                level = self._by_chance.setdefault((chance, name), metric.for_method(None))
                batch.feed(level, [drawn[chance]] * len(scores), scores)
        marked = batch.marked
        self.notes |= {
            name: notes for name, notes in zip(marked.names, marked.notes, strict=True) if notes
        }
        self.pairs += [(batch.marked.indices[i], label) for i, label in batch.pairs]

    def evaluation(
        self,
        study: _Study,
        data: LabeledImages,
        *,
        cases: tuple[Case, ...] = (),
        finished: bool = True,
    ) -> LocalisationEvaluation:
        """What was found."""
        return LocalisationEvaluation(
            study.model.name,
            tuple(f"{data.names[i]}: {data.classes[label]}" for i, label in self.pairs),
            self._rows(),
            title=data.title,
            cases=cases,
            notes=self.notes,
            finished=finished,
        )

    def _rows(self) -> tuple[Row, ...]:
        levels = {place: metric.compute() for place, metric in self._by_chance.items()}
        return tuple(
            Row(
                *place,
                TRUE_CLASS,
                name,
                metric.compute(),
                {c: levels[c, name] for c in self.chance},
                tuple(dict.fromkeys(self.remarks.get(place, ()))),
            )
            for (place, name), metric in self._scored.items()
        )

    def thresholds(self) -> dict[tuple[_Place, str], tuple[float, ...]]:
        """The threshold of each MaxBoxAcc that is best for these pictures."""
        return {
            key: metric.compute().figures["oracle"].thresholds
            for key, metric in self._scored.items()
        }

    def extremes(
        self, count: int
    ) -> Iterator[tuple[_Place, list[tuple[_Pair, float]], list[tuple[_Pair, float]]]]:
        """For each method and layer the best and the worst pairs, by the first metric, then by the others."""
        judged = [
            n
            for n, m in self.metrics.items()
            if not isinstance(m, TopKLocalization | LocationAveragePrecision)
        ]
        for place in dict.fromkeys(place for place, _ in self._scored):
            if not judged or not count:
                return
            values = np.stack(
                [self._scored[place, name].compute().values for name in judged]
            )  # (metrics, pairs)
            known = np.flatnonzero(~np.isnan(values[0]))
            order = known[np.lexsort(np.nan_to_num(values[::-1, known]))]  # worst first
            told = [(self.pairs[i], float(values[0, i])) for i in order]
            few = min(count, len(told) // 2)
            yield place, told[len(told) - few :][::-1], told[:few]
