"""Volumes as pictures: which frames stand for them, and that each is where it is said to be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.placement import Placement
from seewhy.maps.attribution import Attribution
from seewhy.render.frames import frames_of, frames_shown, number_frames, side_by_side
from seewhy.render.overlay import attribution_picture
from seewhy.render.reading import status_words, where_words
from seewhy.render.styles import STYLES


def of_volume(map_: torch.Tensor, size: tuple[int, int, int]) -> Attribution:
    """The record of one volume's map (1, d, h, w)."""
    n = len(map_)
    known = {
        "status": ("ok",) * n,
        "labels": ("one",) * n,
        "scores": (1.0,) * n,
        "probabilities": (None,) * n,
    }
    return Attribution(
        "m", "M", None, "top1", map_, image_size=size, signed=True, interval=map_.abs() / 2, **known
    )


@pytest.mark.parametrize(
    ("depth", "shown"),
    [
        (1, (0,)),
        (5, (0, 1, 2, 3, 4)),
        (8, tuple(range(8))),
        (16, (0, 2, 4, 6, 9, 11, 13, 15)),
        (9, (0, 1, 2, 3, 5, 6, 7, 8)),
    ],
)
def test_up_to_eight_frames_from_the_first_to_the_last(depth: int, shown: tuple[int, ...]) -> None:
    assert frames_shown(depth) == shown


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (5, 1, 5), (6, 2, 3), (7, 1, 7), (8, 2, 4)]
)
def test_frames_lie_row_by_row(count: int, rows: int, columns: int) -> None:
    volume = torch.arange(2 * count * 3 * 5).view(2, count, 3, 5)
    laid = side_by_side(volume)
    assert laid.shape == (2, 3 * rows, 5 * columns)
    for i in range(count):
        row, column = divmod(i, columns)
        tile = laid[:, 3 * row : 3 * row + 3, 5 * column : 5 * column + 5]
        assert torch.equal(tile, volume[:, i])


def test_a_coarse_map_is_brought_to_the_frames() -> None:
    coarse = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(0))
    fine = frames_of(coarse, (16, 8, 9), fine=True)
    expected = torch.nn.functional.interpolate(coarse[None, None], (16, 8, 9), mode="trilinear")[
        0, 0
    ]
    torch.testing.assert_close(fine, expected[[0, 2, 4, 6, 9, 11, 13, 15]])
    assert frames_of(coarse, (16, 8, 9), fine=False).shape == (8, 2, 3)
    assert torch.equal(frames_of(coarse[0], (8, 9), fine=True), coarse[:1])


@pytest.mark.parametrize("style", [*STYLES, None])
def test_every_style_paints_the_frame_that_holds_the_evidence(style: str | None) -> None:
    map_ = torch.zeros(1, 6, 16, 16)
    map_[0, 4, 4:12, 4:12] = 1.0
    photo = Image.new("RGB", (48, 32), (120, 120, 120))  # frames 0 to 2, and 3 to 5
    placement = Placement((32, 48), (0.0, 0.0, 48.0, 32.0), tuple(range(6)))
    numbered = attribution_picture(of_volume(map_, (6, 16, 16)), 0, photo, placement, style=style)
    cold = attribution_picture(
        of_volume(map_.roll(2, 1), (6, 16, 16)), 0, photo, placement, style=style
    )
    apart = np.abs(np.asarray(numbered, float) - np.asarray(cold, float)).sum(2)
    apart[:, [0, 15, 31, 47]] = apart[[0, 15, 31], :] = 0
    inner = np.zeros_like(apart)
    inner[20:28, 20:28] = inner[4:12, 4:12] = 1  # frame 4 and, moved by two, frame 0
    assert apart[inner == 1].mean() > 20
    if style not in ("superpixels", "mask"):  # which dim what is not outlined
        assert apart[inner == 0].mean() < 0.2 * apart[inner == 1].mean()


def test_numbers_stand_in_the_corners() -> None:
    picture = Image.new("RGB", (400, 100), (255, 0, 0))
    number_frames(picture, (0, 5, 10, 15))
    pixels = np.asarray(picture)
    for i in range(4):
        assert (pixels[:16, 100 * i + 1 : 100 * i + 9] != (255, 0, 0)).any(2).mean() > 0.5
        assert (pixels[30:, 100 * i + 5 : 100 * i + 95] == (255, 0, 0)).all()


def test_words_name_the_frame() -> None:
    map_ = torch.zeros(1, 4, 6, 6)
    map_[0, 2, 0, 5] = 1.0
    attribution = of_volume(map_, (16, 12, 12))
    assert where_words(attribution, 0) == "upper right of frame 10"
    facts = ({"extent": (8, 0, 4, 32, 24, 16)},)
    cropped = dataclasses.replace(attribution, status=("misplaced",), facts=facts)
    assert status_words(cropped, 0).endswith(
        "it covers slices 4 to 16, rows 0 to 24 and columns 8 to 32"
    )
