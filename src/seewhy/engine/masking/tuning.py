"""Batch size, memory format and precision, found by a quick measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...maps.ranks import mean_ranks
from ..black_box import BlackBox
from ..call import Call
from ..keys import Remembered
from .running import MemoryFormat, Precision, Running

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

_measured_before: Remembered[Running] = Remembered()


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
        call: the model that `measure` runs.
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
        _how_much_is_worth_measuring(total),
        step,
    )
    found = _measured_before.get(
        call.module, key, lambda: _measured_running(asked, measure, picture, total, step)
    )
    return replace(found, progress=running.progress)


def _how_much_is_worth_measuring(total: int) -> int:
    return (total >= FORMAT_WORTH_MEASURING) + (total >= WORTH_MEASURING)


def _measured_running(
    running: Running, measure: Measure, picture: Tensor, total: int, step: int
) -> Running:
    kind = picture.device.type
    most = running.batch_size or _most_within_memory(running, measure, picture)
    probed = max(1, min(most, PROBED.get(kind, PROBED_ELSEWHERE)))
    if running.memory_format == "auto":
        worth_it = total >= FORMAT_WORTH_MEASURING
        found = _faster_format(running, measure, probed) if worth_it else "contiguous"
        running = replace(running, memory_format=found)
    if total < WORTH_MEASURING:
        usual = max(step, min(most, USUAL.get(kind, USUAL_ELSEWHERE)))
        size = running.batch_size or usual
        return replace(running, batch_size=size, precision=_precision_to_begin_with(running))
    if running.precision == "auto":
        ranked = min(total, PROBE_OF_RANKING)
        running = replace(running, precision=_precision_that_pays(running, measure, probed, ranked))
    if running.batch_size is None:
        running = replace(running, batch_size=_fastest_batch_size(running, measure, probed, most))
    return running


def _faster_format(running: Running, measure: Measure, probed: int) -> MemoryFormat:
    plainly = replace(
        running, memory_format="contiguous", precision=_precision_to_begin_with(running)
    )
    channels_last = replace(plainly, memory_format="channels_last")
    seconds = _least_seconds(measure, plainly, probed)
    is_faster = _least_seconds(measure, channels_last, probed) < GAIN * seconds
    return "channels_last" if is_faster else "contiguous"


def _precision_to_begin_with(running: Running) -> Precision:
    if running.precision == "auto":
        return "float32"
    return running.precision


def _least_seconds(measure: Measure, running: Running, count: int) -> float:
    """The time for so many pictures: the best of two, after one that warms."""
    best = float("inf")
    for i in range(3):
        start = time.perf_counter()
        measure(running, count)
        best = min(best, time.perf_counter() - start) if i else best
    return best


def _precision_that_pays(running: Running, measure: Measure, probed: int, ranked: int) -> Precision:
    exact = replace(running, precision="float32", batch_size=probed)
    rough = replace(exact, precision="bfloat16")
    if _least_seconds(measure, rough, probed) > GAIN * _least_seconds(measure, exact, probed):
        return "float32"
    ways = zip(measure(exact, ranked).T, measure(rough, ranked).T, strict=True)
    if all(spearman(a, b) >= RANKING_HOLDS for a, b in ways):
        return "bfloat16"
    return "float32"


def spearman(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two lists of scores, equal ones sharing a rank; NaN where one is constant."""
    ranks = torch.cat([mean_ranks(values[None]) for values in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


def _fastest_batch_size(running: Running, measure: Measure, size: int, most: int) -> int:
    """Doubles the batch as long as a picture gets faster."""
    fastest = _least_seconds(measure, replace(running, batch_size=size), size) / size
    while 2 * size <= most:
        seconds = _least_seconds(measure, replace(running, batch_size=2 * size), 2 * size) / (
            2 * size
        )
        if seconds > GAIN * fastest:
            break
        size, fastest = 2 * size, seconds
    return size


def _most_within_memory(running: Running, measure: Measure, picture: Tensor) -> int:
    """How many pictures a batch may have within the memory."""
    kind = picture.device.type
    memory: int = running.memory or _usable_bytes(picture.device)
    single = replace(
        running,
        batch_size=1,
        precision=_precision_to_begin_with(running),
        memory_format="contiguous",
    )
    with LiveMemory() as live:
        measure(single, 1)
    return max(1, min(memory // max(int(live.peak), 1), MOST.get(kind, MOST_ELSEWHERE)))


def _usable_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory) // 4
    return 1 << 30


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations made and that are still in use; `peak` is the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._living: list[tuple[ReferenceType[torch.UntypedStorage], int]] = []
        self.peak = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        before = {id(storage) for storage in _storages((args, kwargs))}
        self._living = [kept for kept in self._living if kept[0]() is not None]
        for storage in _storages(result):
            if id(storage) not in before:
                self._living.append((ref(storage), storage.nbytes()))
        self.peak = max(self.peak, sum(nbytes for _, nbytes in self._living))
        return result


def _storages(values: object) -> list[torch.UntypedStorage]:
    """The memory of the tensors among values, in whatever they are packed."""
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
