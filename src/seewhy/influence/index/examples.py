"""Training examples in a fixed order, as the model takes them, whatever they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from ...data.dataset import LabeledImages
from ...data.disk import Json
from ...data.placement import Placement
from ...data.preprocess import Preprocess, tensor_to_photos
from ...engine.keys import digest
from ...errors import ArgumentTypeError, InputError, SeewhyError
from ..problem import Batch
from . import fingerprint

TrainData = Any  # LabeledImages, a Dataset of (tensor, label), or tensors (images, labels)


class Examples(Dataset[tuple[Tensor, int]]):
    """Examples by position; each is (C, H, W) and its label.

    Attributes:
        names: of the examples; None for their positions.
        labels: None where they are not known without reading the examples.
        classes: a name for each class; None where there are none.
    """

    names: Sequence[str] | None = None
    labels: Sequence[int] | None = None
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        raise NotImplementedError

    def photo(self, index: int) -> tuple[Image.Image, Placement]:
        """A picture of an example to show, and where on it the model looked."""
        return shown(self[index][0], None)

    def keys(self) -> list[tuple[str, int]] | None:
        """For each example what tells it apart, and its label; None where that takes reading all of them."""
        if self.names is None or self.labels is None:
            return None
        return list(zip(self.names, self.labels, strict=True))

    def fingerprint(self) -> Json:
        """See `fingerprint.of_examples`."""
        probes = {i: _probe(*self[i]) for i in fingerprint.probe_positions(len(self))}
        return fingerprint.of_examples(self.keys(), len(self), probes)

    def batches(
        self, positions: Sequence[Sequence[int]], *, classes: int, workers: int = 0
    ) -> Iterator[Batch]:
        """The examples of each list of positions as images (B, C, H, W) and labels (B,).

        Raises:
            InputError: a label that is no class of the model, or pictures of several sizes.
        """
        loader = DataLoader(
            self,
            batch_sampler=map(list, positions),
            num_workers=workers,
            collate_fn=_collate,
        )
        for at, (images, labels) in zip(positions, _in_one_line(loader), strict=True):
            wrong = ((labels < 0) | (labels >= classes)).nonzero()[:, 0]
            if len(wrong):
                i = int(wrong[0])
                raise InputError(
                    f"label {int(labels[i])} of example {at[i]} is no class of the model, which has {classes}, "
                    f"0 to {classes - 1}"
                )
            yield images, labels


def _in_one_line(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches; what a worker raised comes with its traceback in its message, of which the last line is what it said."""
    try:
        yield from batches
    except SeewhyError as error:
        lines = str(error).strip().splitlines()
        if len(lines) == 1:
            raise
        raise type(error)(lines[-1].partition(": ")[2]) from error


def _probe(image: Tensor, label: int) -> str:
    return digest(image, str(label))


def _collate(examples: Sequence[tuple[Tensor, int]]) -> Batch:
    images, labels = zip(*examples, strict=True)
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InputError(
            f"training pictures have several shapes, {sorted(shapes)[:2]}; bring them to one"
        )
    return torch.stack(images), torch.tensor(labels, dtype=torch.long)


def shown(image: Tensor, preprocess: Preprocess | None) -> tuple[Image.Image, Placement]:
    """A picture of an input (C, H, W), enlarged where it is tiny, and its placement: the whole."""
    photo = tensor_to_photos(image[None], preprocess)[0]
    scale = max(1, 96 // max(photo.size))
    photo = photo.resize((photo.width * scale, photo.height * scale), Image.Resampling.NEAREST)
    return photo, Placement(
        (photo.height, photo.width), (0.0, 0.0, float(photo.width), float(photo.height))
    )


class _Tensors(Examples):
    def __init__(self, images: Tensor, labels: Tensor, preprocess: Preprocess | None) -> None:
        if (
            images.ndim < 2
            or len(images) != len(labels)
            or labels.ndim != 1
            or labels.is_floating_point()
        ):
            raise InputError(
                f"train_data has images {tuple(images.shape)} and labels {tuple(labels.shape)} of {labels.dtype}; "
                "accepted: (n, C, H, W), and whole numbers (n,)"
            )
        self.images = images
        self.labels = labels.tolist()
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        assert self.labels is not None
        return self.images[index], self.labels[index]

    def photo(self, index: int) -> tuple[Image.Image, Placement]:
        return shown(self.images[index], self.preprocess)

    def keys(self) -> list[tuple[str, int]]:
        assert self.labels is not None
        return [
            (digest(image), label) for image, label in zip(self.images, self.labels, strict=True)
        ]


class _Listed(Protocol):
    """A data set that knows how many examples it has."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


class _Pairs(Examples):
    def __init__(self, data: _Listed) -> None:
        self.data, self.labels = data, _told_labels(data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        example = self.data[index]
        if not (
            isinstance(example, tuple | list)
            and len(example) == 2
            and isinstance(example[0], Tensor)
        ):
            raise ArgumentTypeError(
                f"train_data gives a {type(example).__name__} for an example; accepted: (tensor, label)"
            )
        return example[0], int(example[1])

    def keys(self) -> list[tuple[str, int]] | None:
        if self.labels is None:
            return None
        return [(digest(self[i][0]), label) for i, label in enumerate(self.labels)]


def _told_labels(data: object) -> list[int] | None:
    """The labels of a data set of tensors, or of a part of one."""
    if isinstance(data, Subset):
        every = _told_labels(data.dataset)
        return None if every is None else [every[int(i)] for i in data.indices]
    if isinstance(data, TensorDataset) and len(data.tensors) == 2 and data.tensors[1].ndim == 1:
        return [int(label) for label in data.tensors[1].tolist()]
    return None


class _Pictures(Examples):
    def __init__(self, data: LabeledImages, preprocess: Preprocess | None) -> None:
        if preprocess is None:
            raise InputError(
                "the model has no preprocess, which pictures need; give seewhy.wrap(module, preprocess=...), or tensors"
            )
        odd = next((i for i, labels in enumerate(data.labels) if len(labels) != 1), None)
        if odd is not None:
            raise InputError(
                f"'{data.names[odd]}' of {data.title} has {len(data.labels[odd])} labels; influence needs one for each "
                "picture: give a single-label data set"
            )
        self.data, self.preprocess = data, preprocess
        self.names, self.classes = data.names, tuple(data.classes)
        self.labels = [label for (label,) in data.labels]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        example = self.data[index]
        return self.preprocess(example.photo)[0], example.labels[0]

    def photo(self, index: int) -> tuple[Image.Image, Placement]:
        photo = self.data[index].photo
        return photo, self.preprocess(photo)[1]


class Joined(Examples):
    """Several sets of examples, one after the other."""

    def __init__(self, parts: Sequence[Examples]) -> None:
        self.parts = list(parts)
        self.classes = parts[0].classes

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        part, i = self._find(index)
        return part[i]

    def photo(self, index: int) -> tuple[Image.Image, Placement]:
        part, i = self._find(index)
        return part.photo(i)

    def name(self, index: int) -> str:
        """What an example is called: its name, or its position."""
        part, i = self._find(index)
        return str(index) if part.names is None else part.names[i]

    def _find(self, index: int) -> tuple[Examples, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)


def as_examples(data: TrainData, preprocess: Preprocess | None) -> Examples:
    """Any training data as `Examples`.

    Raises:
        ArgumentTypeError: it is none of what is accepted.
        InputError: it is empty, or its examples do not have one label each.
    """
    if isinstance(data, LabeledImages):
        found: Examples = _Pictures(data, preprocess)
    elif (
        isinstance(data, tuple | list)
        and len(data) == 2
        and all(isinstance(part, Tensor) for part in data)
    ):
        found = _Tensors(data[0], data[1], preprocess)
    elif isinstance(data, Dataset) and hasattr(data, "__len__"):
        found = _Pairs(data)
    else:
        raise ArgumentTypeError(
            f"train_data is a {type(data).__name__}; accepted: seewhy.data.LabeledImages, a torch Dataset of (tensor, "
            "label) with a length, or two tensors (images, labels)"
        )
    if not len(found):
        raise InputError("train_data is empty; give at least one example")
    return found


class Absent(Examples):
    """The place of examples that an opened index was not given."""

    def __init__(self, count: int, folder: object) -> None:
        self.count, self.folder = count, folder

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        raise InputError(
            f"this needs the training data of the index in '{self.folder}', which was opened without; give "
            "InfluenceIndex.open(folder, model, data=...)"
        )
