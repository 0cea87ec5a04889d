"""The index: what is stored of every training example, and the questions that it answers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ...data.store import Store
from ...engine.spread import world
from ...engine.targets.resolve import TargetLike
from ...errors import InputError
from ...remarks import heard
from ..modes import with_gradients
from ..problem import Loss, cross_entropy
from ..solvers.catalog import DEFAULT_SOLVER, find_solver, own_solver
from ..solvers.solver import Solver
from . import manifest
from .building import Cost, Reading, Tell, curvature_file
from .contents import Contents, Curvature
from .examples import Joined, TrainData
from .manifest import Head, ModelLike
from .questions import Asked, InfluenceQuery, asked, questions
from .ranking import both_ends

Dtype = Literal["float16", "float32", "float64"]


class InfluenceIndex(Contents):
    """What each training example did to a model, ready for questions; made by `fit`, or by `open` from a folder.

    Its attributes are those of `Contents`.

    Example:
        >>> from seewhy.influence import InfluenceIndex
        >>> index = InfluenceIndex.fit(net, (images, labels), l2=0.01)
        >>> index.scores(images[:1], labels[:1]).shape  # (test, train)
        torch.Size([1, 6])
    """

    @classmethod
    @with_gradients
    def fit(
        cls,
        model: ModelLike | Sequence[ModelLike],
        train_data: TrainData,
        *,
        solver: str | Solver = DEFAULT_SOLVER,
        loss: Loss = cross_entropy,
        l2: float = 0.0,
        parameters: Sequence[str] | None = None,
        learning_rates: Sequence[float] | None = None,
        out: str | os.PathLike[str] | None = None,
        batch_size: int = 64,
        workers: int = 0,
        dtype: Dtype | None = None,
        shard_rows: int | None = None,
        about: Mapping[str, object] | None = None,
        announce: Callable[[Cost], None] | None = None,
        progress: Tell | None = None,
    ) -> InfluenceIndex:
        """Goes through the training data: once for each pass of the solver, and once for what is stored.

        A folder that holds a part of the same index is gone on with: whatever the run before was killed at, only what
        is missing or damaged is made. Under torchrun each process does its share, and all have the whole index.

        Args:
            model: the trained model, or its checkpoints, the final one last.
            train_data: `seewhy.data.LabeledImages`, a torch Dataset of (tensor, label), or tensors (images, labels).
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

        Example:
            >>> from seewhy.influence import InfluenceIndex
            >>> index = InfluenceIndex.fit(net, (images, labels), solver="gradient_dot", out="index")
            >>> len(index.ids)
            6
        """
        manifest.check_options(batch_size, shard_rows)
        settings = manifest.settings_of(l2, parameters, learning_rates, dtype, shard_rows, about)
        models, made = manifest.listed(model), own_solver(find_solver(solver))
        examples = manifest.examples_of(train_data, models[-1])
        head = manifest.describe_index(models, examples, made, loss, settings)
        manifest.tell_classes(examples, head)
        store, temporary = _store_in(out)
        head, reading = _begun_head(store, head), Reading(batch_size, workers)
        data = Joined([examples])
        index = cls(models, store, head, data, made, loss, reading, temporary=temporary)
        if announce and world().rank == 0:
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
            batch_size: as in `fit`.
            workers: likewise.
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
        fitted = curvature_file(head["curvature"])
        files = [fitted, *head["shards"]] if fitted in store.files else head["shards"]
        store.check(files, full=verify == "full")
        joined = manifest.opened_data(
            [] if data is None else [data, *added], models[-1], head, folder
        )
        made = own_solver(solver or find_solver(head["solver"], **head["settings"]))
        index = cls(models, store, head, joined, made, loss, Reading(batch_size, workers))
        index._take_curvature()
        return index

    @with_gradients
    def scores(
        self,
        images: object,
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
        for test, blocks in self._scores_of(images, labels, target):
            part = torch.zeros(len(test.words), len(self.data))
            for ids, scores in blocks:
                part[:, ids] = scores.float()
            found.append(world().sum(part)[:, self.ids])
        return torch.cat(found)

    @with_gradients
    def query(
        self,
        images: object,
        k: int = 5,
        *,
        labels: Tensor | Sequence[int] | None = None,
        target: TargetLike | None = None,
    ) -> list[InfluenceQuery]:
        """The k most helpful and most harmful training examples of each test picture: exactly, of equals the first.

        Args:
            images: as in `scores`.
            k: at most this many of each; only positive scores are helpful, only negative ones harmful.
            labels: as in `scores`.
            target: likewise.

        Example:
            >>> from seewhy.influence import InfluenceIndex
            >>> index = InfluenceIndex.fit(net, (images, labels), l2=0.01)
            >>> answer = index.query(images[:1], k=2, labels=[0])[0]
            >>> answer.about, [each.label for each in answer.helpful]
            ('the loss of class 0', [0, 0])
        """
        found: list[InfluenceQuery] = []
        with heard() as said:
            for test, blocks in self._scores_of(images, labels, target):
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
            self._write_manifest(self._head)
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
        gone = self._positions(ids)
        if len(self) == len(gone):
            raise InputError(f"ids names all {len(self)} examples; an index needs at least one")
        head = {**self._head, "removed": sorted([*self._head["removed"], *gone])}
        self._change(head, self.data, curvature, progress)

    def _positions(self, ids: Sequence[int | str]) -> set[int]:
        """Where examples are that are named or numbered."""
        there = self.ids.tolist()
        by_name: dict[str, int] = {}
        if any(isinstance(one, str) for one in ids):
            by_name = dict(zip(self.names, there, strict=True))
        known, found = set(there), set[int]()
        for one in ids:
            position = by_name.get(one, -1) if isinstance(one, str) else int(one)
            if position not in known:
                raise InputError(
                    f"ids has {one!r}, which is no example of the index; its ids and names list them"
                )
            found.add(position)
        return found

    def inputs(self, images: object) -> Tensor:
        """Test pictures as the model takes them, (T, C, H, W)."""
        return manifest.inputs_of(self.model, images)

    def _scores_of(
        self, images: object, labels: Tensor | Sequence[int] | None, target: TargetLike | None
    ) -> Iterator[tuple[Asked, Iterator[tuple[Tensor, Tensor]]]]:
        """What is asked, each with the scores of this process's examples, see `Shards.sweep`."""
        self.watch.check()
        if self.solver.streams and self._lacks_data:
            self.data[0]  # says that the data are not there
        mine, removed = world().mine(self._shards.names), self._head["removed"]
        each = questions(
            self.problem,
            self.inputs(images),
            labels,
            target,
            classes=self.classes,
            batch_size=self._reading.batch_size,
        )
        for test in asked(self.solver, self.problem, each):
            yield test, self._shards.sweep(self.solver, test, mine, removed)


def _store_in(
    out: str | os.PathLike[str] | None,
) -> tuple[Store, tempfile.TemporaryDirectory[str] | None]:
    """The store in a folder, the same for all processes; without one in a temporary one, which comes with it."""
    shared, temporary = world(), None
    if out is None and shared.rank == 0:
        temporary = tempfile.TemporaryDirectory(prefix="seewhy-")
    folder = shared.gather(temporary.name if temporary else out or "")[0]
    return Store(folder, writer=shared.rank), temporary


def _begun_head(store: Store, head: Head) -> Head:
    """The manifest of an index that is begun, or of the same one where it was begun before."""
    shared = world()
    done_before = store.load() and (store.head["complete"] or store.files)
    if done_before:
        head = manifest.same(store.head, head, store.folder)
    elif shared.rank == 0:
        store.begin(head)
    shared.gather(None)
    return head
