"""Random numbers keyed by an image's content: the same in any batch, any order and any process."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def same_random_states() -> Iterator[None]:
    """Leaves the random states of torch, NumPy and Python as they were, whatever is drawn or seeded within."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the caller's
    begun: Callable[[], bool] = (
        torch.cuda.is_initialized
    )  # asking a device for its state would begin it
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if begun() else ()):
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002 - the same


def image_seed(image: Tensor, seed: int) -> int:
    """A seed of an image's own: by its bytes and the user's seed, whatever its place in a batch.

    Example:
        >>> seewhy.masking.image_seed(x[0], 0) == seewhy.masking.image_seed(x[0].clone(), 0)
        True
    """
    return zlib.crc32(image.detach().float().cpu().contiguous().numpy().tobytes(), seed)


def keys(images: Tensor, seed: int) -> list[int]:
    """A 64-bit seed for each image, for draws that are many: of `image_seed` the 32 bits may meet."""
    every = (
        images.detach().cpu().contiguous().flatten(1).view(torch.uint8)
    )  # bfloat16 is no type of NumPy's
    return [_mixed(zlib.crc32(image.numpy().tobytes()) + (seed << 32)) for image in every]


def _mixed(key: int) -> int:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): near keys give numbers that are far apart."""
    mask = 2**64 - 1
    key = (key + 0x9E3779B97F4A7C15) & mask
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & mask
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & mask
    return key ^ (key >> 31)


def uniforms(images: Tensor, seed: int) -> Tensor:
    """A number in [0, 1) for each image, (B,) float64."""
    return torch.tensor([key / 2**64 for key in keys(images, seed)], dtype=torch.float64)


def normals(images: Tensor, seed: int, dim: int) -> Tensor:
    """Standard normal numbers for each image, (B, dim)."""
    each = [
        torch.randn(dim, generator=torch.Generator().manual_seed(key >> 1), dtype=torch.float32)
        for key in keys(images, seed)
    ]
    return torch.stack(each)
