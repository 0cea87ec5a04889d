"""What an evaluation of a data set has found so far, kept in the folder of its run, so that it goes on after a stop."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from ...data.dataset import LabeledImages
from ...data.disk import Json
from ...data.run_folder import RunFolder
from ...engine.keys import digest
from ...errors import InputError
from ..unit import Unit
from .board import LocalizationBoard
from .marked import read_marked
from .study import OnBadPicture, Study

NAME = "states.pt"
_PROBES = 512  # pictures that are read again, to see that they are the same
_States = dict[str, Tensor | list[Tensor]]


class _Kept(TypedDict):
    """What the file holds: JSON, and the states of the metrics in the order that it tells."""

    told: str
    states: list[_States]


class KeptStates:
    """The states of the metrics of a board, and what else it knows, in the folder of a run of the same request.

    Args:
        run: open for writing; None keeps nothing.
        study: whose pictures are scored.
        validation: the pictures that thresholds are fitted on, if there are any.
    """

    def __init__(
        self, run: RunFolder | None, study: Study, validation: LabeledImages | None = None
    ) -> None:
        self._run, self._study, self._validation = run, study, validation
        self._unreadable: dict[str, str] = {}
        self._unfitted: dict[str, str] = {}

    def watching(self, on_bad_image: OnBadPicture | None) -> OnBadPicture | None:
        """Hears of pictures that cannot be read, to tell of them again after a stop."""
        return _noting(self._unreadable, on_bad_image)

    def watching_validation(self, on_bad_image: OnBadPicture | None) -> OnBadPicture | None:
        """Hears likewise of pictures that thresholds are fitted on."""
        return _noting(self._unfitted, on_bad_image)

    def write(self, board: LocalizationBoard) -> None:
        """Keeps what a board knows."""
        if self._run is None:
            return
        told: Json = {
            "asked": self._asked(board),
            "data": _digest_of_names(self._study.data),
            "pictures": {str(index): said for index, said in board.digests.items()},
            "done": board.done,
            "pairs": board.pairs,
            "notes": {name: list(notes) for name, notes in board.notes.items()},
            "unreadable": self._unreadable_among(self._study.data.names[: board.done]),
            "unfitted": self._unfitted,
            "remarks": [[*place, said] for place, said in board.remarks.items()],
            "units": [dataclasses.asdict(unit) for unit in board.scored],
            "fitted": [[dataclasses.asdict(u), list(at)] for u, at in board.fitted.items()],
        }
        states = [metric.states() for metric in board.scored.values()]
        kept: _Kept = {"told": json.dumps(told), "states": states}
        self._run.view(NAME, lambda path: torch.save(kept, path))

    def read(self, board: LocalizationBoard, on_bad_image: OnBadPicture | None) -> bool:
        """Gives a board without pictures what was kept, if the same was asked of the same pictures."""
        kept = self._kept()
        if kept is None:
            return False
        told: Json = json.loads(kept["told"])
        if told.get("asked") != self._asked(board) or not self._are_the_same(told):
            return False
        _restore(board, told, kept["states"])
        self._tell_again(told, on_bad_image)
        return True

    def _asked(self, board: LocalizationBoard) -> str:
        """A digest of what the states depend on beside the pictures."""
        study, other = self._study, self._validation
        named = board.metrics.items()
        told = {
            "request": self._digest_of_request,
            "metrics": {name: int(m.identity) for name, m in named},
            "chance": board.chance,
            "seed": board.seed,
            "classes": study.classes,
            "rule": dataclasses.asdict(study.rule),
            "fitted on": None if other is None else _digest_of_names(other),
        }
        return digest(json.dumps(told))

    @cached_property
    def _digest_of_request(self) -> str:
        """Made once: it reads all weights, and asks the model."""
        return self._study.request.digest()

    def _are_the_same(self, told: Json) -> bool:
        """Whether pictures are as they were: those that were scored, and those that could not be read."""
        data = self._study.data
        return (
            told["data"] == _digest_of_names(data)
            and self._are_there(_digests_of_pictures(told))
            and not any(self._is_readable(data.names.index(name)) for name in told["unreadable"])
        )

    def _is_readable(self, index: int) -> bool:
        model = self._study.request.model
        return read_marked(self._study.data, [index], model, _not_told) is not None

    def _unreadable_among(self, names: Sequence[str]) -> dict[str, str]:
        """Those of pictures that are done; the others are read again, and told of then."""
        return {name: self._unreadable[name] for name in names if name in self._unreadable}

    def _kept(self) -> _Kept | None:
        """What the file holds, where there is one."""
        path = None if self._run is None else self._run.folder / NAME
        return _load(path) if path is not None and path.is_file() else None

    def _tell_again(self, told: Json, on_bad_image: OnBadPicture | None) -> None:
        """Says again which pictures could not be read before the stop, in the order of then."""
        self._unreadable |= told["unreadable"]
        self._unfitted |= told["unfitted"]
        if on_bad_image is not None:
            for name, error in (*self._unfitted.items(), *self._unreadable.items()):
                on_bad_image(name, InputError(error))

    def _are_there(self, digests: Mapping[int, str]) -> bool:
        """Whether pictures, some of which are read again, are the same."""
        places = sorted(digests)
        for index in places[:: max(1, len(places) // _PROBES)]:
            marked = read_marked(self._study.data, [index], self._study.request.model, _not_told)
            if marked is None or marked.digest(0) != digests[index]:
                return False
        return True


def _restore(board: LocalizationBoard, told: Json, states: Sequence[_States]) -> None:
    """Gives a board what was told of another, and the states of its metrics."""
    board.digests, board.done = _digests_of_pictures(told), told["done"]
    board.pairs = [(picture, label) for picture, label in told["pairs"]]
    board.notes = {name: tuple(notes) for name, notes in told["notes"].items()}
    board.fitted = {Unit(**unit): tuple(at) for unit, at in told["fitted"]}
    for method, layer, target, said in told["remarks"]:
        board.remark(method, layer, target, said)
    for unit, of_metric in zip(told["units"], states, strict=True):
        board.metric(Unit(**unit)).restore_states(of_metric)


def _digests_of_pictures(told: Json) -> dict[int, str]:
    return {int(index): said for index, said in told["pictures"].items()}


def _noting(noted: dict[str, str], on_bad_image: OnBadPicture | None) -> OnBadPicture | None:
    """Notes what cannot be read before it is told; None where that raises."""
    if on_bad_image is None:
        return None

    def heard(name: str, error: InputError) -> None:
        noted[name] = str(error)
        on_bad_image(name, error)

    return heard


def _not_told(name: str, error: InputError) -> None:
    """A picture that can no longer be read is none that is the same."""


def _load(path: Path) -> _Kept:
    try:
        kept: _Kept = torch.load(path, weights_only=True)
        return {"told": kept["told"], "states": kept["states"]}
    except Exception as error:  # readers meet damage with whatever their parsing trips over
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"'{path}' cannot be read ({said}); delete it, and the evaluation begins anew"
        ) from error


def _digest_of_names(data: LabeledImages) -> str:
    """Of the names and the labels of all pictures, in order, and of the classes."""
    lines: Sequence[str] = [*data.classes, *map(repr, zip(data.names, data.labels, strict=True))]
    return digest("\n".join(lines))
