"""Cut-outs: pictures with transparency, pasted on backgrounds; the opacity is the true mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ...arguments import checked_class
from ...errors import ImageError, InputError
from ..dataset import (
    DRAWN,
    SPLITS,
    Example,
    LabeledImages,
    OnError,
    check_drawn,
    check_listed,
    check_on_error,
    check_split,
)
from ..formats.files import existing_folder, hash_split
from ..formats.folder import SHARES
from ..images import find_images, read_image
from ..intake.listing import in_class_order
from ..intake.masks import box_of
from ..opened import load_whole, opened
from ..rgb import upright
from ..truth import Truth

_OPAQUE = 127  # alpha above it belongs to the object


@checked_class
class Cutouts(LabeledImages):
    """Photographs cut out by their transparency, each at a random place and scale on a random background.

    Single-label. The class of a cut-out is its sub folder, or its file's name where it lies in `stamps` itself. Classes
    come in turn. Picture i is a function of the files, seed, split, i, size and scale alone. A class of three cut-outs
    or more has its own in each split, and so have three backgrounds or more; fewer are shared by the splits.

    Args:
        stamps: the folder of pictures with transparency.
        backgrounds: the folder of pictures to paste on, which are cropped to a square.
        count: of the pictures; None is 4,000 to train and 1,000 otherwise.
        size: pixels along each edge, at least 32.
        seed: not negative.
        split: "train", "val" or "test".
        scale: least and largest length of a cut-out's longer edge, of the picture's.
        on_error: as in `LabeledImages`.

    Raises:
        InputError: no such folder, no pictures in it, or an argument out of range.

    Example:
        >>> data = seewhy.data.Cutouts("stamps", "backgrounds", count=2, size=64)
        >>> data.classes, data[0].photo.size
        (('red',), (64, 64))
    """

    def __init__(
        self,
        stamps: str | Path,
        backgrounds: str | Path,
        *,
        count: int | None = None,
        size: int = 224,
        seed: int = 0,
        split: str = "train",
        scale: tuple[float, float] = (0.35, 0.65),
        on_error: OnError = "raise",
    ) -> None:
        check_split(split)
        check_on_error(on_error)
        check_drawn(count, size, seed)
        if not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
            raise InputError(
                f"scale={scale} cannot be used; give least and largest edge of a cut-out, above 0 to 1"
            )
        folder = existing_folder(stamps, "pictures with transparency")
        by_class: dict[str, list[Path]] = {}
        for path in find_images(folder):
            of_class = path.stem if path.parent == folder else path.relative_to(folder).parts[0]
            by_class.setdefault(of_class, []).append(path)
        self.classes = tuple(in_class_order(by_class))
        self._stamps = [_of_split(by_class[name], split, seed) for name in self.classes]
        below = find_images(existing_folder(backgrounds, "backgrounds"))
        self._backgrounds = _of_split(below, split, seed)
        self.title, self.multi_label, self.on_error = (
            f"{folder.name} on {Path(backgrounds).name}, {split}",
            False,
            on_error,
        )
        self.size = size
        self.seed = seed
        self.split = split
        self.scale = scale
        self.names = [f"{split}-{i:06d}" for i in range(DRAWN[split] if count is None else count)]
        self.labels = [(i % len(self.classes),) for i in range(len(self.names))]
        check_listed(self)

    def __getitem__(self, index: int) -> Example:
        """Draws one picture; ImageError where its cut-out or its background cannot be read, or the cut-out vanishes."""
        labels = self.labels[index]
        rng = np.random.default_rng((self.seed, SPLITS.index(self.split), range(len(self))[index]))
        stamps = self._stamps[labels[0]]
        path = stamps[rng.integers(len(stamps))]
        stamp = _read_stamp(path, self.max_pixels)
        behind = self._backgrounds[rng.integers(len(self._backgrounds))]
        background = read_image(behind, max_pixels=self.max_pixels)
        size = (self.size, self.size)
        photo = ImageOps.fit(
            background, size, Image.Resampling.BICUBIC, centering=(rng.random(), rng.random())
        )
        factor = rng.uniform(*self.scale) * self.size / max(stamp.size)
        w, h = (max(1, round(edge * factor)) for edge in stamp.size)
        small = stamp.resize((w, h), Image.Resampling.BICUBIC)
        x, y = (round(rng.random() * (self.size - edge)) for edge in (w, h))
        photo.paste(small, (x, y), small)
        mask = np.zeros(size, bool)
        mask[y : y + h, x : x + w] = np.asarray(small)[:, :, 3] > _OPAQUE
        if not mask.any():
            raise ImageError(
                f"cut-out '{path}' is too thin to be seen at {w} x {h} pixels; give a larger size or scale, or move "
                "it away"
            )
        truth = Truth(
            size, torch.tensor([box_of(mask)]), torch.tensor(labels), torch.from_numpy(mask)[None]
        )
        return Example(self.names[index], photo, labels, truth)


def _of_split(paths: list[Path], split: str, seed: int) -> list[Path]:
    """The files that a split may use: its own, or all where there are not enough to share out."""
    splits = hash_split([path.name for path in paths], [""] * len(paths), seed=seed, shares=SHARES)
    return [
        path for path, its_split in zip(paths, splits, strict=True) if its_split == split
    ] or paths


def _read_stamp(path: Path, max_pixels: int) -> Image.Image:
    """A cut-out (RGBA), cropped to what is opaque."""
    with opened(path, "cut-out", max_pixels=max_pixels) as picture:
        load_whole(picture, f"cut-out '{path}'")
        stamp = upright(picture).convert("RGBA")
    opaque = np.asarray(stamp)[:, :, 3] > _OPAQUE
    if opaque.all() or not opaque.any():
        what = "no transparency" if opaque.all() else "nothing opaque"
        raise ImageError(
            f"cut-out '{path}' has {what}; give a picture whose opacity shows the object"
        )
    x0, y0, x1, y1 = (int(edge) for edge in box_of(opaque))
    return stamp.crop((x0, y0, x1, y1))
