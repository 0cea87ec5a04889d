"""The one way from what annotation files say, which may be wrong, to what a data set holds, which is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ..dataset import OnError, check_on_error
from ..truth import Truth
from .listing import as_id, whole_number
from .masks import box_of, fitted_mask
from .records import Annotation, Box, MarkedObject, Mask, Size

Corners = Callable[[float, float, float, float], Box]

_ROUNDING = 1.0  # pixels by which a box may overhang: coordinates are rounded in more ways than one
_FLAGS: dict[str | int | None, bool] = {
    None: False,
    "": False,
    "0": False,
    "1": True,
    False: False,
    True: True,
}


def corners(x0: float, y0: float, x1: float, y1: float) -> Box:
    """Of a box that is written as half-open corners."""
    return x0, y0, x1, y1


def extent(x: float, y: float, width: float, height: float) -> Box:
    """The corners of a box that is written as its first corner, width and height."""
    return x, y, x + width, y + height


class _Placed(NamedTuple):
    """One object where it lies in the photo; a crowd has no box. `overhang` says what was clipped of its box."""

    label: int
    box: Box | None
    mask: Mask | None
    difficult: bool
    overhang: str = ""


@dataclass
class _Faults:
    """What is wrong with the annotation of one picture: an error at once, or notes, as `on_error` says."""

    name: str
    on_error: OnError
    notes: list[str] = field(default_factory=list)

    def add(self, said: str) -> None:
        if self.on_error == "raise":
            raise InputError(
                f"annotation of '{self.name}': {said}; mend it, or pass on_error='skip'"
            )
        self.notes.append(said)

    @contextmanager
    def of(self, called: str = "") -> Iterator[None]:
        """Makes whatever is raised inside a fault of what is called so, or of the whole; it is then left out."""
        try:
            yield
        except Exception as error:  # what stands in a file of somebody else can be anything
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            self.add(f"{called}{kind}{' '.join(str(error).split())}")


class Intake:
    """Reads objects, one by one and guarded, and believes no reference that it has not followed.

    What is wrong with one object is an error that names its picture and the object; or, where `on_error` is "skip", a
    note, and the object is left out (a box that reaches beyond the photo is clipped). A photo of another size than
    the annotation states, and one whose annotation cannot be read, are dealt with likewise, as a whole.

    Args:
        classes: the ids that the files have of them, in order.
        corners: makes four numbers, as they are written, half-open corners; None where a box is that of its mask.
        on_error: "raise" or "skip".

    Attributes:
        notes: what was found while the files were listed, by the name of the picture, or what is said to be one.
        skipped: the pictures whose annotations cannot be read, and why.
    """

    def __init__(
        self, classes: Iterable[object], corners: Corners | None, on_error: OnError
    ) -> None:
        check_on_error(on_error)
        self.corners, self.on_error = corners, on_error
        self.notes: dict[str, tuple[str, ...]] = {}
        self.skipped: dict[str, str] = {}
        self.know(classes)

    def know(self, classes: Iterable[object]) -> None:
        """Takes the ids of the classes, in order; an InputError where one is there twice."""
        self._numbers: dict[int | str, int] = {}
        for label, said in enumerate(classes):
            if self._numbers.setdefault(as_id(said, "class"), label) != label:
                raise InputError(
                    f"the class of id {said!r} is listed twice, and nobody knows which is meant; mend it"
                )

    def fault(self, name: str, said: str) -> None:
        """Raises, or notes, what is wrong with the annotation of a picture before it is opened."""
        faults = _Faults(name, self.on_error)
        faults.add(said)
        self.notes[name] = (*self.notes.get(name, ()), *faults.notes)

    @contextmanager
    def whole(self, name: str) -> Iterator[None]:
        """Raises what is raised inside, or notes that the picture is left out for it."""
        try:
            yield
        except InputError as error:
            if self.on_error == "raise":
                raise
            self.skipped[name] = str(error)

    def shown(self, name: str, objects: Sequence[MarkedObject]) -> tuple[int, ...]:
        """The classes that a picture shows, in order.

        Raises:
            InputError: `on_error` is "raise", and the class or box of an object does not read; else `truth` notes it.
        """
        labels: set[int] = set()
        boxes = self.on_error == "raise" and self.corners is not None
        for one in objects:
            try:
                labels.add(self._label(one))
                if boxes and not _flag(one.crowd, "iscrowd"):
                    _four_numbers(one.box)
            except InputError as error:
                _Faults(name, self.on_error).add(f"{one.called}: {error}")
        return tuple(sorted(labels))

    def truth(
        self, name: str, read: Callable[[], Annotation | None], size: Size
    ) -> tuple[Truth | None, tuple[str, ...]]:
        """The truth of a photo of this size, None where there is none, and notes of what was mended or left out.

        Overhang of up to a pixel is rounding, and clipped.
        """
        faults, annotation = _Faults(name, self.on_error), None
        with faults.of():
            annotation = read()
            if annotation and annotation.size:
                _check_size(annotation.size, size)
        if annotation is None or faults.notes:
            return None, tuple(faults.notes)
        return self._truth(annotation, size, faults), tuple(faults.notes)

    def _truth(self, annotation: Annotation, size: Size, faults: _Faults) -> Truth:
        placed = self._placed(annotation, size, faults)
        single = [(one, one.box) for one in placed if one.box]
        masks = _masks(one for one, _ in single)
        crowds = _masks(one for one in placed if not one.box)
        with faults.of("its pixels to ignore: "):
            crowds += _further(annotation, masks, size)
        boxes = torch.tensor([box for _, box in single], dtype=torch.float32)
        labels = torch.tensor([one.label for one, _ in single], dtype=torch.long)
        difficult = torch.tensor([one.difficult for one, _ in single], dtype=torch.bool)
        return Truth(
            size, boxes, labels, _stacked(masks, len(single)), difficult, _ignored(crowds, size)
        )

    def _placed(self, annotation: Annotation, size: Size, faults: _Faults) -> list[_Placed]:
        """The objects that can be read, where they lie in the photo."""
        found: list[_Placed] = []
        for one in annotation.objects:
            placed = None
            with faults.of(f"{one.called}: "):
                placed = self._read(one, size, annotation.scaled)
            if placed and placed.overhang:
                faults.add(f"{one.called}: {placed.overhang}")
            found += [placed] if placed else []
        return found

    def _read(self, one: MarkedObject, size: Size, scaled: bool) -> _Placed:
        label = self._label(one)
        difficult = _flag(one.difficult, "difficult")
        mask = fitted_mask(one.mask(size), size, scaled=scaled) if one.mask else None
        if _flag(one.crowd, "iscrowd"):
            if mask is None:
                raise InputError("it is a crowd, and has no mask")
            return _Placed(label, None, mask, difficult=False)
        box, overhang = _clipped(self._box(one, mask), size)
        return _Placed(label, box, mask, difficult, overhang)

    def _label(self, one: MarkedObject) -> int:
        label = self._numbers.get(as_id(one.category, "class"))
        if label is None:
            raise InputError(f"its class {one.category!r} is not listed")
        return label

    def _box(self, one: MarkedObject, mask: Mask | None) -> Box:
        if self.corners:
            return self.corners(*_in_pixels(_four_numbers(one.box)))
        assert mask is not None
        return box_of(mask)


def _flag(said: object, what: str) -> bool:
    """What a mark says that is 0 or 1, or its text."""
    if not isinstance(said, str | int | None) or said not in _FLAGS:
        raise InputError(f"{what} is {said!r}, neither 0 nor 1")
    return _FLAGS[said]


def _union(masks: Sequence[Mask], size: Size) -> Mask:
    found = np.zeros(size, bool)
    for mask in masks:
        found |= mask
    return found


def _masks(placed: Iterable[_Placed]) -> list[Mask]:
    return [one.mask for one in placed if one.mask is not None]


def _further(annotation: Annotation, masks: Sequence[Mask], size: Size) -> list[Mask]:
    """The pixels to ignore that an annotation names, less those of objects."""
    if annotation.ignore is None:
        return []
    pixels = fitted_mask(annotation.ignore(size), size, scaled=annotation.scaled)
    return [pixels & ~_union(masks, size)]


def _stacked(masks: Sequence[Mask], count: int) -> Tensor | None:
    """The masks of all objects; None where some have none."""
    return torch.from_numpy(np.stack(masks)) if masks and len(masks) == count else None


def _ignored(masks: Sequence[Mask], size: Size) -> Tensor | None:
    return torch.from_numpy(_union(masks, size)) if masks else None


def _four_numbers(box: object) -> tuple[float, float, float, float]:
    """What a box says, if it is four finite numbers or their texts."""
    if isinstance(box, list) and len(box) == 4 and bool not in map(type, box):
        try:
            a, b, c, d = map(float, box)
        except (TypeError, ValueError, OverflowError):
            a = b = c = d = math.nan
        if math.isfinite(a + b + c + d):
            return a, b, c, d
    raise InputError("it has no box" if box is None else f"box {str(box)[:80]}; give four numbers")


def _in_pixels(box: Box) -> Box:
    """The four numbers, unless they are shares of the picture's sides."""
    if all(0 <= edge <= 1 for edge in box) and not all(map(float.is_integer, box)):
        raise InputError(f"box {list(box)} is in shares of the picture's sides; give pixels")
    return box


def _clipped(box: Box, size: Size) -> tuple[Box, str]:
    """A box within a photo, and what to say if more than rounding was cut off."""
    shown = [round(edge, 2) for edge in box]
    (x0, y0, x1, y1), (height, width) = box, size
    beyond = max(-x0, -y0, x1 - width, y1 - height, x0 - width, y0 - height)
    said = (
        f"box {shown} reaches beyond the picture of {width} x {height}"
        if beyond > _ROUNDING
        else ""
    )
    clipped = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if not (clipped[0] < clipped[2] and clipped[1] < clipped[3]):
        raise InputError(said or f"box {shown} has no area in the picture")
    return clipped, said


def _check_size(stated: tuple[object, object], size: Size) -> None:
    height, width = (whole_number(one) for one in stated)
    if (height, width) != size:
        since = "turned" if (width, height) == size else "made larger or smaller"
        raise InputError(
            f"it is of a picture of {width} x {height} (width x height), and the photo has {size[1]} x {size[0]}, so "
            f"it was {since} after it was marked, or is another"
        )
