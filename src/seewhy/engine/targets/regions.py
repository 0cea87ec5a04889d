"""Regions of a segmentation as targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import TargetError
from .target import Target


@dataclass(frozen=True, eq=False)
class SegmentationRegion(Target):
    """The class's scores summed over a region, (N, K, H, W) -> (N,).

    Where a `Model` is explained, its own `multi_label` counts too.

    Args:
        index: the class.
        region: (H, W) or (N, H, W), 1 inside; resized to the output. None: where the model predicts the class, which is
            where its score is the largest, or, where classes do not exclude each other, above the threshold.
        multi_label: classes do not exclude each other; a single channel has none to exclude.
        threshold: 0 for logits, 0.5 for probabilities.
    """

    index: int
    region: Tensor | None = None
    multi_label: bool = field(default=False, repr=False)
    threshold: float = field(default=0.0, repr=False)
    one_each: ClassVar = {"region": 3}

    def __call__(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TargetError(f"SegmentationRegion needs an output (N, K, H, W), got {shape}; pass output= to pick it")
        if not 0 <= self.index < output.shape[1]:
            raise TargetError(f"target {self.index} is not a class of the model, which has {output.shape[1]}")
        self.check_images(len(output))
        if self.region is None:
            inside = self._predicted(output).to(output.dtype)  # (N, H, W)
        else:
            region = self.region.to(output).reshape(-1, 1, *self.region.shape[-2:])
            inside = torch.nn.functional.interpolate(region, output.shape[-2:], mode="nearest")[:, 0]
        return (output[:, self.index] * inside).flatten(1).sum(1)

    def _predicted(self, output: Tensor) -> Tensor:
        if self.multi_label or output.shape[1] == 1:
            return output[:, self.index] > self.threshold
        return output.argmax(1) == self.index
