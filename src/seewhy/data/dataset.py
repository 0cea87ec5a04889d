"""What every data set is: pictures with labels, and with boxes and masks where they are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from torch.utils.data import Dataset

from ..errors import InputError, did_you_mean
from ..remarks import warn
from .opened import MAX_PIXELS
from .truth import Truth

SPLITS = ("train", "val", "test")
OnError = Literal["raise", "skip"]
_MOST_DRAWN = 10_000_000
DRAWN = {
    "train": 4000,
    "val": 1000,
    "test": 1000,
}  # pictures of a split that is drawn, unless asked otherwise


@dataclass(frozen=True, eq=False)
class Example:
    """One picture of a data set.

    Attributes:
        name: unique in the data set: a path below its root, or an id.
        photo: RGB.
        labels: the classes it shows, in order; exactly one in a single-label data set.
        truth: where they are; None where nobody marked it.
        notes: what was mended of its annotation, where `on_error` is "skip".

    Example:
        >>> example = seewhy.data.find_data("scenes:size=64,count=4")[0]
        >>> example.photo.size, example.labels, example.truth.boxes.shape
        ((64, 64), (5,), torch.Size([3, 4]))
    """

    name: str
    photo: Image.Image
    labels: tuple[int, ...]
    truth: Truth | None = None
    notes: tuple[str, ...] = ()


class LabeledImages(Dataset[Example]):
    """Pictures with labels, read one by one.

    Attributes:
        title: what the data set is called, for reports.
        classes: a name for each class, in order.
        multi_label: whether a picture may show several classes, or none.
        names: of the pictures, in order.
        labels: of the pictures, known without opening them.
        on_error: "raise" at what cannot be used; or "skip": marked objects that cannot be used are left out and boxes
            that reach beyond the photo are clipped, with a note, and `readable` leaves pictures out.
        skipped: the pictures that are left out, and why; `readable` adds to them.
        notes: the annotations that were mended, and how, by the picture's name, or what they say is one; likewise.
        checked: whether every picture was opened by `readable`.
        max_pixels: a picture of more is refused.
        trust_paths: whether lists and annotations may name pictures outside the data set's folder.

    Example:
        >>> data = seewhy.data.find_data("photos", split="train")
        >>> data.title, data.classes, data.class_counts()
        ('photos, train', ('blue', 'green', 'red'), (2, 2, 2))
    """

    title: str
    classes: tuple[str, ...]
    multi_label: bool
    names: Sequence[str]
    labels: Sequence[tuple[int, ...]]
    on_error: OnError = "raise"
    skipped: Mapping[str, str] = {}
    notes: Mapping[str, tuple[str, ...]] = {}
    checked: bool = False
    max_pixels: int = MAX_PIXELS
    trust_paths: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """Reads one picture; ImageError, with its name, where it cannot be read, InputError where its boxes cannot."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def class_counts(self) -> tuple[int, ...]:
        """How many pictures show each class; no picture is opened."""
        counts = [0] * len(self.classes)
        for label in (label for labels in self.labels for label in labels):
            counts[label] += 1
        return tuple(counts)

    def subset(self, indices: Iterable[int]) -> LabeledImages:
        """The same data set with these of its pictures, in this order; IndexError where there is none."""
        return Subset(self, indices)

    def readable(self, progress: Callable[[int, int], None] | None = None) -> LabeledImages:
        """Opens each picture once, and returns the data set of those that can be used, with `skipped` and `notes`.

        Args:
            progress: called with the number of pictures seen and of all.

        Raises:
            InputError: `on_error` is "raise" and some picture or its annotation cannot be used, or no picture can.
        """
        kept: list[int] = []
        skipped: dict[str, str] = {}
        notes = dict(self.notes)
        for index, name in enumerate(self.names):
            try:
                said = self[index].notes
            except InputError as error:
                if self.on_error == "raise":
                    raise
                skipped[name] = str(error)
            else:
                kept.append(index)
                notes |= {name: said} if said else {}
            if progress:
                progress(index + 1, len(self))
        if not kept:
            first = next(iter(skipped.values()), "it has none")
            raise InputError(f"no picture of {self.title} can be used; the first: {first}")
        found = Subset(self, kept, skipped={**self.skipped, **skipped}, notes=notes)
        found.checked = True
        return found


class Subset(LabeledImages):
    """Some of a data set's pictures."""

    def __init__(
        self,
        whole: LabeledImages,
        indices: Iterable[int],
        *,
        skipped: Mapping[str, str] | None = None,
        notes: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.whole = whole
        self.indices = [range(len(whole))[index] for index in indices]
        self.title = whole.title
        self.classes = whole.classes
        self.multi_label = whole.multi_label
        self.names = [whole.names[i] for i in self.indices]
        self.labels = [whole.labels[i] for i in self.indices]
        self.on_error = whole.on_error
        self.skipped = whole.skipped if skipped is None else skipped
        self.notes = whole.notes if notes is None else notes
        self.checked = whole.checked

    def __getitem__(self, index: int) -> Example:
        return self.whole[self.indices[index]]


def check_split(split: str) -> None:
    """Raises an InputError unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        raise InputError(
            f"split={split!r} is not known{did_you_mean(split, SPLITS)}; use 'train', 'val' or 'test'"
        )


def check_on_error(on_error: str) -> None:
    """Raises an InputError unless `on_error` is "raise" or "skip"."""
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error={on_error!r} is not known; use 'raise' or 'skip'")


def check_drawn(count: int | None, size: int, seed: int) -> None:
    """Raises an InputError unless pictures can be drawn: one at least, of 32 pixels at least, seed not negative.

    As many pixels as may be read, and no more pictures than can be listed.
    """
    for name, value, least, most in (
        ("count", 1 if count is None else count, 1, _MOST_DRAWN),
        ("size", size, 32, math.isqrt(MAX_PIXELS)),
        ("seed", seed, 0, None),
    ):
        if not isinstance(value, int) or value < least or (most is not None and value > most):
            accepted = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise InputError(f"{name}={value!r} draws no pictures; give a whole number {accepted}")


def check_splits(train: LabeledImages, val: LabeledImages) -> None:
    """Checks that two splits go together: the same classes, in the same order, each with pictures in both.

    Warns of classes that only `train` has pictures of: `val` says nothing about them.

    Raises:
        InputError: the classes differ, or `val` shows some that `train` has no picture of.

    Example:
        >>> train, val = (seewhy.data.Scenes(100, size=32, split=split) for split in ("train", "val"))
        >>> seewhy.data.check_splits(train, val)  # says nothing: they go together
    """
    if train.classes != val.classes:
        other = sorted(set(train.classes) ^ set(val.classes))
        what = f"{_quoted(other)} only in one of them" if other else "their order"
        raise InputError(
            f"the classes of {train.title} and of {val.title} differ: {what}; use two splits of one set"
        )
    counts = zip(train.classes, train.class_counts(), val.class_counts(), strict=True)
    unlearned, untested = [], []
    for name, in_train, in_val in counts:
        if in_val and not in_train:
            unlearned.append(name)
        elif in_train and not in_val:
            untested.append(name)
    if unlearned:
        way_out = "add some, or leave the class out of both"
        raise InputError(
            f"{train.title} has no picture of {_quoted(unlearned)}, which {val.title} shows; {way_out}"
        )
    if untested:
        said = (
            f"{val.title} has no picture of {_quoted(untested)}; its scores say nothing about them"
        )
        warn(said)


def _quoted(names: Sequence[str], most: int = 5) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")


def check_listed(data: LabeledImages) -> None:
    """Checks that a data set has pictures, and warns of classes without any.

    Raises:
        InputError: there is no picture.
    """
    if not data.names:
        raise InputError(f"{data.title} has no picture; give another path or split")
    empty = [
        name for name, count in zip(data.classes, data.class_counts(), strict=True) if not count
    ]
    if empty:
        said = f"{data.title} has no picture of {_quoted(empty)}; add some, or leave the class out"
        warn(said)
