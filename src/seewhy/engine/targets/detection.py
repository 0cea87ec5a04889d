"""What a detector says of a box, as a target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from ...arguments import brief
from ...errors import TargetError
from ...maps.boxes import shared_part
from ..answers import Answer
from .classes import OfClasses, check_class
from .target import Target


@dataclass(frozen=True)
class DetectionBox(OfClasses):
    """A detector's score for a class around a box, before non-maximum suppression, where it is still differentiable.

    Every raw prediction whose box overlaps `box` with an IoU of at least `iou` adds its class score, weighted by that
    IoU. The output is (boxes (N, A, 4), scores (N, A, K)), as a tuple or under the usual names in a dict.

    Args:
        box: (x0, y0, x1, y1) in the units of the model's boxes.
        index: the class, or its name.
        iou: overlap below which a prediction does not count, in [0, 1].
        form: how the model writes boxes.

    Example:
        >>> boxes, scores = torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]), torch.tensor([[[0.2, 0.6]]])
        >>> seewhy.targets.DetectionBox((0, 0, 4, 3), 1)((boxes, scores))
        tensor([0.4500])
    """

    box: tuple[float, float, float, float]
    index: int | str
    iou: float = 0.5
    form: Literal["xyxy", "cxcywh"] = "xyxy"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "box", _corners(self.box))

    def __call__(self, output: object) -> Tensor:
        boxes, scores = _boxes_and_scores(output)
        index = check_class(self.index, scores.shape[-1])
        boxes = boxes.detach()
        if self.form == "cxcywh":
            center, half = boxes[..., :2], boxes[..., 2:] / 2
            boxes = torch.cat([center - half, center + half], -1)
        overlap = shared_part(boxes, boxes.new_tensor(self.box))  # (N, A)
        return (scores[..., index] * overlap * (overlap >= self.iou)).sum(1)


def _corners(box: Sequence[float]) -> tuple[float, ...]:
    """The box as plain numbers.

    Raises:
        TargetError: one is not finite.
    """
    corners = tuple(map(float, box))
    if not all(map(math.isfinite, corners)):
        raise TargetError(f"box={corners} is not finite; give (x0, y0, x1, y1)")
    return corners


def _boxes_and_scores(output: object) -> tuple[Tensor, Tensor]:
    boxes: object = None
    scores: object = None
    if isinstance(output, Mapping):
        boxes = _first_part(output, "boxes", "pred_boxes")
        scores = _first_part(output, "scores", "logits", "pred_logits")
    elif isinstance(output, tuple | list) and len(output) >= 2:
        boxes, scores = output[:2]
    if not _has_rows_of_boxes(boxes) or not _has_rows_of_boxes(scores):
        raise TargetError(
            "DetectionBox needs the raw (boxes (N, A, 4), scores (N, A, K)); pass output= to pick them"
        )
    return boxes, scores


def _first_part(record: Mapping[str, object], *names: str) -> object:
    """What a record has under the first of these names that it knows."""
    return next((record[name] for name in names if name in record), None)


def _has_rows_of_boxes(part: object) -> TypeGuard[Tensor]:
    """Whether it is (N, A, ...), of A boxes in each picture."""
    return isinstance(part, Tensor) and part.ndim == 3


@dataclass(frozen=True, eq=False)
class DetectionSimilarity(Target):
    """The best match of an object among a detector's answers (D-RISE; Petsiuk et al., CVPR 2021, eq. 2-5).

    max_j IoU(box, box_j) cos(P, P_j) O_j, in [0, 1], with class probabilities P and objectness O. The paper runs RISE
    on it with 5000 masks of 16 x 16 cells, p = 0.5.

    The output is what torchvision's detectors return, for each picture a dict of boxes (A, 4), labels (A,) and scores
    (A,), where O_j is the score; or raw: boxes (N, A, 4), class probabilities (N, A, K) and perhaps objectness (N, A),
    as a tuple or as "boxes", "scores", "objectness". A raw detector without objectness has its highest class
    probability.

    Args:
        box: (x0, y0, x1, y1) in the units of the model's boxes.
        classes: the object's class, or the probabilities (K,) that the detector gave it.
        form: how the model writes boxes.

    Example:
        >>> boxes, scores = torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]), torch.tensor([[[0.2, 0.8]]])
        >>> seewhy.targets.DetectionSimilarity((0, 0, 4, 2), 1)((boxes, scores)).round(decimals=3)
        tensor([0.3880])
    """

    box: tuple[float, float, float, float]
    classes: int | Tensor
    form: Literal["xyxy", "cxcywh"] = "xyxy"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "box", _corners(self.box))
        if isinstance(self.classes, Tensor) and self.classes.ndim != 1:
            raise TargetError(
                f"classes={brief(self.classes)} cannot be used; give a class, or probabilities (K,)"
            )

    def __call__(self, output: object) -> Tensor:
        if isinstance(output, list) and all(isinstance(record, Mapping) for record in output):
            return torch.stack([self._of_record(record) for record in output])
        boxes, scores, objectness = _raw_parts(output)
        same = (
            scores
            @ self._direction_of_classes(scores.shape[-1], scores)
            / scores.norm(dim=-1).clamp(min=1e-12)
        )
        overlap = self._overlap_with_object(boxes.flatten(0, 1)).view(objectness.shape)
        best: Tensor = (overlap * same * objectness).amax(1)
        return best

    def _of_record(self, record: Mapping[str, Tensor]) -> Tensor:
        missing = [
            name
            for name in ("boxes", "labels", "scores")
            if not isinstance(record.get(name), Tensor)
        ]
        if missing:
            raise TargetError(
                f"a detector's record has no tensor {', '.join(missing)}; give boxes, labels and scores"
            )
        boxes, labels, scores = (record[name] for name in ("boxes", "labels", "scores"))
        if not len(boxes):
            return boxes.new_zeros(())
        classes = int(labels.max()) + 1
        direction = self._direction_of_classes(max(classes, self._least_classes), scores)
        return (self._overlap_with_object(boxes) * direction[labels] * scores).amax()

    @property
    def _least_classes(self) -> int:
        if isinstance(self.classes, int):
            return self.classes + 1
        return len(self.classes)

    def _direction_of_classes(self, classes: int, like: Tensor) -> Tensor:
        """The object's class probabilities as a unit vector (K,)."""
        if classes < self._least_classes:
            raise TargetError(
                f"target {self.classes} does not fit the detector, which has {classes} classes"
            )
        direction = like.new_zeros(classes)
        if isinstance(self.classes, int):
            direction[self.classes] = 1
        else:
            direction[: self._least_classes] = self.classes.to(like) / self.classes.to(
                like
            ).norm().clamp(min=1e-12)
        return direction

    def _overlap_with_object(self, boxes: Tensor) -> Tensor:
        """IoU of (A, 4) boxes with the object's, (A,)."""
        found: Tensor = box_iou(
            box_convert(boxes.detach(), self.form, "xyxy"), boxes.new_tensor([self.box])
        )[:, 0]
        return found


def _raw_parts(output: object) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, class probabilities and objectness, (N, A, ...)."""
    parts: Sequence[Answer] = (None, None, None)
    if isinstance(output, Mapping):
        parts = [output.get(name) for name in ("boxes", "scores", "objectness")]
    elif isinstance(output, tuple | list) and len(output) in (2, 3):
        parts = [*output, None][:3]
    boxes, scores, objectness = parts
    if not _has_rows_of_boxes(boxes) or not _has_rows_of_boxes(scores):
        raise TargetError(
            "DetectionSimilarity needs records of boxes, labels and scores, or raw (boxes (N, A, 4), probabilities "
            "(N, A, K)); pass output= to pick them"
        )
    return boxes, scores, scores.amax(-1) if objectness is None else objectness
