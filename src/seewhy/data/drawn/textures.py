"""Textured backgrounds of generated scenes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Field = npt.NDArray[np.float32]  # (H, W), about [0, 1]
Colors = npt.NDArray[np.float32]  # (H, W, 3) in [0, 255]
Rng = np.random.Generator


def noise(rng: Rng, size: int, *, roughness: float = 0.6, octaves: int = 4) -> Field:
    """Fractal noise (H, W): octaves from 3 cells across, each with `roughness` of the amplitude of the one before."""
    cells, weight = 3, 1.0
    field = rng.random((cells, cells), dtype=np.float32)
    for _ in range(octaves - 1):
        cells, weight = 2 * cells, weight * roughness
        detail = rng.random((cells, cells), dtype=np.float32)
        field = _stretched(field, cells) + weight * (detail - 0.5)
    return _stretched(field, size)


def _stretched(field: Field, size: int) -> Field:
    return np.asarray(Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC))


def stripes(rng: Rng, size: int) -> Field:
    """Wavy stripes (H, W)."""
    angle, waves = rng.uniform(0, np.pi), rng.uniform(4, 12)
    along = np.linspace(0, 2 * np.pi * waves, size, dtype=np.float32)
    phase = (
        np.cos(angle) * along[None, :]
        + np.sin(angle) * along[:, None]
        + 6 * noise(rng, size, octaves=2)
    )
    return np.asarray(0.5 + 0.4 * np.sin(phase), np.float32)


def colors(rng: Rng, n: int, low: float, high: float) -> npt.NDArray[np.float32]:
    """Colours (n, 3), each channel in [low, high) of [0, 255]."""
    return rng.uniform(low, high, (n, 3)).astype(np.float32)


def background(rng: Rng, size: int) -> Colors:
    """Two textures that meet along an uneven border, each between two shades of a colour of its own."""
    border = np.clip(12 * (noise(rng, size, roughness=0.3, octaves=3) - 0.5) + 0.5, 0, 1)
    first = colors(rng, 2, 10, 120)
    shade = colors(rng, 2, -50, 50)
    fields = [
        stripes(rng, size) if rng.random() < 0.4 else noise(rng, size, roughness=0.9) for _ in first
    ]
    grain = rng.integers(-10, 11, (size, size), dtype=np.int8)
    # A sum over four fields (4, H, W) of a colour each.
    near, far = 1 - border, border
    weights = np.stack([near, near * fields[0], far, far * fields[1]])
    canvas = np.tensordot(weights, np.stack([first[0], shade[0], first[1], shade[1]]), axes=(0, 0))
    return np.clip(canvas + grain[:, :, None], 0, 255)
