"""Does a map tell its class from others: from that of the object beside it, and from one that looks alike?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, compress

import numpy as np
import torch
from torch import Tensor

from ...data.truth import Truth
from ...errors import InputError
from ...maps import values as map_tools
from ...maps.boxes import fields_of
from ...maps.components import component_tree
from ..base import joined
from ..intervals import interval_of, wilson
from ..result import Figure, Findings, Floats
from ..similarity import pearson
from .box_metrics import overlaps
from .metric import Array, Item, TruthLike
from .pixel_metrics import EnergyPointing, energy_shares
from .point_metrics import top_point

_COMPARED = 56  # pixels a side at which two maps of a picture are compared
_CUTS = 20  # thresholds of boxes: 5 %, 10 % ... of the maximum
_RIGHT_BOX = 0.5  # IoU


class PairShare(EnergyPointing):
    """Of the positive evidence on objects of two classes, the share on the class's own (after Gu et al., ACCV 2018).

    own / (own + other), with own the positive part of the map summed over the objects of its class, other over those of
    the picture's other classes; what both mark counts for neither. A map that knows no class has 0.5 on average over
    the classes of a picture; so does one without evidence on either. Pictures of one class alone have no value.

    `update(maps, truths, labels=...)`, with all maps of a picture in one update. Figures: "share"; "uniform", what a
    map without places gives; "own" and "other", their shares of all positive evidence; "correlation", Pearson's of the
    positive parts of the maps of two classes of a picture at 56 x 56, which is 1 where the class makes no difference.

    Args:
        options: what `EnergyPointing` takes.

    Example:
        >>> from seewhy.data.truth import Truth
        >>> truth = Truth((1, 3), [[0, 0, 1, 1], [1, 0, 2, 1]], [7, 8])
        >>> metric = seewhy.metrics.PairShare()
        >>> metric.update(torch.tensor([[[3.0, 1.0, 0.0]], [[0.0, 2.0, 2.0]]]), [truth, truth], labels=[7, 8])
        >>> metric.compute().values
        array([0.75, 1.  ])
    """

    name, title, paper = "pair_share", "Share of the own object", "Gu et al., ACCV 2018"
    by_chance = 0.5
    lists = ("areas", "parts", "alike")

    parts: list[Tensor]
    alike: list[Tensor]

    def _add(
        self,
        maps: Tensor | Sequence[Tensor],
        truth: TruthLike,
        labels: Sequence[int] | Tensor | None,
    ) -> None:
        if labels is None or not all(one is None or isinstance(one, Truth) for one in truth):
            raise InputError(
                "pair_share compares with the other classes of a picture: "
                "give a Truth of each, with labels=, the class that each map explains"
            )
        super()._add(maps, truth, labels)
        none = torch.empty(0, dtype=torch.float64)
        self.alike.append(torch.cat([none, *_correlations(maps, truth)]).to(self.device))

    def _judge(self, item: Item) -> tuple[float, object] | None:
        """Its share; kept are that of the area, and the energies."""
        assert isinstance(item.given, Truth)
        assert item.label is not None
        if not item.crowded:
            return None
        given = item.given
        others = [int(label) for label in given.labels.unique() if label != item.label]
        own = self._region_of(given.of(item.label))
        other = np.any([self._region_of(given.of(label)) for label in others], axis=0)
        own, other = own & ~other, other & ~own
        if not own.any() or not other.any():
            return None
        energies = energy_shares(item, own, other)
        both = sum(energies)
        share = energies[0] / both if both > 0 else 0.5
        return share, (own.sum() / (own.sum() + other.sum()), *energies)

    def _gather(self, kept: Sequence[tuple[float, ...]]) -> None:
        super()._gather(kept)
        self.parts.append(_parts_of(kept).to(self.device))

    def _result(self) -> Findings:
        alone = super()._result()
        own, other = joined(self.parts).reshape(-1, 2).numpy().T
        correlations = joined(self.alike).numpy()
        figures = {
            "share": alone.figures["energy"],
            "uniform": alone.figures["uniform"],
            "own": _mean_of(own, self.limits),
            "other": _mean_of(other, self.limits),
            "correlation": _mean_of(correlations[~np.isnan(correlations)], (-1.0, 1.0)),
        }
        return alone._replace(figures=figures)


class LookAlike(EnergyPointing):
    """A look-alike's map: of the best other class of a picture with one object, which has to show that object too.

    What speaks for "Egyptian cat" in the photo of a tiger cat is the cat, so that a map that leaves it to tell the two
    classes apart does not show the evidence. `seewhy evaluate` explains the class with the highest score beside the
    true one, and scores the map on the true object. Figures: "energy", which is the mean, as `EnergyPointing`;
    "uniform", the object's share of the picture, which a map without places has; "pointing", whether the highest pixel
    is one of the object; "pixel_ap", average precision of each picture's pixels, by their exact order; "box", the share
    of pictures in which the box of the largest component has an IoU of at least 0.5, at that of the thresholds 5 %,
    10 % ... 95 % of the maximum that is best for these pictures. Pictures that show another class too have no value.

    Args:
        options: what `EnergyPointing` takes.

    Example:
        >>> metric = seewhy.metrics.LookAlike()
        >>> metric.update(torch.tensor([[[3.0, 1.0, 0.0]]]), torch.tensor([[[True, False, False]]]))
        >>> [round(figure.mean, 3) for figure in metric.compute().figures.values()]
        [0.75, 0.333, 1.0, 1.0, 1.0]
    """

    name, title, paper = "look_alike", "Look-alike on the object", "Choe et al., CVPR 2020"

    lists = ("areas", "parts")

    parts: list[Tensor]

    def _judge(self, item: Item) -> tuple[float, object] | None:
        """Its energy inside; kept are the object's share of the picture, the other scores, and at which cuts it has a
        right box."""
        if item.crowded:
            return None
        energy, area = self._energy_and_area(item)
        if item.field is None:
            return energy, (area, 0.0, area, *[0.0] * (_CUTS - 1))
        x, y = top_point(item.field)
        precision = exact_average_precision(item.field, item.region)
        return energy, (area, float(item.region[y, x]), precision, *_right_boxes(item))

    def _gather(self, kept: Sequence[tuple[float, ...]]) -> None:
        super()._gather(kept)
        self.parts.append(_parts_of(kept).to(self.device))

    def _result(self) -> Findings:
        alone = super()._result()
        parts = joined(self.parts).reshape(-1, 1 + _CUTS).numpy()
        cut = int(parts[:, 2:].sum(0).argmax())
        box = _share_of(parts[:, 2 + cut])._replace(thresholds=((cut + 1) / _CUTS,))
        figures = {
            **alone.figures,
            "pointing": _share_of(parts[:, 0]),
            "pixel_ap": _mean_of(parts[:, 1], self.limits),
            "box": box,
        }
        return alone._replace(figures=figures)


def exact_average_precision(field: Array, inside: Array) -> float:
    """sum_k (R_k - R_k-1) P_k over the distinct values of a map (H, W), from the highest down; at least one inside."""
    order = np.argsort(-field.ravel(), kind="stable")
    values, hits = field.ravel()[order], inside.ravel()[order].cumsum()
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # equal ones come together
    return float((np.diff(hits[last], prepend=0) * hits[last] / (last + 1)).sum() / hits[-1])


def _right_boxes(item: Item) -> list[float]:
    """1 for each cut at which the largest component has a right box."""
    assert item.field is not None
    positive = np.maximum(item.field, 0)
    scaled = positive / max(float(positive.max()), float(np.finfo(np.float32).tiny))
    tree = component_tree(scaled.astype(np.float32), _CUTS)
    if not len(tree.boxes):
        return [0.0] * (_CUTS - 1)
    right = tree.of_largest(overlaps(tree, item.truth))[1:] >= _RIGHT_BOX
    return [float(each) for each in right]


def _correlations(maps: Tensor | Sequence[Tensor], truth: TruthLike) -> Iterator[Tensor]:
    """Pearson's of the positive parts of every two maps of one picture, each (1,)."""
    fields = fields_of(maps)
    for picture in {id(one): one for one in truth if one is not None}.values():
        mine = compress(fields, [one is picture for one in truth])
        small = [map_tools.resize(each[None], (_COMPARED,) * 2).clamp(min=0) for each in mine]
        for a, b in combinations(small, 2):
            yield pearson(a.flatten(1), b.flatten(1))


def _parts_of(kept: Sequence[tuple[float, ...]]) -> Tensor:
    """What is kept of images beside the area, (n, parts)."""
    return torch.tensor([parts for _, *parts in kept], dtype=torch.float64)


def _mean_of(values: Floats, limits: tuple[float, float]) -> Figure:
    if not len(values):
        return Figure(math.nan)
    return Figure(float(values.mean()), *interval_of(values, "t", limits=limits))


def _share_of(hits: Floats) -> Figure:
    if not len(hits):
        return Figure(math.nan)
    return Figure(float(hits.mean()), *wilson(float(hits.mean()), len(hits)))
