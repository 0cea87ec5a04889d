"""STL-10 (Coates, Ng and Lee, AISTATS 2011)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...arguments import checked_class
from ...errors import InputError
from ..dataset import Example, LabeledImages, OnError, check_listed, check_on_error, check_split
from .files import existing_folder, hash_split, read_text

_EDGE = 96
_HELD_OUT = {"val": 0.1}


@checked_class
class STL10(LabeledImages):
    """STL-10, single-label, without boxes: 96 x 96 pixels, ten classes.

    Files: stl10_binary/{train,test}_X.bin, {train,test}_y.bin, class_names.txt. They are mapped, not read whole;
    torchvision's reader wants the 2.6 GB of unlabelled pictures too and hashes everything first. The authors have no
    "val": a tenth of each class's training pictures is it, by a hash of their numbers, and is not in "train".

    Args:
        root: the folder with stl10_binary, or that one.
        split: "train", "val" or "test".
        seed: of the hash.
        on_error: as in `LabeledImages`.

    Raises:
        InputError: a file is missing, or cut short.

    Example:
        >>> data = seewhy.data.STL10("stl10")
        >>> data.classes[:3], data[0].photo.size
        (('airplane', 'bird', 'car'), (96, 96))
    """

    def __init__(
        self, root: str | Path, *, split: str = "train", seed: int = 0, on_error: OnError = "raise"
    ) -> None:
        check_split(split)
        check_on_error(on_error)
        folder = _binary_folder(root)
        part = "test" if split == "test" else "train"
        self.classes = tuple(read_text(folder / "class_names.txt", "the list of classes").split())
        self._pixels = folder / f"{part}_X.bin"
        labels = _read_labels(folder / f"{part}_y.bin", self._pixels, len(self.classes))
        names = [f"{part}-{i:05d}" for i in range(len(labels))]
        splits = [split] * len(names)
        if part == "train":
            splits = hash_split(
                names, [str(label) for label in labels], seed=seed, shares=_HELD_OUT
            )
        self._rows = [i for i, its_split in enumerate(splits) if its_split == split]
        self.title = f"STL-10, {split}"
        self.multi_label = False
        self.on_error = on_error
        self.names = [names[i] for i in self._rows]
        self.labels = [(int(labels[i]),) for i in self._rows]
        check_listed(self)

    def __getitem__(self, index: int) -> Example:
        # (3, columns, rows) each. Mapped anew each time: a map that is kept would be copied to every worker.
        pixels = _mapped(self._pixels).reshape(-1, 3, _EDGE, _EDGE)[self._rows[index]]
        return Example(
            self.names[index], Image.fromarray(pixels.transpose(2, 1, 0).copy()), self.labels[index]
        )


def _binary_folder(root: str | Path) -> Path:
    """The folder of the files: the one given, or what is in it."""
    folder = existing_folder(root, "STL-10, with stl10_binary in it")
    inner = folder / "stl10_binary"
    return inner if inner.is_dir() else folder


def _read_labels(file: Path, pixels: Path, classes: int) -> npt.NDArray[np.int_]:
    """The class of each picture, counted from 0.

    Raises:
        InputError: a file cannot be read, the pixels are not those of as many pictures, or there is no such class.
    """
    labels = _mapped(file).astype(int) - 1
    if _mapped(pixels).size != len(labels) * 3 * _EDGE**2:
        raise InputError(
            f"'{pixels}' is cut short: it has not the {len(labels)} pictures of {file.name}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(f"'{file}' has labels beyond class_names.txt; get it anew")
    return labels


def _mapped(path: Path) -> npt.NDArray[np.uint8]:
    try:
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"'{path}' cannot be read ({why}); check the folder, or get it anew"
        ) from error
