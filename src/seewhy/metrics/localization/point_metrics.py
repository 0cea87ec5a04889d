"""Does a map's highest place lie on the object?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import InputError
from ..base import joined
from ..intervals import percentiles, wilson
from ..result import Figure, Findings, Floats
from .metric import RESAMPLES, Array, Item, LocalizationMetric, TruthLike

DIFFICULT_AREA = 0.25  # of the picture: below it an object is hard to hit by chance


def top_point(field: Array) -> tuple[int, int]:
    """(x, y) of the highest pixel of (H, W), of equal ones the first, row by row."""
    y, x = np.unravel_index(int(field.argmax()), field.shape)
    return int(x), int(y)


class PointingGame(LocalizationMetric):
    """The pointing game (Zhang et al., ECCV 2016): does the map's maximum hit the object, give or take some pixels?

    A hit (1) is where a pixel of the object lies less than `tolerance` from the highest pixel, else 0. Objects with
    masks are their masks, others their boxes. A class's accuracy is hits / images; the published number is the mean
    over classes. Figures: "classes" and "images", the mean over either; and both "difficult", over the images in which
    the class's objects cover less than a quarter of the picture and another class is there too. Images whose objects of
    the class are all marked difficult (Pascal VOC) are left out. Classes that no image shows do not count, where the
    released evaluation of TorchRay counts them 0.

    Intervals are Wilson's; over classes at the effective number of images, C^2 / sum_c (1 / n_c).

    Args:
        tolerance: in pixels of the picture, 15 as published; or a share of its shorter side, as "7%", for pictures of
            other sizes than the published ones (15 of 224 pixels are 7 %). 0 asks for the pixel itself.
        average: which of the figures is the result's `mean`, "classes" or "images".
        options: what `LocalizationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.PointingGame(tolerance=1)
        >>> metric.update(torch.tensor([[[3.0, 1.0, 0.0]]]), torch.tensor([[[True, False, False]]]))
        >>> metric.compute().mean
        1.0
    """

    name, title, paper = "pointing_game", "Pointing game", "Zhang et al., ECCV 2016"

    groups: list[Tensor]

    def __init__(
        self,
        *,
        tolerance: float | str = 15,
        average: Literal["classes", "images"] = "classes",
        **options: Any,
    ) -> None:
        if average not in ("classes", "images"):
            raise InputError(f"average={average!r} is not known; use 'classes' or 'images'")
        (self.tolerance, self.of_side), self.average = read_tolerance(tolerance), average
        super().__init__(
            settings={"tolerance": tolerance, "average": average},
            **{"interval": "wilson", **options},
        )
        self.add_state("groups", default=[], dist_reduce_fx="cat")

    def _judge(self, item: Item) -> tuple[float, tuple[int, int]] | None:
        """Whether it hits; kept are its class and whether it is difficult."""
        assert item.truth.difficult is not None
        if bool(item.truth.difficult.all()):
            return None
        hard = item.crowded and item.region.mean() < DIFFICULT_AREA
        hit = item.field is not None and self._hits(top_point(item.field), item.region)
        return float(hit), (item.label or 0, int(hard))

    def _gather(self, kept: Sequence[tuple[int, int]]) -> None:
        self.groups.append(torch.tensor(kept, device=self.device))

    def _hits(self, point: tuple[int, int], region: npt.NDArray[np.bool_]) -> bool:
        rows, columns = np.ogrid[: region.shape[0], : region.shape[1]]
        reach = self.tolerance * min(region.shape) / 100 if self.of_side else self.tolerance
        square = (columns - point[0]) ** 2 + (rows - point[1]) ** 2
        near = (square < reach**2) | (square == 0)
        return bool((near & region).any())

    def _result(self) -> Findings:
        alone = super()._result()
        hits = alone.values[~np.isnan(alone.values)]
        groups = joined(self.groups).reshape(-1, 2).numpy()
        hard = groups[:, 1] > 0
        figures = {
            "classes": _over_classes(hits, groups[:, 0]),
            "images": _over_images(hits),
            "difficult, classes": _over_classes(hits[hard], groups[hard, 0]),
            "difficult, images": _over_images(hits[hard]),
        }
        chosen = figures[self.average]
        return alone._replace(mean=chosen.mean, low=chosen.low, high=chosen.high, figures=figures)


def read_tolerance(tolerance: float | str) -> tuple[float, bool]:
    """A distance in pixels, or in percent of the shorter side; and whether it is such a share.

    Raises:
        InputError: it is neither, or below 0.
    """
    text = str(tolerance).strip()
    share = text.endswith("%")
    try:
        distance = float(text.removesuffix("%"))
    except ValueError:
        distance = math.nan
    if not 0 <= distance < math.inf:
        raise InputError(
            f"tolerance={tolerance!r} is no distance; give pixels such as 15, 0 or more, or a share as '7%'"
        )
    return distance, share


def _over_images(hits: Floats) -> Figure:
    return (
        Figure(float(hits.mean()), *wilson(float(hits.mean()), len(hits)))
        if len(hits)
        else Figure(math.nan)
    )


def _over_classes(hits: Floats, labels: Array) -> Figure:
    if not len(hits):
        return Figure(math.nan)
    _, which, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    mean = float((np.bincount(which, hits) / sizes).mean())
    return Figure(mean, *wilson(mean, len(sizes) ** 2 / float((1 / sizes).sum())))


class LocationAveragePrecision(LocalizationMetric):
    """Location prediction (Oquab et al., CVPR 2015, section 5.3): mean average precision of classes with their places.

    For each class the images are ranked by their score for it. A prediction is right where the picture shows the class
    and the maximum of the class's map lies in one of its boxes, enlarged by `tolerance` on every side; a wrong place
    is a false positive, and its object stays unfound. Average precision is the area under the precision-recall curve,
    with precision made monotonous, as Pascal VOC measures it since 2010. Figures: "mean" over the classes and each
    class's own, "class 3"; and "classification" with places not asked for.

    `values` are 1 and 0 where the class is there, NaN where it is not: such images have the status "no_truth" and still
    count in the ranking. The interval is a bootstrap over maps.

    Args:
        tolerance: in pixels of the picture; 18 as published, the stride of its network at its input.
        interpolated: monotonous precision; False sums P (R - R before) as it is.
        options: what `LocalizationMetric` takes.

    Example:
        >>> example = seewhy.data.find_data("scenes:size=64,count=1")[0]
        >>> metric = seewhy.metrics.LocationAveragePrecision(tolerance=0)
        >>> region = example.truth.region().float()[None]
        >>> metric.update(region, [example.truth], labels=example.labels, scores=[1.0])
        >>> metric.compute().mean
        1.0
    """

    name, title, paper = "location_ap", "Location mean average precision", "Oquab et al., CVPR 2015"

    ranked: list[Tensor]

    def __init__(self, *, tolerance: float = 18, interpolated: bool = True, **options: Any) -> None:
        if tolerance < 0:
            raise InputError(
                f"tolerance={tolerance} pixels shrinks the boxes; give 0 or more, such as 18"
            )
        settings = {"tolerance": tolerance, "interpolated": interpolated}
        super().__init__(settings=settings, **{"interval": "wilson", **options})
        self.tolerance, self.interpolated = tolerance, interpolated
        self.add_state("ranked", default=[], dist_reduce_fx="cat")

    def update(  # type: ignore[override]
        self,
        maps: Tensor | Sequence[Tensor],
        truth: TruthLike,
        *,
        labels: Sequence[int] | Tensor,
        scores: Sequence[float] | Tensor,
    ) -> None:
        """Adds maps, each of one class in one picture; also of classes that the picture does not show.

        Args:
            maps: as in `LocalizationMetric.update`.
            truth: likewise; None is a picture that nobody marked, and is left out.
            labels: the class of each map.
            scores: what the model gives that class, as any number that orders pictures.

        Raises:
            SeewhyError: shapes that do not go together, or a score that is no number.
        """
        given = torch.as_tensor(scores, dtype=torch.float64).reshape(-1).cpu()
        if len(given) != len(labels) or not bool(given.isfinite().all()):
            raise InputError(
                f"scores has {len(given)} values for {len(labels)} maps; give a finite one for each"
            )
        self._add(maps, truth, labels)
        values, known = (
            self.values[-1].cpu(),
            torch.tensor([one is not None for one in truth], dtype=torch.bool),
        )
        rows = torch.stack([torch.as_tensor(labels).double().cpu(), given, values], 1)[known]
        self.ranked.append(rows.to(self.device))

    def _judge(self, item: Item) -> tuple[float, None]:
        if item.field is None:
            return 0.0, None
        x, y = (at + 0.5 for at in top_point(item.field))
        x0, y0, x1, y1 = item.truth.boxes.numpy().T
        t = self.tolerance
        return float(((x0 - t < x) & (x < x1 + t) & (y0 - t < y) & (y < y1 + t)).any()), None

    def _result(self) -> Findings:
        alone = super()._result()
        rows = joined(self.ranked).reshape(-1, 3).numpy()
        rows = rows[
            np.lexsort((rows[:, 2], -rows[:, 1], rows[:, 0]))
        ]  # so that the order of updates is no matter
        found: dict[str, Figure] = {}
        drawn: list[Floats] = []
        named: list[float] = []
        for label in np.unique(rows[~np.isnan(rows[:, 2]), 0]):
            _, scores, right = rows[rows[:, 0] == label].T
            shown, once = ~np.isnan(right), np.ones((1, len(right)))
            rng = np.random.default_rng((self.seed, int(label) % 2**32))
            weights = rng.poisson(1.0, (RESAMPLES, len(right))).astype(np.float64)
            drawn.append(self._average_precision(scores, np.nan_to_num(right), shown, weights))
            own = float(self._average_precision(scores, np.nan_to_num(right), shown, once)[0])
            found[f"class {int(label)}"] = Figure(own, *percentiles(drawn[-1]))
            named.append(float(self._average_precision(scores, shown, shown, once)[0]))
        mean = float(np.mean([figure.mean for figure in found.values()])) if found else math.nan
        low, high = percentiles(np.mean(drawn, axis=0)) if drawn else (math.nan, math.nan)
        classified = Figure(float(np.mean(named)) if named else math.nan)
        figures = {"mean": Figure(mean, low, high), "classification": classified, **found}
        return alone._replace(mean=mean, low=low, high=high, interval="bootstrap", figures=figures)

    def _average_precision(
        self, scores: Floats, right: Array, shown: Array, weights: Floats
    ) -> Floats:
        """Average precision of predictions that count `weights` (R, n) times, by falling scores (n,): (R,)."""
        last = np.flatnonzero(
            np.append(scores[1:] != scores[:-1], True)
        )  # equal scores are called together
        hits, called = (weights * right).cumsum(1)[:, last], weights.cumsum(1)[:, last]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.nan_to_num(hits / called)
            recall = hits / (weights * shown).sum(1, keepdims=True)
        if self.interpolated:
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        return np.asarray((precision * np.diff(recall, axis=1, prepend=0.0)).sum(1))
