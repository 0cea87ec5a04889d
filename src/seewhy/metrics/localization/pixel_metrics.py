"""How well a map's values part the object's pixels from the others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...data.truth import Truth
from ...errors import InputError
from ...maps.box_rules import RelativeTo, RuleLike, find_rule
from ...maps.boxes import region, statuses
from ..base import joined
from ..intervals import interval_of, percentiles
from ..result import Figure, Findings, Floats
from .metric import Array, Item, LocalizationMetric, Resampled, of_mask

THRESHOLDS = 1000


_MOST_THRESHOLDS = 2**20  # more than float32 tells apart


def check_thresholds(thresholds: int) -> int:
    if thresholds < 1:
        raise InputError(f"thresholds={thresholds} is too few; give at least 1, officially 1000")
    if thresholds > _MOST_THRESHOLDS:
        raise InputError(
            f"thresholds={thresholds} is too many; give at most {_MOST_THRESHOLDS}, officially 1000"
        )
    return thresholds


class _PooledMetric(LocalizationMetric):
    """A metric that sums something over all images: what `_judge` keeps, under the image's key."""

    total: Tensor
    resamples: Tensor

    def __init__(self, *, shape: tuple[int, ...], **options: Any) -> None:
        super().__init__(**options)
        self.add_state(
            "total", default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum"
        )
        self.resampled = Resampled(self, "resamples", shape)

    def _gather(self, kept: Sequence[tuple[int, Array]]) -> None:
        keys, found = zip(*kept, strict=True)
        pooled = np.stack(found)
        self.total += torch.from_numpy(pooled.sum(0)).to(self.total)
        self.resampled.add(self, keys, pooled)


class PixelAveragePrecision(_PooledMetric):
    """PxAP (Choe et al., CVPR 2020, section 4.3): average precision of pixels, those of all images pooled.

    At threshold t = k / thresholds a pixel is called the object where its map, scaled to [0, 1], is at least t. PxAP is
    sum_k P(t_k) (R(t_k) - R(t_k+1)), from the highest threshold down, without interpolation. Pixels to ignore do not
    count. Values are of each image alone; `pooled_curve` is precision over recall. The interval is a bootstrap over
    images, which are not kept. A map without an answer is zero everywhere, whose own precision is the object's share.

    Args:
        thresholds: how many.
        relative_to: the scale, officially "minmax".
        options: what `LocalizationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.PixelAveragePrecision()
        >>> metric.update(torch.tensor([[[3.0, 2.0, 0.0]]]), torch.tensor([[[True, False, False]]]))
        >>> metric.compute().mean
        1.0
    """

    name, title, paper = "pixel_ap", "Pixel average precision", "Choe et al., CVPR 2020"
    axes = ("recall", "precision")

    def __init__(
        self, *, thresholds: int = THRESHOLDS, relative_to: RelativeTo = "minmax", **options: Any
    ) -> None:
        shape = (2, check_thresholds(thresholds) + 1)
        super().__init__(
            shape=shape,
            relative_to=relative_to,
            settings={"thresholds": thresholds},
            **options,
        )
        self.thresholds = thresholds

    def _judge(self, item: Item) -> tuple[float, tuple[int, Array]]:
        """Its own precision; kept are its pixels outside and inside the object by level, (2, thresholds + 1)."""
        counts = level_counts(item, self.thresholds, upwards=False)
        return float(average_precision(counts)), (item.key, counts)

    def _result(self) -> Findings:
        alone = super()._result()
        total = self.total.cpu().numpy()
        precision, recall = precision_recall(total)
        low, high = percentiles(average_precision(self.resamples.double().cpu().numpy()))
        pooled = float(average_precision(total))
        figures = {
            "pooled": Figure(pooled, low, high),
            "mean over images": Figure(alone.mean, alone.low, alone.high),
        }
        curve = recall, precision
        return alone._replace(
            mean=pooled,
            low=low,
            high=high,
            interval="bootstrap",
            figures=figures,
            pooled_curve=curve,
        )


class SegmentationIoU(_PooledMetric):
    """Intersection over union of the object's pixels with those that a rule takes of the map, mean over images.

    Figures: "rule" at the rule, which is the mean; "oracle" at the one threshold that is best for these images, all
    components together. `pooled_curve` is the mean over images at every threshold.

    Args:
        rule: a name in `seewhy.localize.RULES`, or a `BoxRule`.
        thresholds: how many the oracle tries.
        options: what `LocalizationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.SegmentationIoU()
        >>> metric.update(torch.tensor([[[3.0, 2.0, 0.0]]]), torch.tensor([[[True, False, False]]]))
        >>> metric.compute().mean, metric.compute().figures["oracle"].mean
        (0.5, 1.0)
    """

    name, title, paper = "segmentation_iou", "IoU of the segmentation", "Jaccard, 1912"
    axes = ("threshold", "mean IoU")

    def __init__(
        self, *, rule: RuleLike = "cam2016", thresholds: int = THRESHOLDS, **options: Any
    ) -> None:
        self.rule = find_rule(rule)
        super().__init__(
            shape=(check_thresholds(thresholds) + 1,),
            relative_to=self.rule.scale,
            settings={"rule": str(self.rule), "thresholds": thresholds},
            **options,
        )
        self.thresholds = thresholds

    def _judge(self, item: Item) -> tuple[float, tuple[int, Array]]:
        """Its IoU at the rule; kept are those at every threshold, and 1, which counts the images: (thresholds + 1,)."""
        ious, at_rule = np.append(np.zeros(self.thresholds), 1.0), 0.0
        if item.field is not None:
            outside, inside = level_counts(item, self.thresholds, upwards=True)[:, :0:-1].cumsum(1)[
                :, ::-1
            ]
            ious[:-1] = inside / (
                outside + item.region.sum()
            )  # level k or higher is above threshold k - 1
            found = region(item.map, rule=self.rule, size=item.region.shape)[0].numpy()
            counted = True if item.counted is None else item.counted
            at_rule = float((found & item.region).sum() / ((found | item.region) & counted).sum())
        return at_rule, (item.key, ious)

    def _result(self) -> Findings:
        alone = super()._result()
        total, resamples = self.total.cpu().numpy(), self.resamples.double().cpu().numpy()
        at = np.arange(self.thresholds) / self.thresholds
        curve = total[:-1] / max(total[-1], 1)
        best = int(curve.argmax())
        low, high = (
            percentiles((resamples[:, :-1] / np.maximum(resamples[:, -1:], 1)).max(1))
            if alone.n
            else (math.nan,) * 2
        )
        figures = {
            "rule": Figure(alone.mean, alone.low, alone.high, (self.rule.threshold,)),
            "oracle": Figure(
                float(curve[best]) if alone.n else math.nan, low, high, (float(at[best]),)
            ),
        }
        return alone._replace(figures=figures, pooled_curve=(at, curve))


class EnergyPointing(LocalizationMetric):
    """Energy-based pointing game (Wang et al., CVPRW 2020): the share of the positive evidence in the object.

    sum over the object of m+ / sum m+, with m+ the positive part of the map. Where the object has masks they are the
    object, unless boxes are asked for. The figure "uniform" is what a map without places gives, the object's share of
    the picture.

    Args:
        inside: "masks" where there are any, or "boxes", as in the paper.
        side: map and marks are brought to so many pixels a side before they are compared; None for the picture's own.
        options: what `LocalizationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.EnergyPointing()
        >>> metric.update(torch.tensor([[[3.0, 1.0, -5.0]]]), torch.tensor([[[True, False, False]]]))
        >>> metric.compute().mean
        0.75
    """

    name, title, paper = "energy_pointing", "Energy-based pointing game", "Wang et al., CVPRW 2020"
    silent = ("empty", "non_finite")
    # the states that hold something of each image
    lists: ClassVar[tuple[str, ...]] = ("areas",)

    areas: list[Tensor]

    def __init__(
        self,
        *,
        inside: str = "masks",
        side: int | None = None,
        settings: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        if inside not in ("masks", "boxes"):
            raise InputError(f"inside={inside!r} is not known; use 'masks' or 'boxes'")
        if side is not None and side < 1:
            raise InputError(f"side={side} pixels show nothing; give at least 1, or none")
        super().__init__(settings={"inside": inside, "side": side, **(settings or {})}, **options)
        self.inside, self.side = inside, side
        for state in self.lists:
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def _statuses(self, fields: Sequence[Tensor]) -> Sequence[str]:
        return statuses(fields)  # what speaks against the class is no energy

    def _judge(self, item: Item) -> tuple[float, object] | None:
        """Its energy inside; kept is the object's share of the picture."""
        energy, area = self._energy_and_area(item)
        return energy, (area,)

    def _energy_and_area(self, item: Item) -> tuple[float, float]:
        inside = self._region_of(item.truth) if self.inside == "boxes" else item.region
        counted = np.ones_like(inside) if item.counted is None else item.counted
        return energy_shares(item, inside)[0], inside.sum() / counted.sum()

    def _region_of(self, truth: Truth) -> npt.NDArray[np.bool_]:
        """(H, W): the pixels of objects, by their masks or their boxes."""
        marked = dataclasses.replace(truth, masks=None) if self.inside == "boxes" else truth
        return marked.region().numpy()

    def _sized(self, given: Truth | Tensor | None) -> Truth | Tensor | None:
        if self.side is None or given is None:
            return given
        whole = given if isinstance(given, Truth) else of_mask(given)
        height, width = whole.size
        return whole.cropped((0.0, 0.0, float(width), float(height)), (self.side, self.side))

    def _gather(self, kept: Sequence[tuple[float, ...]]) -> None:
        areas = [area for area, *_ in kept]
        self.areas.append(torch.tensor(areas, dtype=torch.float64, device=self.device))

    def _result(self) -> Findings:
        alone = super()._result()
        areas = joined(self.areas).numpy()
        figures = {
            "energy": Figure(alone.mean, alone.low, alone.high),
            "uniform": Figure(
                float(areas.mean()) if len(areas) else math.nan,
                *interval_of(areas, "t", limits=self.limits),
            ),
        }
        return alone._replace(figures=figures)


def energy_shares(item: Item, *regions: npt.NDArray[np.bool_]) -> list[float]:
    """The shares of a map's positive evidence in regions (H, W); 0 where there is none."""
    if item.field is None:
        return [0.0] * len(regions)
    positive = np.maximum(item.field, 0).astype(np.float64)
    if item.counted is not None:
        positive = np.where(item.counted, positive, 0)
    total = positive.sum()
    return [float(positive[each].sum() / total) if total > 0 else 0.0 for each in regions]


def level_counts(item: Item, thresholds: int, *, upwards: bool) -> npt.NDArray[np.int64]:
    """How many pixels outside and inside the object are at each level 0 .. thresholds of a map in [0, 1]: (2, levels).

    The level is the last k with value >= k / thresholds; or, upwards, how many k have value > k / thresholds.
    """
    inside = item.region.ravel()
    if item.field is None:
        levels: Array = np.zeros(inside.size, np.int64)
    else:
        # in float64 the product is exact; unsafe is what truncates it on the way out
        scaled: Array = np.empty(inside.size, np.float64 if upwards else np.int64)
        np.multiply(
            item.field.ravel(), float(thresholds), out=scaled, dtype=np.float64, casting="unsafe"
        )
        levels = np.ceil(scaled).astype(np.int64) if upwards else scaled
    found = np.empty((2, thresholds + 1), np.int64)
    found[1] = np.bincount(levels[inside], minlength=thresholds + 1)
    found[0] = np.bincount(
        levels if item.counted is None else levels[item.counted.ravel()], minlength=thresholds + 1
    )
    found[0] -= found[1]
    return found


def precision_recall(counts: Array) -> tuple[Floats, Floats]:
    """Precision and recall from the highest level down, of counts (..., 2, levels): (..., levels) each."""
    called = counts[..., ::-1].cumsum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = called[..., 1, :] / called.sum(-2)
        recall = called[..., 1, :] / called[..., 1, -1:]
    return precision, recall


def average_precision(counts: Array) -> Floats:
    """sum_k P_k (R_k - R_k+1) of counts (..., 2, levels): (...); NaN where nothing is inside."""
    inside = counts[..., 1, ::-1]
    hits = inside.cumsum(-1)
    called = counts[..., 0, ::-1].cumsum(-1) + hits
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((inside * hits / np.maximum(called, 1e-12)).sum(-1) / hits[..., -1])
