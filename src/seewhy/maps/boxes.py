"""Where a map says the object is: boxes, masks and peaks by a rule that is written down.

A box is (x0, y0, x1, y1), half-open: a single pixel is (x, y, x + 1, y + 1). A map without an answer gives no box.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..arguments import checked
from ..data.placement import Placement
from ..data.rgb import Array
from ..errors import ArgumentTypeError, InputError
from . import values as map_tools
from .box_rules import RULES, BoxRule, RelativeTo, RuleLike, find_rule
from .values import Status

__all__ = [
    "RULES",
    "BoxRule",
    "Boxes",
    "Peaks",
    "box_iou",
    "boxes",
    "boxes_on_photo",
    "find_rule",
    "masks",
    "peaks",
    "region",
]


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one map, the largest component first.

    Attributes:
        boxes: (B, 4) int64, x0, y0, x1, y1, half-open pixels of the map, or of the size that was asked for.
        areas: (B,) int64, the pixels of the components, at most those of their boxes.
        peaks: (B,) float32, the highest value in each component, in the map's units.
        means: (B,) float32, the mean value in each component.
        status: "ok", or why the map has no box (`seewhy.maps.STATUS_MEANINGS`).
        size: (H, W) of what the boxes are in.
    """

    boxes: Tensor
    areas: Tensor
    peaks: Tensor
    means: Tensor
    status: Status
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    def scaled(self, size: tuple[int, int]) -> Boxes:
        """The same boxes on a picture of another (height, width), to the nearest pixels."""
        down, across = size[0] / self.size[0], size[1] / self.size[1]
        corners = (
            (self.boxes * torch.tensor([across, down, across, down], dtype=torch.float64))
            .round()
            .long()
        )
        areas = (self.areas.double() * (down * across)).round().long()
        return dataclasses.replace(self, boxes=corners, areas=areas, size=size)


@dataclass(frozen=True, eq=False)
class Peaks:
    """The strongest places of one map, the strongest first.

    Attributes:
        points: (P, 2) int64, (x, y) of pixels.
        values: (P,) float32, in the map's units.
        status: "ok", or why there is none.
    """

    points: Tensor
    values: Tensor
    status: Status

    def __len__(self) -> int:
        return len(self.points)


@checked
def boxes(
    maps: Tensor | Sequence[Tensor],
    *,
    rule: RuleLike = "cam2016",
    threshold: float | None = None,
    relative_to: RelativeTo | Literal["mean"] | None = None,
    components: Literal["largest", "all"] | None = None,
    connectivity: Literal[4, 8] | None = None,
    most: int | None = None,
    min_share: float | None = None,
    size: tuple[int, int] | None = None,
) -> list[Boxes]:
    """Boxes around what the maps mark, by a rule.

    Args:
        maps: (N, h, w), a single (h, w), or a sequence of (h, w) of any sizes; NaN and infinity are told, not boxed.
        rule: a name in `RULES`, or a `BoxRule`; the six that follow change single values of it.
        threshold: see `BoxRule`.
        relative_to: likewise.
        components: likewise.
        connectivity: likewise.
        most: likewise.
        min_share: likewise.
        size: (H, W) to which the maps are resized first; as they are unless given.

    Returns:
        One `Boxes` for each map.

    Example:
        >>> found = seewhy.localize.boxes(seewhy.methods.grad_cam(net, x, "top1"))[0]
        >>> found.boxes, found.status
        (tensor([[ 8,  4, 12,  8]]), 'ok')
    """
    chosen = find_rule(
        rule,
        threshold=threshold,
        relative_to=relative_to,
        components=components,
        connectivity=connectivity,
        most=most,
        min_share=min_share,
    )
    return [_boxed(field, labels, status) for field, labels, status in _labeled(maps, chosen, size)]


def masks(
    maps: Tensor | Sequence[Tensor],
    *,
    rule: RuleLike = "cam2016",
    size: tuple[int, int] | None = None,
) -> list[Tensor]:
    """The components that `boxes` puts boxes around: (B, H, W) bool for each map, in the same order."""
    return [
        torch.from_numpy(labels == np.arange(1, labels.max() + 1)[:, None, None])
        for _, labels, _ in _labeled(maps, find_rule(rule), size)
    ]


def region(
    maps: Tensor | Sequence[Tensor],
    *,
    rule: RuleLike = "cam2016",
    size: tuple[int, int] | None = None,
) -> Tensor:
    """The union of the components that `boxes` puts boxes around: (N, H, W) bool, for maps of one size."""
    return torch.stack(
        [torch.from_numpy(labels > 0) for _, labels, _ in _labeled(maps, find_rule(rule), size)]
    )


def peaks(
    maps: Tensor | Sequence[Tensor],
    *,
    most: int = 1,
    distance: float | None = None,
    threshold: float = 0.2,
) -> list[Peaks]:
    """The local maxima of maps that are some distance apart; the first is the maximum, of equal ones the first.

    Args:
        maps: as in `boxes`.
        most: how many at most.
        distance: at least so many pixels lie between two; None is an eighth of the shorter side.
        threshold: only those above this share of the maximum.

    Returns:
        One `Peaks` for each map.

    Example:
        >>> found = seewhy.localize.peaks(torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]))[0]
        >>> found.points, found.values
        (tensor([[1, 0]]), tensor([3.]))
    """
    if most < 1:
        raise InputError(f"most={most} peaks; give at least 1")
    BoxRule(threshold)  # says what is accepted
    fields = fields_of(maps)
    return [
        _peaks(
            field, status, most, min(field.shape) / 8 if distance is None else distance, threshold
        )
        for field, status in zip(fields, statuses(fields), strict=True)
    ]


def boxes_on_photo(map_: Tensor, placement: Placement, *, rule: RuleLike = "cam2016") -> Boxes:
    """Boxes of one map (h, w) over a model's input, in the pixels of the photo that the input was made of.

    The map is laid onto the photo bilinearly first. What the model did not see is in no box, and scales nothing.
    """
    placed = placement.place(map_.detach().float().cpu().numpy())
    seen = (
        np.isfinite(placed) | ~np.isfinite(map_.detach().cpu().numpy()).all()
    )  # a map with NaN is told as such
    rows = np.flatnonzero(seen.any(1))
    columns = np.flatnonzero(seen.any(0))
    if not len(rows):
        return dataclasses.replace(boxes(torch.zeros(1, 1))[0], size=placement.photo_size)
    inside = placed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    (found,) = boxes(torch.from_numpy(inside.copy()), rule=rule)
    x, y = int(columns[0]), int(rows[0])
    return dataclasses.replace(
        found, boxes=found.boxes + torch.tensor([x, y, x, y]), size=placement.photo_size
    )


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of half-open boxes (A, 4) with (B, 4): (A, B) float64 in [0, 1].

    Example:
        >>> seewhy.localize.box_iou(torch.tensor([[0, 0, 2, 2]]), torch.tensor([[1, 0, 3, 2]]))
        tensor([[0.3333]], dtype=torch.float64)
    """
    return shared_part(first.double()[:, None], second.double()[None])


def shared_part(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of half-open boxes (..., 4) with others, dimension by dimension, in their own type."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return shared / (areas - shared).clamp(min=1e-12)


def fields_of(maps: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The maps one by one, (h, w) float32 on the CPU.

    Raises:
        SeewhyError: not (N, h, w), (h, w) or a sequence of (h, w), or a map without pixels.
    """
    given = list(maps) if not isinstance(maps, Tensor) or maps.ndim == 3 else [maps]
    for one in given:
        if not isinstance(one, Tensor):
            raise ArgumentTypeError(
                f"maps holds a {type(one).__name__}; give a tensor (N, h, w), or a list of (h, w)"
            )
        if one.ndim != 2 or 0 in one.shape:
            raise InputError(
                f"a map has shape {tuple(one.shape)}; give (N, h, w), or a list of (h, w), with pixels"
            )
    return [one.detach().float().cpu() for one in given]


def statuses(fields: Sequence[Tensor], relative_to: RelativeTo = "max") -> tuple[Status, ...]:
    """As `seewhy.maps.statuses`, of maps of any sizes; on the scale "minmax" evidence against can be read too."""
    if not fields:
        return ()
    # the least and the highest value tell all, NaN and infinity too
    ends = torch.from_numpy(
        np.array([[(one.min(), one.max())] for one in (field.numpy() for field in fields)])
    )
    found = map_tools.statuses(ends)
    if relative_to == "max" or "empty" not in found:
        return found
    return tuple(
        t if f == "empty" else f for f, t in zip(found, map_tools.statuses(-ends), strict=True)
    )


def _labeled(
    maps: Tensor | Sequence[Tensor], rule: BoxRule, size: tuple[int, int] | None
) -> Iterator[tuple[Tensor, Array, Status]]:
    """For each map its values (H, W), its components numbered 1 .. B in their order, and its status."""
    fields = fields_of(maps)
    for given, status in zip(fields, statuses(fields, rule.scale), strict=True):
        field = given if size is None else map_tools.resize(given[None], size)[0]
        kept = rule.kept(field) & (status == "ok")
        yield field, _components(kept, rule), status


def _components(kept: Array, rule: BoxRule) -> Array:
    """(H, W) bool -> the components that the rule takes, numbered from 1 in its order; 0 elsewhere."""
    from scipy import ndimage

    labels, count = ndimage.label(kept, np.ones((3, 3)) if rule.connectivity == 8 else None)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-areas, kind="stable")  # ties stay in the order of their first pixels
    order = order[areas[order] >= rule.min_share * kept.size]
    order = order[: 1 if rule.components == "largest" else rule.most]
    renumbered = np.zeros(count + 1, np.int64)
    renumbered[order + 1] = np.arange(1, len(order) + 1)
    return np.asarray(renumbered[labels])


def _boxed(field: Tensor, labels: Array, status: Status) -> Boxes:
    from scipy import ndimage

    found = ndimage.find_objects(labels)
    count = range(1, len(found) + 1)
    # of an unreadable map nothing is labelled, and nothing of its values is asked
    peak, mean = (
        ask(field.numpy(), labels, count) if found else []
        for ask in (ndimage.maximum, ndimage.mean)
    )
    return Boxes(
        torch.tensor(
            [[x.start, y.start, x.stop, y.stop] for y, x in found], dtype=torch.long
        ).reshape(-1, 4),
        torch.from_numpy(np.bincount(labels.ravel())[1:]),
        torch.tensor(np.asarray(peak), dtype=torch.float32),
        torch.tensor(np.asarray(mean), dtype=torch.float32),
        status,
        (labels.shape[0], labels.shape[1]),
    )


def _peaks(map_: Tensor, status: Status, most: int, distance: float, threshold: float) -> Peaks:
    from scipy import ndimage

    field = map_.numpy()
    found: list[tuple[int, int]] = []
    if status == "ok":
        tops = (field == ndimage.maximum_filter(field, 3, mode="nearest")) & (
            field > threshold * field.max()
        )
        y, x = np.nonzero(tops)
        order = np.argsort(-field[y, x], kind="stable")
        y, x = y[order], x[order]
        while len(y) and len(found) < most:
            found.append((int(x[0]), int(y[0])))
            apart = (y - y[0]) ** 2 + (x - x[0]) ** 2 >= max(distance, 1) ** 2
            y, x = y[apart], x[apart]
    points = torch.tensor(found, dtype=torch.long).reshape(-1, 2)
    return Peaks(points, map_[points[:, 1], points[:, 0]], status)
