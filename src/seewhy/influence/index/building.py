"""How the rows of an index are made: the estimate, the curvature, and shard by shard what is stored of each example."""

from __future__ import annotations

import copy
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.store import Store, pack, unpack
from ...engine.keys import digest
from ...engine.spread import World
from ...errors import InputError, ModelError, SeewhyError, SeewhyWarning
from ...remarks import heard
from ...render.reading import clock_words
from ..gradients.curvature import SINGLE
from ..gradients.projection import kept_bytes
from ..problem import WORKING, Batch, Problem, Rows, identity
from ..solvers.solver import Growing, SelfFromRows, Solver, held_gradients, is_whitening
from .examples import Joined

LABELS = "example.labels"  # beside the solver's own rows
_SELF = "self_influence"
_SHARD_BYTES = 64 * 2**20
_MOST_ROWS = 65_536  # of a shard

Tell = Callable[[int, int], None]
Make = Callable[
    [str, int, int], Iterator[Rows]
]  # of a file's name, and the examples from which and to which it goes


@dataclass(frozen=True)
class Cost:
    """What an index will take, roughly.

    Attributes:
        examples: of the training data.
        disk: bytes of what is stored.
        memory: bytes beside the model's own.
        seconds: None where one batch could not tell.

    Example:
        >>> from seewhy.influence import InfluenceIndex
        >>> told = []
        >>> _ = InfluenceIndex.fit(net, (images, labels), l2=0.01, announce=told.append)
        >>> told[0].examples, told[0].disk > 0
        (6, True)
    """

    examples: int
    disk: int
    memory: int
    seconds: float | None

    def __str__(self) -> str:
        took = "" if self.seconds is None else f", {clock_words(self.seconds)}"
        return f"{self.examples:,} examples: about {_bytes(self.disk)} on disk, {_bytes(self.memory)} of memory{took}"


def _bytes(n: int) -> str:
    value, unit = float(n), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value >= 1000:
            value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


@dataclass(frozen=True)
class Reading:
    """How training examples are read: so many at a time, by so many processes; results do not depend on it."""

    batch_size: int
    workers: int


@dataclass(eq=False)
class Building:
    """Everything that the rows of an index depend on, and where they go.

    Attributes:
        key: what the curvature depends on, short; its file's name.
        segments: for each data set what its rows depend on, short; their files' names.
        kept: the positions of the examples that count.
        outputs: the model's classes.
        dtype: what floating point is stored as; None as the solver gives it.
        shard_rows: how many examples a shard holds; None until `rows` has found out.
    """

    store: Store
    world: World
    solver: Solver
    problem: Problem
    data: Joined
    key: str
    segments: Sequence[str]
    kept: Sequence[int]
    outputs: int
    dtype: torch.dtype | None
    shard_rows: int | None
    reading: Reading
    progress: Tell | None = None

    def batches(self) -> Iterable[Batch]:
        """This process's share of the examples that count."""
        chunks = _chunks(self.kept, self.reading.batch_size)
        if len(chunks) < self.world.size:
            raise InputError(
                f"{len(self.kept)} examples in batches of batch_size={self.reading.batch_size} leave some of the "
                f"{self.world.size} processes without any; start fewer, or give a smaller batch_size"
            )
        return self.data.batches(
            self.world.mine(chunks), classes=self.outputs, workers=self.reading.workers
        )

    def first(self, count: int) -> Batch:
        """The first examples of the newest data, the same in every process."""
        start = len(self.data) - len(self.data.parts[-1])
        positions = [range(start, min(start + count, len(self.data)))]
        return next(iter(self.data.batches(positions, classes=self.outputs)))

    def estimate(self) -> Cost:
        """Tries the solver on a few examples and on a batch, and reckons.

        Raises:
            ModelError: the solver cannot do with the model.
        """
        begun = time.perf_counter()
        images, labels = self.first(self.reading.batch_size)
        reading = (time.perf_counter() - begun) / len(images) / max(1, self.reading.workers)
        n, few = len(self.data), max(1, len(images) // 4)
        trial, took = copy.deepcopy(self.solver), None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SeewhyWarning)
                self._timed_fit(
                    copy.deepcopy(self.solver), images[:few], labels[:few]
                )  # what is slow once
                passing, once = self._timed_fit(trial, images, labels)
            begun = time.perf_counter()
            rows = pack(trial.train_rows(self.problem, images[:few], labels[:few]), self.dtype)
            storing = (time.perf_counter() - begun) / few
            each = _size(rows) // few
            state = trial.state_bytes(n) if isinstance(trial, Growing) else _size(trial.state())
            one = passing / len(images) + storing + reading * (self.solver.passes + 1)
            took = once + one * n / self.world.size
        except ModelError:  # it will not get better with more batches
            raise
        except (SeewhyError, RuntimeError):  # a batch alone may have no curvature to speak of
            rows = self._rows_unfitted(trial, images[:few], labels[:few])
            state = 0
            each = _size(rows) // len(next(iter(rows.values())))
        shard = 3 * min(
            n * each, max(_SHARD_BYTES, each * min(self.reading.batch_size, _MOST_ROWS))
        )
        memory = 3 * state + max(
            self._working(rows), shard
        )  # the state three times, as it is written
        return Cost(n, n * each + state, memory, took)

    def _timed_fit(self, trial: Solver, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Fits a solver on these alone; the seconds of its passes over them, and the others."""
        spent = 0.0

        def batches() -> Iterator[Batch]:
            nonlocal spent
            begun = time.perf_counter()
            yield images, labels
            spent += time.perf_counter() - begun  # until the next batch is asked for

        begun = time.perf_counter()
        trial.fit(self.problem, batches, reduce=identity)
        return spent, time.perf_counter() - begun - spent

    def _rows_unfitted(self, trial: Solver, images: Tensor, labels: Tensor) -> Rows:
        """Stored rows of a solver that could not be fitted, as large as all weights where it needs that."""
        try:
            return pack(trial.train_rows(self.problem, images, labels), self.dtype)
        except (SeewhyError, RuntimeError):
            return {"rows": self.problem.flat()[None]}

    def _working(self, rows: Rows) -> int:
        """The bytes of examples' gradients that are worked on together, about."""
        together = min(self.reading.batch_size, len(self.data))
        dim = dict(self.solver.settings).get("dim")
        weights = self.problem.flat()
        whole = int(
            2.5 * weights.numel() * weights.element_size()
        )  # an example's, with what it is put together from
        held = held_gradients(self.solver)
        if held == "all" or dim is not None:
            drawn = kept_bytes(weights.numel(), dim) if isinstance(dim, int) else 0
            return together * whole + len(self.problem.calls) * drawn
        watched = min(SINGLE, together) * whole if held == "few" else 0
        each = math.prod(
            tensor[0].numel() for tensor in rows.values() if tensor.ndim > 1
        )  # their outer product
        return watched + 3 * torch.float64.itemsize * min(each * together, max(each, WORKING))

    def curvature(self) -> tuple[str, ...]:
        """Fits the solver, or takes back what it found before; returns what is to know of the fit."""
        name = curvature_file(self.key)
        if not all(self.world.gather(self.store.intact(name))):
            remarks = self._fit()
            self._keep(name, remarks)
            return remarks
        self.solver.load(self.problem, self.store.read(name))
        return self._fit() if self.solver.streams else self.store.remarks(name)

    def _fit(self) -> tuple[str, ...]:
        """Fits the solver; returns its warnings."""
        counter = _Counter(self.progress, len(self.kept) * max(self.solver.passes, 1))
        # solvers ask which of the two it is
        reduce = self.world.sum if self.world.size > 1 else identity
        with heard() as said:
            self.solver.fit(self.problem, self.batches, reduce=reduce, progress=counter)
        return tuple(dict.fromkeys(said))

    def _keep(self, name: str, remarks: tuple[str, ...]) -> None:
        """Writes what the solver found, if it found anything."""
        state = self.solver.state()
        if not state:
            return
        if is_whitening(self.solver):
            # rows of another fit, or another machine's eigenvectors, do not go with it
            rows = [file for file in self.store.files if file.startswith(self._prefixes())]
            self.store.forget(*rows)
            self.solver.load(self.problem, self.world.first(state))
        if self.world.rank == 0:
            self.store.forget(name)
            self.store.write(name, state, remarks=remarks)

    def _prefixes(self) -> tuple[str, ...]:
        """What the names of each data set's shards begin with."""
        return tuple(f"rows-{key}-" for key in self.segments)

    def rows(self) -> list[str]:
        """Writes every shard that is not there whole; returns their names, in order."""
        plan = self._planned_shards(self.shard_rows) if self.shard_rows else {}
        missing = self._missing(plan)
        if missing or not plan:
            images, labels = self.first(1)
            each = max(1, _size(self._rows_of(images, labels)))
            rows = self.shard_rows or min(_MOST_ROWS, max(1, _SHARD_BYTES // each))
            self.shard_rows, plan = rows, self._planned_shards(rows)
            missing = self._missing(plan)
            self._demand_room(each * sum(plan[name][1] - plan[name][0] for name in missing))
        self._write_missing(plan, missing, lambda _, start, stop: self._rows(start, stop))
        return list(plan)

    def self_influence(self, shards: Sequence[str], key: str) -> list[str]:
        """Writes for each shard of rows the influence of its examples on themselves; returns the files' names."""
        plan, rows = {}, {}
        for shard in shards:
            entry = self.store.files[shard]
            name = f"self-{key}-{entry.start:09d}.safetensors"
            plan[name] = (entry.start, entry.start + entry.count)
            rows[name] = shard

        def make(name: str, start: int, stop: int) -> Iterator[Rows]:
            return self._of_themselves(rows[name], start, stop)

        self._write_missing(plan, self._missing(plan), make, together=self.solver.streams)
        return list(plan)

    def _of_themselves(self, shard: str, start: int, stop: int) -> Iterator[Rows]:
        """What the examples of a shard do to themselves: from their rows where the solver can do with these."""
        if isinstance(self.solver, SelfFromRows):
            stored = self.store.read(shard)
            del stored[LABELS]
            for i in range(0, stop - start, self.reading.batch_size):
                few = unpack(
                    {key: rows[i : i + self.reading.batch_size] for key, rows in stored.items()},
                    torch.float64,
                )
                yield {_SELF: self.solver.self_of_rows(self.problem, few).double()}
        else:
            for images, labels in self._examples(start, stop):
                yield {_SELF: self.solver.self_influence(self.problem, images, labels).double()}

    def _rows(self, start: int, stop: int) -> Iterator[Rows]:
        """What is stored of the examples at these positions, batch by batch."""
        for images, labels in self._examples(start, stop):
            yield self._rows_of(images, labels)

    def _examples(self, start: int, stop: int) -> Iterable[Batch]:
        chunks = _chunks(range(start, stop), self.reading.batch_size)
        return self.data.batches(chunks, classes=self.outputs, workers=self.reading.workers)

    def _missing(self, plan: Iterable[str]) -> list[str]:
        """What is not there whole, as the first process sees it: another may look when files are made already."""
        return self.world.gather([name for name in plan if not self.store.intact(name)])[0]

    def _write_missing(
        self,
        plan: Mapping[str, tuple[int, int]],
        missing: list[str],
        make: Make,
        *,
        together: bool = False,
    ) -> None:
        """Writes this process's share of what is missing, and waits for the others.

        Where making adds up over the processes, they go through all of it `together`, and the first one writes.
        """
        mine = missing if together else self.world.mine(missing)
        counter = _Counter(self.progress, sum(plan[name][1] - plan[name][0] for name in mine))
        for name in mine:
            start, stop = plan[name]
            parts: list[Rows] = []
            for part in make(name, start, stop):
                parts.append(part)
                counter(len(next(iter(part.values()))))
            if together and self.world.rank:
                continue
            self.store.forget(name)
            rows = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
            self.store.write(
                name, rows, start=start, names=[self.data.name(i) for i in range(start, stop)]
            )
        self.world.gather(None)

    def _planned_shards(self, rows: int) -> dict[str, tuple[int, int]]:
        """The shards: their names, with the positions from which and to which each goes."""
        plan, begin = {}, 0
        for prefix, part in zip(self._prefixes(), self.data.parts, strict=True):
            for start in range(begin, begin + len(part), rows):
                stop = min(start + rows, begin + len(part))
                plan[f"{prefix}{start:09d}.safetensors"] = (start, stop)
            begin += len(part)
        return plan

    def _rows_of(self, images: Tensor, labels: Tensor) -> Rows:
        return {
            **pack(self.solver.train_rows(self.problem, images, labels), self.dtype),
            LABELS: labels,
        }

    def _demand_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.store.folder).free
        if needed > 0.98 * free:
            raise InputError(
                f"out='{self.store.folder}' has {_bytes(free)} free, the index needs {_bytes(needed)}; give a solver "
                "with dim=, dtype='float16', or another folder"
            )


class _Counter:
    """Adds up how many examples are done, and tells."""

    def __init__(self, tell: Tell | None, total: int) -> None:
        self.tell, self.total, self.done = tell, total, 0

    def __call__(self, more: int) -> None:
        self.done += more
        if self.tell:
            self.tell(min(self.done, self.total), self.total)


def _chunks(positions: Sequence[int], size: int) -> list[Sequence[int]]:
    return [positions[i : i + size] for i in range(0, len(positions), size)]


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors.values())


def curvature_file(key: str) -> str:
    """The name of the file of a curvature."""
    return f"curvature-{key}.safetensors"


def key_of(*parts: object) -> str:
    """12 hexadecimal digits of what decides some files, for their names."""
    return digest("\n".join(map(repr, parts)))[:12]
