"""What an evaluation will take: passes and seconds in closed form, on a clock of its own."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from seewhy.engine.call import Call
from seewhy.metrics import (
    ROAD,
    AverageDrop,
    Complexity,
    Deletion,
    ExplanationMetric,
    Infidelity,
    MaxSensitivity,
    ParameterRandomization,
    PixelFlipping,
    ROADLeRF,
    ROADMoRF,
    SensitivityN,
    Sparsity,
)
from seewhy.metrics.cost import EvaluationCost, estimate
from seewhy.metrics.unit import Unit


class Slow(nn.Module):
    """A model that takes so many seconds of a clock for a batch of so many."""

    def __init__(self, seconds: Callable[[int], float], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.seconds, self.now, self.seen = seconds, 0.0, list[int]()
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def forward(self, x: Tensor) -> Tensor:
        self.now += self.seconds(len(x))
        self.seen.append(len(x))
        return x.mean((2, 3))


X = torch.rand(3, 3, 6, 10)  # 60 pixels


def unit(metric: str, *, by_chance: bool = False) -> Unit:
    return Unit("saliency", None, "top1", metric, by_chance)


@pytest.mark.parametrize(
    ("metric", "passes", "reruns"),
    [
        (Deletion(step=20), 4, 0),
        (Deletion(step=25), 4, 0),
        (PixelFlipping(regions=7), 8, 0),
        (ROAD(shares=(0.1, 0.2, 0.5)), 6, 0),
        (ROADMoRF(shares=(0.1, 0.2, 0.5)), 3, 0),
        (ROADLeRF(shares=(0.1, 0.2, 0.5)), 3, 0),
        (AverageDrop(), 1, 0),
        (Infidelity(samples=11), 11, 0),
        (SensitivityN(sizes=(0.1, 0.2), samples=5), 10, 0),
        (MaxSensitivity(samples=6), 0, 6),
        (Complexity(), 0, 0),
        (Sparsity(), 0, 0),
        (ParameterRandomization(layers=["a", "b"]), 0, 2),
        (ParameterRandomization(), 0, 3),
    ],
)
def test_metrics_say_how_often_they_run_what(
    metric: ExplanationMetric, passes: int, reruns: int
) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(120, 2)
    )
    assert metric.passes(60) == passes
    assert metric.reruns(net) == reruns


def test_seconds_are_those_of_passes_and_of_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Slow(lambda n: 0.1 + 0.01 * n, monkeypatch)  # eight at once: 0.18, each 0.0225
    units: list[tuple[Unit, ExplanationMetric]] = [
        (unit("deletion"), Deletion(step=20)),
        (unit("steady"), MaxSensitivity(samples=6)),
        (unit("deletion", by_chance=True), Deletion(step=20)),
        (unit("steady", by_chance=True), MaxSensitivity(samples=40)),
    ]
    found = estimate(Call(net), X, units, photos=5, explaining=2.0)
    assert (found.photos, found.passes) == (5, 8)
    # two maps and six more; those of chance cost nothing
    assert found.seconds == pytest.approx(5 * (8 * 0.0225 + 8 * 2.0))
    assert max(net.seen) == 8


def test_of_a_slow_model_one_picture_is_run_and_the_better_time_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([9.0, 0.6])
    net = Slow(lambda n: next(times), monkeypatch)
    found = estimate(Call(net), X, [(unit("drop"), AverageDrop())], photos=1, explaining=0.0)
    assert found.seconds == pytest.approx(0.6)
    assert net.seen == [1, 1]


def test_copies_that_take_longer_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Slow(lambda n: 0.1 * n**2, monkeypatch)
    found = estimate(Call(net), X, [(unit("drop"), AverageDrop())], photos=1, explaining=0.0)
    assert found.seconds == pytest.approx(0.1)


@pytest.mark.parametrize("seconds", [0.5, 0.51])
def test_copies_are_run_where_a_picture_takes_half_a_second_at_most(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Slow(lambda n: seconds, monkeypatch)
    estimate(Call(net), X, [(unit("drop"), AverageDrop())], photos=1, explaining=0.0)
    assert set(net.seen) == ({1, 8} if seconds == 0.5 else {1})


def test_of_a_picture_with_further_inputs_no_copies_are_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Shifted(Slow):
        def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
            assert shift is not None
            assert len(shift) == len(x)
            return super().forward(x)

    net = Shifted(lambda n: 0.1 * n, monkeypatch)
    call = Call(net, inputs={"shift": torch.zeros(3, 1)})
    found = estimate(call, X, [(unit("drop"), AverageDrop())], photos=2, explaining=0.0)
    assert found.seconds == pytest.approx(0.2)
    assert net.seen == [1, 1]


def test_a_cost_in_words() -> None:
    assert str(EvaluationCost(1, 1200, 90)).startswith(
        "1 photo, about 1,200 passes for each: about"
    )
    assert str(EvaluationCost(1000, 2, 90)).startswith("1,000 photos, about 2 passes for each")
