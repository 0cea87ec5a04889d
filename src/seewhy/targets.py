"""What is explained: a function from a model's output to one score for each image, (N,).

A target is an int (class), a str (a label's name, "top1" .. "topK", or "probability:tabby", "probability:top1",
"margin:tabby/tiger cat", "counterfactual:tabby"), a list of ints or names (one for each image), one of the classes
here, or any callable `output -> (N,)`.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .errors import ArgumentTypeError, TargetError, did_you_mean

ScoreFunction = Callable[[Any], Tensor]
ClassIndex = int | str | tuple[int | str, ...]
TargetLike = int | str | Sequence[int | str] | Tensor | ScoreFunction


def class_scores(output: Any) -> Tensor:
    """Returns the output as (N, K) class scores, or says why it is none."""
    if not isinstance(output, Tensor):
        raise TargetError(
            f"the model's output is a {type(output).__name__}, not a tensor (N, K) of class scores; give a callable "
            "target, or pass output=, a function from the model's output to that tensor"
        )
    if output.ndim == 1:
        return output[:, None]
    if output.ndim != 2:
        raise TargetError(
            f"the model's output has shape {tuple(output.shape)}, not (N, K) class scores; give a callable target such "
            "as seewhy.targets.SegmentationRegion, or pass output="
        )
    return output


def _gather(output: Any, index: ClassIndex) -> Tensor:
    """Picks a class's score for each image: (N, K) -> (N,)."""
    scores = class_scores(output)
    n, k = scores.shape
    wanted = list(index) if isinstance(index, tuple) else [index] * n
    if len(wanted) != n:
        raise TargetError(f"target names {len(wanted)} classes for {n} images; give one class, or one for each image")
    for i in wanted:
        if isinstance(i, str):
            raise TargetError(
                f"target {i!r} is a name, and the model has no labels; give the class's index, or labels="
            )
        if not 0 <= i < k:
            raise TargetError(f"target {i} is not a class of the model, which has {k}: 0 to {k - 1}")
    return scores.gather(1, torch.tensor(wanted, device=scores.device)[:, None])[:, 0]


@dataclass(frozen=True)
class Logit:
    """The class's score as the model gives it, (N, K) -> (N,); `index` is a class, or a tuple: one for each image."""

    index: ClassIndex

    def __call__(self, output: Any) -> Tensor:
        return _gather(output, self.index)


@dataclass(frozen=True)
class Probability:
    """The class's probability, in [0, 1]: softmax, or the sigmoid of a single column and with `multi_label`.

    Where a `Model` is explained, its own `multi_label` counts too.
    """

    index: ClassIndex
    multi_label: bool = dataclasses.field(default=False, repr=False)

    def __call__(self, output: Any) -> Tensor:
        return _gather(probabilities(class_scores(output), multi_label=self.multi_label), self.index)


@dataclass(frozen=True)
class Margin:
    """The score of one class less that of another: what speaks for `index` rather than for `other`."""

    index: ClassIndex
    other: ClassIndex

    def __call__(self, output: Any) -> Tensor:
        return _gather(output, self.index) - _gather(output, self.other)


@dataclass(frozen=True)
class Counterfactual:
    """The negated score (Grad-CAM, section 3.3): what would have to go for the class to lose its score."""

    index: ClassIndex

    def __call__(self, output: Any) -> Tensor:
        return -_gather(output, self.index)


@dataclass(frozen=True)
class Regression:
    """One number of a regression's output, (N,) or (N, K); with `value`, minus the squared distance to that value."""

    index: int = 0
    value: float | None = None

    def __call__(self, output: Any) -> Tensor:
        number = _gather(output, self.index)
        return number if self.value is None else -((number - self.value) ** 2)


@dataclass(frozen=True)
class Binary:
    """A single-column classifier, (N,) or (N, 1): its score for the positive answer, negated for the other."""

    positive: bool = True

    def __call__(self, output: Any) -> Tensor:
        scores = class_scores(output)
        if scores.shape[1] != 1:
            raise TargetError(
                f"Binary needs one score for each image, the model has {scores.shape[1]}; give a class index"
            )
        return scores[:, 0] if self.positive else -scores[:, 0]


@dataclass(frozen=True, eq=False)
class SegmentationRegion:
    """The class's scores summed over a region, (N, K, H, W) -> (N,).

    Args:
        index: the class.
        region: (H, W) or (N, H, W), 1 inside; resized to the output. None: where the model predicts the class.
    """

    index: int
    region: Tensor | None = None

    def __call__(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TargetError(f"SegmentationRegion needs an output (N, K, H, W), got {shape}; pass output= to pick it")
        if not 0 <= self.index < output.shape[1]:
            raise TargetError(f"target {self.index} is not a class of the model, which has {output.shape[1]}")
        if self.region is None:
            inside = (output.argmax(1) == self.index).to(output.dtype)  # (N, H, W)
        else:
            region = self.region.to(output).reshape(-1, 1, *self.region.shape[-2:])
            inside = torch.nn.functional.interpolate(region, output.shape[-2:], mode="nearest")[:, 0]
        return (output[:, self.index] * inside).flatten(1).sum(1)


@dataclass(frozen=True)
class DetectionBox:
    """A detector's score for a class around a box, before non-maximum suppression, where it is still differentiable.

    Every raw prediction whose box overlaps `box` with an IoU of at least `iou` adds its class score, weighted by that
    IoU. The output is (boxes (N, A, 4), scores (N, A, K)), as a tuple or under the usual names in a dict.

    Args:
        box: (x0, y0, x1, y1) in the units of the model's boxes.
        index: the class.
        iou: overlap below which a prediction does not count, in [0, 1].
        form: how the model writes boxes.
    """

    box: tuple[float, float, float, float]
    index: int
    iou: float = 0.5
    form: Literal["xyxy", "cxcywh"] = "xyxy"

    def __call__(self, output: Any) -> Tensor:
        boxes, scores = _boxes_and_scores(output)
        if not 0 <= self.index < scores.shape[-1]:
            raise TargetError(f"target {self.index} is not a class of the detector, which has {scores.shape[-1]}")
        boxes = boxes.detach()
        if self.form == "cxcywh":
            center, half = boxes[..., :2], boxes[..., 2:] / 2
            boxes = torch.cat([center - half, center + half], -1)
        overlap = _iou(boxes, boxes.new_tensor(self.box))  # (N, A)
        return (scores[..., self.index] * overlap * (overlap >= self.iou)).sum(1)


def _boxes_and_scores(output: Any) -> tuple[Tensor, Tensor]:
    if isinstance(output, Mapping):
        boxes = next((output[k] for k in ("boxes", "pred_boxes") if k in output), None)
        scores = next((output[k] for k in ("scores", "logits", "pred_logits") if k in output), None)
    elif isinstance(output, tuple | list) and len(output) >= 2:
        boxes, scores = output[:2]
    else:
        boxes = scores = None
    if not (isinstance(boxes, Tensor) and isinstance(scores, Tensor) and boxes.ndim == scores.ndim == 3):
        raise TargetError("DetectionBox needs the raw (boxes (N, A, 4), scores (N, A, K)); pass output= to pick them")
    return boxes, scores


def _iou(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union of (N, A, 4) boxes with one box (4,), both x0, y0, x1, y1: (N, A)."""
    low, high = torch.maximum(boxes[..., :2], box[:2]), torch.minimum(boxes[..., 2:], box[2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1) + (box[2:] - box[:2]).prod(-1)
    return shared / (areas - shared).clamp(min=1e-12)


@dataclass(frozen=True, eq=False)
class EmbeddingSimilarity:
    """Cosine similarity of the output (N, D) with a reference embedding (D,) or (N, D): what makes the two alike."""

    reference: Tensor

    def __call__(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[-1] != self.reference.shape[-1]:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TargetError(f"EmbeddingSimilarity needs an output (N, {self.reference.shape[-1]}), got {shape}")
        return torch.cosine_similarity(output, self.reference.to(output).expand_as(output), dim=-1)


def probabilities(scores: Tensor, *, multi_label: bool = False) -> Tensor:
    """(N, K) scores to probabilities in float32: softmax, or sigmoids, of a single column and where labels are many."""
    return scores.float().sigmoid() if multi_label or scores.shape[1] == 1 else scores.float().softmax(1)


@dataclass(frozen=True, eq=False)
class ResolvedTarget:
    """A target of a batch: what to call it, its score function, and the class of each image where it has one."""

    name: str
    score: ScoreFunction
    indices: tuple[int | None, ...]


_FORMS: dict[str, Callable[..., ScoreFunction]] = {
    "logit": Logit,
    "probability": Probability,
    "margin": Margin,
    "counterfactual": Counterfactual,
}
_TOP = re.compile(r"(?:(logit|probability|counterfactual):\s*)?top(\d+)")


def resolve(
    target: TargetLike, output: Any, labels: Sequence[str] | None = None, *, multi_label: bool = False
) -> list[ResolvedTarget]:
    """Turns what the user named into score functions for this output: one, or K for "topK".

    With `multi_label` probabilities are sigmoids.

    Raises:
        TargetError: a label, an index or a number of targets that the output does not have.
    """
    if isinstance(target, str) and (match := _TOP.fullmatch(target)):
        return _top(int(match[2]), output, _FORMS[match[1] or "logit"], multi_label)
    if isinstance(target, str) and target.partition(":")[0] in _FORMS and ":" in target:
        return resolve(_form(target), output, labels, multi_label=multi_label)
    if hasattr(target, "tolist"):  # a tensor, or numpy's integers and arrays
        target = target.tolist()
    if isinstance(target, bool) or target is None:
        raise ArgumentTypeError(f"target={target!r} is no target; give a class index, a label, 'top1' or a callable")
    if isinstance(target, int | str):
        target = Logit(target)
    elif isinstance(target, Sequence):
        target = Logit(tuple(target))
    if not callable(target):
        raise ArgumentTypeError(
            f"target={target!r} is no target; give a class index, a label, 'topK', a list of those, or a callable"
        )
    scored = _settled(target, labels, multi_label)
    index = getattr(scored, "index", None)
    n = len(output) if isinstance(output, Tensor) else None
    indices = index if isinstance(index, tuple) else (index,) * (n or 1)
    return [ResolvedTarget(describe(target), scored, indices)]


def _form(target: str) -> ScoreFunction:
    """The target that "probability:tabby" or "margin:tabby/tiger cat" names."""
    form, _, name = target.partition(":")
    if form != "margin":
        return _FORMS[form](name)
    first, _, second = name.partition("/")
    if not first or not second:
        raise TargetError(f"target {target!r} needs two classes: 'margin:tabby/tiger cat' or 'margin:281/282'")
    return Margin(first, second)


def _top(k: int, output: Any, form: Callable[..., ScoreFunction], multi_label: bool) -> list[ResolvedTarget]:
    scores = class_scores(output)
    if not (most := scores.shape[1]) >= k >= 1:
        raise TargetError(f"target 'top{k}' asks for {k} classes, the model has {most}; give 'top1' to 'top{most}'")
    best = scores.detach().topk(k, dim=1).indices.T.tolist()  # (k, N)
    return [
        ResolvedTarget(describe(form(f"top{rank}")), _settled(form(tuple(indices)), None, multi_label), tuple(indices))
        for rank, indices in enumerate(best, start=1)
    ]


def _settled(target: ScoreFunction, labels: Sequence[str] | None, multi_label: bool) -> ScoreFunction:
    """Replaces the label names in a target by class indices, and says of probabilities which they are."""
    if not dataclasses.is_dataclass(target):  # a callable may have an `index` of its own
        return target
    named = {f: getattr(target, f, None) for f in ("index", "other")}
    found: dict[str, Any] = {
        f: tuple(_index(v, labels) for v in value) if isinstance(value, tuple) else _index(value, labels)
        for f, value in named.items()
        if isinstance(value, str | tuple)
    }
    if multi_label and isinstance(target, Probability):
        found["multi_label"] = True
    return dataclasses.replace(target, **found) if found else target


def _index(name: int | str, labels: Sequence[str] | None) -> int | str:
    """The index of a label: the whole name, or the one label that has it among its comma-separated synonyms."""
    if not isinstance(name, str):
        if isinstance(name, bool) or not hasattr(name, "__index__"):
            raise ArgumentTypeError(f"target has {name!r} in its list, which is no class; give indices or labels")
        return operator.index(name)
    if name.isdecimal():
        return int(name)
    if labels is None:
        return name
    wanted = name.strip().lower()
    exact = [i for i, label in enumerate(labels) if label.lower() == wanted]
    partial = [i for i, label in enumerate(labels) if wanted in [part.strip().lower() for part in label.split(",")]]
    found = exact or partial
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{i} ({labels[i]})" for i in found[:4])  # ImageNet has two cranes
        raise TargetError(f"target {name!r} is the name of several classes: {several}; give the index")
    raise TargetError(f"target {name!r} is not a label of the model{did_you_mean(name, labels)}")


def phrase(target: ResolvedTarget, image: int, label: Callable[[int], str]) -> str:
    """What is explained of one image, in words: "tabby", "not tabby", "tabby rather than tiger cat"."""

    def name(value: Any) -> str:
        each = value[image] if isinstance(value, tuple) else value
        return label(each) if isinstance(each, int) else str(each)

    score = target.score
    if isinstance(score, Margin):
        return f"{name(score.index)} rather than {name(score.other)}"
    if isinstance(score, Counterfactual):
        return f"not {name(score.index)}"
    return name(score.index) if isinstance(score, Logit | Probability) else target.name


def describe(target: Any) -> str:
    """A short name for a target: "281", "margin(281, 285)", or the callable's own name."""
    if isinstance(target, Logit):
        return ",".join(map(str, target.index)) if isinstance(target.index, tuple) else str(target.index)
    if dataclasses.is_dataclass(target) and not isinstance(target, type):
        values = [getattr(target, f.name) for f in dataclasses.fields(target) if f.repr]
        shown = [value for value in values if not isinstance(value, Tensor | None)]
        return f"{type(target).__name__.lower()}({', '.join(map(str, shown))})"
    return getattr(target, "__name__", type(target).__name__)


def as_targets(targets: TargetLike | Iterable[TargetLike]) -> list[TargetLike]:
    """One target or several as a list."""
    if isinstance(targets, str | int | Tensor) or callable(targets):
        return [targets]
    if not isinstance(targets, Iterable):
        raise ArgumentTypeError(f"targets={targets!r} is no target; give a class, a label, 'topK' or a callable")
    return list(targets)


def check_one_each(target: TargetLike, n: int) -> None:
    if (each := one_each(target)) is not None and len(each) != n:
        raise TargetError(
            f"target {target!r} names {len(each)} classes for {n} images; give one for each image, or one for all. "
            "(Several targets for all images are targets=[281, 285], one list.)"
        )


def one_each(target: TargetLike) -> Sequence[Any] | None:
    """The classes of a target that names one for each image, None for a target of all."""
    if isinstance(target, Tensor):
        return target.tolist() if target.ndim else None
    if isinstance(target, Sequence) and not isinstance(target, str):
        return target
    index = getattr(target, "index", None)
    return index if isinstance(index, tuple) else None


def part_of(target: TargetLike, start: int, stop: int) -> TargetLike:
    """The target of the images from start to stop."""
    each = one_each(target)
    if each is None:
        return target
    if isinstance(target, Sequence | Tensor):
        return list(each[start:stop])
    cut = {f: v[start:stop] for f in ("index", "other") if isinstance(v := getattr(target, f, None), tuple)}
    return dataclasses.replace(target, **cut)  # type: ignore[type-var]
