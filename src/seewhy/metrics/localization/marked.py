"""Pictures of a data set in a model's input, with what is marked in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ...data.dataset import Example, LabeledImages
from ...data.images import drawn_photo
from ...data.placement import Placement
from ...data.preprocess import Preprocess
from ...data.truth import Truth
from ...engine.keys import digest
from ...errors import InputError, ModelError
from ...models.model import Model


@dataclass(frozen=True, eq=False)
class Marked:
    """Some pictures as a model sees them.

    Attributes:
        indices, names, placements: of each picture, and which part of it the model sees, in its own pixels.
        photos: as they are drawn, of 2,048 pixels at most along either side.
        labels: for each picture the data's classes that it shows.
        x: (N, C, H, W).
        truths: for each picture what is marked in it, in pixels of x; None where nobody marked anything.
        notes: for each picture how its annotation was mended.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    photos: tuple[Image.Image, ...]
    placements: tuple[Placement, ...]
    labels: tuple[tuple[int, ...], ...]
    x: Tensor
    truths: tuple[Truth | None, ...]
    notes: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every picture with each of its classes."""
        return [(i, label) for i, labels in enumerate(self.labels) for label in labels]

    def digest(self, picture: int) -> str:
        """Of a picture as the model sees it, and of what is marked in it."""
        truth = self.truths[picture]
        if truth is None:
            return digest(self.x[picture])
        marks = (truth.masks, truth.difficult, truth.ignore)
        known = [torch.zeros(0) if mark is None else mark for mark in marks]
        return digest(self.x[picture], truth.boxes, truth.labels, *known)


def read_marked(
    data: LabeledImages,
    indices: Iterable[int],
    model: Model,
    on_bad_image: Callable[[str, InputError], None] | None = None,
) -> Marked | None:
    """Reads pictures of a data set for a model; None where none of them can be read.

    Args:
        data: the data set.
        indices: which of its pictures.
        model: whose preprocessing makes inputs of them.
        on_bad_image: called with the name of each picture that cannot be read, or its annotation, and the reason; None
            raises.

    Raises:
        ModelError: the model does not say how photos become its input.
        InputError: a picture or its annotation cannot be read, and nobody is to be told.
    """
    preprocess = preprocess_of(model)
    read: dict[int, _ReadPicture] = {}
    for index in indices:
        try:
            read[index] = _read_picture(data[index], preprocess)
        except InputError as error:
            if on_bad_image is None:
                raise
            on_bad_image(data.names[index], error)
    return _batch_of(read) if read else None


def preprocess_of(model: Model) -> Preprocess:
    """How photos become a model's input.

    Raises:
        ModelError: it does not say.
    """
    if model.preprocess is None:
        raise ModelError(
            f"{model.name} does not say how photos become its input; wrap it with preprocess=..."
        )
    return model.preprocess


def _batch_of(read: Mapping[int, _ReadPicture]) -> Marked:
    names, photos, placements, labels, inputs, truths, notes = zip(*read.values(), strict=True)
    x = torch.stack(inputs)
    return Marked(tuple(read), names, photos, placements, labels, x, truths, notes)


class _ReadPicture(NamedTuple):
    """An example as a model sees it; its photo as it is drawn, so that two never stand in memory whole."""

    name: str
    photo: Image.Image
    placement: Placement
    labels: tuple[int, ...]
    x: Tensor
    truth: Truth | None
    notes: tuple[str, ...]


def _read_picture(example: Example, preprocess: Preprocess) -> _ReadPicture:
    x, placement = preprocess(example.photo)
    truth = example.truth and example.truth.cropped(placement.box, (x.shape[1], x.shape[2]))
    return _ReadPicture(
        example.name, drawn_photo(example.photo), placement, example.labels, x, truth, example.notes
    )
