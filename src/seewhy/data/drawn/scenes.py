"""Scenes: a generated data set of handwritten digits on clutter, with exact boxes and masks, and no download."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ...arguments import checked_class
from ...errors import InputError
from ..dataset import DRAWN, SPLITS, Example, LabeledImages, check_drawn, check_split
from ..truth import Truth
from . import sprites, textures

_SHOWN, _ORDER, _PIXELS = range(3)  # streams of random numbers
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_TURN = 0.2  # radians, to either side

Rng = np.random.Generator
Place = tuple[int, int]  # x, y of the upper left corner
Taken = npt.NDArray[np.bool_]  # (H, W)


@checked_class
class Scenes(LabeledImages):
    """Handwritten digits at random places and scales on textured clutter, among strokes, blobs and bits of digits.

    A single-label scene shows one to three digits of one class; a multi-label scene one to four of any classes.
    Digits never overlap and are never cut off or covered. Picture i is a function of seed, split, i, size, scale and
    `multi_label` alone. No two splits share a glyph.

    Args:
        count: of the pictures; None is 4,000 to train and 1,000 otherwise.
        size: pixels along each edge, at least 32.
        multi_label: see above.
        seed: not negative.
        split: "train", "val" or "test".
        scale: least and largest height of a digit, of the edge. Where digits do not fit, all of the scene shrink.

    Raises:
        InputError: an argument out of range.
        MissingExtraError: scikit-learn, whose digits they are, is not installed.

    Example:
        >>> data = seewhy.data.Scenes(4, size=64)
        >>> data.classes[data[0].labels[0]], data[0].truth.masks.shape
        ('5', torch.Size([3, 64, 64]))
    """

    def __init__(
        self,
        count: int | None = None,
        *,
        size: int = 96,
        multi_label: bool = False,
        seed: int = 0,
        split: str = "train",
        scale: tuple[float, float] = (0.25, 0.5),
    ) -> None:
        check_split(split)
        check_drawn(count, size, seed)
        if not (len(scale) == 2 and 0.1 <= scale[0] <= scale[1] <= 0.9):
            raise InputError(
                f"scale={scale} cannot be used; give least and largest height of a digit, from 0.1 to 0.9"
            )
        self.size = size
        self.seed = seed
        self.split = split
        self.scale = scale
        self.title = f"scenes, {split}"
        self.classes = tuple(str(digit) for digit in range(10))
        self.multi_label = multi_label
        self.names = [f"{split}-{i:06d}" for i in range(DRAWN[split] if count is None else count)]
        self._shown = [self._choose(i) for i in range(len(self.names))]
        self.labels = [tuple(sorted(set(shown))) for shown in self._shown]
        sprites.glyphs(split)

    def _rng(self, stream: int, key: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, SPLITS.index(self.split), stream, key))

    def _choose(self, index: int) -> list[int]:
        """The class of each digit of a scene."""
        rng = self._rng(_SHOWN, index)
        if self.multi_label:
            return [int(label) for label in rng.integers(10, size=rng.integers(1, 5))]
        # Each ten scenes in a row show each class once.
        order = self._rng(_ORDER, index // 10).permutation(10)
        return [int(order[index % 10])] * int(rng.integers(1, 4))

    def __getitem__(self, index: int) -> Example:
        """Draws one scene."""
        rng = self._rng(_PIXELS, range(len(self))[index])
        canvas = textures.background(rng, self.size)
        taken = np.zeros((self.size, self.size), bool)
        digits, places = self._lay_out(self._shown[index], taken, rng)
        self._distract(canvas, taken, rng)
        masks = np.zeros((len(digits), self.size, self.size), bool)
        boxes = []
        for mask, opacity, (x, y) in zip(masks, digits, places, strict=True):
            h, w = opacity.shape
            mask[y : y + h, x : x + w] = opacity >= 0.5
            boxes.append((x, y, x + w, y + h))
            _paint(canvas, opacity, (x, y), rng)
        truth = Truth(
            size=(self.size, self.size),
            boxes=torch.tensor(boxes),
            labels=torch.tensor(self._shown[index]),
            masks=torch.from_numpy(masks),
        )
        return Example(
            self.names[index],
            Image.fromarray(canvas.round().astype(np.uint8)),
            self.labels[index],
            truth,
        )

    def _lay_out(
        self, shown: list[int], taken: Taken, rng: Rng
    ) -> tuple[list[sprites.Gray], list[Place]]:
        """Opacities of the digits and where they go, without touching each other; marks what they take."""
        chosen = [
            (
                sprites.digit(rng, label, self.split),
                self.size * rng.uniform(*self.scale),
                rng.uniform(-_TURN, _TURN),
                rng.uniform(0.85, 1.2),
            )
            for label in shown
        ]
        shrink = 1.0
        while True:
            made = [
                sprites.enlarge(g, pixels * shrink, angle=a, width=w) for g, pixels, a, w in chosen
            ]
            places = [place for opacity in made if (place := _free(opacity.shape, taken, rng))]
            if len(places) == len(made):
                return made, places
            taken[:] = False
            shrink *= 0.9

    def _distract(self, canvas: textures.Colors, taken: Taken, rng: Rng) -> None:
        """Paints what is no digit where nothing is; what finds no place is left out."""
        for _ in range(rng.integers(3, 8)):
            pixels = self.size * rng.uniform(0.12, 0.3)
            angle = rng.uniform(-np.pi, np.pi)
            opacity = sprites.enlarge(sprites.distractor(rng, self.split), pixels, angle=angle)
            if place := _free(opacity.shape, taken, rng):
                _paint(canvas, opacity, place, rng)


def _free(shape: tuple[int, ...], taken: Taken, rng: Rng) -> Place | None:
    """A random place for (h, w) a pixel or more from what is taken, which it takes; None where a dozen tries fail."""
    (h, w), size = shape, len(taken)
    if h > size or w > size:
        return None
    for x, y in zip(
        rng.integers(size - w + 1, size=12), rng.integers(size - h + 1, size=12), strict=True
    ):
        if not taken[y : y + h, x : x + w].any():
            taken[max(y - 1, 0) : y + h + 1, max(x - 1, 0) : x + w + 1] = True
            return int(x), int(y)
    return None


def _paint(canvas: textures.Colors, opacity: sprites.Gray, place: Place, rng: Rng) -> None:
    """Lays a sprite on the canvas (H, W, 3), in a light colour."""
    x, y = place
    h, w = opacity.shape
    below = canvas[y : y + h, x : x + w]
    colors = textures.colors(rng, 3, 110, 255)
    lightest = colors[(colors @ _LUMINANCE).argmax()]
    below += opacity[:, :, None] * (lightest - below)
