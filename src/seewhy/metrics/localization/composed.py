"""Pictures of several objects, made of photos of one: two side by side, or four in a mosaic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...data.dataset import Example, LabeledImages
from ...data.preprocess import Preprocess, tensor_to_photos
from ...data.truth import Truth
from ...engine.batches import answers
from ...engine.call import Call
from ...engine.targets.classes import class_scores
from ...engine.targets.numbers import numbers_of
from ...errors import ImageError, InputError
from ...methods.photos import Source
from ...models.model import Model
from .marked import read_marked
from .mosaics import draw_grid

OnBadSingle = Callable[[Any, InputError], None]  # a photo as it was given, and the reason
_RIVALS = 20  # a class among so many best of another photo is not put beside it, nor one of the best tenth of all
_TRIES = 50  # draws for each pair that is asked for


class Singles(NamedTuple):
    """Photos of one object: what they are called, as inputs (N, C, H, W), and the model's class of each, if known."""

    names: Sequence[str]
    x: Tensor
    columns: Sequence[int] | None = None


@dataclass(eq=False)
class Cells:
    """Photos that a model is sure of, as it sees them.

    Attributes:
        names, pictures: of each.
        columns: the model's class of each.
        rivals: for each the classes that the model thinks of too.
        seen: how many photos were looked at.
        are_known: whether the classes are those of the data, and not the model's own answers.
    """

    names: list[str] = field(default_factory=list)
    pictures: list[Image.Image] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    rivals: list[set[int]] = field(default_factory=list)
    seen: int = 0
    are_known: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def by_class(self) -> dict[int, list[int]]:
        """For each class the numbers of its photos."""
        found: dict[int, list[int]] = {}
        for number, column in enumerate(self.columns):
            found.setdefault(column, []).append(number)
        return found


def confident_cells(
    call: Call,
    preprocess: Preprocess,
    photos: Iterable[Singles],
    *,
    confidence: float,
    enough: int,
    progress: Callable[[int], object] = lambda done: None,
) -> Cells:
    """The photos whose class the model gives a probability of `confidence` or more, and that of the data if known.

    Args:
        call: the model.
        preprocess: of photos to its input.
        photos: batch by batch.
        confidence: the least probability.
        enough: no further batch is read once there are so many.
        progress: called with the number of photos that were looked at.

    Raises:
        ModelError: the model's numbers have no probability.
    """
    cells = Cells()
    for batch in photos:
        output = answers(call, batch.x)
        scores = class_scores(output).detach().float().cpu()
        chances = numbers_of(call, output).probabilities(scores)
        sure, said = chances.max(1)
        rivals = max(1, min(_RIVALS, scores.shape[1] // 10))
        best = scores.topk(rivals, dim=1).indices
        cells.are_known = batch.columns is not None
        pictures = tensor_to_photos(batch.x, preprocess)
        for i, picture in enumerate(pictures):
            column = int(said[i])
            is_right = batch.columns is None or batch.columns[i] == column
            if is_right and float(sure[i]) >= confidence:
                cells.names.append(batch.names[i])
                cells.pictures.append(picture)
                cells.columns.append(column)
                cells.rivals.append(set(best[i].tolist()))
        cells.seen += len(pictures)
        progress(cells.seen)
        if len(cells) >= enough:
            break
    return cells


def singles_of_photos(source: Source, device: torch.device, batch_size: int) -> Iterator[Singles]:
    """Photos whose class nobody has said.

    Raises:
        ImageError: none can be read.
    """
    read = 0
    for start in range(0, len(source), batch_size):
        batch = source.batch(start, min(start + batch_size, len(source)))
        read += len(batch.names)
        if batch.names:
            yield Singles(batch.names, batch.x.to(device))
    if not read:
        raise ImageError(
            f"none of the {len(source)} pictures can be read; the first: {source.first_error}"
        )


def singles_of_data(
    model: Model,
    data: LabeledImages,
    columns: Sequence[int],
    batch_size: int,
    on_bad_image: OnBadSingle | None,
) -> Iterator[Singles]:
    """The pictures of a data set that show one class, whose column of the model's `columns` says."""
    alone = [i for i, labels in enumerate(data.labels) if len(labels) == 1]
    for start in range(0, len(alone), batch_size):
        marked = read_marked(data, alone[start : start + batch_size], model, on_bad_image)
        if marked is not None:
            own = [columns[labels[0]] for labels in marked.labels]
            yield Singles(marked.names, marked.x.to(model.device), own)


def pair_members(cells: Cells, *, count: int, confidence: float, seed: int) -> list[list[int]]:
    """Which two photos stand beside each other: of different classes, neither of which is a rival in the other photo.

    Raises:
        InputError: no two can.
    """
    rng, found = np.random.default_rng(seed), dict[frozenset[int], list[int]]()
    for _ in range(_TRIES * count if len(cells) > 1 else 0):
        a, b = map(int, rng.choice(len(cells), 2, replace=False))
        apart = cells.columns[b] not in cells.rivals[a] and cells.columns[a] not in cells.rivals[b]
        if apart:
            found.setdefault(frozenset((a, b)), [a, b])
        if len(found) == count:
            break
    if not found:
        raise _too_few("pair", cells, confidence, "but no two of classes that are told apart")
    return list(found.values())


def mosaic_members(cells: Cells, *, count: int, confidence: float, seed: int) -> list[list[int]]:
    """Which four photos, of four classes, make each mosaic: as `grid_mosaics` draws them, each four once.

    Raises:
        InputError: fewer than four classes have a photo.
    """
    chosen = cells.by_class()
    if len(chosen) < 4:
        needs = f"of {len(chosen)} classes, and a mosaic needs 4"
        raise _too_few("mosaic", cells, confidence, needs)
    drawn = [draw_grid(chosen, 2, seed, number)[0] for number in range(count)]
    return list({frozenset(members): members for members in drawn}.values())


def _too_few(what: str, cells: Cells, confidence: float, needs: str) -> InputError:
    sure = f"the model is sure of {len(cells)} (probability {confidence:g} or more)"
    way_out = "give more photos, of several classes, or a lower confidence"
    return InputError(f"no {what} can be made: of {cells.seen} photos {sure}, {needs}; {way_out}")


class Composed(LabeledImages):
    """Photos in the cells of a grid; each cell is the box of its class.

    Args:
        cells: the photos.
        members: for each picture the photos in its cells, row by row.
        shape: rows and columns of cells.
        size: (H, W) of the pictures; where it is smaller than the cells together they are shrunk to fit in.
        fill: RGB around them.
        model: which names the classes.
        title: what the data set is called.

    Attributes:
        columns: the model's class for each of the data's.
    """

    multi_label = True
    checked = True

    def __init__(
        self,
        cells: Cells,
        members: Sequence[Sequence[int]],
        *,
        shape: tuple[int, int],
        size: tuple[int, int],
        fill: tuple[int, ...],
        model: Model,
        title: str,
    ) -> None:
        self.cells, self.members = cells, members
        self.shape, self.size, self.fill = shape, size, fill
        self.title = title
        self.columns = sorted({cells.columns[i] for each in members for i in each})
        self.classes = tuple(model.label(column) for column in self.columns)
        number = {column: i for i, column in enumerate(self.columns)}
        self._own = [[number[cells.columns[i]] for i in each] for each in members]
        self.labels = [tuple(sorted(each)) for each in self._own]
        self.names = [" + ".join(cells.names[i] for i in each) for each in members]

    def __getitem__(self, index: int) -> Example:
        """Lays the photos into their cells."""
        pictures = [self.cells.pictures[i] for i in self.members[index]]
        width, height = pictures[0].size
        rows, columns = self.shape
        whole = Image.new("RGB", (columns * width, rows * height))
        corners = [(c * width, r * height) for r in range(rows) for c in range(columns)]
        for picture, corner in zip(pictures, corners, strict=True):
            whole.paste(picture, corner)
        scale = min(self.size[0] / whole.height, self.size[1] / whole.width)
        inner = (round(whole.width * scale), round(whole.height * scale))
        left, top = (self.size[1] - inner[0]) // 2, (self.size[0] - inner[1]) // 2
        seen = Image.new("RGB", self.size[::-1], self.fill)
        seen.paste(whole.resize(inner, Image.Resampling.BICUBIC), (left, top))
        at = torch.tensor([(x, y, x + width, y + height) for x, y in corners])
        boxes = at * scale + torch.tensor([left, top] * 2)
        truth = Truth(self.size, boxes, torch.tensor(self._own[index]))
        return Example(self.names[index], seen, self.labels[index], truth)


def fill_of(preprocess: Preprocess) -> tuple[int, ...]:
    """RGB of the picture that is the model's zero: the mean that its preprocessing takes off."""
    black = torch.zeros(1, len(preprocess.mean), 1, 1)
    return tuple(preprocess.invert(black)[0, 0, 0].tolist())


def takes_size(call: Call, x: Tensor, size: tuple[int, int]) -> bool:
    """Whether the model answers for pictures of another size than its own."""
    try:
        answers(call, x.new_zeros(1, x.shape[1], *size))
    except Exception:  # networks refuse a size with whatever their shapes do not fit
        return False
    return True


Drawing = Callable[..., list[list[int]]]
DRAWINGS: Mapping[str, tuple[Drawing, tuple[int, int]]] = {
    "pairs": (pair_members, (1, 2)),
    "mosaics": (mosaic_members, (2, 2)),
}
