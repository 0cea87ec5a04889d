"""The rows of an index as they lie in its store, shard by shard."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ...data.store import Store, unpack
from ..solvers.solver import Solver
from .building import LABELS
from .questions import Asked, Influential

_IN_CACHE = 2**23  # bytes


class Shards:
    """The files of a store that hold an index's rows, in the order of the examples.

    Args:
        store: where they are.
        names: of the files.
    """

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self.store, self.names = store, list(names)

    def labels(self) -> Tensor:
        """The class of each example, removed ones too."""
        return torch.cat([self.store.column(shard, LABELS)[0] for shard in self.names])

    def example_names(self) -> list[str]:
        """What each example is called, removed ones too."""
        return [name for shard in self.names for name in self.store.column(shard, LABELS)[1]]

    def sweep(
        self, solver: Solver, test: Asked, shards: Sequence[str], removed: Sequence[int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids (B,) and scores (T, B) of the examples of these shards that are not removed, block by block."""
        gone = torch.tensor(removed, dtype=torch.long)
        for shard in shards:
            entry = self.store.files[shard]
            stored = self.store.read(shard)
            del stored[LABELS]
            for start, stop in _blocks(stored, entry.count, test.dtype):
                rows = unpack({key: value[start:stop] for key, value in stored.items()}, test.dtype)
                ids = torch.arange(entry.start + start, entry.start + stop)
                scores = solver.dot(test.rows, rows)
                kept = ~torch.isin(ids, gone)
                yield (ids, scores) if bool(kept.all()) else (ids[kept], scores[:, kept])

    def records(
        self, scores: Tensor, ids: Tensor, sign: int, classes: Sequence[str]
    ) -> list[tuple[Influential, ...]]:
        """For each row of scores and ids (T, k) the examples whose score is positive, told with `sign` times it."""
        told = self._names_and_labels(set(ids.flatten().tolist()))
        return [
            tuple(
                Influential(i, told[i][0], told[i][1], classes[told[i][1]], sign * score)
                for i, score in zip(row, values, strict=True)
                if score > 0
            )
            for row, values in zip(ids.tolist(), scores.tolist(), strict=True)
        ]

    def _names_and_labels(self, wanted: Collection[int]) -> dict[int, tuple[str, int]]:
        """The names and labels of the examples at these positions."""
        told: dict[int, tuple[str, int]] = {}
        for shard in self.names:
            entry = self.store.files[shard]
            here = [i for i in wanted if entry.start <= i < entry.start + entry.count]
            if here:
                labels, names = self.store.column(shard, LABELS)
                told |= {i: (names[i - entry.start], int(labels[i - entry.start])) for i in here}
        return told


def _blocks(
    stored: Mapping[str, Tensor], count: int, dtype: torch.dtype
) -> Iterator[tuple[int, int]]:
    """Rows that go together: all where they are used as they lie, else as many as stay in the cache once converted."""
    step = count
    if any(rows.is_floating_point() and rows.dtype != dtype for rows in stored.values()):
        width = sum(rows[0].numel() for rows in stored.values()) * dtype.itemsize
        step = max(1, _IN_CACHE // width)
    for start in range(0, count, step):
        yield start, min(start + step, count)
