"""The photos of an explanation, read batch by batch, in every form in which they may be given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import ImageError, InputError, ModelError
from .images import Placement, Preprocess, find_images, read_image, tensor_to_photos
from .models.model import Model
from .trace import check_input

ImageLike = str | PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor


class Source:
    """The photos, read batch by batch."""

    def __init__(
        self,
        images: ImageLike | Iterable[ImageLike],
        model: Model,
        on_bad_image: Callable[[Any, ImageError], None] | None,
    ) -> None:
        self.model, self.on_bad_image = model, on_bad_image
        self.tensor = images if isinstance(images, Tensor) and images.ndim != 3 else None
        self.items: list[ImageLike] = []
        if self.tensor is not None:
            check_input(self.tensor)
        elif isinstance(images, str | PathLike):
            self.items = list(find_images([images]))
        elif isinstance(images, Image.Image | np.ndarray | Tensor):
            self.items = [images]
        else:
            for item in images:
                self.items += find_images([item]) if isinstance(item, str | PathLike) else [item]
        if len(self) == 0:
            raise InputError("images is empty; give at least one photo")
        if self.items and model.preprocess is None:
            raise ModelError(
                f"{model.name} does not say how photos become its input; wrap it: seewhy.wrap(module, "
                "preprocess=seewhy.IMAGENET) if it was trained as ImageNet models are, or give a tensor (N, C, H, W)"
            )

    def __len__(self) -> int:
        return len(self.items) if self.tensor is None else len(self.tensor)

    def batch(
        self, start: int, stop: int
    ) -> tuple[tuple[str, ...], tuple[Image.Image, ...], tuple[Placement, ...], Tensor]:
        preprocess: Preprocess | None = self.model.preprocess
        if self.tensor is not None:
            x = self.tensor[start:stop]
            photos = tensor_to_photos(x, preprocess)
            h, w = x.shape[2:]
            placements = [Placement((h, w), (0.0, 0.0, float(w), float(h)))] * len(x)
            names = [f"image {i}" for i in range(start, stop)]
        else:
            assert preprocess is not None
            names, photos = [], []
            for i, item in enumerate(self.items[start:stop], start):
                try:
                    photos.append(read_image(item))
                    names.append(Path(item).name if isinstance(item, str | PathLike) else f"image {i}")
                except ImageError as error:
                    if self.on_bad_image is None:
                        raise
                    self.on_bad_image(item, error)
            x, placements = preprocess.batch(photos) if photos else (torch.empty(0), [])
        return tuple(names), tuple(photos), tuple(placements), x
