"""What the top colour stands for: the 99th percentile, and what holds where few pixels have evidence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from render_samples import attribution, bump, numbers, photo, whole
from seewhy.maps import values as maps
from seewhy.render import attribution_picture
from seewhy.render.scale import Array, scaled
from seewhy.render.sheet import explanation_sheet


def evidence(shape: tuple[int, int] = (100, 100), seed: int = 0) -> Array:
    """Long-tailed, as relevance is, so that its maximum says little of its extent."""
    return np.random.default_rng(seed).gamma(1.0, size=shape).astype(np.float32)


def top_of(values: Array) -> float:
    """What a map was divided by, read off a value below the top."""
    shown = scaled(values)
    inside = (np.abs(shown) > 0.01) & (np.abs(shown) < 0.99)
    return float((values[inside] / shown[inside]).mean())


def test_the_brightest_hundredth_shares_the_top() -> None:
    values = evidence()
    ordered = np.sort(values.ravel().astype(np.float64))
    at = 0.99 * (ordered.size - 1)  # between two of the ordered, as numpy defines a percentile
    below = int(at)
    expected = ordered[below] + (at - below) * (ordered[below + 1] - ordered[below])
    assert expected > values.max() / 4
    assert top_of(values) == pytest.approx(expected, rel=1e-5)
    assert (scaled(values) == 1).sum() == 100
    assert scaled(values).max() == 1


def test_places_without_evidence_count_and_places_that_were_not_seen_do_not() -> None:
    values = evidence()
    half = values.copy()
    half[:, 50:] = (
        0  # all pixels count: the brightest 1 % of them are the brightest 2 % of the evidence
    )
    assert (scaled(half) == 1).sum() == 100
    unseen = np.where(np.arange(100) < 50, values, np.nan).astype(np.float32)
    assert (scaled(unseen) == 1).sum() == 50
    assert np.array_equal(np.isnan(scaled(unseen)), np.isnan(unseen))


def test_one_hot_pixel_over_traces_leaves_them_traces() -> None:
    # The 99th percentile is a trace here, and as the top colour would paint the whole picture.
    values = np.full((100, 100), 1e-4, np.float32)
    values[40, 60] = 8.0
    shown = scaled(values)
    assert shown[40, 60] == 1
    assert np.delete(shown.ravel(), 4060).max() == pytest.approx(1e-4 / 2.0)
    values[values < 1] = 0
    assert (scaled(values) == (values > 0)).all()


def test_a_constant_map_is_all_top_and_an_empty_one_all_bottom() -> None:
    assert (scaled(np.full((4, 5), 3.0, np.float32)) == 1).all()
    assert (scaled(np.zeros((4, 5), np.float32)) == 0).all()
    assert np.isnan(scaled(np.full((4, 5), np.nan, np.float32))).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_both_ends_of_a_signed_map_are_on_one_scale(sign: int) -> None:
    values = sign * evidence()
    values[::2] *= -0.1
    shown = scaled(values)
    top = np.percentile(np.abs(values), 99)
    assert np.allclose(shown, np.clip(values / top, -1, 1), atol=1e-6)
    assert np.abs(shown).max() == 1
    assert (sign * shown).min() > -0.5  # the weak end stays weak
    assert (scaled(-np.abs(values)) <= 0).all()


@pytest.mark.parametrize("style", ["heatmap", "jet", "signed", "mask"])
def test_every_heat_style_is_on_the_scale(style: str) -> None:
    # One pixel ten times as strong as the rest of the evidence changes nothing but itself.
    picture = Image.new("RGB", (64, 64), (120, 120, 120))
    field = bump(64, width=0.2)
    spiked = field.clone()
    spiked[0, 0, 0] = 2.0
    drawn = [
        numbers(
            attribution_picture(
                attribution(each, signed=True), 0, picture, whole(picture), style=style
            )
        )
        for each in (field, spiked)
    ]
    differs = np.abs(drawn[0] - drawn[1]).max(2)
    assert differs.ravel()[1:].max() <= 3
    assert style == "mask" or differs[0, 0] > 60


def test_a_map_of_few_places_hardly_changes() -> None:
    picture = photo(224, 224)
    placed = whole(picture).place(bump(7, width=0.3).numpy()[0])
    assert np.abs(scaled(placed) - placed / placed.max()).max() < 0.06


def test_metrics_see_a_map_as_it_is() -> None:
    field = bump(64) ** 8
    found = attribution(field)
    assert (found.heatmap() == maps.normalize(field)).all()
    assert (found.heatmap() == 1).sum() == (field == field.max()).sum()


def test_the_sheet_draws_what_the_overlay_draws() -> None:
    picture = photo(250, 250)  # a sheet's panel
    found = attribution(bump(30, width=0.05))
    sheet = numbers(explanation_sheet(picture, whole(picture), [], [found], 0))
    overlay = numbers(attribution_picture(found, 0, picture, whole(picture)))
    rows, columns = (sheet.shape[i] - 250 + 1 for i in (0, 1))
    corner = overlay[:2, :250]
    places = [
        (y, x)
        for y in range(rows)
        for x in range(columns)
        if (sheet[y : y + 2, x : x + 250] == corner).all()
    ]
    assert any((sheet[y : y + 250, x : x + 250] == overlay).all() for y, x in places)
