"""Overlays: sizes, colours, statuses."""

from __future__ import annotations

import dataclasses
import time

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from render_samples import PREDICTIONS, attribution, bump, chroma, numbers, photo, whole
from seewhy.data.placement import Placement
from seewhy.errors import InputError
from seewhy.maps.attribution import Attribution
from seewhy.render import (
    STYLES,
    attribution_picture,
    color_bar,
    default_style,
    explanation_sheet,
    seen_picture,
)


@pytest.mark.parametrize("style", [None, *STYLES])
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (400, 20), (3, 200), (1, 1)])
def test_picture_has_the_photos_size(style: str | None, size: tuple[int, int]) -> None:
    picture = photo(*size)
    drawn = attribution_picture(
        attribution(bump() - 0.3, signed=True), 0, picture, whole(picture), style=style
    )
    assert drawn.size == size
    assert drawn.mode == "RGB"


def test_jet_is_the_papers_formula() -> None:
    picture, found = photo(), attribution(bump(x=0.3))
    placed = whole(picture).place(found.map[0].numpy())
    colors = matplotlib.colormaps["jet"](placed / np.percentile(placed, 99))[..., :3] * 255
    for opacity in (0.0, 0.3, 0.5, 1.0):
        drawn = attribution_picture(found, 0, picture, whole(picture), style="jet", opacity=opacity)
        expected = (1 - opacity) * numbers(picture) + opacity * colors
        assert np.abs(numbers(drawn) - expected).max() <= 1


def test_heat_stands_out_and_cold_leaves_the_photo() -> None:
    picture = Image.new("RGB", (80, 80), (120, 120, 120))
    drawn = attribution_picture(
        attribution(bump(14, x=0.25, y=0.25, width=0.08)), 0, picture, whole(picture)
    )
    assert chroma(drawn)[:40, :40].max() > 80
    assert chroma(drawn)[40:, 40:].max() <= 2
    assert numbers(drawn)[20, 20].mean() > numbers(drawn)[60, 60].mean()


def test_signed_is_red_for_and_blue_against() -> None:
    picture = photo()
    field = bump(8, x=0.2, width=0.1) - bump(8, x=0.8, width=0.1)
    found = attribution(field, signed=True)
    assert default_style(found, 0) == "signed"
    drawn = numbers(attribution_picture(found, 0, picture, whole(picture)))
    left, middle, right = drawn[30, 18], drawn[30, 45], drawn[30, 72]
    assert left[0] > left[2] + 60
    assert right[2] > right[0] + 60
    assert np.ptp(middle) < 12  # clear near zero, over the greyed photo


def test_default_styles() -> None:
    assert default_style(attribution(bump()), 0) == "heatmap"
    assert default_style(attribution(bump(), signed=True), 0) == "heatmap"
    assert default_style(attribution(bump() - 0.5), 0) == "heatmap"
    pixels = torch.randn(1, 3, 64, 64)
    assert (
        default_style(attribution(pixels.sum(1), signed=True, pixels=pixels, style="grey"), 0)
        == "grey"
    )


def test_grey_is_neutral_at_zero() -> None:
    picture = photo()
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[0, 0, :, 32:] = 1.0
    pixels[0, :, :, :8] = -1.0
    found = attribution(pixels.sum(1), signed=True, pixels=pixels)
    drawn = numbers(attribution_picture(found, 0, picture, whole(picture), style="grey"))
    assert (drawn[30, 30] == 128).all()
    assert tuple(drawn[30, 80]) == (255, 128, 128)
    assert (drawn[30, 3] <= 1).all()
    flat = numbers(
        attribution_picture(attribution(bump(8)), 0, picture, whole(picture), style="grey")
    )
    assert (np.ptp(flat, axis=2) == 0).all()
    assert flat.min() >= 128


def test_mask_keeps_the_half() -> None:
    picture, found = photo(), attribution(bump())
    placed = whole(picture).place(found.map[0].numpy())
    kept = placed >= 0.5 * np.percentile(placed, 99)
    drawn = numbers(attribution_picture(found, 0, picture, whole(picture), style="mask"))
    assert (drawn[kept] == numbers(picture)[kept]).all()
    assert (drawn[~kept] <= 0.3 * numbers(picture)[~kept] + 1).all()


def test_map_is_flat_tiles() -> None:
    picture = photo(80, 40)
    field = torch.tensor([[[0.0, 1.0], [0.5, 0.25]]])
    drawn = numbers(
        attribution_picture(
            attribution(field), 0, picture, whole(picture), style="map", colormap="gray"
        )
    )
    assert [
        len(np.unique(tile)) for tile in (drawn[:20, :40], drawn[:20, 40:], drawn[20:, :40])
    ] == [1, 1, 1]
    assert drawn[0, 0, 0] == 0
    assert drawn[0, 79, 0] == 255
    assert abs(drawn[39, 0, 0] - 128) <= 1


@pytest.mark.parametrize("style", STYLES)
def test_what_the_model_did_not_see_is_grey(style: str) -> None:
    picture = photo(120, 60)
    placement = Placement((60, 120), (30.0, 0.0, 90.0, 60.0))
    field = torch.ones(1, 4, 4)
    field[0, 0, 0] = -1.0
    drawn = attribution_picture(attribution(field, signed=True), 0, picture, placement, style=style)
    outside = np.ones((60, 120), bool)
    outside[:, 30:90] = False
    assert chroma(drawn)[outside].max() <= 1
    frame = numbers(drawn)[:, 30, 0]
    assert {0, 255} <= set(frame.tolist())  # dashes
    assert (
        numbers(seen_picture(picture, placement))[30, 60].tolist()
        == numbers(picture)[30, 60].tolist()
    )


def test_box_beyond_the_photo_and_uncut_photos_have_no_frame() -> None:
    picture = photo()
    padded = Placement((60, 90), (0.0, -15.0, 90.0, 75.0))
    assert numbers(seen_picture(picture, padded)).tolist() == numbers(picture).tolist()
    drawn = attribution_picture(attribution(bump()), 0, picture, padded)
    assert drawn.size == picture.size
    at_top = attribution(
        torch.tensor([[[1.0]] + [[0.0]] * 17])
    )  # only in the padding above the photo
    notice = attribution_picture(at_top, 0, picture, padded)
    assert chroma(notice).max() <= 8


@pytest.mark.parametrize(
    "field",
    [
        torch.zeros(1, 7, 7),
        -torch.ones(1, 7, 7),
        torch.ones(1, 7, 7),
        torch.full((1, 7, 7), float("nan")),
    ],
    ids=["zero", "negative", "constant", "nan"],
)
@pytest.mark.parametrize("style", STYLES)
def test_statuses_are_written(field: Tensor, style: str) -> None:
    picture = photo(300, 200)
    found = attribution(field)
    assert found.status[0] != "ok"
    drawn = attribution_picture(found, 0, picture, whole(picture), style=style)
    foot = numbers(drawn)[-25:]
    assert foot.min() < 40  # a dark strip
    assert foot.max() > 230  # with light words
    assert chroma(drawn).max() <= 8  # and no heat


def test_statuses_have_different_words_at_any_size() -> None:
    zero, constant = attribution(torch.zeros(1, 3, 3)), attribution(torch.ones(1, 3, 3))
    for size in ((300, 200), (40, 40), (60, 900), (900, 30)):
        picture = photo(*size)
        first, second = (
            numbers(attribution_picture(a, 0, picture, whole(picture))) for a in (zero, constant)
        )
        assert (first != second).any(), size
    for size in ((1, 1), (4, 3), (2, 50)):
        picture = photo(*size)
        assert attribution_picture(zero, 0, picture, whole(picture)).size == size


def test_statuses_are_of_the_image_asked_for() -> None:
    picture = photo(200, 150)
    both = attribution(torch.cat([torch.zeros(1, 7, 7), bump()]))
    drawn = [attribution_picture(both, i, picture, whole(picture)) for i in (0, 1)]
    assert chroma(drawn[0]).max() <= 8
    assert chroma(drawn[1]).max() > 60


def test_pixels_with_nan_are_drawn() -> None:
    pixels = torch.randn(1, 3, 64, 64)
    pixels[0, 0, 5, 5] = float("nan")
    found = attribution(torch.randn(1, 64, 64), pixels=pixels, signed=True)
    with np.errstate(all="raise"):
        drawn = attribution_picture(found, 0, photo(), whole(photo()), style="grey")
    assert numbers(drawn).std() > 5


@pytest.mark.parametrize("style", STYLES)
def test_one_place_map(style: str) -> None:
    picture = photo()
    found = attribution(torch.ones(1, 1, 1))
    assert found.status == ("ok",)
    drawn = attribution_picture(found, 0, picture, whole(picture), style=style)
    assert (numbers(drawn) != numbers(picture)).any() or style in ("mask", "superpixels")


def test_superpixels_for_and_against_are_outlined_and_the_rest_is_dim() -> None:
    picture = Image.new("RGB", (60, 60), (100, 100, 100))
    field = torch.zeros(1, 6, 6)
    field[0, :3, :3], field[0, 3:, 3:], field[0, 0, 5] = 1.0, -2.0, 0.0
    drawn = numbers(
        attribution_picture(
            attribution(field, signed=True, style="superpixels"), 0, picture, whole(picture)
        )
    )
    assert (drawn[15, 15] == 100).all()  # inside: the photo
    assert (drawn[15, 45] < 50).all()  # of no weight: dim
    assert drawn[29, 15][1] > drawn[29, 15][0] + 50  # green for
    assert drawn[30, 45][0] > drawn[30, 45][1] + 50  # red against
    noise = attribution(torch.rand(1, 64, 64))
    with pytest.raises(InputError, match="'superpixels' is for few regions"):
        attribution_picture(noise, 0, picture, whole(picture), style="superpixels")


def test_sure_is_white_above_the_interval_and_needs_one() -> None:
    picture = photo(60, 60)
    field = torch.tensor([[[1.0, 0.2], [-1.0, 0.3]]])
    drawn = numbers(
        attribution_picture(
            attribution(field, signed=True), 0, picture, whole(picture), style="sure"
        )
    )
    assert drawn[::30, ::30, 0].tolist() == [[255, 0], [0, 255]]
    without = dataclasses.replace(attribution(field), interval=None)
    with pytest.raises(InputError, match="'sure' needs a map with an interval"):
        attribution_picture(without, 0, picture, whole(picture), style="sure")


def test_noise_is_smoothed_and_superpixels_are_not() -> None:
    picture = Image.new("RGB", (64, 64), "white")
    generator = torch.Generator().manual_seed(0)
    noise = attribution(torch.rand(1, 64, 64, generator=generator) ** 4)
    tiles = torch.rand(1, 8, 8, generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)

    def jump(found: Attribution) -> float:
        drawn = numbers(
            attribution_picture(
                found, 0, picture, whole(picture), style="jet", colormap="gray", opacity=1
            )
        )
        return float(np.abs(np.diff(drawn[..., 0], axis=1)).max())

    assert jump(noise) < 230
    expected = float((tiles[0] / tiles.max()).diff(dim=1).abs().max()) * 255
    assert jump(attribution(tiles)) == pytest.approx(expected, abs=2)


def test_inputs_stay_as_they_are() -> None:
    picture, field = photo(), bump(64)
    before, kept = numbers(picture), field.clone()
    for style in STYLES:
        attribution_picture(
            attribution(field, signed=True), 0, picture, whole(picture), style=style
        )
    assert (numbers(picture) == before).all()
    assert (field == kept).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"style": "heatmaps"}, "did you mean 'heatmap'"),
        ({"colormap": "virdis"}, "did you mean 'viridis'"),
        ({"opacity": 1.5}, "0 .* to 1"),
    ],
)
def test_errors_say_the_way_out(options: dict[str, object], words: str) -> None:
    picture = photo()
    with pytest.raises(InputError, match=words):
        attribution_picture(attribution(bump()), 0, picture, whole(picture), **options)  # type: ignore[arg-type]


def test_wrong_index_and_photo() -> None:
    picture = photo()
    with pytest.raises(InputError, match="index is 1"):
        attribution_picture(attribution(bump()), 1, picture, whole(picture))
    with pytest.raises(InputError, match="90 x 60"):
        attribution_picture(attribution(bump()), 0, picture, whole(photo(91, 60)))
    with pytest.raises(InputError, match="index is 3"):
        explanation_sheet(picture, whole(picture), PREDICTIONS, [attribution(bump())], 3)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("vertical", [False, True])
def test_color_bar(style: str, vertical: bool) -> None:
    bar = color_bar(style, vertical=vertical, length=200)
    assert max(bar.size) >= 200
    colors = numbers(bar)[:200, 3] if vertical else numbers(bar)[3, :200]
    assert (colors[0] != colors[-1]).any()
    words = numbers(bar)[:, 18:] if vertical else numbers(bar)[15:]
    assert words.min() < 160
    assert color_bar(style, labels=("a", "b"), length=9).size[0] >= 9


@pytest.mark.parametrize(("rows", "at_head"), [(slice(0, 3), False), (slice(15, 18), True)])
@pytest.mark.parametrize("style", ["heatmap", "signed", "grey", "superpixels"])
def test_what_is_said_against_a_map_does_not_cover_where_it_is(
    style: str, rows: slice, at_head: bool
) -> None:
    field = torch.zeros(1, 18, 18)
    field[:, rows] = 1.0
    found = dataclasses.replace(attribution(field), remarks=(("the fit is poor, so to say",),))
    picture = photo(300, 200)
    drawn = numbers(attribution_picture(found, 0, picture, whole(picture), style=style))
    dark = (drawn == (24, 26, 30)).all(2).mean(1) > 0.5
    assert dark.any()
    assert dark[:4].all() == at_head
    assert dark[-4:].all() != at_head


def test_color_bar_is_red_for_and_blue_against() -> None:
    bar = numbers(color_bar("signed", length=200))
    assert bar[3, 2, 2] > bar[3, 2, 0] + 50
    assert bar[3, 197, 0] > bar[3, 197, 2] + 50
    with pytest.raises(InputError, match="style"):
        color_bar("rainbow")


def test_overlays_and_sheets_are_quick() -> None:
    picture, found = photo(600, 400), attribution(bump())
    attribution_picture(found, 0, picture, whole(picture))
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        attribution_picture(found, 0, picture, whole(picture))
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.15  # 17 ms on two cores; the rest is for busy machines
