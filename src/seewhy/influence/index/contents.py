"""What an index is of: its examples, what is stored of each in its folder, and how these change."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ...data.disk import Json
from ...data.store import Store
from ...engine.spread import world
from ..problem import Loss, Problem
from ..solvers.solver import Solver
from . import fingerprint, manifest
from .building import Building, Reading, Tell, curvature_file, key_of
from .examples import Absent, Joined
from .manifest import Head, ModelLike
from .shards import Shards

Curvature = Literal["refit", "keep"]


class Contents:
    """The examples that an index is of, and what is stored of them in its folder.

    Attributes:
        model: the model, the last where there are several checkpoints; `watch` refuses it when it has changed.
        solver: what stands for the curvature.
        problem: what was trained.
        data: the training examples, one after the other.
        classes: a name for each class of the model.
        ids: (n,) int64, the positions of the examples that count: the columns of `scores`.
        remarks: what is to know before answers are believed, as of a model that has not converged.
    """

    def __init__(
        self,
        models: Sequence[ModelLike],
        store: Store,
        head: Head,
        data: Joined,
        solver: Solver,
        loss: Loss,
        reading: Reading,
        *,
        temporary: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.model = models[-1]
        self.solver = solver
        self._store = store
        self._loss = loss
        self._calls = manifest.trained_calls(models, head)
        self.remarks: tuple[str, ...] = ()
        self._reading, self._temporary = reading, temporary
        self._set_examples(head, data)
        self.watch = fingerprint.Watched(manifest.modules_of(models), head["model"], store.folder)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._store.folder

    @property
    def about(self) -> Json:
        """What `fit` was given as `about`."""
        return dict(self._head["about"])

    @property
    def labels(self) -> Tensor:
        """The class of each example, (n,) as in `ids`."""
        return self._shards.labels()[self.ids]

    @property
    def names(self) -> list[str]:
        """What each example is called, as in `ids`."""
        every = self._shards.example_names()
        return [every[i] for i in self.ids.tolist()]

    @property
    def _shards(self) -> Shards:
        return Shards(self._store, self._head["shards"])

    @property
    def _lacks_data(self) -> bool:
        return isinstance(self.data.parts[0], Absent)

    def _set_examples(self, head: Head, data: Joined) -> None:
        """Makes this index one of these examples."""
        self._head, self.data = head, data
        self.classes = manifest.class_names(head)
        removed = set(head["removed"])
        self.ids = torch.tensor([i for i in range(len(data)) if i not in removed])
        self.problem = Problem(
            modules=self._calls,
            loss=self._loss,
            count=len(self.ids),
            l2=head["l2"],
            parameters=None if head["parameters"] is None else tuple(head["parameters"]),
            learning_rates=None
            if head["learning_rates"] is None
            else tuple(head["learning_rates"]),
        )

    def _building(self, progress: Tell | None = None) -> Building:
        head = self._head
        return Building(
            store=self._store,
            world=world(),
            solver=self.solver,
            problem=self.problem,
            data=self.data,
            key=head["curvature"],
            segments=[key_of(head["curvature"], data) for data in head["data"]],
            kept=self.ids.tolist(),
            outputs=head["outputs"],
            dtype=None if head["dtype"] is None else getattr(torch, head["dtype"]),
            shard_rows=head["shard_rows"],
            reading=self._reading,
            progress=progress,
        )

    def _build(self, progress: Tell | None) -> None:
        building = self._building(progress)
        self.remarks = building.curvature()
        shards = building.rows()
        self._write_manifest({**self._head, "shards": shards, "shard_rows": building.shard_rows})

    def _change(
        self, head: Head, data: Joined, curvature: Curvature, progress: Tell | None
    ) -> None:
        self.watch.check()
        before = self._head, self.data
        if curvature == "refit":
            head = {**head, "curvature": manifest.curvature_key(head, self.solver)}
        self._set_examples(head, data)
        try:
            self._build(progress)
        except BaseException:
            self._set_examples(*before)
            self._take_curvature()
            raise

    def _take_curvature(self) -> None:
        """Gives the solver what it found before; one that reads training data waits for them."""
        if not (self.solver.streams and self._lacks_data):
            self.remarks = self._building().curvature()

    def _write_manifest(self, head: Head) -> None:
        """Writes the manifest in the first process, and reads it in all."""
        shared, store = world(), self._store
        if shared.rank == 0:
            store.load()  # what the others wrote
            of_itself = f"self-{manifest.self_key(head)}-"
            own = [name for name in store.files if name.startswith(of_itself)]
            store.commit(head, [*head["shards"], curvature_file(head["curvature"]), *own])
        shared.gather(None)
        store.load()
        self._head = store.head
