"""The connected components of a map at all thresholds at once: a component tree (Salembier et al., 1998).

Each pixel climbs to a peak by its highest neighbours, which parts the map into basins; above any threshold a basin is
connected. Basins meet at saddles; of two that meet, the lower goes on as part of the higher. So a component is known
by the basin of its peak and by the level of its lowest pixels, and no threshold is ever labelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.rgb import Array

# half of each neighbourhood; the other half is its mirror image
_STEPS = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}


@dataclass(frozen=True, eq=False)
class ComponentTree:
    """Every connected component that any of T thresholds gives; pixels above threshold k are those of level > k.

    Attributes:
        boxes: (C, 4) int64, x0, y0, x1, y1, half-open.
        areas: (C,) int64, pixels.
        firsts: (C,) int64, the first of its pixels, row by row.
        starts, stops: (C,) int64: it is a component at the thresholds starts <= k < stops.
        thresholds: T.
    """

    boxes: Array
    areas: Array
    firsts: Array
    starts: Array
    stops: Array
    thresholds: int

    def best(self, values: Array) -> Array:
        """At each threshold the highest of its components' values (C,), at least 0: (T,); 0 where there is none."""
        return range_max(self.starts, self.stops, values, self.thresholds, values.dtype.type(0))

    def of_largest(self, values: Array) -> Array:
        """At each threshold the value of its largest component, of equal ones the first: (T,); 0 for none."""
        order = np.lexsort((-self.firsts, self.areas))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(1, len(order) + 1)
        found = range_max(self.starts, self.stops, rank, self.thresholds, np.int64(0))
        return np.concatenate([np.zeros(1, values.dtype), values[order]])[found]


def component_tree(field: Array, thresholds: int, *, connectivity: int = 8) -> ComponentTree:
    """The components of {field > k / thresholds} for k = 0 .. thresholds - 1.

    Args:
        field: (H, W) float32 in [0, 1].
        thresholds: T, how many.
        connectivity: 4 or 8.
    """
    parts = _parts(field.size, thresholds)
    fine = np.multiply(
        field, thresholds * parts, dtype=np.float64
    )  # exact: 24 bits of float32 times at most 29
    heights = np.ceil(fine, out=fine).astype(
        np.int32 if thresholds * parts << field.size.bit_length() < 2**31 else np.int64
    )
    levels = (heights + (parts - 1)) // parts
    if not levels.any():
        none = np.empty(0, np.int64)
        return ComponentTree(none.reshape(0, 4), none, none, none, none, thresholds)
    basins, peaks = _basins(heights, connectivity)
    into, saddles = _merges(basins, levels, heights.ravel()[peaks], connectivity)
    seen = np.flatnonzero(levels)
    basin, level = basins.ravel()[seen], levels.ravel()[seen]
    _climb(basin, level, into, saddles)
    # a node is a basin at a level that one of its pixels has
    taken = np.zeros(len(peaks) * (thresholds + 1), bool)
    taken[basin * (thresholds + 1) + level] = True
    ids = np.flatnonzero(taken)
    number = np.empty(len(taken), np.int64)
    number[ids] = np.arange(len(ids))
    nodes = np.full(levels.size, len(ids))  # the last stands for what lies below every threshold
    nodes[seen] = number[basin * (thresholds + 1) + level]
    parents = _parents(ids, number, into, saddles, thresholds)
    stops = ids % (thresholds + 1)
    starts = np.concatenate([stops, [0]])[parents]
    extents, areas = _extents(nodes.reshape(levels.shape), parents)
    x0, last_column, first, last = extents
    height, width = levels.shape
    boxes = np.stack(
        [x0 // height, first // width, last_column // height + 1, last // width + 1], 1
    )
    return ComponentTree(boxes, areas, first, starts, stops, thresholds)


def _pairs(
    shape: tuple[int, ...], connectivity: int
) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Where the two pixels of every pair of neighbours are, for each direction."""
    height, width = shape
    found = []
    for down, across in _STEPS[connectivity]:
        here = slice(0, height - down), slice(max(0, -across), width - max(0, across))
        there = slice(down, height), slice(max(0, across), width + min(0, across))
        found.append((here, there))
    return found


def _parts(pixels: int, thresholds: int) -> int:
    """Into how many heights each level is parted, so that few pixels tie where the map climbs, and keys stay short."""
    room: int = (1 << (31 - min(pixels.bit_length(), 30))) - 1
    return min(max(room // thresholds, 8), 1024)


def _basins(heights: Array, connectivity: int) -> tuple[Array, Array]:
    """For each pixel the number of the peak it climbs to, (H, W), and the place of each peak, (K,)."""
    size, bits = heights.size, heights.size.bit_length()
    keys = (heights << bits) | np.arange(size, dtype=heights.dtype).reshape(
        heights.shape
    )  # the place breaks ties
    highest = keys.copy()
    for here, there in _pairs(heights.shape, connectivity):
        np.maximum(highest[here], keys[there], out=highest[here])
        np.maximum(highest[there], keys[here], out=highest[there])
    up = (highest & (2**bits - 1)).ravel().astype(np.int64)
    for _ in range(2):
        up = up[up]
    # paths have run together by now: only where they lead is followed further
    passed = np.zeros(size, bool)
    passed[up] = True
    places = np.flatnonzero(passed)
    while not np.array_equal(further := up[up[places]], up[places]):
        up[places] = further
    up = up[up]
    peaks = places[up[places] == places]
    number = np.empty(size, np.int64)
    number[peaks] = np.arange(len(peaks))
    return number[up].reshape(heights.shape), peaks


def _merges(basins: Array, levels: Array, tops: Array, connectivity: int) -> tuple[Array, Array]:
    """For each basin which one it goes on in, and up to which level: (K,) each; level 0 where it stays its own."""
    k = len(tops)
    base = int(levels.max()) + 1
    codes = []
    for here, there in _pairs(levels.shape, connectivity):
        at = np.divmod(np.flatnonzero(basins[here] != basins[there]), basins[here].shape[1])
        low = np.minimum(levels[here][at], levels[there][at])
        a, b, low = (each[low > 0] for each in (basins[here][at], basins[there][at], low))
        codes.append((np.minimum(a, b) * k + np.maximum(a, b)) * base + low)
    edges = np.sort(np.concatenate(codes))
    edges = edges[
        np.append(edges[1:] // base != edges[:-1] // base, True)[: len(edges)]
    ]  # the highest of each pair
    pair, saddle = edges // base, edges % base
    order = np.argsort(-saddle, kind="stable")
    into, until = np.arange(k), np.zeros(k, np.int64)
    root = list(range(k))
    heights = tops.tolist()

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for a, b, low in zip(
        (pair[order] // k).tolist(), (pair[order] % k).tolist(), saddle[order].tolist(), strict=True
    ):
        one, other = find(a), find(b)
        if one != other:
            high, merged = (one, other) if heights[one] > heights[other] else (other, one)
            root[merged] = into[merged] = high
            until[merged] = low
    return into, until


def _parents(ids: Array, number: Array, into: Array, saddles: Array, thresholds: int) -> Array:
    """For each node the one that contains it at the next lower level; the number of nodes where none does."""
    basin = ids // (thresholds + 1)
    parents = np.arange(-1, len(ids) - 1)
    lowest = np.flatnonzero(np.append(True, basin[1:] != basin[:-1]))
    level, over = saddles[basin[lowest]], into[basin[lowest]]
    _climb(over, level, into, saddles)
    # the saddle's own pixel is in the node where two basins meet
    parents[lowest] = np.where(level > 0, number[over * (thresholds + 1) + level], len(ids))
    return parents


def _climb(basin: Array, level: Array, into: Array, saddles: Array) -> None:
    """Makes of each basin, in place, the one in whose component it is at its level."""
    moving = np.flatnonzero((level <= saddles[basin]) & (level > 0))
    while len(moving):
        basin[moving] = into[basin[moving]]
        moving = moving[level[moving] <= saddles[basin[moving]]]


def _extents(nodes: Array, parents: Array) -> tuple[list[Array], Array]:
    """For each node the first and the last pixel, by columns and by rows, and the area, of all that is in it."""
    n, pixels = len(parents), np.arange(nodes.size)
    ends = []
    for order in (nodes.T.ravel(), nodes.ravel()):
        first = np.empty(n + 1, np.int64)
        last = np.empty(n + 1, np.int64)
        last[order] = pixels  # of what is assigned to one place the last stays
        first[order[::-1]] = pixels[::-1]
        ends += [first[:n], last[:n]]
    areas = np.bincount(nodes.ravel(), minlength=n + 1)[:n]
    # each round hands a node's extent on to its ancestor twice as far away as the round before
    within = np.flatnonzero(parents < n)
    ancestors = np.append(parents, n)
    while len(within):
        to = ancestors[within]
        given = [end[within] for end in ends]
        for i, end in enumerate(ends):
            (np.maximum if i % 2 else np.minimum).at(end, to, given[i])
        np.add.at(areas, to, areas[within])
        ancestors = ancestors[ancestors]
        within = np.flatnonzero(ancestors[:n] < n)
    return ends, areas


def range_max(
    starts: Array, stops: Array, values: Array, length: int, empty: float | np.generic
) -> Array:
    """At each of `length` places the highest value of the intervals [start, stop) that cover it: a sparse table."""
    sizes = stops - starts
    powers = np.floor(np.log2(np.maximum(sizes, 1))).astype(
        np.int64
    )  # two blocks of 2**power cover an interval
    table = np.full((int(powers.max(initial=0)) + 1, length), empty)
    covering = sizes > 0
    power = powers[covering]
    for start in (starts[covering], stops[covering] - 2**power):
        np.maximum.at(table, (power, start), values[covering])
    for p in range(len(table) - 1, 0, -1):
        half = 2 ** (p - 1)
        np.maximum(table[p - 1], table[p], out=table[p - 1])
        np.maximum(table[p - 1, half:], table[p, :-half], out=table[p - 1, half:])
    return np.asarray(table[0])
