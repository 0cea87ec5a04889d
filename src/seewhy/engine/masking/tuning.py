"""Batch size, memory format and precision, found by a quick measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...maps.ranks import mean_ranks
from ..black_box import BlackBox
from ..call import Call
from ..keys import Remembered
from .running import Running

WORTH_MEASURING = 512  # masked pictures; below, measuring costs more than it gains
FORMAT_WORTH_MEASURING = 128  # that of the format takes two dozen
GAIN = 0.95  # what is to be chosen takes at most this share of the time
RANKING_HOLDS = 0.99
MOST = {"cpu": 64}  # pictures in a batch; more only take memory
MOST_ELSEWHERE = 512
USUAL = {"cpu": 16}
USUAL_ELSEWHERE = 64
PROBED = {"cpu": 4}
PROBED_ELSEWHERE = 32
PROBE_OF_RANKING = 32

Measure = Callable[[Running, int], Tensor]  # the scores of the first so many masked pictures

_found: Remembered[Running] = Remembered()


def settled(
    running: Running,
    measure: Measure,
    *,
    call: Call,
    picture: Tensor,
    total: int,
    step: int = 1,
) -> Running:
    """Returns how to run with nothing left to be found.

    What is measured is kept for the call, the shape and the place of the picture, so that a repeated explanation is
    run alike.

    Args:
        running: as asked for.
        measure: runs so many masked pictures.
        picture: (C, H, W), on the model's device.
        total: masked pictures to come.
        step: pictures that go together, one for each of several baselines.
    """
    if isinstance(
        call.module, BlackBox
    ):  # its calls may cost more than time, and it takes float32 as it comes
        total = 0
    asked = replace(running, progress=None)
    key = (
        call.asked,
        asked,
        tuple(picture.shape),
        picture.dtype,
        str(picture.device),
        _worth(total),
        step,
    )
    found = _found.get(call.module, key, lambda: _settle(asked, measure, picture, total, step))
    return replace(found, progress=running.progress)


def _worth(total: int) -> int:
    return (total >= FORMAT_WORTH_MEASURING) + (total >= WORTH_MEASURING)


def _settle(running: Running, measure: Measure, picture: Tensor, total: int, step: int) -> Running:
    kind = picture.device.type
    most = running.batch_size or _affordable(running, measure, picture)
    probed = max(1, min(most, PROBED.get(kind, PROBED_ELSEWHERE)))
    if running.memory_format == "auto" and total < FORMAT_WORTH_MEASURING:
        running = replace(running, memory_format="contiguous")
    elif running.memory_format == "auto":
        formats = [
            replace(running, memory_format=name, precision=_first(running)) for name in _FORMATS
        ]
        plainly, channels_last = (_seconds(measure, way, probed) for way in formats)
        running = replace(running, memory_format=_FORMATS[channels_last < GAIN * plainly])
    if total < WORTH_MEASURING:
        usual = max(step, min(most, USUAL.get(kind, USUAL_ELSEWHERE)))
        return replace(running, batch_size=running.batch_size or usual, precision=_first(running))
    if running.precision == "auto":
        running = replace(
            running, precision=_precision(running, measure, probed, min(total, PROBE_OF_RANKING))
        )
    return (
        running
        if running.batch_size
        else replace(running, batch_size=_batch_size(running, measure, probed, most))
    )


_FORMATS: tuple[Any, ...] = ("contiguous", "channels_last")


def _first(running: Running) -> Any:
    return "float32" if running.precision == "auto" else running.precision


def _seconds(measure: Measure, running: Running, count: int) -> float:
    """The time for so many pictures: the best of two, after one that warms."""
    best = float("inf")
    for i in range(3):
        start = time.perf_counter()
        measure(running, count)
        best = min(best, time.perf_counter() - start) if i else best
    return best


def _precision(running: Running, measure: Measure, probed: int, ranked: int) -> Any:
    exact, rough = (replace(running, precision=name, batch_size=probed) for name in _PRECISIONS)
    if _seconds(measure, rough, probed) > GAIN * _seconds(measure, exact, probed):
        return "float32"
    ways = zip(measure(exact, ranked).T, measure(rough, ranked).T, strict=True)
    return "bfloat16" if all(spearman(a, b) >= RANKING_HOLDS for a, b in ways) else "float32"


_PRECISIONS: tuple[Any, ...] = ("float32", "bfloat16")


def spearman(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two lists of scores, equal ones sharing a rank; NaN where one is constant."""
    ranks = torch.cat([mean_ranks(values[None]) for values in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


def _batch_size(running: Running, measure: Measure, size: int, most: int) -> int:
    """Doubles the batch as long as a picture gets faster."""
    fastest = _seconds(measure, replace(running, batch_size=size), size) / size
    while 2 * size <= most:
        seconds = _seconds(measure, replace(running, batch_size=2 * size), 2 * size) / (2 * size)
        if seconds > GAIN * fastest:
            break
        size, fastest = 2 * size, seconds
    return size


def _affordable(running: Running, measure: Measure, picture: Tensor) -> int:
    """How many pictures a batch may have within the memory."""
    kind = picture.device.type
    memory: int = running.memory or _memory(picture.device)
    single = replace(running, batch_size=1, precision=_first(running), memory_format=_FORMATS[0])
    with LiveMemory() as live:
        measure(single, 1)
    return max(1, min(memory // max(int(live.peak), 1), MOST.get(kind, MOST_ELSEWHERE)))


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory) // 4
    return 1 << 30


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations made and that are still in use; `peak` is the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._living: list[tuple[ReferenceType[torch.UntypedStorage], int]] = []
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        before = {
            id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)
        }
        made = [t.untyped_storage() for t in tree_leaves(result) if isinstance(t, Tensor)]
        self._living = [kept for kept in self._living if kept[0]() is not None]
        self._living += [
            (ref(storage), storage.nbytes()) for storage in made if id(storage) not in before
        ]
        self.peak = max(self.peak, sum(nbytes for _, nbytes in self._living))
        return result
