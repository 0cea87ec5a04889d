"""Pictures for the examples beside it: things cut from sample photos, at random places on other photos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_sample_image

from seewhy.data.dataset import Example, LabeledImages
from seewhy.data.images import read_image
from seewhy.data.truth import Truth

# photo, and the ellipse around the thing: centre x, y, half width and height in its pixels
THINGS = {
    "cat": ("chelsea", 215, 130, 125, 120),
    "cup": ("coffee", 277, 205, 202, 181),
    "flower": ("flower.jpg", 305, 216, 138, 138),
    "pagoda": ("china.jpg", 210, 185, 120, 160),
    "face": ("astronaut", 226, 105, 75, 100),
    "helmet": ("astronaut", 390, 420, 110, 90),
    "rocket": ("rocket", 314, 265, 45, 150),
    "retina": ("retina", 705, 705, 660, 660),
}
GROUNDS = ("grass", "gravel", "brick", "hubble_deep_field")


@cache
def photo(name: str) -> Image.Image:
    return read_image(
        load_sample_image(name) if name.endswith(".jpg") else getattr(skimage.data, name)()
    )


class Composites(LabeledImages):
    """A picture for each (ground, things): turned, scaled, side by side; truth labels are places in `THINGS`."""

    title = "composites"

    def __init__(
        self,
        contents: Sequence[tuple[str, tuple[str, ...]]],
        labels: Sequence[tuple[int, ...]],
        classes: Sequence[str],
        *,
        multi_label: bool = False,
        size: int = 224,
        seed: int = 0,
    ) -> None:
        self.contents, self.labels, self.classes = contents, labels, tuple(classes)
        self.multi_label, self.size, self.seed = multi_label, size, seed
        self.names = [
            f"{i} {' '.join(things)} on {ground}" for i, (ground, things) in enumerate(contents)
        ]

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self.seed, index))
        ground, things = self.contents[index]
        side = min(photo(ground).size) // 2
        x, y = (int(rng.integers(edge - side)) for edge in photo(ground).size)
        canvas = photo(ground).crop((x, y, x + side, y + side)).resize((self.size, self.size))
        masks = np.zeros((len(things), self.size, self.size), bool)
        # each thing has a cell of its own, so that none hides another
        cells, grid = rng.permutation(4), self.size // 2
        for mask, thing, cell in zip(masks, things, cells, strict=False):
            left, top = grid * (cell % 2), grid * (cell // 2)
            pasted = _cut(thing, rng, round(grid * rng.uniform(0.7, 0.98)))
            at = tuple(
                int(edge + rng.integers(grid - extent + 1))
                for edge, extent in zip((left, top), pasted.size, strict=True)
            )
            canvas.paste(pasted, at, pasted)
            alpha = np.asarray(pasted)[:, :, 3] > 127
            mask[at[1] : at[1] + alpha.shape[0], at[0] : at[0] + alpha.shape[1]] = alpha
        boxes = [
            [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] for ys, xs in map(np.nonzero, masks)
        ]
        truth = Truth(
            canvas.size[::-1],
            torch.tensor(np.array(boxes)),
            torch.tensor([list(THINGS).index(thing) for thing in things]),
            torch.from_numpy(masks),
        )
        return Example(self.names[index], canvas, self.labels[index], truth)


def _cut(thing: str, rng: np.random.Generator, longest: int) -> Image.Image:
    """A thing on nothing, turned by up to 20 degrees, with soft edges."""
    name, x, y, rx, ry = THINGS[thing]
    box = (x - rx, y - ry, x + rx, y + ry)
    piece = photo(name).crop(box).convert("RGBA")
    alpha = Image.new("L", piece.size)
    ImageDraw.Draw(alpha).ellipse((4, 4, piece.width - 5, piece.height - 5), fill=255)
    piece.putalpha(alpha.filter(ImageFilter.GaussianBlur(2)))
    piece = piece.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BICUBIC, expand=True)
    piece.thumbnail((longest, longest))
    return piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else piece
