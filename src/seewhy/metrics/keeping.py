"""Scores kept as they are found: an evaluation that was stopped goes on, also in the middle of a batch of photos."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.disk import Json
from ..data.run_folder import RunFolder
from ..engine.keys import digest
from ..methods.photos import Batch, Source, photo_digest
from .metric import Kept
from .unit import Unit

_PART = "\0"  # which no file has in its name: between a photo and what is scored of it


PhotoRemarks = list[
    tuple[str, str | None, str, str]
]  # method, layer, target, and what is said of that map


@dataclass(frozen=True)
class Photo:
    """A photo's name, and a digest of its content."""

    name: str
    digest: str


class KeptScores:
    """Scores in the folder of a run: an entry for each unit of each photo, and one for each photo that is whole.

    Args:
        run: open for writing.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def whole(self, source: Source, start: int, stop: int) -> list[Photo]:
        """The photos from one to another, if all their scores are there; else none."""
        photos: list[Photo] = []
        for name, path in zip(source.names[start:stop], source.items[start:stop], strict=True):
            if name not in self.run or not isinstance(path, Path) or not path.is_file():
                return []
            photos.append(Photo(name, photo_digest(path)))
        return photos if all(self.run.has(photo.name, photo.digest) for photo in photos) else []

    def units(self, photo: Photo) -> list[Unit]:
        """What was scored of a photo that is whole."""
        (entry,) = self.run.entries([photo.name])
        return [Unit(**unit) for unit in entry.record["units"]]

    def remarks(self, photo: Photo) -> PhotoRemarks:
        """What was said of the maps of a photo that is whole."""
        (entry,) = self.run.entries([photo.name])
        return [
            (method, layer, target, said) for method, layer, target, said in entry.record["remarks"]
        ]

    def read(self, unit: Unit, photos: Sequence[Photo]) -> Kept | None:
        """The scores of the photos, if those of all are there."""
        names = [_entry_name(photo, unit) for photo in photos]
        if not all(
            self.run.has(name, photo.digest) for name, photo in zip(names, photos, strict=True)
        ):
            return None
        found = list(self.run.entries(names))
        told = [entry.exact for entry in found]
        curves = [_from_text(one["curve"]) for one in told if one["curve"] is not None]
        return Kept(
            torch.cat([_from_text(one["value"]) for one in told]),
            [entry.record["status"] for entry in found],
            curves,
        )

    def write(self, unit: Unit, photos: Sequence[Photo], found: Kept) -> None:
        """Keeps the scores of the photos."""
        for i, photo in enumerate(photos):
            value, status = found.values[i : i + 1], found.status[i]
            with self.run.entry(_entry_name(photo, unit), photo.digest) as draft:
                number = float(value)
                told = {"photo": photo.name, **dataclasses.asdict(unit)}
                draft.record = {
                    **told,
                    "value": None if number != number else number,
                    "status": status,
                }
                curve = _as_text(found.curves[i]) if found.curves else None
                draft.exact = {"value": _as_text(value), "curve": curve}

    def finish(
        self, photos: Sequence[Photo], units: Sequence[Unit], remarks: Sequence[PhotoRemarks]
    ) -> None:
        """Says of photos that all their scores are there, and what is to know of their maps."""
        told: list[Json] = [dataclasses.asdict(unit) for unit in units]
        for photo, said in zip(photos, remarks, strict=True):
            if not self.run.has(photo.name, photo.digest):
                with self.run.entry(photo.name, photo.digest) as draft:
                    draft.record = {
                        "name": photo.name,
                        "units": told,
                        "remarks": [list(one) for one in said],
                    }


class BatchKept:
    """The kept scores of the photos of one batch; of none, where nothing is kept."""

    def __init__(self, kept: KeptScores | None, batch: Batch) -> None:
        self._kept, self._photos = kept, _photos_of(batch) if kept else []

    def read(self, unit: Unit) -> Kept | None:
        """The scores, if they are there."""
        return self._kept.read(unit, self._photos) if self._kept else None

    def write(self, unit: Unit, found: Kept) -> None:
        """Keeps the scores."""
        if self._kept:
            self._kept.write(unit, self._photos, found)

    def finish(self, units: Sequence[Unit], remarks: Sequence[PhotoRemarks]) -> None:
        """Says that these are all of the scores, and what is to know of the maps of each photo."""
        if self._kept:
            self._kept.finish(self._photos, units, remarks)


def _photos_of(batch: Batch) -> list[Photo]:
    """The photos of a batch, by their files, or by the inputs that they are."""
    digests = [
        digest(x) if path is None else photo_digest(path)
        for path, x in zip(batch.paths, batch.x, strict=True)
    ]
    return [Photo(*pair) for pair in zip(batch.names, digests, strict=True)]


def of_photo(name: str) -> str:
    """The photo of an entry's name."""
    return name.partition(_PART)[0]


def _entry_name(photo: Photo, unit: Unit) -> str:
    parts = [
        unit.method,
        unit.layer or "",
        unit.target,
        unit.metric,
        "chance" if unit.by_chance else "",
    ]
    return photo.name + _PART + " | ".join(parts)


def _as_text(values: Tensor) -> str:
    """Numbers (n,) as text, bit by bit."""
    return base64.b64encode(values.detach().cpu().numpy().astype("<f8").tobytes()).decode()


def _from_text(text: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f8").astype(np.float64))
