"""The index: what is stored of every training example, and the questions that it answers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ...data.store import Store
from ...engine.spread import world
from ...engine.targets.resolve import TargetLike
from ...errors import InputError
from ...remarks import heard
from ..modes import with_gradients
from ..problem import Loss, Problem, cross_entropy
from ..solvers.catalog import find_solver, own_solver
from ..solvers.solver import Solver
from . import fingerprint, manifest
from .building import Building, Cost, Tell, key_of
from .examples import Absent, Joined, TrainData
from .manifest import Head, ModelLike
from .questions import Asked, InfluenceQuery, asked, questions
from .ranking import both_ends
from .shards import Shards

Dtype = Literal["float16", "float32", "float64"]
Curvature = Literal["refit", "keep"]


class InfluenceIndex:
    """What each training example did to a model, ready for questions; made by `fit`, or by `open` from a folder.

    Attributes:
        model: the model, the last where there are several checkpoints; `watch` refuses it when it has changed.
        solver, problem: what stands for the curvature, and what was trained.
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
        *,
        batch_size: int,
        workers: int,
        temporary: Any = None,
    ) -> None:
        self.model, self.solver, self._store, self._loss = models[-1], solver, store, loss
        self._calls = manifest.trained_calls(models, head)
        self.remarks: tuple[str, ...] = ()
        self._batch_size, self._workers, self._temporary = batch_size, workers, temporary
        self._take(head, data)
        self.watch = fingerprint.Watched(manifest.modules_of(models), head["model"], store.folder)

    @classmethod
    @with_gradients
    def fit(
        cls,
        model: ModelLike | Sequence[ModelLike],
        train_data: TrainData,
        *,
        solver: str | Solver = "last_layer",
        loss: Loss = cross_entropy,
        l2: float = 0.0,
        parameters: Sequence[str] | None = None,
        learning_rates: Sequence[float] | None = None,
        out: str | os.PathLike[str] | None = None,
        batch_size: int = 64,
        workers: int = 0,
        dtype: Dtype | None = None,
        shard_rows: int | None = None,
        about: Mapping[str, Any] | None = None,
        announce: Callable[[Cost], None] | None = None,
        progress: Tell | None = None,
    ) -> InfluenceIndex:
        """Goes through the training data: once for each pass of the solver, and once for what is stored.

        A folder that holds a part of the same index is gone on with: whatever the run before was killed at, only what
        is missing or damaged is made. Under torchrun each process does its share, and all have the whole index.

        Args:
            model: the trained model, or its checkpoints, the final one last.
            train_data: `seewhy.data.LabelledImages`, a torch Dataset of (tensor, label), or tensors (images, labels).
            solver: a name, see `seewhy.influence.SOLVERS`, or a solver.
            loss: outputs (B, K), labels (B,) -> (B,).
            l2: of the training objective.
            parameters: names of those that count; what the solver takes unless given.
            learning_rates: of the checkpoints.
            out: a folder; None is a temporary one, gone with the index.
            batch_size: of passes over the data; results do not depend on it.
            workers: processes that read pictures.
            dtype: what floating point is stored as; None is as the solver gives it.
            shard_rows: examples in a file; None is 64 MB's worth.
            about: what else the manifest is to say, as JSON.
            announce: told, before anything is done, what it will take.
            progress: called with (done, total) examples of each stage.

        Raises:
            InputError: the folder holds another index (it says what differs), the disk lacks room, labels are no
                classes of the model, or the solver cannot do with the model.
        """
        manifest.check_options(dtype, batch_size, shard_rows)
        models, shared = manifest.listed(model), world()
        examples, made = (
            manifest.examples_of(train_data, models[-1]),
            own_solver(find_solver(solver)),
        )
        settings = {
            "l2": l2,
            "parameters": None if parameters is None else list(parameters),
            "learning_rates": None if learning_rates is None else list(learning_rates),
            "dtype": dtype,
            "shard_rows": shard_rows,
            "about": dict(about or {}),
        }
        head = manifest.describe_index(models, examples, made, loss, settings)
        manifest.tell_classes(examples, head)
        temporary = (
            tempfile.TemporaryDirectory(prefix="seewhy-")
            if out is None and shared.rank == 0
            else None
        )
        store = Store(
            shared.gather(temporary.name if temporary else out or "")[0], writer=shared.rank
        )
        if store.load() and (
            store.head["complete"] or store.files
        ):  # else nothing was done: begun anew
            head = manifest.same(store.head, head, store.folder)
        elif shared.rank == 0:
            store.begin(head)
        shared.gather(None)
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "workers": workers,
            "temporary": temporary,
        }
        index = cls(models, store, head, Joined([examples]), made, loss, **options)
        if announce and shared.rank == 0:
            announce(index._building(progress).estimate())
        index._build(progress)
        return index

    @classmethod
    @with_gradients
    def open(
        cls,
        folder: str | os.PathLike[str],
        model: ModelLike | Sequence[ModelLike],
        *,
        data: TrainData | None = None,
        added: Sequence[TrainData] = (),
        solver: Solver | None = None,
        loss: Loss = cross_entropy,
        batch_size: int = 64,
        workers: int = 0,
        verify: Literal["size", "full"] = "size",
    ) -> InfluenceIndex:
        """Opens an index that `fit` has finished.

        Args:
            folder: where it is.
            model: the model that it was fit with, or its checkpoints.
            data: what it was fit on; only for what reads training examples again: `self_influence` the first time,
                `add` and `remove` with a new curvature, pictures, and solvers that stream.
            added: what was added to it, in that order.
            solver: the solver it was fit with; found by its name unless given.
            loss: the one that it was fit with.
            batch_size, workers: as in `fit`.
            verify: "size" looks at each file's size now, and at its checksum when it is first read; "full" at both now.

        Raises:
            InputError: there is none, it is not finished or damaged, or the model or the data are others.
        """
        models, store = manifest.listed(model), Store(folder, writer=world().rank)
        if not store.load():
            raise InputError(
                f"'{folder}' holds no influence index; InfluenceIndex.fit(..., out=...) makes one"
            )
        head = store.head
        if not head["complete"]:
            raise InputError(
                f"the index in '{folder}' is not finished; fit it again into the same folder: it goes on"
            )
        manifest.check_models(head, models, loss, folder)
        fitted = [
            name for name in [f"curvature-{head['curvature']}.safetensors"] if name in store.files
        ]
        store.check([*fitted, *head["shards"]], full=verify == "full")
        joined = manifest.opened_data(
            [] if data is None else [data, *added], models[-1], head, folder
        )
        made = own_solver(solver or find_solver(head["solver"], **head["settings"]))
        index = cls(models, store, head, joined, made, loss, batch_size=batch_size, workers=workers)
        index._take_curvature()
        return index

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._store.folder

    @property
    def about(self) -> dict[str, Any]:
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

    @with_gradients
    def scores(
        self,
        images: Any,
        labels: Tensor | Sequence[int] | None = None,
        *,
        target: TargetLike | None = None,
    ) -> Tensor:
        """The influence of every training example on every test picture, (T, n) float32: columns as in `ids`.

        Args:
            images: (T, C, H, W), or photos in any form that `seewhy.images.read_image` takes.
            labels: (T,), whose loss is asked about; the model's own answers unless given.
            target: in place of a loss, as in `seewhy.targets`: "top1", a class, a label, a callable, ...

        Returns:
            Positive where leaving the training example out would raise the loss, or lower the target.
        """
        found: list[Tensor] = []
        for test, blocks in self._swept(images, labels, target):
            part = torch.zeros(len(test.words), len(self.data))
            for ids, scores in blocks:
                part[:, ids] = scores.float()
            found.append(world().sum(part)[:, self.ids])
        return torch.cat(found)

    @with_gradients
    def query(
        self,
        images: Any,
        k: int = 5,
        *,
        labels: Tensor | Sequence[int] | None = None,
        target: TargetLike | None = None,
    ) -> list[InfluenceQuery]:
        """The k most helpful and most harmful training examples of each test picture: exactly, of equals the first.

        Args:
            images, labels, target: as in `scores`.
            k: at most this many of each; only positive scores are helpful, only negative ones harmful.
        """
        found: list[InfluenceQuery] = []
        with heard() as said:
            for test, blocks in self._swept(images, labels, target):
                ends = zip(both_ends(blocks, k), (1, -1), strict=True)
                helpful, harmful = (
                    self._shards.records(*e.merged(world()), sign, self.classes) for e, sign in ends
                )
                answers = map(self.classes.__getitem__, test.answers)
                found += map(InfluenceQuery, test.words, answers, helpful, harmful)
        return [replace(one, remarks=tuple(dict.fromkeys((*self.remarks, *said)))) for one in found]

    @with_gradients
    def self_influence(self, *, progress: Tell | None = None) -> Tensor:
        """The influence of each example on its own loss, (n,) float64, as in `ids`: large for the mislabelled.

        Computed the first time, and kept in the folder: `last_layer` from what is stored, others from the pictures.

        Raises:
            InputError: that takes the training data, and the index was opened without.
        """
        self.watch.check()
        before = dict(self._store.files)
        names = self._building(progress).self_influence(
            self._head["shards"], manifest.self_key(self._head)
        )
        if any(world().gather(self._store.files != before)):
            self._commit(self._head)
        return torch.cat([self._store.read(name)["self_influence"] for name in names])[self.ids]

    @with_gradients
    def add(
        self, data: TrainData, *, curvature: Curvature = "refit", progress: Tell | None = None
    ) -> None:
        """Adds training examples that the model was trained on too; their positions follow those of the others.

        Args:
            data: as in `fit`.
            curvature: "refit" makes the curvature anew from all examples, which needs the data of all and gives the
                index that `fit` gives of all; "keep" leaves it as it is. It matters to solvers that have passes.
            progress: as in `fit`.
        """
        examples = manifest.examples_of(data, self.model)
        head = {**self._head, "data": [*self._head["data"], examples.fingerprint()]}
        self._change(head, Joined([*self.data.parts, examples]), curvature, progress)

    @with_gradients
    def remove(
        self,
        ids: Sequence[int | str],
        *,
        curvature: Curvature = "refit",
        progress: Tell | None = None,
    ) -> None:
        """Takes examples out, by position or by name; the others keep their positions. Options as in `add`.

        Raises:
            InputError: no such example, or none would be left.
        """
        left, known = self.ids.tolist(), set(self.ids.tolist())
        named = (
            dict(zip(self.names, left, strict=True)) if any(isinstance(i, str) for i in ids) else {}
        )
        gone = {named.get(i, -1) if isinstance(i, str) else int(i): i for i in ids}
        unknown = [given for i, given in gone.items() if i not in known]
        if unknown:
            raise InputError(
                f"ids has {unknown[0]!r}, which is no example of the index; its ids and names list them"
            )
        if len(left) == len(gone):
            raise InputError(f"ids names all {len(left)} examples; an index needs at least one")
        self._change(
            {**self._head, "removed": sorted([*self._head["removed"], *gone])},
            self.data,
            curvature,
            progress,
        )

    def inputs(self, images: Any) -> Tensor:
        """Test pictures as the model takes them, (T, C, H, W)."""
        return manifest.inputs_of(self.model, images)

    @property
    def _shards(self) -> Shards:
        return Shards(self._store, self._head["shards"])

    @property
    def _absent(self) -> bool:
        return isinstance(self.data.parts[0], Absent)

    def _take(self, head: Head, data: Joined) -> None:
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
            batch_size=self._batch_size,
            workers=self._workers,
            progress=progress,
        )

    def _build(self, progress: Tell | None) -> None:
        building = self._building(progress)
        self.remarks = building.curvature()
        shards = building.rows()
        self._commit({**self._head, "shards": shards, "shard_rows": building.shard_rows})

    def _change(
        self, head: Head, data: Joined, curvature: Curvature, progress: Tell | None
    ) -> None:
        if curvature not in ("refit", "keep"):
            raise InputError(f"curvature={curvature!r} is not known; use 'refit' or 'keep'")
        self.watch.check()
        before = self._head, self.data
        if curvature == "refit":
            head = {**head, "curvature": manifest.curvature_key(head, self.solver)}
        self._take(head, data)
        try:
            self._build(progress)
        except BaseException:
            self._take(*before)
            self._take_curvature()
            raise

    def _take_curvature(self) -> None:
        """Gives the solver what it found before; one that reads training data waits for them."""
        if not (self.solver.streams and self._absent):
            self.remarks = self._building().curvature()

    def _commit(self, head: Head) -> None:
        """Writes the manifest in the first process, and reads it in all."""
        shared, store = world(), self._store
        if shared.rank == 0:
            store.load()  # what the others wrote
            own = [
                name for name in store.files if name.startswith(f"self-{manifest.self_key(head)}-")
            ]
            store.commit(
                head, [*head["shards"], f"curvature-{head['curvature']}.safetensors", *own]
            )
        shared.gather(None)
        store.load()
        self._head = store.head

    def _swept(
        self, images: Any, labels: Tensor | Sequence[int] | None, target: TargetLike | None
    ) -> Iterator[tuple[Asked, Iterator[tuple[Tensor, Tensor]]]]:
        """What is asked, each with the scores of this process's examples, see `Shards.sweep`."""
        self.watch.check()
        if self.solver.streams and self._absent:
            self.data[0]  # says that the data are not there
        mine, removed = world().mine(self._shards.names), self._head["removed"]
        each = questions(
            self.problem,
            self.inputs(images),
            labels,
            target,
            classes=self.classes,
            batch_size=self._batch_size,
        )
        for test in asked(self.solver, self.problem, each):
            yield test, self._shards.sweep(self.solver, test, mine, removed)
