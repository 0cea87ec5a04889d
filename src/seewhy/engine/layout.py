"""Which way a layer's output lies over the image: from any layout to (N, C, h, w).

Convolutions give (N, C, h, w); Swin-like blocks (N, h, w, C); transformers (N, L, C) or (L, N, C), with some prefix
tokens (class, distillation, registers) before the L - prefix = h * w that lie over the image. All of it is inferred
from the shape and the image's own size; nothing is read from the module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..errors import LayerError

MOST_PREFIX_TOKENS = 32
MOST_USUAL_PREFIX_TOKENS = 8  # a class token, a distillation token and four registers are 6


@dataclass(frozen=True)
class Layout:
    """How a tensor covers the image: `grid` is (h, w), `prefix` the tokens that lie nowhere on it."""

    kind: Literal["channels_first", "channels_last", "tokens", "tokens_first"]
    grid: tuple[int, int]
    prefix: int = 0

    def to_grid(self, x: Tensor) -> Tensor:
        """Returns a view (N, C, h, w) of the part that lies over the image."""
        if self.kind == "channels_first":
            return x
        if self.kind == "channels_last":
            return x.permute(0, 3, 1, 2)
        if self.kind == "tokens_first":
            x = x.transpose(0, 1)
        return x[:, self.prefix :].transpose(1, 2).reshape(len(x), -1, *self.grid)  # (N, C, h, w)


def infer_layout(shape: tuple[int, ...], batch: int, image_size: tuple[int, int]) -> Layout | None:
    """Infers the layout of a layer's output, or None where it is no picture.

    Args:
        shape: of the output.
        batch: the number of images N.
        image_size: (H, W) of the model's input; a grid has its proportions, up to rounding to whole cells.
    """
    if len(shape) == 4 and shape[0] == batch:
        if _covers(shape[2:], image_size):
            return Layout("channels_first", (shape[2], shape[3]))
        if _covers(shape[1:3], image_size):
            return Layout("channels_last", (shape[1], shape[2]))
        if min(shape[2:]) > 2 and _covers(shape[2:], image_size, cells=2):  # convolutions without padding lose a rim
            return Layout("channels_first", (shape[2], shape[3]))
    if len(shape) == 3:
        for kind, length in (("tokens", shape[1]), ("tokens_first", shape[0])):
            if shape[0 if kind == "tokens" else 1] == batch and (found := _token_grid(length, image_size)):
                return Layout(kind, *found)  # type: ignore[arg-type]
    return None


def _covers(grid: tuple[int, ...], image_size: tuple[int, int], *, cells: int = 1) -> bool:
    """Whether a grid has the proportions of the image, up to less than so many cells, and is no finer than it."""
    (h, w), (height, width) = grid, image_size
    if h * w <= 1 or h > height or w > width:
        return False
    # h = H / stride up to less than these cells, and w likewise
    return abs(h * width - w * height) < cells * max(height, width)


def _token_grid(length: int, image_size: tuple[int, int]) -> tuple[tuple[int, int], int] | None:
    """The grid with the fewest prefix tokens whose proportions are the image's: ((h, w), prefix).

    One of whole square patches goes first: five registers before 4 x 6 tokens would else pass for 4 x 7 and one.
    """
    height, width = image_size
    fitting: list[tuple[tuple[int, int], int]] = []
    for prefix in range(min(MOST_PREFIX_TOKENS, length - 1) + 1):
        cells = length - prefix
        ideal = (cells * height / width) ** 0.5
        for h in {int(ideal), int(ideal) + 1}:
            if h and cells % h == 0 and _covers((h, cells // h), image_size):
                w = cells // h
                whole = height % h == 0 and width % w == 0 and height // h == width // w
                if prefix <= MOST_USUAL_PREFIX_TOKENS and whole:
                    return (h, w), prefix
                if prefix <= MOST_USUAL_PREFIX_TOKENS or whole:  # else any 32 lengths in a row would hold a picture
                    fitting.append(((h, w), prefix))
    return fitting[0] if fitting else None


def picture_layout(name: str, activation: Tensor, x: Tensor) -> Layout:
    """How a layer's output lies over the image.

    Raises:
        LayerError: it does not.
    """
    layout = infer_layout(tuple(activation.shape), len(x), (x.shape[2], x.shape[3]))
    if layout is None:
        raise LayerError(
            f"layer {name!r} gives {tuple(activation.shape)} for images of {x.shape[2]} x {x.shape[3]}, which is no "
            "picture: it is neither (N, C, h, w), (N, h, w, C) nor tokens over the image; choose an earlier layer"
        )
    return layout
