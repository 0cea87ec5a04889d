"""Map to map: statuses, normalising, resizing, smoothing, fusing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import oracles
from seewhy.errors import InputError
from seewhy.maps import values as maps
from seewhy.maps.attribution import Attribution

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([0.0, 1.0, 2.0, -3.0], "ok"),
        ([0.0, 0.0, 0.0, 1e-30], "ok"),
        ([0.0, 0.0, 0.0, 0.0], "empty"),
        ([-1.0, -2.0, 0.0, -1.0], "empty"),
        ([-1.0, -1.0, -1.0, -1.0], "empty"),
        ([2.0, 2.0, 2.0, 2.0], "constant"),
        ([2.0, 2.0, 2.0, 2.0000002], "constant"),  # rounding
        ([2.0, 2.0, 2.0, 2.001], "ok"),
        ([NAN, 1.0, 2.0, 3.0], "non_finite"),
        ([INF, 1.0, 2.0, 3.0], "non_finite"),
        ([-INF, 1.0, 2.0, 3.0], "non_finite"),
    ],
)
def test_statuses(values: list[float], status: str) -> None:
    assert maps.statuses(torch.tensor(values).view(1, 2, 2)) == (status,)
    assert status in maps.STATUS_MEANINGS


def test_statuses_are_of_each_image() -> None:
    batch = torch.stack(
        [torch.eye(2), torch.zeros(2, 2), torch.ones(2, 2), torch.full((2, 2), NAN)]
    )
    assert maps.statuses(batch) == ("ok", "empty", "constant", "non_finite")
    assert maps.statuses(torch.ones(1, 1, 1)) == ("ok",)  # a single place is where it is


def test_normalize_by_hand() -> None:
    m = torch.tensor([[[-2.0, 0.0], [1.0, 4.0]], [[-1.0, -3.0], [-2.0, -2.0]]])

    def rows(how: str) -> list[list[float]]:
        return maps.normalize(m, how=how).flatten(1).tolist()  # type: ignore[arg-type]

    expected = {
        "max": [[0, 0, 0.25, 1], [0, 0, 0, 0]],
        "minmax": [[0, 1 / 3, 0.5, 1], [1, 0, 0.5, 0.5]],
        "absmax": [[-0.5, 0, 0.25, 1], [-1 / 3, -1, -2 / 3, -2 / 3]],
        "rank": [[0, 1 / 3, 2 / 3, 1], [1, 0, 1 / 3, 1 / 3]],
    }
    for how, by_hand in expected.items():
        np.testing.assert_allclose(rows(how), by_hand, rtol=1e-6)
    with pytest.raises(InputError, match="how='mean' is not a way to normalise"):
        maps.normalize(m, how="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["max", "minmax", "absmax", "rank"])
@pytest.mark.parametrize("value", [0.0, 3.0, NAN, INF])
def test_normalize_never_gives_nan(how: str, value: float) -> None:
    found = maps.normalize(torch.full((1, 3, 3), value), how=how)  # type: ignore[arg-type]
    assert found.isfinite().all()
    assert found.abs().amax() <= 1


def test_normalize_ignores_scale() -> None:
    m = torch.rand(2, 5, 7) * 1e-30
    torch.testing.assert_close(maps.normalize(m), maps.normalize(m * 1e25))


def test_resize_is_bilinear_on_half_pixels() -> None:
    m = torch.randn(2, 3, 5)
    found = maps.resize(m, (12, 15))
    for one, expected in zip(found, m, strict=True):
        np.testing.assert_allclose(
            one, oracles.bilinear(expected.double().numpy(), (12, 15)), atol=1e-5
        )


def test_resize_keeps_the_place() -> None:
    m = torch.zeros(1, 7, 7)
    m[0, 1, 5] = 1
    big = maps.resize(m, (224, 224))[0]
    ys, xs = torch.meshgrid(torch.arange(224) + 0.5, torch.arange(224) + 0.5, indexing="ij")
    assert float((big * ys).sum() / big.sum()) == pytest.approx(1.5 * 32, abs=0.01)
    assert float((big * xs).sum() / big.sum()) == pytest.approx(5.5 * 32, abs=0.01)


def test_resize_down_averages() -> None:
    m = torch.zeros(1, 64, 64)
    m[0, 20, 41] = 64.0  # a peak between samples may not vanish
    small = maps.resize(m, (8, 8))[0]
    assert int(small.argmax()) == 2 * 8 + 5
    assert float(small.sum()) == pytest.approx(1.0, rel=0.1)


def test_resize_to_its_own_size_changes_nothing() -> None:
    m = torch.randn(1, 4, 6)
    assert torch.equal(maps.resize(m, (4, 6)), m)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 100.0])
def test_smooth_keeps_a_constant(sigma: float) -> None:
    torch.testing.assert_close(
        maps.smooth(torch.full((1, 9, 7), 2.5), sigma), torch.full((1, 9, 7), 2.5)
    )


def test_smooth_keeps_the_mass_and_spreads_it() -> None:
    m = torch.zeros(1, 41, 41)
    m[0, 20, 20] = 1
    blurred = maps.smooth(m, 3.0)[0]
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    places = torch.arange(41) - 20.0
    for axis in (0, 1):
        assert math.sqrt(float(blurred.sum(axis) @ places**2)) == pytest.approx(
            3, rel=0.03
        )  # cut at 3 sigma
    assert torch.equal(maps.smooth(m, 0), m)


def test_fuse_by_hand() -> None:
    first, second = (
        torch.tensor([[[0.0, 2.0], [4.0, -8.0]]]),
        torch.tensor([[[1.0, 1.0], [0.0, 0.5]]]),
    )

    def rows(how: str) -> list[float]:
        return maps.fuse([first, second], how=how).flatten().tolist()  # type: ignore[arg-type]

    assert rows("mean") == [0.5, 0.75, 0.5, 0.25]
    assert rows("max") == [1, 1, 1, 0.5]
    assert rows("product") == pytest.approx([0, math.sqrt(0.5), 0, 0])


def test_fuse_at_the_finest_and_equally_loud() -> None:
    fine, coarse = torch.rand(2, 8, 8), torch.rand(2, 2, 2)
    fused = maps.fuse([coarse, fine])
    assert fused.shape == (2, 8, 8)
    torch.testing.assert_close(fused, maps.fuse([coarse * 1e6, fine * 1e-6]))
    torch.testing.assert_close(maps.fuse([fine]), maps.normalize(fine))
    with pytest.raises(InputError, match="no maps"):
        maps.fuse([])
    with pytest.raises(InputError, match="how='sum'"):
        maps.fuse([fine], how="sum")  # type: ignore[arg-type]


def attribution(m: Tensor) -> Attribution:
    n = len(m)
    return Attribution(
        "m",
        "M",
        None,
        "t",
        m,
        maps.statuses(m),
        ("a",) * n,
        (0.0,) * n,
        (None,) * n,
        image_size=(16, 24),
    )


def test_a_heatmap_is_in_the_unit_interval_at_the_inputs_size() -> None:
    m = torch.randn(3, 4, 6)
    m[1] = -m[1].abs()
    heat = attribution(m).heatmap()
    assert heat.shape == (3, 16, 24)
    assert heat.amin() == 0
    assert heat.amax((1, 2)).tolist() == [1, 0, 1]
    assert attribution(m).status == ("ok", "empty", "ok")
    best = int(m[0].argmax())
    y, x = divmod(int(heat[0].argmax()), 24)
    assert (y // 4, x // 4) == divmod(best, 6)
