"""Maps that know nothing of the model: what a score has to be compared with."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, did_you_mean
from .metric import image_generator

Chance = Literal["random", "uniform", "centre", "edges"]
CHANCES: tuple[Chance, ...] = ("random", "uniform", "centre", "edges")


def chance_maps(x: Tensor, *, seed: int = 0) -> dict[Chance, Tensor]:
    """Four maps of each image that ignore the model, (N, H, W) float32 in [0, 1].

    - "random": uniform noise, each pixel by itself; depends on the seed and on the image alone.
    - "uniform": one everywhere. Metrics that rank pixels meet only ties in it.
    - "centre": a Gaussian around the middle, a quarter of the height and of the width wide.
    - "edges": the magnitude of the Sobel gradient of the mean colour, over its maximum: what an edge detector shows.

    Args:
        x: (N, C, H, W), in the model's input space.
        seed: of the random map.

    Example:
        >>> {name: tuple(map_.shape) for name, map_ in seewhy.metrics.chance_maps(x).items()}
        {'random': (1, 16, 16), 'uniform': (1, 16, 16), 'centre': (1, 16, 16), 'edges': (1, 16, 16)}
    """
    return {
        "random": torch.stack(
            [
                torch.rand(
                    image.shape[1:], generator=image_generator(image, seed), dtype=torch.float32
                )
                for image in x
            ]
        ),
        "uniform": torch.ones(len(x), *x.shape[2:], dtype=torch.float32),
        "centre": _center(x.shape[2], x.shape[3]).expand(len(x), -1, -1).contiguous(),
        "edges": _edges(x),
    }


class ChanceMethod:
    """A chance map as a method `(model, x, target) -> (N, H, W)`, for metrics that run the method themselves.

    Example:
        >>> seewhy.metrics.ChanceMethod("uniform")(net, x).unique()
        tensor([1.])
    """

    def __init__(self, chance: Chance, *, seed: int = 0) -> None:
        if chance not in CHANCES:
            raise InputError(
                f"chance={chance!r} is unknown{did_you_mean(chance, CHANCES)}; accepted: {', '.join(CHANCES)}"
            )
        self.chance, self.seed = chance, seed

    def __call__(self, model: object, x: Tensor, target: object = None) -> Tensor:
        return chance_maps(x, seed=self.seed)[self.chance]


def _center(height: int, width: int) -> Tensor:
    rows, cols = (
        (torch.arange(side, dtype=torch.float32) - (side - 1) / 2) / (side / 4)
        for side in (height, width)
    )
    return torch.exp(-(rows[:, None] ** 2 + cols**2) / 2)


def _edges(x: Tensor) -> Tensor:
    grey = F.pad(x.detach().float().cpu().mean(1, keepdim=True), [1] * 4, mode="replicate")
    across = torch.tensor(
        [[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]], dtype=torch.float32
    )
    gradient = F.conv2d(grey, torch.stack([across, across.T])[:, None])  # (N, 2, H, W)
    magnitude = gradient.square().sum(1).sqrt()
    return magnitude / magnitude.amax((1, 2), keepdim=True).clamp(min=1e-12)
