"""The board of a data set with boxes or masks: metrics of where maps point, as pictures come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from ...data.dataset import LabeledImages
from ...engine.inputs import settled_input
from ...errors import InputError
from ...maps.attribution import Attribution
from ...methods.explain import Progress
from ...methods.remarks import named_remarks
from ..base import ImageMetric
from ..baselines import Chance, ChanceMethod, chance_maps
from ..board import Board, of_chance
from ..metric import ExplanationMetric
from ..sanity.rerun import MethodMetric, bound_as
from ..unit import Unit
from .box_metrics import MaxBoxAccuracy, TopKLocalization
from .class_metrics import LookAlike
from .evaluation import Case, LocalizationEvaluation
from .metric import LocalizationMetric
from .point_metrics import LocationAveragePrecision
from .study import ByPlace, MarkedBatch, OnBadPicture, Pair, Place, Study

TRUE_CLASS = "true class"
_LOOKED_AT = 16
Fitted = Mapping[Unit, tuple[float, ...]]
Ranked = list[tuple[Pair, float]]  # with the value of the first metric


class LocalizationBoard(Board[ImageMetric]):
    """The metrics of every method and layer, and of the chance maps.

    Args:
        study: what is explained.
        metrics, chance: as in `Board`.
        seed: of the random chance map.
        fitted: the thresholds that other pictures gave, for metrics that take them.

    Attributes:
        pairs: of the data, in the order of the values of metrics that score pairs.
        notes: how the annotations of pictures were mended.
        digests: of the pictures that were scored, and of what is marked in them, by their places in the data.
        done: how many pictures of the data were read, those that cannot be among them.
        is_whole: whether all metrics have the same pictures: not while a batch is added.
    """

    def __init__(
        self,
        study: Study,
        metrics: Mapping[str, ImageMetric],
        chance: Sequence[Chance],
        seed: int,
        fitted: Fitted | None = None,
    ) -> None:
        super().__init__(metrics, chance)
        self.study, self.seed, self.fitted = study, seed, dict(fitted or {})
        kinds = list(metrics.values())
        self.alike = any(isinstance(metric, LookAlike) for metric in kinds)
        self.every = any(isinstance(metric, LocationAveragePrecision) for metric in kinds)
        self.guesses = max((m.k for m in kinds if isinstance(m, TopKLocalization)), default=0)
        self.pairs: list[Pair] = []
        self.notes: dict[str, tuple[str, ...]] = {}
        self.digests: dict[int, str] = {}
        self.done, self.is_whole = 0, True

    def score(
        self,
        *,
        on_bad_image: OnBadPicture | None = None,
        progress: Progress | None = None,
        offer: Callable[[], object] = lambda: None,
    ) -> LocalizationBoard:
        """Scores the pictures of the data that are not done, and returns this.

        Args:
            on_bad_image: as in `read_marked`.
            progress: called with the number of pictures done and of all.
            offer: called after each batch that gave something.
        """
        data, step = self.study.data, self.study.request.batch_size
        for start in range(self.done, len(data), step):
            indices = range(start, min(start + step, len(data)))
            explained = self.study.explained(
                indices,
                every=self.every,
                alike=self.alike,
                guesses=self.guesses,
                on_bad_image=on_bad_image,
            )
            self.is_whole = False
            if start == 0 and explained is not None:
                self._check_marked(explained[0])
            if explained is not None:
                self._add_batch(*explained)
            self.done, self.is_whole = indices.stop, True
            if explained is not None:
                offer()
            if progress:
                progress(self.done, len(data))
        if not self.pairs:
            raise InputError(
                f"no picture of {data.title} that can be read shows a class; localisation needs some"
            )
        return self

    def _check_marked(self, first: MarkedBatch) -> None:
        """Says of data whose first pictures bear no marks that none does, for metrics that compare with them."""
        compared = [m for m in self.metrics.values() if not isinstance(m, ExplanationMetric)]
        if compared and all(truth is None for truth in first.marked.truths):
            check_marked(self.study.data)

    def fresh(self, unit: Unit) -> ImageMetric:
        """A metric without images, with the thresholds that were fitted for it; of chance maps as `of_chance`."""
        metric = super().fresh(unit)
        for chance in self.chance:
            if unit.by_chance and unit.method == chance and isinstance(metric, ExplanationMetric):
                return of_chance(metric, ChanceMethod(chance, seed=self.seed))
        if unit in self.fitted and isinstance(metric, MaxBoxAccuracy):
            metric.validation = self.fitted[unit]
        return metric

    def _add_batch(self, batch: MarkedBatch, groups: ByPlace) -> None:
        marked = batch.marked
        scores = [attribution.scores for attribution in groups[0][1]]
        for place, group in groups:
            self._add_group(batch, place, group, scores)
        drawn = chance_maps(marked.x, seed=self.seed) if self.chance else {}
        for chance in self.chance:
            for name in self.metrics:
                level = self.metric(Unit(chance, None, TRUE_CLASS, name, by_chance=True))
                self._feed(batch, level, [drawn[chance]] * len(scores), scores)
        told = zip(marked.names, marked.notes, strict=True)
        self.notes |= {name: notes for name, notes in told if notes}
        self.digests |= {index: marked.digest(i) for i, index in enumerate(marked.indices)}
        self.pairs += [(marked.indices[i], label) for i, label in marked.pairs]

    def _add_group(
        self,
        batch: MarkedBatch,
        place: Place,
        group: Sequence[Attribution],
        scores: Sequence[Sequence[float]],
    ) -> None:
        for attribution in group:
            self.remark(*place, TRUE_CLASS, named_remarks(batch.marked.names, attribution))
        maps = [attribution.map for attribution in group]
        for name in self.metrics:
            metric = self.metric(Unit(*place, TRUE_CLASS, name))
            if isinstance(metric, MethodMetric):
                request, x = self.study.request, batch.marked.x
                call, x = settled_input(request.call, x.to(request.model.device))
                metric.method = bound_as(request, group[0], call, x)
            self._feed(batch, metric, maps, scores)

    def _feed(
        self,
        batch: MarkedBatch,
        metric: ImageMetric,
        maps: Sequence[Tensor],
        scores: Sequence[Sequence[float]],
    ) -> None:
        if isinstance(metric, ExplanationMetric):
            batch.feed_asking(metric, maps, self.study.request.model, self.study.classes)
        else:
            batch.feed(metric, maps, scores)

    def evaluation(
        self, *, cases: tuple[Case, ...] = (), finished: bool = True
    ) -> LocalizationEvaluation:
        """What was found."""
        data = self.study.data
        return LocalizationEvaluation(
            self.study.request.model.name,
            tuple(f"{data.names[i]}: {data.classes[label]}" for i, label in self.pairs),
            self.rows(),
            title=data.title,
            cases=cases,
            notes=self.notes,
            finished=finished,
        )

    def thresholds(self) -> dict[Unit, tuple[float, ...]]:
        """The threshold of each MaxBoxAcc that is best for these pictures."""
        return {
            unit: metric.compute().figures["oracle"].thresholds
            for unit, metric in self.scored.items()
        }

    def extremes(self, count: int) -> Iterator[tuple[Place, Ranked, Ranked]]:
        """For each method and layer the best and the worst pairs, by the first metric, then by the others."""
        of_pairs = [
            name
            for name, metric in self.metrics.items()
            if isinstance(metric, LocalizationMetric)
            and not isinstance(metric, LocationAveragePrecision | LookAlike)
        ]
        if not of_pairs or not count:
            return
        units = [unit for unit in self.scored if not unit.by_chance]
        for place in dict.fromkeys((unit.method, unit.layer) for unit in units):
            ranked = self._worst_first(place, of_pairs)
            few = min(count, len(ranked) // 2)
            yield place, ranked[len(ranked) - few :][::-1], ranked[:few]

    def _worst_first(self, place: Place, of_pairs: Sequence[str]) -> Ranked:
        """The pairs for which the first of metrics has a value; the others decide between equal ones."""
        each = [Unit(*place, TRUE_CLASS, name) for name in of_pairs]
        values = np.stack([self.scored[unit].compute().values for unit in each])
        known = np.flatnonzero(~np.isnan(values[0]))  # values are (metrics, pairs)
        order = known[np.lexsort(np.nan_to_num(values[::-1, known]))]
        return [(self.pairs[i], float(values[0, i])) for i in order]


def check_marked(data: LabeledImages) -> None:
    """Says that nothing is marked in any picture, once all are looked at, a few from everywhere first."""
    step = max(1, len(data) // _LOOKED_AT)
    for index in sorted(range(len(data)), key=lambda i: (i % step, i)):
        try:
            if data[index].truth is not None:
                return
        except InputError:  # it is told when it is scored
            return
    way_out = "give data that do, such as voc:, coco: or a CSV file with x0,y0,x1,y1"
    raise InputError(
        f"{data.title} marks no object, neither by a mask nor by a box; {way_out} "
        "(pair_share and grid_pointing need none: pictures are made)"
    )
