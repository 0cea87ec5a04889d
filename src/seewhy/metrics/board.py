"""The board that scores are put on: the metrics of every method, layer and target, and of the chance maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from .base import ImageMetric
from .baselines import Chance, ChanceMethod
from .evaluation import Row
from .unit import Unit

KindOfMetric = TypeVar("KindOfMetric", bound=ImageMetric)


def of_chance(metric: KindOfMetric, method: ChanceMethod) -> KindOfMetric:
    """A fresh metric for a chance map, which judges constant maps too, of which some are."""
    judged = [status for status in metric.leave_out if status != "constant"]
    return metric.for_method(method, leave_out=judged)


class Board(Generic[KindOfMetric]):
    """One metric of its own for each unit, as images come in; a subclass says what is scored of a batch.

    Args:
        metrics: what scores, by the names that its rows bear.
        chance: the chance maps that are scored beside the methods.
    """

    def __init__(self, metrics: Mapping[str, KindOfMetric], chance: Sequence[Chance]) -> None:
        self.metrics, self.chance = metrics, tuple(chance)
        self.scored: dict[Unit, KindOfMetric] = {}
        self.remarks: dict[tuple[str, str | None, str], list[str]] = {}

    def metric(self, unit: Unit) -> KindOfMetric:
        """The metric of a unit, made when it is first asked for."""
        if unit not in self.scored:
            self.scored[unit] = self.fresh(unit)
        return self.scored[unit]

    def fresh(self, unit: Unit) -> KindOfMetric:
        """A metric without images, as a unit needs it."""
        return self.metrics[unit.metric].for_method(None)

    def remark(self, method: str, layer: str | None, target: str, said: Iterable[str]) -> None:
        """Notes what is said of single maps that are scored, each with its picture's name."""
        self.remarks.setdefault((method, layer, target), []).extend(said)

    def rows(self) -> tuple[Row, ...]:
        """What was found so far."""
        found = {unit: metric.compute() for unit, metric in self.scored.items()}
        rows = []
        for unit, result in found.items():
            if unit.by_chance:
                continue
            levels = {
                chance: found[Unit(chance, None, unit.target, unit.metric, by_chance=True)]
                for chance in self.chance
            }
            said = dict.fromkeys(self.remarks.get((unit.method, unit.layer, unit.target), ()))
            row = Row(
                unit.method, unit.layer, unit.target, unit.metric, result, levels, tuple(said)
            )
            rows.append(row)
        return tuple(rows)
