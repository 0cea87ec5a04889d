"""The samples that the tests of pictures share: maps, photos, and what is read off a picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from seewhy.data.placement import Placement
from seewhy.maps import values as maps
from seewhy.maps.attribution import Attribution, Prediction

PREDICTIONS = [
    Prediction(281, "tabby cat", 0.43, 5.2),
    Prediction(285, "Egyptian cat", 0.31, 4.9),
    Prediction(1, "fish", 0.001, -0.9),
]
LONG = "a label with, as ImageNet has them, a great many synonyms, one after the other, without any end in sight"


def attribution(
    field: Tensor,
    *,
    signed: bool = False,
    pixels: Tensor | None = None,
    method: str = "grad_cam",
    title: str = "Grad-CAM",
    layer: str | None = "layer4",
    target: str = "281",
    label: str = "tabby cat",
    style: str | None = None,
) -> Attribution:
    n = len(field)
    return Attribution(
        method,
        title,
        layer,
        target,
        field.float(),
        maps.statuses(field),
        (label,) * n,
        (1.0,) * n,
        (0.43,) * n,
        (64, 64),
        signed=signed,
        pixels=pixels,
        interval=torch.full(field.shape, 0.25),
        style=style,
    )


def bump(size: int = 7, *, x: float = 0.5, y: float = 0.5, width: float = 0.2) -> Tensor:
    """(1, size, size) with a peak of 1 at (x, y) of the map."""
    at = (torch.arange(size) + 0.5) / size
    return torch.exp(-((at[None, :] - x) ** 2 + (at[:, None] - y) ** 2) / (2 * width**2))[None]


def photo(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def many(label: str = "tabby cat") -> list[Attribution]:
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return [
        attribution(bump(), label=label),
        attribution(
            bump(9) - 0.4,
            signed=True,
            title="Layer relevance",
            layer="features." * 8 + "conv2",
            label=label,
        ),
        attribution(
            pixels.sum(1),
            signed=True,
            pixels=pixels,
            title="Guided",
            method="guided_backprop",
            label=label,
        ),
        attribution(torch.zeros(1, 7, 7), title="LIME", layer=None, label=label),
        attribution(torch.full((1, 7, 7), float("inf")), title="RISE", layer=None, label=label),
    ]


def whole(picture: Image.Image) -> Placement:
    return Placement((picture.height, picture.width), (0, 0, picture.width, picture.height))


def numbers(picture: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(picture.convert("RGB"), np.int64)


def chroma(picture: Image.Image) -> npt.NDArray[np.int64]:
    """(H, W): how far from grey."""
    return np.asarray(np.ptp(numbers(picture), axis=2))
