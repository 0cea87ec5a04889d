"""Regions of a segmentation as targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ...arguments import brief
from ...errors import TargetError
from .classes import OfClasses, check_class
from .numbers import Numbers, known_or_seen


@dataclass(frozen=True, eq=False)
class SegmentationRegion(OfClasses):
    """The class's scores summed over a region, (N, K, H, W) -> (N,).

    Args:
        index: the class, or its name.
        region: (H, W) or (N, H, W), 1 inside; resized to the output. None: where the model predicts the class, which is
            where its score is the largest, or, where classes do not exclude each other, its probability above a half.
        numbers: what the scores are; where no model says it the output itself is looked at.

    Example:
        >>> region = torch.tensor([[1.0, 0.0]])
        >>> seewhy.targets.SegmentationRegion(1, region)(torch.tensor([[[[0.0, 0.0]], [[3.0, 5.0]]]]))
        tensor([3.])
    """

    index: int | str
    region: Tensor | None = None
    numbers: Numbers | None = field(default=None, repr=False)
    one_each: ClassVar = {"region": 3}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.region is not None and self.region.ndim not in (2, 3):
            raise TargetError(
                f"region={brief(self.region)} cannot be used; give one (H, W), or (N, H, W)"
            )

    def __call__(self, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TargetError(
                f"SegmentationRegion needs an output (N, K, H, W), got {shape}; pass output= to pick it"
            )
        index = check_class(self.index, output.shape[1])
        self.check_images(len(output))
        if self.region is None:
            inside = self._where_predicted(output, index).to(output.dtype)  # (N, H, W)
        else:
            region = self.region.to(output).reshape(-1, 1, *self.region.shape[-2:])
            inside = torch.nn.functional.interpolate(region, output.shape[-2:], mode="nearest")[
                :, 0
            ]
        return (output[:, index] * inside).flatten(1).sum(1)

    def _where_predicted(self, output: Tensor, index: int) -> Tensor:
        """Where the class is predicted, (N, H, W)."""
        numbers = known_or_seen(self.numbers, output)
        each_by_itself = numbers.multi_label or numbers.gives in ("sigmoids", None)
        if each_by_itself or output.shape[1] == 1:
            return numbers.probabilities(output)[:, index] > 0.5
        return output.argmax(1) == index
