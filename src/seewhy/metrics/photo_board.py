"""Photos that were explained, and the board that their maps' scores are put on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..engine.call import Call
from ..engine.targets.classes import ScoreFunction
from ..engine.targets.resolve import ResolvedTarget
from ..errors import InputError
from ..maps.attribution import Attribution
from ..methods.remarks import remarks_of_each
from ..methods.request import Request
from .baselines import Chance, ChanceMethod, chance_maps
from .board import Board, of_chance
from .cost import EvaluationCost, estimate
from .keeping import BatchKept, KeptScores, Photo, PhotoRemarks
from .metric import ExplanationMetric, Kept
from .sanity.rerun import MethodMetric, bound_as
from .unit import Unit

Within = Callable[[int, int], None]  # the number of scores done, and of all


@dataclass(frozen=True, eq=False)
class Explained:
    """A batch that is explained, in so many seconds, and to be scored; targets are the innermost of the order."""

    call: Call
    x: Tensor
    names: Sequence[str]
    targets: Sequence[ResolvedTarget]
    attributions: Sequence[Attribution]
    seconds: float

    def target_of(self, place: int) -> ResolvedTarget:
        """What the attribution at a place of the order explains."""
        return self.targets[place % len(self.targets)]

    def cost(self, tasks: Sequence[Task], photos: int) -> EvaluationCost:
        """What so many photos like these will take."""
        asked = [(task.unit, task.metric) for task in tasks]
        explaining = self.seconds / len(self.x) / len(self.attributions)
        return estimate(self.call, self.x, asked, photos=photos, explaining=explaining)

    def remarks(self) -> list[PhotoRemarks]:
        """For each photo what is said of its maps, with its name and what is explained."""
        told: list[PhotoRemarks] = [[] for _ in self.names]
        for place, a in enumerate(self.attributions):
            target = self.target_of(place).name
            for of_photo, said in zip(told, remarks_of_each(self.names, a), strict=False):
                of_photo += [(a.method, a.layer, target, one) for one in said]
        return told


@dataclass(frozen=True, eq=False)
class Task:
    """Maps of a batch to be scored: an attribution, or chance maps (N, H, W)."""

    unit: Unit
    metric: ExplanationMetric
    score: ScoreFunction
    shown: Attribution | Tensor


class PhotoBoard(Board[ExplanationMetric]):
    """The metrics of faithfulness, which run the model, as photos come in.

    Args:
        request: what is explained.
        metrics, chance: as in `Board`.
        seed: of the random chance map.
    """

    def __init__(
        self,
        request: Request,
        metrics: Mapping[str, ExplanationMetric],
        chance: Sequence[Chance],
        seed: int,
    ) -> None:
        super().__init__(metrics, chance)
        self.request, self.seed = request, seed
        self.chance_methods = {name: ChanceMethod(name, seed=seed) for name in chance}

    def tasks(self, work: Explained) -> list[Task]:
        """What is to be scored of a batch: the maps of methods, then those of chance."""
        tasks = []
        for place, attribution in enumerate(work.attributions):
            target = work.target_of(place)
            for name, metric in self.metrics.items():
                unit = Unit(attribution.method, attribution.layer, target.name, name)
                tasks.append(Task(unit, metric, target.score, attribution))
        drawn = chance_maps(work.x, seed=self.seed) if self.chance else {}
        for target in work.targets:
            for name, metric in self.metrics.items():
                for chance in self.chance:
                    unit = Unit(chance, None, target.name, name, by_chance=True)
                    tasks.append(Task(unit, metric, target.score, drawn[chance]))
        return tasks

    def add(
        self, work: Explained, tasks: Sequence[Task], keeping: BatchKept, within: Within | None
    ) -> None:
        """Does the tasks of a batch, but those whose scores are kept; the batch counts as a whole, or not yet."""
        found = []
        for done, task in enumerate(tasks, start=1):
            known = keeping.read(task.unit)
            if known is None:
                known = self.score(work, task)
                keeping.write(task.unit, known)
            found.append((task.unit, known))
            if within:
                within(done, len(tasks))
        for unit, known in found:
            self.metric(unit).restore(known)
        remarks = work.remarks()
        keeping.finish([unit for unit, _ in found], remarks)
        self._remark_on(remarks)

    def score(self, work: Explained, task: Task) -> Kept:
        """What the metric of a task finds of its maps."""
        metric, shown = self.fresh(task.unit), task.shown
        if isinstance(shown, Attribution):
            if isinstance(metric, MethodMetric):
                metric.method = bound_as(self.request, shown, work.call, work.x)
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
            self.metric(unit).restore(found)
        self._remark_on([kept.remarks(photo) for photo in photos])

    def fresh(self, unit: Unit) -> ExplanationMetric:
        """A metric without images; one of chance maps judges constant maps too, of which some are."""
        if not unit.by_chance:
            return super().fresh(unit)
        (method,) = (each for name, each in self.chance_methods.items() if name == unit.method)
        return of_chance(self.metrics[unit.metric], method)

    def _remark_on(self, remarks: Sequence[PhotoRemarks]) -> None:
        for of_photo in remarks:
            for method, layer, target, said in of_photo:
                self.remark(method, layer, target, [said])
