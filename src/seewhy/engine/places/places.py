"""Where each layer's numbers lie in the picture, found by experiment and remembered for each model and size of picture.

1. Four passes: the picture, and three in which other parts of it are changed. What looks like a grid, and answers to
   each part where that part is, is a picture.
2. For tokens, and grids of which that says nothing, one batch of an address code: cells of the grid before them are
   changed, and each token says which (`addresses`).
3. Where all places of a picture answer alike, as behind attention whose weights know nothing yet, or none answers, it
   lies as the picture of its shape beside it.

What has no place then, such as learned queries, words, attention weights or the answer itself, is no picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from ...errors import LayerError
from ..batches import say_once
from ..call import Call, as_call
from ..keys import Remembered
from ..layers import split_call
from ..layout import Grid, Kind, Layout, covers
from ..outputs import LayerCall
from .coding import Source, read_code
from .experiment import FOLDED, Experiment, differs_anywhere
from .extent import Extent, find_extents
from .grids import (
    FEW,
    PICTURES,
    changed_pictures,
    flat_pictures,
    lie_apart,
    picture_of,
    pictures_in,
)

_CODES = 4  # batches of an address code at most
_MOST_OTHERS = 32  # tokens of no place, where nothing but their number says how many there are
_SCALES = "beside those of one grid more of its tokens lie in the picture, as where several scales are in a row"
_SAME = "its places answer alike to every part of the picture"
_known: Remembered[Places] = Remembered()


@dataclass(frozen=True)
class Places:
    """The layouts of a model's layers for one size of picture.

    Attributes:
        layouts: for each call of a layer that is a picture how it lies.
        reasons: for each call that has no dimension of images why.
        seen: for each layer which of its calls its name means: the last that depends on the picture.
        shapes: for each call of a layer what it gives for one picture.
        first_names: for each name of a layer that has several the first.
        extents: for each call of a layer that covers a part of the picture, or more than it, which.
    """

    layouts: Mapping[LayerCall, Layout]
    reasons: Mapping[LayerCall, str]
    seen: Mapping[str, int]
    shapes: Mapping[LayerCall, tuple[int, ...]]
    first_names: Mapping[str, str]
    extents: Mapping[LayerCall, Extent] = field(default_factory=dict)

    def name(self, call: LayerCall) -> str:
        """What a call of a layer is named: as the layer, with "@k" where that means another of its calls."""
        layer, number = call
        if number == self.seen.get(layer, number):
            return layer
        return f"{layer}@{number}"

    def call(self, name: str) -> LayerCall:
        """The call of a layer that a name means."""
        layer, number = split_call(name)
        layer = self.first_names[layer]
        return layer, self.seen.get(layer, 0) if number is None else number

    def why_none(self) -> str:
        """What is known of why no layer is a picture; "" where it is nothing."""
        folded = next((why for why in self.reasons.values() if why.startswith(FOLDED)), None)
        return (
            f"; of its layers {folded}: explain the part that takes these, one by one"
            if folded
            else ""
        )

    def layout_of(self, shape: tuple[int, ...], layer: str | None = None) -> Layout | None:
        """The layout of what an operation of a layer gives: the layer's, all layers' of its shape, or a picture's."""
        own = None if layer is None else (layer, self.seen.get(layer, 0))
        if own and own in self.layouts and self._is_alike(own, shape):
            return self.layouts[own]
        alike = {self.layouts[key] for key in self.layouts if self._is_alike(key, shape)}
        if alike:
            return alike.pop() if len(alike) == 1 else None
        if len(shape) >= 4:
            return self._with_known_grid(shape)
        return None

    def extent_of(self, layer: str | None) -> Extent | None:
        """The part of the picture that a layer covers, or layers in general; None for all of it."""
        if layer is not None and self.call(layer) in self.layouts:
            return self.extents.get(self.call(layer))
        return next(iter(self.extents.values()), None)

    def _with_known_grid(self, shape: tuple[int, ...]) -> Layout | None:
        """The layout of what has the grid of a picture that a layer gives, beside images and channels."""
        known = {
            layout.grid
            for layout in self.layouts.values()
            if layout.kind in PICTURES and layout.order is None
        }
        return next(
            (Layout(kind, grid) for kind, grid in pictures_in(shape) if grid in known), None
        )

    def _is_alike(self, call: LayerCall, shape: tuple[int, ...]) -> bool:
        return self.without_images(call) == _shape_without(shape, self.layouts[call].batch_dim)

    def without_images(self, call: LayerCall) -> tuple[int, ...]:
        """The shape of what a picture's layer gives, without the dimension of images."""
        return _shape_without(self.shapes[call], self.layouts[call].batch_dim)


def _shape_without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return shape[:dim] + shape[dim + 1 :]


def picture_layout(places: Places, x: Tensor, name: str, activation: Tensor) -> Layout:
    """How what a layer gave for images x (N, C, H, W) lies over them; a warning says where it covers a part of them.

    Raises:
        LayerError: it does not, and why.
    """
    layer = places.call(name)
    layout, shape = places.layouts.get(layer), tuple(activation.shape)
    why = places.reasons.get(
        layer, _SAME if layer in places.shapes else "it gives no numbers for one of these images"
    )
    if layout:
        if shape[layout.batch_dim] == len(x) and _shape_without(
            shape, layout.batch_dim
        ) == places.without_images(layer):
            if layer in places.extents:
                say_once(places.extents[layer].warning)
            return layout
        why = f"for the first of these images alone it gives {places.shapes[layer]}"
    size = " x ".join(map(str, x.shape[2:]))
    raise LayerError(
        f"layer {name!r} gives {shape} for images of {size}, which is no picture: {why}; "
        "'seewhy layers MODEL' or seewhy.list_layers(model) lists those that are"
    )


def find_places(model: Call | nn.Module, x: Tensor) -> Places:
    """Finds where the layers' numbers lie in pictures of the size of x (N, C, H, W), with the first of these."""
    call = as_call(model)
    asked = (call.asked, tuple(x.shape[1:]))
    return _known.get(
        call.module, asked, lambda: _places_by_experiment(call.rows([0]), x[:1]), weights=True
    )


def _places_by_experiment(call: Call, x: Tensor) -> Places:
    places = _Finder(call, x).find()
    pictures = {key: places.layouts[key] for key in places.shapes if key in places.layouts}
    return replace(places, extents=find_extents(call, x, pictures, places.seen))


class _Finder:
    def __init__(self, call: Call, x: Tensor) -> None:
        self.experiment = Experiment(call, x)
        self.made = [key for key, maker in self.experiment.makers.items() if key == maker]
        self.size: Grid = tuple(x.shape[2:])
        self.layouts: dict[LayerCall, Layout] = {}
        self.answers: set[LayerCall] = set()  # what depends on the picture
        self.flat: dict[LayerCall, set[Kind]] = {}  # as which pictures it answers alike everywhere
        self.energies: dict[
            LayerCall, tuple[Tensor, Tensor]
        ] = {}  # how much each place of two dimensions answers
        self.several_scales: set[LayerCall] = set()

    def find(self) -> Places:
        experiment = self.experiment
        pictures = changed_pictures(experiment.x)
        experiment.compare(pictures, self._look_for_grids)
        if experiment.together and self._lack_grids():
            self._look_one_by_one(pictures)
        self._look_for_addresses()
        self._refuse_several_scales()
        for key in self.made:
            layout = (
                self._as_neighbors(key) if key in self.flat and key not in self.layouts else None
            )
            if layout:
                self.layouts[key] = layout
        return self._places_so_far()

    def _lack_grids(self) -> bool:
        """Whether something has the shape of a picture and the image's proportions, and is none."""
        return not self.layouts or any(
            key not in self.layouts and covers(grid, self.size)
            for key in self.made
            if self._may_be_picture(self.experiment.given[key])
            and isinstance(self.experiment.batch_dims.get(key), int)
            for _, grid in pictures_in(self.experiment.given[key].shape)
        )

    def _may_be_picture(self, given: Tensor) -> bool:
        """Whether it has as many dimensions as the image."""
        return given.ndim == 2 + len(self.size)

    def _look_one_by_one(self, pictures: Tensor) -> None:
        """Images of a batch may depend on each other; if it is not that, they run together again."""
        found = len(self.layouts)
        self.experiment.together = False
        self.experiment.compare(pictures, self._look_for_grids)
        self.experiment.together = len(self.layouts) == found

    def _look_for_grids(self, key: LayerCall, rows: Tensor, row: Tensor) -> None:
        is_picture = self._may_be_picture(rows)
        layout = picture_of(rows, row, self.size) if is_picture else None
        if (layout and math.prod(layout.grid) >= FEW) or differs_anywhere(rows, row):
            self.answers.add(key)
            if layout:
                self.layouts[key] = layout
        if layout is None and is_picture:
            self.flat[key] = flat_pictures(rows, row)
        if rows.ndim == 3:
            energy = (rows - row).float().square_()
            self.energies[key] = energy.sum(2), energy.sum(1)

    def _look_for_addresses(self) -> None:
        """Until every layer with tokens has heard of a code; a network may look at the picture in several ways."""
        asked: set[LayerCall] = set()
        for _ in range(_CODES):
            known = {layout.grid for layout in self.layouts.values()}
            waiting = [
                key for key in self.made if key not in asked and self._may_have_tokens(key, known)
            ]
            if not waiting:
                return
            for source in self._sources_of(waiting[0]):
                found, heard = read_code(self.experiment, source, waiting)
                self.layouts |= found
                asked |= heard
                if waiting[0] in found:
                    break
            asked.add(waiting[0])

    def _may_have_tokens(self, key: LayerCall, known: Set[Grid]) -> bool:
        given, dim = self.experiment.given[key], self.experiment.batch_dims.get(key)
        if key in self.layouts or key not in self.answers or not isinstance(dim, int):
            return False
        if self._may_be_picture(given):
            return any(grid in known for _, grid in pictures_in(given.shape))
        return given.ndim == 3

    def _sources_of(self, key: LayerCall) -> list[Source]:
        """The nearest picture before a layer; else the image itself, in patches as many as its tokens may be."""
        for before in reversed(self.made[: self.made.index(key)]):
            layout = self.layouts.get(before)
            if layout and layout.order is None and layout.kind in PICTURES:
                return [Source(before, layout)]
        return [
            Source(None, Layout("channels_first", grid))
            for grid in self._patches_for(self.experiment.given[key].shape)
        ]

    def _patches_for(self, shape: Sequence[int]) -> list[Grid]:
        """For each dimension of a shape the finest grids of patches that it may hold, beside a few others."""
        large = [grid for grid in _patch_grids(self.size) if math.prod(grid) >= FEW]
        finest: set[Grid] = set()
        for n in shape:
            fitting = [grid for grid in large if 0 <= n - math.prod(grid) <= _MOST_OTHERS]
            most = max(map(math.prod, fitting), default=0)
            finest.update(grid for grid in fitting if math.prod(grid) == most)
        return sorted(finest, reverse=True)

    def _refuse_several_scales(self) -> None:
        for key, energies in self.energies.items():
            layout = self.layouts.get(key)
            energy = energies[layout is not None and layout.kind == "tokens_last"]  # (3, L)
            if layout and lie_apart(energy[:, _other_tokens(layout, energy.shape[1])]):
                self.several_scales.add(key)
                del self.layouts[key]

    def _as_neighbors(self, key: LayerCall) -> Layout | None:
        """How a picture lies of which all places answer alike, or none: as one of its shape before it, or after it."""
        at = self.made.index(key)
        around = [*reversed(self.made[:at]), *self.made[at + 1 :]]
        layouts = (self._layout_if_alike(key, other) for other in around)
        return next(
            (layout for layout in layouts if layout and layout.kind in self.flat[key]), None
        )

    def _layout_if_alike(self, key: LayerCall, other: LayerCall) -> Layout | None:
        """The layout of another layer, if it has as many places in the same dimensions."""
        layout, experiment = self.layouts.get(other), self.experiment
        mine, theirs = experiment.given[key].shape, experiment.given[other].shape
        if (
            layout is None
            or len(mine) != len(theirs)
            or experiment.batch_dims.get(key) != layout.batch_dim
        ):
            return None
        if all(mine[d] == theirs[d] for d in layout.axes[2:]):
            return layout
        return None

    def _places_so_far(self) -> Places:
        experiment = self.experiment
        folded = {key: why for key, why in experiment.batch_dims.items() if isinstance(why, str)}
        scales = {
            key: _SCALES for key, maker in experiment.makers.items() if maker in self.several_scales
        }
        last = dict(sorted(experiment.makers))
        answering = [
            (key, maker in self.layouts)
            for key, maker in experiment.makers.items()
            if maker in self.answers
        ]
        seen = {
            name: n for (name, n), _ in sorted(answering, key=lambda pair: pair[1])
        }  # pictures last
        shapes = {key: tuple(given.shape) for key, given in experiment.given.items()}
        names = _first_names(experiment.call.module)
        return Places(self._all_layouts(), {**folded, **scales}, {**last, **seen}, shapes, names)

    def _all_layouts(self) -> dict[LayerCall, Layout]:
        """Those of calls that hand on what another made, too, and of calls on other pictures of a layer that is one."""
        experiment = self.experiment
        layouts = {
            key: self.layouts[maker]
            for key, maker in experiment.makers.items()
            if maker in self.layouts
        }
        by_layer = {
            (key[0], experiment.given[key].shape): layout for key, layout in layouts.items()
        }
        for key, given in experiment.given.items():
            layout = by_layer.get((key[0], given.shape))
            if layout and experiment.makers[key] not in self.answers:
                layouts.setdefault(key, layout)
        return layouts


def _patch_grids(size: Grid) -> set[Grid]:
    """Of all square patches; of a volume those that as many slices make in each."""
    *depth, height, width = size
    slices: list[Grid] = [(n // t,) for n in depth for t in range(1, n + 1) if n % t == 0]
    sides = range(2, min(height, width) + 1)
    return {(*deep, height // p, width // p) for p in sides for deep in slices or [()]}


def _other_tokens(layout: Layout, count: int) -> list[int]:
    """Those of so many tokens that are of no cell."""
    cells = layout.order or range(layout.prefix, layout.prefix + math.prod(layout.grid))
    return sorted(set(range(count)).difference(cells))


def _first_names(module: nn.Module) -> dict[str, str]:
    first = {id(part): name for name, part in module.named_modules()}
    return {name: first[id(part)] for name, part in module.named_modules(remove_duplicate=False)}
