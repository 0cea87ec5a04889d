"""Slow transcriptions of what localisation is measured by, from the definitions: loops over pixels, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]


def _bumps(i: int) -> list[tuple[float, float, float, float, float]]:
    """The centre, the widths and the height of three to five bumps, by a formula."""
    found = []
    for j in range(3 + i % 3):
        a, b, c, d = ((k * (i + 1) * (j + 2) * 0.618034) % 1 for k in (1.0, 1.7, 2.9, 4.3))
        found.append(
            (
                0.2 + 0.6 * a,
                0.2 + 0.6 * b,
                0.06 + 0.12 * c,
                0.06 + 0.12 * d,
                1.0 if j == 0 else 0.3 + 0.4 * d,
            )
        )
    return found


def blobs(count: int, size: int = 224) -> npt.NDArray[np.float32]:
    """(count, size, size) in [0, 1]: some round or long bumps each, the same on any machine."""
    y, x = np.mgrid[:size, :size] / size
    found = []
    for i in range(count):
        field = sum(
            h * np.exp(-(((x - a) / c) ** 2) - ((y - b) / d) ** 2) for a, b, c, d, h in _bumps(i)
        )
        found.append((field - np.min(field)) / np.ptp(field))
    return np.stack(found).astype(np.float32)


def true_boxes(count: int, size: int = 224) -> list[list[Box]]:
    """One or two boxes of each picture of `blobs`, around its first bumps, give or take some pixels."""
    found = []
    for i in range(count):
        each = []
        for j, (x, y, wide, high, _) in enumerate(_bumps(i)[: 1 + i % 2]):
            off = 0.05 * ((i * 0.7548777 + j) % 1)
            sides = (x - wide + off, y - high, x + 1.4 * wide, y + 1.2 * high + off)
            each.append(tuple(float(min(max(round(size * v), 0), size)) for v in sides))
        found.append(each)
    return found  # type: ignore[return-value]


def components(kept: npt.NDArray[np.bool_], connectivity: int) -> list[tuple[Box, int]]:
    """The tight half-open box and the area of each component of (H, W), in the order of their first pixels."""
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)] + [(1, 1), (1, -1), (-1, 1), (-1, -1)] * (
        connectivity == 8
    )
    seen, found = np.zeros_like(kept), []
    for start in zip(*np.nonzero(kept), strict=True):
        if seen[start]:
            continue
        seen[start], reached = True, [start]
        for y, x in reached:
            for dy, dx in steps:
                at = (y + dy, x + dx)
                if (
                    0 <= at[0] < kept.shape[0]
                    and 0 <= at[1] < kept.shape[1]
                    and kept[at]
                    and not seen[at]
                ):
                    seen[at] = True
                    reached.append(at)
        ys, xs = zip(*reached, strict=True)
        found.append(((min(xs), min(ys), max(xs) + 1, max(ys) + 1), len(reached)))
    return found


def iou(first: Box, second: Box, inclusive: float = 0) -> float:
    """Of half-open boxes; with inclusive=1 of boxes whose last pixel belongs to them."""
    a, b = first, second
    wide = min(a[2], b[2]) - max(a[0], b[0]) + inclusive
    high = min(a[3], b[3]) - max(a[1], b[1]) + inclusive
    shared = max(wide, 0) * max(high, 0)
    areas = [(c[2] - c[0] + inclusive) * (c[3] - c[1] + inclusive) for c in (a, b)]
    return shared / (sum(areas) - shared)


def box_hits(
    field: Array,
    truth: Sequence[Box],
    thresholds: int,
    need: float,
    version: int,
    connectivity: int,
) -> Array:
    """Whether a map is right at each threshold: (thresholds,)."""
    hits = np.zeros(thresholds)
    for k in range(thresholds):
        found = components(field.astype(np.float64) * thresholds > k, connectivity)
        if version == 1 and found:
            found = [max(found, key=lambda one: one[1])]
        hits[k] = any(iou(box, true) >= need for box, _ in found for true in truth)
    return hits


def pixel_ap(
    fields: Sequence[Array], masks: Sequence[npt.NDArray[np.bool_]], thresholds: int
) -> float:
    """Sum of precision times the gain in recall, threshold by threshold, of all pixels together."""
    values = np.concatenate([f.ravel() for f in fields]).astype(np.float64)
    true = np.concatenate([m.ravel() for m in masks])
    total, before = 0.0, 0.0
    for k in range(thresholds, -1, -1):
        called = values >= k / thresholds
        if called.any():
            recall = (called & true).sum() / true.sum()
            total += (called & true).sum() / called.sum() * (recall - before)
            before = recall
    return total


def pointing_hit(field: Array, region: npt.NDArray[np.bool_], tolerance: float) -> bool:
    """TorchRay's rule: the disc of radius below the tolerance around the maximum meets the object."""
    best, at = -math.inf, (0, 0)
    for y in range(field.shape[0]):
        for x in range(field.shape[1]):
            if field[y, x] > best:
                best, at = field[y, x], (y, x)
    return any(
        region[y, x] and (y - at[0]) ** 2 + (x - at[1]) ** 2 < tolerance**2
        for y in range(field.shape[0])
        for x in range(field.shape[1])
    )


def ilsvrc_error(
    guesses: Sequence[Sequence[tuple[int, Box]]],
    truths: Sequence[Sequence[tuple[int, Box]]],
    k: int,
    need: float = 0.5,
) -> float:
    """The challenge's flat error: mean over images of min over the first k guesses of min over objects of d.

    d is 0 where the class is the object's and the overlap of the boxes, whose last pixels belong to them, is enough.
    """
    total = 0.0
    for guessed, marked in zip(guesses, truths, strict=True):
        least = 1.0
        for label, box in guessed[:k]:
            for true, place in marked:
                if label == true and iou(box, place, inclusive=1) >= need:
                    least = 0.0
        total += least
    return total / len(guesses)


def ranked_ap(
    scores: Sequence[float], right: Sequence[bool], positives: int, *, interpolated: bool
) -> float:
    """Average precision of predictions by falling score; every distinct score is a place to stop."""
    points = []
    for stop in sorted(set(scores), reverse=True):
        called = [r for s, r in zip(scores, right, strict=True) if s >= stop]
        points.append((sum(called) / positives, sum(called) / len(called)))
    total, before = 0.0, 0.0
    for i, (recall, precision) in enumerate(points):
        level = max(p for _, p in points[i:]) if interpolated else precision
        total += (recall - before) * level
        before = recall
    return total
