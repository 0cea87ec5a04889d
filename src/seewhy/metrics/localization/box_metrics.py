"""How well boxes around what a map marks agree with the true ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...data.truth import Truth
from ...errors import InputError
from ...maps.box_rules import RelativeTo
from ...maps.boxes import box_iou
from ...maps.components import ComponentTree, component_tree
from ..base import NO_TRUTH, ImageMetric, joined
from ..intervals import Interval, wilson
from ..result import Figure, Findings, Floats, MetricResult
from .metric import Array, Item, LocalizationMetric
from .pixel_metrics import THRESHOLDS, check_thresholds

_CHUNK = 500  # images whose hits are unpacked at a time


class MaxBoxAccuracy(LocalizationMetric):
    """MaxBoxAcc (Choe et al., CVPR 2020) and MaxBoxAccV2 (Choe et al., TPAMI 2022): images with a right box.

    A map scaled to [0, 1] is cut at every threshold k / thresholds. Version 1 takes the box of the largest component,
    right where its IoU with a true box is at least 0.5; version 2 takes the best of all components, and averages over
    0.3, 0.5 and 0.7. It does not count wrong boxes, so that a map in many pieces does well: read it beside those of
    `seewhy.metrics.chance_maps`, of which "edges" can win. The published number is the accuracy at the threshold that
    is best for these very images (for each IoU its own), which is an upper bound: it chooses on what it tests. Beside
    it, in `MetricResult.figures`:

    - "oracle": that number, which is `mean`.
    - "fixed": at one threshold for all, given beforehand.
    - "validation": at the thresholds that were best for the images of another result, where one is given.
    - "oracle, IoU 0.5" and so on: each IoU's own.

    Intervals are Wilson's of the images. Means over IoUs vary less than single shares, so that theirs are rather wide.
    (Resamples that choose the oracle's threshold anew lie too high, and all at 1 where every image is right.)

    Boxes are half-open, components count pixels, and thresholds are as fine as they are said to be; the released code
    counts boxes a pixel too wide, prefers the larger outline, boxes holes too, and rounds maps to 255 values.
    `values` are at the oracle's thresholds; `pooled_curve` is the accuracy at every threshold. Of each image
    thresholds / 8 bytes are kept for each IoU, never its map.

    Args:
        version: 1 or 2.
        thresholds: how many.
        iou: what a right box needs, one number or several.
        threshold: of "fixed".
        validation: a result of this metric for other images, or thresholds, one for each IoU.
        relative_to: the scale, officially "minmax".
        connectivity: of the components, 8 or 4.
        options: what `LocalizationMetric` takes.

    Example:
        >>> square = torch.zeros(1, 16, 16, dtype=torch.bool)
        >>> square[:, 4:8, 8:12] = True
        >>> metric = seewhy.metrics.MaxBoxAccuracy()
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), square)
        >>> metric.compute().mean
        1.0
    """

    name, title, paper = "max_box_accuracy", "MaxBoxAcc", "Choe et al., CVPR 2020"
    axes = ("threshold", "accuracy")

    hits: list[Tensor]

    def __init__(
        self,
        *,
        version: Literal[1, 2] = 2,
        thresholds: int = THRESHOLDS,
        iou: float | Sequence[float] | None = None,
        threshold: float = 0.2,
        validation: MetricResult | Sequence[float] | None = None,
        relative_to: RelativeTo = "minmax",
        connectivity: Literal[4, 8] = 8,
        **options: Any,
    ) -> None:
        if version not in (1, 2) or connectivity not in (4, 8):
            raise InputError(
                f"version={version}, connectivity={connectivity}: use 1 or 2, and 4 or 8"
            )
        needed = iou if iou is not None else (0.5,) if version == 1 else (0.3, 0.5, 0.7)
        self.iou = check_ious((needed,) if isinstance(needed, float | int) else needed)
        if not 0 <= threshold < 1:
            raise InputError(f"threshold={threshold} is no share; give at least 0 and less than 1")
        fitted = _thresholds_of(validation, len(self.iou))
        settings = {
            "version": version,
            "thresholds": check_thresholds(thresholds),
            "iou": self.iou,
            "threshold": threshold,
            "validation": fitted,
            "connectivity": connectivity,
        }
        super().__init__(relative_to=relative_to, settings=settings, **options)
        self.version, self.thresholds, self.connectivity = version, thresholds, connectivity
        self.threshold, self.validation = threshold, fitted
        self.add_state("hits", default=[], dist_reduce_fx="cat")

    def _judge(self, item: Item) -> tuple[float, Array]:
        """Kept is at which thresholds the image is right; the value is known when the thresholds are."""
        best = np.zeros(self.thresholds)
        if item.field is not None:
            tree = component_tree(item.field, self.thresholds, connectivity=self.connectivity)
            overlap = overlaps(tree, item.truth)
            best = tree.best(overlap) if self.version == 2 else tree.of_largest(overlap)
        return 0.0, np.packbits(best >= np.array(self.iou)[:, None], axis=1)

    def _gather(self, kept: Sequence[Array]) -> None:
        self.hits.append(torch.from_numpy(np.stack(kept)).to(self.device))

    def _result(self) -> Findings:
        alone = super()._result()
        at = np.arange(self.thresholds) / self.thresholds
        counts = sum(
            (part.sum(0) for part in self._unpacked_hits()),
            np.zeros((len(self.iou), self.thresholds)),
        )
        if not alone.n:
            return alone._replace(figures={"oracle": Figure(math.nan)})
        accuracy = counts / alone.n
        best = accuracy.argmax(1)
        chosen = {"oracle": at[best], "fixed": np.full(len(self.iou), self.threshold)}
        chosen |= {} if self.validation is None else {"validation": np.array(self.validation)}
        found = {name: self._hits_at(cuts) for name, cuts in chosen.items()}  # each (n, IoUs)
        figures = {name: _accuracy_of_hits(each, chosen[name]) for name, each in found.items()}
        for i, need in enumerate(self.iou if len(self.iou) > 1 else ()):
            figures[f"oracle, IoU {need:g}"] = _accuracy_of_hits(
                found["oracle"][:, [i]], at[best[[i]]]
            )
        values = alone.values.copy()
        values[~np.isnan(values)] = found["oracle"].mean(1)
        oracle = figures["oracle"]
        curve = at, accuracy.mean(0)
        return alone._replace(
            mean=oracle.mean,
            low=oracle.low,
            high=oracle.high,
            values=values,
            interval="wilson",
            figures=figures,
            pooled_curve=curve,
        )

    def _unpacked_hits(self) -> Iterator[Array]:
        """The hits (n, IoUs, thresholds) bool, some images at a time."""
        packed = joined(self.hits)
        for start in range(0, len(packed), _CHUNK):
            yield np.unpackbits(
                packed[start : start + _CHUNK].numpy(), axis=2, count=self.thresholds
            )

    def _hits_at(self, thresholds: Floats) -> Array:
        """For each image whether it is right at the threshold of each IoU: (n, IoUs)."""
        # the first tried threshold that is not below the given one, up to rounding
        at = (
            np.ceil(thresholds * self.thresholds - 1e-6)
            .astype(np.int64)
            .clip(0, self.thresholds - 1)
        )
        return np.concatenate([part[:, np.arange(len(at)), at] for part in self._unpacked_hits()])


def _accuracy_of_hits(hits: Array, thresholds: Floats) -> Figure:
    """The share of hits (n, IoUs), each IoU's at its own threshold."""
    share = float(hits.mean())
    return Figure(share, *wilson(share, len(hits)), tuple(round(float(t), 9) for t in thresholds))


def check_ious(ious: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(each) for each in ious)
    if not found or not all(0 < each <= 1 for each in found):
        raise InputError(
            f"iou={ious} is no intersection over union; give numbers above 0 and at most 1"
        )
    return found


def _thresholds_of(
    validation: MetricResult | Sequence[float] | None, count: int
) -> tuple[float, ...] | None:
    """The thresholds that a validation result found best, one for each IoU."""
    given = validation
    if isinstance(validation, MetricResult):
        if "oracle" not in validation.figures or validation.metric != MaxBoxAccuracy.name:
            raise InputError(
                f"validation is a result of {validation.metric!r}; give one of {MaxBoxAccuracy.name!r}"
            )
        given = validation.figures["oracle"].thresholds
    if given is None:
        return None
    if len(given) != count or not all(0 <= t < 1 for t in given):
        raise InputError(
            f"validation={tuple(given)}: give {count} thresholds from 0 to below 1, one for each iou"
        )
    return tuple(float(t) for t in given)


def overlaps(tree: ComponentTree, truth: Truth) -> Array:
    """The IoU of each component's box with the best of the true ones, (C,)."""
    return box_iou(torch.from_numpy(tree.boxes), truth.boxes).amax(1).numpy()


class TopKLocalization(ImageMetric):
    """Top-k localisation error (ILSVRC; Russakovsky et al., IJCV 2015): images whose first k guesses are all wrong.

    A guess is a class and a box. It is right where the class is an object's, and the IoU of the box with that object's
    is at least 0.5. The error is 1 where none of the first k guesses is right, else 0; lower is better. Figures:
    "localisation top-1", "localisation top-k", and "classification top-1", "classification top-k", which ask for the
    class alone. Curves are the error after 1 .. k guesses. Half-open boxes have the overlaps that the official
    evaluation gives the same pixels in its inclusive ones.

    Args:
        k: how many guesses count, officially 5.
        iou: what a right box needs.
        interval: of the mean; Wilson's, since values are 0 or 1.
        options: what `ImageMetric` takes.

    Example:
        >>> truth = seewhy.data.find_data("scenes:size=64,count=1")[0].truth
        >>> metric = seewhy.metrics.TopKLocalization(k=1)
        >>> metric.update([[int(truth.labels[0])]], [truth.boxes[:1]], [truth])
        >>> metric.compute().mean  # no error
        0.0
    """

    name, title, paper = "topk_localization", "Localisation error", "Russakovsky et al., IJCV 2015"
    limits = (0.0, 1.0)
    higher_is_better = False
    axes = ("guesses", "error")

    named: list[Tensor]

    def __init__(
        self, *, k: int = 5, iou: float = 0.5, interval: Interval = "wilson", **options: Any
    ) -> None:
        if k < 1:
            raise InputError(f"k={k} guesses; give at least 1, officially 5")
        super().__init__(
            interval=interval, settings={"k": k, "iou": check_ious((iou,))[0]}, **options
        )
        self.k, self.iou = k, iou
        self.add_state("named", default=[], dist_reduce_fx="cat")

    def update(
        self,
        classes: Sequence[Sequence[int]] | Tensor,
        boxes: Sequence[Tensor] | Tensor,
        truth: Sequence[Truth | None],
    ) -> None:
        """Adds images.

        Args:
            classes: for each image the classes of its guesses, best first; (N, K) or sequences of any lengths.
            boxes: for each image the box of each guess, (K, 4) half-open pixels of the picture.
            truth: for each image its objects, or None where nobody marked them.

        Raises:
            InputError: not one box for each class, or not one entry for each image.
        """
        if not len(classes) == len(boxes) == len(truth):
            raise InputError(
                f"{len(classes)} classes, {len(boxes)} boxes, {len(truth)} truths; give one for each image"
            )
        nothing = torch.full((self.k,), math.nan, dtype=torch.float64)
        placed: list[Tensor] = []
        named: list[Tensor] = []
        status: list[str] = []
        for each, guessed, marked in zip(classes, boxes, truth, strict=True):
            labels, places = (
                torch.as_tensor(each, dtype=torch.long).reshape(-1),
                torch.as_tensor(guessed).reshape(-1, 4),
            )
            if len(labels) != len(places):
                raise InputError(
                    f"an image has {len(labels)} classes and {len(places)} boxes; give a box for each class"
                )
            known = marked is not None and len(marked.boxes)
            errors = (
                _errors_of_guesses(labels, places, marked, self.k, self.iou)
                if marked is not None and known
                else (nothing,) * 2
            )
            status.append("ok" if known else NO_TRUTH)
            placed.append(errors[0])
            named.append(errors[1])
        if status:
            self.named.append(torch.stack(named).to(self.device))
            self._store(torch.stack(placed)[:, -1], status, placed)

    def _positions(self, points: int) -> Floats:
        return np.arange(1.0, points + 1)

    def _result(self) -> Findings:
        alone = super()._result()
        kept = ~np.isnan(alone.values)
        found: Mapping[str, Array] = {
            "localisation": np.stack(alone.curves)[kept],
            "classification": joined(self.named).numpy()[kept],
        }
        figures = {
            f"{what} top-{k}": Figure(
                float(each[:, k - 1].mean()) if len(each) else math.nan,
                *_interval_of_share(each[:, k - 1]),
            )
            for what, each in found.items()
            for k in dict.fromkeys((1, self.k))
        }
        return alone._replace(figures=figures)


def _interval_of_share(values: Array) -> tuple[float, float]:
    return wilson(float(values.mean()) if len(values) else 0.0, len(values))


def _errors_of_guesses(
    classes: Tensor, boxes: Tensor, truth: Truth, k: int, iou: float
) -> tuple[Tensor, Tensor]:
    """The localisation and the classification error after 1 .. k guesses, (k,) each."""
    classes, boxes = classes[:k], boxes[:k]
    same = classes[:, None] == truth.labels  # (K, B)
    placed = (same & (box_iou(boxes, truth.boxes) >= iou)).any(1)
    wrong = []
    for right in (placed, same.any(1)):
        padded = torch.zeros(k, dtype=torch.bool)
        padded[: len(right)] = right
        wrong.append((padded.cumsum(0) == 0).double())
    return wrong[0], wrong[1]
