"""How a backbone's features lie over its input, from their shape, for a head that is built and trained on them.

A network's maker knows what it gives but for its order of dimensions; where somebody else's network is explained,
`engine.places` finds it by experiment.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...engine.layout import Kind, Layout, axes, covers

MOST_PREFIX_TOKENS = 32
MOST_USUAL_PREFIX_TOKENS = 8  # a class token, a distillation token and four registers are 6


def features_layout(
    shape: tuple[int, ...], batch: int, image_size: tuple[int, int]
) -> Layout | None:
    """The layout of features, or None where they are no picture.

    Args:
        shape: of the features.
        batch: the number of images N.
        image_size: (H, W) of the model's input; a grid has its proportions, up to rounding to whole cells.
    """
    if len(shape) == 4 and shape[0] == batch:
        return _picture_layout(shape, image_size)
    return _token_layout(shape, batch, image_size) if len(shape) == 3 else None


def _picture_layout(shape: tuple[int, ...], image_size: tuple[int, int]) -> Layout | None:
    """Of features with two dimensions of places."""
    if covers(shape[2:], image_size):
        return Layout("channels_first", (shape[2], shape[3]))
    if covers(shape[1:3], image_size):
        return Layout("channels_last", (shape[1], shape[2]))
    if min(shape[2:]) > 2 and covers(
        shape[2:], image_size, cells=2
    ):  # convolutions without padding lose a rim
        return Layout("channels_first", (shape[2], shape[3]))
    return None


def _token_layout(shape: tuple[int, ...], batch: int, image_size: tuple[int, int]) -> Layout | None:
    """Of features with one dimension of places, after that of images or before it."""
    kinds: tuple[Kind, ...] = ("tokens", "tokens_first")
    for kind in kinds:
        images, _, places = axes(kind)
        if shape[images] == batch and (found := _token_grid(shape[places], image_size)):
            return Layout(kind, *found)
    return None


def _token_grid(length: int, image_size: tuple[int, int]) -> tuple[tuple[int, int], int] | None:
    """The grid with the fewest prefix tokens whose proportions are the image's: ((h, w), prefix).

    One of whole square patches goes first: five registers before 4 x 6 tokens would else pass for 4 x 7 and one.
    """
    fitting: list[tuple[tuple[int, int], int]] = []
    for prefix in range(min(MOST_PREFIX_TOKENS, length - 1) + 1):
        usual = prefix <= MOST_USUAL_PREFIX_TOKENS
        for grid in _grids(length - prefix, image_size):
            whole = _has_square_patches(grid, image_size)
            if usual and whole:
                return grid, prefix
            if usual or whole:  # else any 32 lengths in a row would hold a picture
                fitting.append((grid, prefix))
    return fitting[0] if fitting else None


def _grids(cells: int, image_size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The grids (h, w) of so many cells with the proportions of the image."""
    height, width = image_size
    ideal = (cells * height / width) ** 0.5
    for h in {int(ideal), int(ideal) + 1}:
        if h and cells % h == 0 and covers((h, cells // h), image_size):
            yield h, cells // h


def _has_square_patches(grid: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Whether the cells of a grid are squares of whole pixels."""
    (h, w), (height, width) = grid, image_size
    return height % h == 0 and width % w == 0 and height // h == width // w
