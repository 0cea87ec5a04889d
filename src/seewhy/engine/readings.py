"""Numbers of a device, read together: each copy to the host waits for all that was launched before it.

What a pass wants to know on the host is noted as tensors on the device, and read in one copy when the first of it is
asked for. What is only to be checked joins the next copy that is made, so that nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby

import torch
from torch import Tensor

from ..errors import SeewhyError

Refuse = Callable[..., None]  # is given what was read, and raises where that is wrong


class Reading:
    """Numbers that are on the host once they are asked for, and with them all that were noted before."""

    def __init__(self, value: Tensor, readings: Readings) -> None:
        self.value: Tensor | None = value.detach()
        self._readings = readings
        self._read: Tensor | None = None

    def tensor(self) -> Tensor:
        """On the CPU, in their own type and shape; whole numbers are right up to 2^24."""
        if self._read is None:
            self._readings.read()
        assert self._read is not None
        return self._read

    def put(self, read: Tensor) -> None:
        assert self.value is not None
        self._read, self.value = read.view(self.value.shape).to(self.value.dtype), None


class Readings:
    """What is noted in one pass.

    Attributes:
        kept: what is found once in the pass, by what it is.
    """

    def __init__(self) -> None:
        self.kept: dict[Hashable, object] = {}
        self._noted: list[Reading] = []
        self._checks: list[tuple[list[Reading], Refuse]] = []
        self._afterwards: list[Callable[[], None]] = []

    def note(self, value: Tensor) -> Reading:
        self._noted.append(Reading(value, self))
        return self._noted[-1]

    def check(self, values: Sequence[Tensor], refuse: Refuse) -> None:
        self._checks.append(([self.note(value) for value in values], refuse))

    def read(self) -> None:
        """Reads what was noted, in one copy from each device, and makes the checks that were waiting for it."""
        noted, self._noted = self._noted, []
        with torch.inference_mode(False), torch.no_grad():
            for _, alike in groupby(sorted(noted, key=_device_of), key=_device_of):
                _read_together(list(alike))
        checks, self._checks = self._checks, []
        for readings, refuse in checks:
            refuse(*(reading.tensor() for reading in readings))

    def afterwards(self, then: Callable[[], None]) -> None:
        """Has something done once the pass has ended well."""
        self._afterwards.append(then)

    def end(self) -> None:
        self.read()
        for then in self._afterwards:
            then()


def _device_of(reading: Reading) -> str:
    assert reading.value is not None
    return str(reading.value.device)


def _read_together(readings: Sequence[Reading]) -> None:
    flat = [reading.value.reshape(-1) for reading in readings if reading.value is not None]
    whole = torch.cat(flat).cpu()
    for reading, part in zip(readings, whole.split([len(each) for each in flat]), strict=True):
        reading.put(part)


PROMPT = ("cpu",)  # where a number is there to be read as soon as it is worked out


def is_read_at_once(x: Tensor) -> bool:
    """Whether a look at a tensor waits for nothing, so that it may spare work."""
    return x.device.type in PROMPT


_of_the_pass: ContextVar[Readings | None] = ContextVar("of_the_pass", default=None)


@contextmanager
def reading_together() -> Iterator[Readings]:
    """Opens a pass, or goes on with the one that is open; what was not read yet is read at its end.

    A check that fails is what is said of a pass that went wrong after it: the rest follows from that.
    """
    outer = _of_the_pass.get()
    if outer is not None:
        yield outer
        return
    readings = Readings()
    token = _of_the_pass.set(readings)
    try:
        yield readings
        readings.end()
    except Exception as error:
        _make_checks_first(readings, error)
        raise
    finally:
        _of_the_pass.reset(token)


def _make_checks_first(readings: Readings, error: Exception) -> None:
    try:
        readings.read()
    except SeewhyError as found:
        raise found from error
    except RuntimeError:  # where the device itself failed nothing can be read
        return


def readings_of_the_pass() -> Readings | None:
    """Those of the pass that is open in this thread."""
    return _of_the_pass.get()


def noted(value: Tensor) -> Reading:
    """Has a tensor read with what else the pass reads; without a pass by itself."""
    return (_of_the_pass.get() or Readings()).note(value)


def checked_later(values: Sequence[Tensor], refuse: Refuse) -> None:
    """Has tensors checked with the next that the pass reads; without a pass now."""
    readings = _of_the_pass.get()
    if readings is not None:
        readings.check(values, refuse)
        return
    alone = Readings()
    alone.check(values, refuse)
    alone.read()


def checked_now() -> None:
    """Makes the checks that wait, before something is done that must not rest on what they refuse."""
    readings = _of_the_pass.get()
    if readings is not None:
        readings.read()


def on_the_host(values: Sequence[Tensor]) -> list[Tensor]:
    """Tensors on the CPU, those of a device moved in one copy."""
    away = [value for value in values if value.device.type != "cpu"]
    if len(away) < 2:
        return [value.cpu() for value in values]
    moved = dict(zip(map(id, away), _moved_together(away), strict=True))
    return [moved.get(id(value), value) for value in values]


def _moved_together(values: Sequence[Tensor]) -> list[Tensor]:
    alone = Readings()
    readings = [alone.note(value) for value in values]
    return [reading.tensor().clone() for reading in readings]  # each with memory of its own
