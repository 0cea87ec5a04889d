"""Over which part of the picture a model's layers lie: what a model crops or pads by itself, they do not tell.

The rims of the picture are changed, one in each of four pictures of a batch (six of a volume) that runs as far as the
first layer with weights. Where that answers to every rim with its own outermost places, it covers the picture. Else the
edges of what it reads, or of what single lines of its grid read, are sought by halving; that costs more, for these
models alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import LayerError
from ..call import Call
from ..layout import Grid, Layout
from ..outputs import LayerCall, tensors_in
from ..pictures import matching_input
from .experiment import ROWS, differs, run_heard
from .grids import noise_like

_SHARE = 0.03  # of a side: a rim as thin is found
_FEWEST = 2  # pixels of padding: a convolution that pads by one more than usual is none
_EVEN = 2  # pixels by which what single lines read may differ in length

_WARNING = (
    "the model {} the {} picture before its first layer, and a map of a layer is laid over the whole picture, so "
    "it is out of place: put this crop or padding into wrap(net, preprocess=...) and explain the inner network"
)

_AXES = ("slices", "rows", "columns")

Span = tuple[int, int]


@dataclass(frozen=True)
class Extent:
    """The part of the picture, in pixels of the model's input, that the layers' grids cover.

    Attributes:
        spans: of rows and columns, in a volume of slices before them: from the first to before the last; beyond the
            picture where the model pads it.
        size: (H, W) of the picture.
    """

    spans: tuple[Span, ...]
    size: Grid

    @property
    def box(self) -> tuple[int, ...]:
        """(x0, y0, x1, y1); of a volume (x0, y0, z0, x1, y1, z1)."""
        first, last = zip(*self.spans[::-1], strict=True)
        return (*first, *last)

    @property
    def warning(self) -> str:
        """What to know of maps of these layers."""
        return _WARNING.format(self._what_it_does(), " x ".join(map(str, self.size)))

    def _what_it_does(self) -> str:
        read, added = [], []
        names = _AXES[-len(self.size) :]
        for name, (a, b), side in zip(names, self.spans, self.size, strict=True):
            before, after = max(-a, 0), max(b - side, 0)
            added.append(f"{before} and {after} {name}")
            if a > 0 or b < side:
                read.append(f"{name} {max(a, 0)} to {min(b, side)}")
        said = []
        if read:
            listed = " and ".join(read)
            said.append(f"looks only at {listed}")
        if self.pads:
            listed = " and ".join(added)
            said.append(f"adds {listed} of padding before and after those")
        return f"{' and '.join(said)} of"

    @property
    def pads(self) -> bool:
        """Whether the grids reach beyond the picture."""
        spans = zip(self.spans, self.size, strict=True)
        return any(a < 0 or b > side for (a, b), side in spans)


def find_extents(
    call: Call, x: Tensor, layouts: Mapping[LayerCall, Layout], seen: Mapping[str, int]
) -> dict[LayerCall, Extent]:
    """The extents of those layers that do not cover the picture x, as far as the model changes it before the first.

    Args:
        call: how the model is called, for one image.
        x: the image (1, C, H, W), or the volume (1, C, D, H, W).
        layouts: for each call of a layer that is a picture, in the order in which they ran, how it lies.
        seen: for each layer the last of its calls that depends on the picture.
    """
    pictures = list(layouts)
    modules = dict(call.module.named_modules())
    depending = [key for key in pictures if seen.get(key[0]) == key[1]]
    if not depending:
        return {}
    first = next((key for key in depending if _has_weights(modules[key[0]])), depending[-1])
    extent = _Probe(call, x, first, layouts[first]).extent()
    if extent is None:
        return {}
    return dict.fromkeys(pictures[pictures.index(first) :], extent)


def _has_weights(module: nn.Module) -> bool:
    """Whether a layer mixes channels or places; scales and shifts alone, as of a normalization, may come before."""
    of_quantized = callable(getattr(module, "weight", None))
    return of_quantized or any(p.ndim > 1 for p in module.parameters())


class _Probe:
    """A layer, and which of its lines (rows, columns or slices of its grid) read which lines of the picture."""

    def __init__(self, call: Call, x: Tensor, layer: LayerCall, layout: Layout) -> None:
        self.call, self.layer, self.layout = call, layer, layout
        self.x = matching_input(call.module, x)
        self.changed = self.x + noise_like(self.x)
        self.size: Grid = tuple(x.shape[2:])
        self.together = True

    def extent(self) -> Extent | None:
        """The part of the picture that the layer's grid covers; None for all of it."""
        rims = []
        for axis, side in enumerate(self.size):
            thick = math.ceil(_SHARE * side)
            rims += [self._rim(axis, thick, far) for far in (False, True)]
        answers = self._places_that_answer(torch.stack(rims))
        of_axes = enumerate(torch.split(answers, 2))
        spans = tuple(self._span_of_axis(axis, both) for axis, both in of_axes)
        whole = tuple((0, side) for side in self.size)
        return None if spans == whole else Extent(spans, self.size)

    def _span_of_axis(self, axis: int, answers: Tensor) -> Span:
        """The lines of an axis that the grid covers, from its answers (2, *grid) to both rims."""
        side, lines = self.size[axis], self.layout.grid[axis]
        near, far = answers.movedim(axis + 1, 1).flatten(2).any(2)  # of each line
        span: tuple[float, float] = (0, side)
        if not near.any() or not far.any():
            span = self._what_is_read(axis)
        before = int(near.int().argmax())
        after = int(far.flip(0).int().argmax())
        if before or after:
            low, high = self._what_is_covered(axis, before, lines - after)
            least = max(_FEWEST, (high - low) / lines, _SHARE * side)
            a, b = span
            a = low if -low >= least else a
            b = high if high - side >= least else b
            span = a, b
        a, b = span
        return math.floor(a + 0.5), math.floor(b + 0.5)

    def _what_is_read(self, axis: int) -> Span:
        """What all of the grid reads, unless it leaves a remainder of less than a cell, or reads nothing."""
        side = self.size[axis]
        a, b = self._field_of_lines(axis, slice(None))
        cell = (b - a) / self.layout.grid[axis]
        is_rest = a + side - b < cell
        is_thin = max(a, side - b) < _SHARE * side
        if a >= b or is_rest or is_thin:
            return (0, side)
        return (a, b)

    def _what_is_covered(self, axis: int, start: int, stop: int) -> tuple[float, float]:
        """From the centers of what two lines read, of those from start to stop, which see the picture."""
        lines, seeing = self.layout.grid[axis], stop - start
        one, other = start + seeing // 3, start + 2 * seeing // 3
        cell = self.size[axis] / seeing
        low = -start * cell
        if one < other:
            a, b = self._field_of_lines(axis, slice(one, one + 1))
            c, d = self._field_of_lines(axis, slice(other, other + 1))
            if abs((b - a) - (d - c)) <= _EVEN:  # else the picture's edge cuts one off
                center = (a + b) / 2
                cell = ((c + d) / 2 - center) / (other - one)
                low = center - cell * (one + 0.5)
        return low, low + cell * lines

    def _field_of_lines(self, axis: int, lines: slice) -> Span:
        """From the first line of the picture that some lines of the grid read to before the last."""
        return self._lines_not_read(axis, lines, far=False), self.size[axis] - self._lines_not_read(
            axis, lines, far=True
        )

    def _lines_not_read(self, axis: int, lines: slice, *, far: bool) -> int:
        """How many lines of the picture, from one side, some lines of the grid do not read."""
        low, high = 0, self.size[axis]
        while high - low > 1:
            steps = {low + (high - low) * k // ROWS for k in range(1, ROWS)}
            tried = sorted(steps - {low})
            rims = [self._rim(axis, n, far) for n in tried]
            answers = self._places_that_answer(torch.stack(rims))
            told = answers.movedim(axis + 1, 1)[:, lines].flatten(1).any(1)
            read = [n for n, answer in zip(tried, told.tolist(), strict=True) if answer]
            high = min(read, default=high)
            low = max((n for n in tried if n < high), default=low)
        return low

    def _rim(self, axis: int, thick: int, far: bool) -> Tensor:
        """Which pixels (H, W) are the first, or last, lines of an axis."""
        rim = torch.zeros(self.size, dtype=torch.bool, device=self.x.device)
        along = rim.movedim(axis, 0)
        along[self.size[axis] - thick if far else 0 :][:thick] = True
        return rim

    def _places_that_answer(self, where: Tensor) -> Tensor:
        """Which places (B, *grid) differ when the picture is changed in some pixels (B, H, W)."""
        changed = torch.where(where[:, None], self.changed, self.x)
        pictures = torch.cat([self.x, changed])
        if self.together:
            try:
                return self._compared_with_plain(self._layer_output(pictures))
            except Exception:  # what cannot take several fails with whatever it likes
                self.together = False
        each = [self._layer_output(picture[None]) for picture in pictures]
        return self._compared_with_plain(torch.cat(each))

    def _compared_with_plain(self, given: Tensor) -> Tensor:
        return differs(given[1:], given[:1]).any(1)

    def _layer_output(self, pictures: Tensor) -> Tensor:
        """What the layer gives, (N, C, *grid); the model runs no further."""
        kept: list[Tensor] = []

        def hear(key: LayerCall, module: nn.Module, value: object) -> None:
            if key == self.layer:
                kept.append(self.layout.to_grid(tensors_in(value)[0].clone()))
                raise _HeardError

        try:
            run_heard(self.call, pictures, hear)
        except Exception:
            if not kept:
                raise
        if len(kept[0]) != len(pictures):
            raise LayerError(
                f"layer {self.layer[0]!r} has no row for each of {len(pictures)} pictures"
            )
        return kept[0]


class _HeardError(Exception):
    """A layer has given what was asked for."""
