"""How masked pictures are run: what is measured from how many on, on a clock of its own, and within which bounds."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.engine.call import Call
from seewhy.engine.masking import (
    Blur,
    MeanColor,
    PatchMasks,
    Running,
    Several,
    Zeros,
    keep_allocator_memory,
    settle,
    tuning,
)
from seewhy.engine.targets.classes import Logit
from tiny_models import Called, pictures

Cost = Callable[[Running, int], float]
AUTO = Running(precision="auto")


class Measured:
    """A measurement on a clock of its own, and the ways and counts that were measured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: Cost) -> None:
        self.now, self.asked, self.cost = 0.0, list[tuple[Running, int]](), cost
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def __call__(self, way: Running, count: int) -> Tensor:
        self.asked.append((way, count))
        self.now += self.cost(way, count)
        return torch.linspace(0, 1, count)[:, None].double()

    def settled(self, running: Running, total: int, step: int = 1, device: str = "cpu") -> Running:
        return tuning.settled(
            running,
            self,
            call=Call(nn.Identity()),
            picture=torch.zeros(3, 8, 8, device=device),
            total=total,
            step=step,
        )


def in_proportion(way: Running, count: int) -> float:
    """A picture takes the same however many go together."""
    return count


def growing(way: Running, count: int) -> float:
    """The more pictures go together, the less each takes."""
    return 1000 + count


def faster_by_a_twentieth(way: Running, count: int) -> float:
    """Of eight pictures each takes exactly the share of the time that is worth it, of more no less."""
    return count * (20 if count < 8 else 19)


@pytest.mark.parametrize(
    ("total", "measured"),
    [
        (1, set()),
        (127, set()),
        (128, {"formats"}),
        (511, {"formats"}),
        (512, {"formats", "precisions", "sizes"}),
    ],
)
def test_what_is_measured_is_worth_it(
    total: int, measured: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Measured(monkeypatch, growing)
    found = clock.settled(AUTO, total)
    timed = [way for way, count in clock.asked if count > 1]
    assert ({way.memory_format for way in timed} == {"contiguous", "channels_last"}) == (
        "formats" in measured
    )
    assert any(way.precision == "bfloat16" for way in timed) == ("precisions" in measured)
    assert any(count > 32 for _, count in clock.asked) == ("sizes" in measured)
    assert found.batch_size == (64 if "sizes" in measured else 16)
    assert (found.memory_format, found.precision) == ("contiguous", "float32")


def test_what_is_said_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Measured(monkeypatch, growing)
    said = Running(batch_size=7, precision="bfloat16", memory_format="channels_last")
    assert clock.settled(said, 10_000) == said
    assert clock.asked == []


def test_progress_goes_along_and_makes_no_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, call = Measured(monkeypatch, growing), Call(nn.Identity())

    def told(done: int, total: int) -> None:
        raise AssertionError("measuring tells nobody")

    how: dict[str, Any] = {"call": call, "picture": torch.zeros(3, 8, 8), "total": 600}
    found = tuning.settled(Running(progress=told), clock, **how)
    assert found.progress is told
    times = len(clock.asked)
    assert tuning.settled(Running(), clock, **how) == Running(64, None, "float32", "contiguous")
    assert len(clock.asked) == times


@pytest.mark.parametrize(("share", "taken"), [(0.94, "channels_last"), (0.96, "contiguous")])
def test_a_gain_of_a_twentieth_is_taken(
    share: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost(way: Running, count: int) -> float:
        return count * (share if way.memory_format == "channels_last" else 1)

    assert Measured(monkeypatch, cost).settled(Running(), 200).memory_format == taken


@pytest.mark.parametrize(("share", "taken"), [(0.94, "bfloat16"), (0.96, "float32")])
def test_a_precision_is_taken_for_as_much(
    share: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost(way: Running, count: int) -> float:
        return count * (share if way.precision == "bfloat16" else 1)

    assert Measured(monkeypatch, cost).settled(AUTO, 600).precision == taken


def test_the_first_run_warms_and_the_better_of_two_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    met: dict[str, int] = {}
    last = {"contiguous": [9.0, 5.0, 4.0], "channels_last": [90.0, 3.0, 50.0]}

    def cost(way: Running, count: int) -> float:
        if count == 1:  # how much memory one takes
            return 0.0
        turn = met[way.memory_format] = met.get(way.memory_format, -1) + 1
        return last[way.memory_format][turn]

    assert Measured(monkeypatch, cost).settled(Running(), 200).memory_format == "channels_last"


@pytest.mark.parametrize(
    ("cost", "total", "step", "size"),
    [
        (in_proportion, 600, 1, 4),  # the batch that is probed
        (faster_by_a_twentieth, 600, 1, 8),
        (growing, 600, 1, 64),  # no larger on a CPU
        (growing, 500, 1, 16),  # usual
        (growing, 500, 24, 24),  # those of one mask together
    ],
)
def test_batches_grow_within_bounds(
    cost: Cost, total: int, step: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Measured(monkeypatch, cost).settled(Running(), total, step).batch_size == size


@pytest.mark.parametrize(
    ("cost", "total", "size"),
    [(in_proportion, 600, 32), (growing, 10_000, 512), (growing, 500, 64)],
)
def test_batches_are_larger_beside_the_cpu(
    cost: Cost, total: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Measured(monkeypatch, cost).settled(Running(), total, device="meta")
    assert found.batch_size == size


def test_a_batch_may_take_a_gibibyte_or_a_quarter_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(way: Running, count: int) -> Tensor:
        """Of one picture a tensor of 2^28 - 8 bytes lives, of two small ones one at a time."""
        for _ in range(2):
            torch.empty(10, device="meta")
        return torch.empty(count, 2**25 - 1, dtype=torch.float64, device="meta")

    x = torch.zeros(3, 8, 8)
    how: dict[str, Any] = {"call": Call(nn.Identity()), "picture": x, "total": 100}
    assert tuning.settled(Running(), measure, **how).batch_size == 4
    several = tuning.settled(Running(), measure, **{**how, "call": Call(nn.Identity())}, step=3)
    assert several.batch_size == 4
    gpu = SimpleNamespace(total_memory=1003)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    assert tuning._usable_bytes(torch.device("cuda")) == 250
    assert tuning._usable_bytes(torch.device("cpu")) == 2**30


def test_more_pictures_are_measured_anew_and_as_many_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, call = Measured(monkeypatch, growing), Call(nn.Identity())
    sizes, times = [], []
    for total in (100, 127, 128, 511, 512, 100, 600):
        how: dict[str, Any] = {"call": call, "picture": torch.zeros(3, 8, 8), "total": total}
        sizes.append(tuning.settled(Running(), clock, **how).batch_size)
        times.append(len(clock.asked))
    assert sizes == [16, 16, 16, 16, 64, 16, 64]
    assert times[0] == times[1] < times[2] == times[3] < times[4] == times[5] == times[6]


def test_memory_for_a_batch_is_what_one_picture_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Measured(monkeypatch, growing)

    def measure(way: Running, count: int) -> Tensor:
        clock(way, count)
        return torch.zeros(count, 25, dtype=torch.float64)[:, :1]  # 200 bytes

    how: dict[str, Any] = {"picture": torch.zeros(3, 8, 8), "total": 100}
    for memory, size in ((1000, 5), (1199, 5), (199, 1), (10**6, 16)):
        call = Call(nn.Identity())
        found = tuning.settled(Running(memory=memory), measure, call=call, **how)
        assert found.batch_size == size
    with tuning.LiveMemory() as live:
        pass
    assert live.peak == 0


def test_measuring_runs_so_many_pictures_whatever_the_baselines() -> None:
    seen: list[int] = []
    net = Called(lambda x: seen.append(len(x)) or x.mean((2, 3)))
    boxes = torch.tensor([[0, 0, 4, 4]]).repeat(400, 1)
    several = Several((Zeros(), MeanColor(), Blur(3, 1.0), Zeros()))
    settle(net, pictures(1, 8), [PatchMasks(boxes, (8, 8))], [Logit(0)], baseline=several)
    assert set(seen) <= {1, 4, 8, 16, 32, 64}
    assert max(seen) <= 64


def test_the_allocator_is_told_what_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        told.append((parameter, value))
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    monkeypatch.setattr("sys.platform", "linux")
    assert keep_allocator_memory()
    # malloc.h: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD
    assert told == [(-3, 2**30), (-1, 2**31 - 1)]
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda *_: 0))
    assert not keep_allocator_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not keep_allocator_memory()
    monkeypatch.setattr("sys.platform", "darwin")
    assert not keep_allocator_memory()
