"""Regions of a segmentation as targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import TargetError
from .classes import OfClasses, check_class


@dataclass(frozen=True, eq=False)
class SegmentationRegion(OfClasses):
    """The class's scores summed over a region, (N, K, H, W) -> (N,).

    Args:
        index: the class, or its name.
        region: (H, W) or (N, H, W), 1 inside; resized to the output. None: where the model predicts the class.
    """

    index: int | str
    region: Tensor | None = None
    one_each: ClassVar = {"region": 3}

    def __call__(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TargetError(f"SegmentationRegion needs an output (N, K, H, W), got {shape}; pass output= to pick it")
        index = check_class(self.index, output.shape[1])
        self.check_images(len(output))
        if self.region is None:
            inside = (output.argmax(1) == index).to(output.dtype)  # (N, H, W)
        else:
            region = self.region.to(output).reshape(-1, 1, *self.region.shape[-2:])
            inside = torch.nn.functional.interpolate(region, output.shape[-2:], mode="nearest")[:, 0]
        return (output[:, index] * inside).flatten(1).sum(1)
