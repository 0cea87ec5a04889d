"""How features lie over a network's input, by their shape."""

from __future__ import annotations

import pytest

from seewhy.engine.layout import Layout
from seewhy.models.networks.features import features_layout

Grid = tuple[int, int]


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (224, 224), (480, 640), (96, 32), (70, 98)])
@pytest.mark.parametrize("stride", [1, 2, 4, 7, 8, 14, 16])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_layouts_of_pictures(size: Grid, stride: int, batch: int) -> None:
    for round_up in (False, True):
        h, w = (-(-s // stride) if round_up else s // stride for s in size)
        if h * w <= 1:
            continue
        channels = 1000
        assert features_layout((batch, channels, h, w), batch, size) == Layout(
            "channels_first", (h, w)
        )
        assert features_layout((batch, h, w, channels), batch, size) == Layout(
            "channels_last", (h, w)
        )


@pytest.mark.parametrize("prefix", range(9))
@pytest.mark.parametrize("grid", [(14, 14), (7, 7), (4, 6), (6, 4), (24, 32), (9, 5)])
def test_layouts_of_tokens(grid: Grid, prefix: int) -> None:
    h, w = grid
    size = (h * 16, w * 16)
    length = h * w + prefix
    for batch in (1, 3):
        assert features_layout((batch, length, 64), batch, size) == Layout("tokens", grid, prefix)
        assert features_layout((length, batch, 64), batch, size) == Layout(
            "tokens_first", grid, prefix
        )


@pytest.mark.parametrize(
    "shape",
    [
        (2, 10),
        (2,),
        (2, 64, 1, 1),
        (2, 1, 1, 64),
        (3, 64, 7, 7),  # another batch
        (2, 8, 16, 128),  # heads, windows
        (2, 2, 64),  # two tokens
        (2, 64, 300, 300),  # finer than the image
        (2, 4, 64, 7, 7),
        (),
    ],
)
def test_what_is_no_picture(shape: tuple[int, ...]) -> None:
    assert features_layout(shape, 2, (224, 224)) is None


def test_channels_first_where_both_would_do() -> None:
    assert features_layout((1, 7, 7, 7), 1, (224, 224)) == Layout("channels_first", (7, 7))
