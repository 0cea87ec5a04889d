"""Small things to paste into a generated scene: digits, and shapes that are none."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ...errors import MissingExtraError

Gray = npt.NDArray[np.float32]  # (h, w) in [0, 1]
Rng = np.random.Generator

# Of twenty glyphs of a class, in an order that is shuffled once, how many each split has.
_SHARES = {"train": range(14), "val": range(14, 17), "test": range(17, 20)}
_INK = 0.4  # of a glyph's grey, where its ink begins: thin strokes stay in one piece, and loops stay open
_PADDING = 2  # cells around a glyph, so that nothing is cut off where it is turned

# Polylines on the unit square; none of them is a digit, whichever way it is turned.
_STROKES = (
    (((0.5, 0), (0.5, 1)), ((0, 0.5), (1, 0.5))),  # plus
    (((0, 0), (1, 0.5), (0, 1), (0, 0)),),  # triangle
    (((0, 0.2), (0.25, 0.8), (0.5, 0.2), (0.75, 0.8), (1, 0.2)),),  # zigzag
    (((0, 0.25), (1, 0.25)), ((0, 0.75), (1, 0.75))),  # two bars
    (((0, 0), (0, 1)), ((0, 0.5), (1, 0.5)), ((1, 0), (1, 1))),  # H
    (((0, 0), (1, 1)), ((0, 1), (1, 0)), ((0.5, 0), (0.5, 1))),  # star
    (((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 0.5), (1, 0.5)), ((0, 1), (1, 1))),  # comb
)


@cache
def glyphs(split: str) -> tuple[tuple[Gray, ...], ...]:
    """The handwritten digits that a split may use, of each class 0 to 9; no two splits share one.

    They are the 1,797 of scikit-learn (8 x 8, UCI's optical recognition of handwritten digits), cropped to their ink.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("the generated data set 'scenes'", "train") from error
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    found: list[tuple[Gray, ...]] = []
    for label in range(10):
        of_class = [i for i in order if digits.target[i] == label]
        kept = [i for place, i in enumerate(of_class) if place % 20 in _SHARES[split]]
        found.append(tuple(_cropped(digits.images[i].astype(np.float32) / 16) for i in kept))
    return tuple(found)


def _cropped(glyph: Gray) -> Gray:
    rows, cols = np.nonzero(glyph > _INK)
    return glyph[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]


def digit(rng: Rng, label: int, split: str) -> Gray:
    """A glyph of one class."""
    known = glyphs(split)[label]
    return known[rng.integers(len(known))]


def fragment(rng: Rng, split: str) -> Gray:
    """A corner of a glyph: ink as of a digit, and no digit. A part of a 1 would be another."""
    whole = digit(rng, int(rng.choice((0, 2, 3, 4, 5, 6, 7, 8, 9))), split)
    h, w = whole.shape[0] // 2 + 1, whole.shape[1] // 2 + 1
    return (whole[:h] if rng.random() < 0.5 else whole[-h:])[:, :w]


def stroke(rng: Rng) -> Gray:
    """A few straight lines as thick as a digit's."""
    drawn = Image.new("L", (32, 32))
    pen = ImageDraw.Draw(drawn)
    jitter = rng.uniform(-2, 2, 2)
    for line in _STROKES[rng.integers(len(_STROKES))]:
        pen.line(
            [(4 + 24 * x + jitter[0] * y, 4 + 24 * y + jitter[1] * x) for x, y in line],
            fill=255,
            width=5,
        )
    return np.asarray(drawn.reduce(4), np.float32) / np.float32(255)


def blob(rng: Rng) -> Gray:
    """A lump without holes."""
    lump: Gray = rng.uniform(0.2, 1, (4, 4)).astype(np.float32)
    lump[1:3, 1:3] = 1
    return lump


def distractor(rng: Rng, split: str) -> Gray:
    """One of the things above that are no digit."""
    made: tuple[Callable[[], Gray], ...] = (
        lambda: fragment(rng, split),
        lambda: stroke(rng),
        lambda: blob(rng),
    )
    return made[rng.integers(len(made))]()


def enlarge(gray: Gray, pixels: float, *, angle: float = 0.0, width: float = 1.0) -> Gray:
    """Makes a sprite's opacity in [0, 1], smooth in outline: at least 0.5 on its ink, which fills the array.

    Args:
        gray: the small picture of it.
        pixels: how tall it becomes, before it is turned.
        angle: in radians, anticlockwise.
        width: stretches it across.
    """
    scale = pixels / gray.shape[0]
    padded = np.zeros(
        [n + 2 * _PADDING for n in gray.shape], np.float32
    )  # several times faster than np.pad
    padded[_PADDING:-_PADDING, _PADDING:-_PADDING] = gray
    h, w = (math.ceil(n * f) for n, f in zip(padded.shape, (scale, scale * width), strict=True))
    cos, sin = math.cos(angle), math.sin(angle)
    # From a pixel of the result to a cell of the glyph; both about their centres.
    matrix = np.array([[cos / (scale * width), -sin / scale], [sin / (scale * width), cos / scale]])
    shift = np.array(padded.shape[::-1]) / 2 - matrix @ (np.array([w, h]) / 2)
    affine = (*matrix[0], shift[0], *matrix[1], shift[1])
    large = Image.fromarray(padded).transform(
        (w, h), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
    )
    # An outline of about a pixel, whatever the scale.
    opacity: Gray = np.clip((np.asarray(large) - _INK) * max(scale, 1.0) + 0.5, 0, 1)
    inked = opacity >= min(
        0.5, float(opacity.max())
    )  # of what is too small for ink its strongest pixel
    rows = np.flatnonzero(inked.any(1))
    cols = np.flatnonzero(inked.any(0))
    return opacity[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
