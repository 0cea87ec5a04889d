"""Similarity of maps: correlations against scipy's, where none is defined, and the smallest maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from seewhy.errors import InputError
from seewhy.metrics.similarity import SIMILARITIES, hog, pearson, similarity_of, spearman, ssim

D = torch.float64


def row(seed: int, size: int = 20) -> Tensor:
    return torch.randn(1, size, dtype=D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_pearsons_correlation_is_scipys_at_any_scale(scale: float, shift: float) -> None:
    a, b = torch.cat([row(0), row(1)]), torch.cat([row(2), row(3) - row(1)])
    found = pearson(scale * (a + shift), b / scale)
    for i in range(2):
        expected = stats.pearsonr(a[i].numpy(), b[i].numpy()).statistic
        assert float(found[i]) == pytest.approx(expected, abs=1e-9)
    assert pearson(a.float(), a.float()).dtype == D


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("spread", "is_defined"), [(0.9e-9, False), (1.2e-9, True), (0.0, False)])
def test_what_varies_by_rounding_alone_has_no_correlation(
    spread: float, is_defined: bool, scale: float
) -> None:
    a = torch.full((1, 20), scale, dtype=D)
    a[0, 3] -= spread * scale
    b = row(1)
    for found in (pearson(a, b), pearson(b, a), pearson(a, a), pearson(-a, b)):
        assert bool(found.isfinite()) == is_defined
    assert pearson(torch.zeros(1, 20), b).isnan()


def test_a_correlation_is_one_at_most() -> None:
    a = torch.cat([row(seed, 7) for seed in range(50)])
    assert pearson(a, 3 * a).max() == pytest.approx(1)
    assert pearson(a, 3 * a).max() <= 1
    assert pearson(a, -3 * a).min() >= -1


def test_ranks_share_their_mean_and_signs_count_unless_said() -> None:
    a = torch.tensor([[[1.0, -2.0, 2.0], [0.0, 2.0, -3.0]]])
    b = torch.tensor([[[-1.0, 2.0, 0.5], [0.0, -2.5, 3.0]]])
    plain, absolute = a.numpy().ravel(), np.abs(a.numpy().ravel())
    expected = stats.spearmanr(plain, b.numpy().ravel()).statistic
    assert float(spearman(a, b)) == pytest.approx(expected)
    of_magnitudes = stats.spearmanr(absolute, np.abs(b.numpy().ravel())).statistic
    assert float(spearman(a, b, absolute=True)) == pytest.approx(of_magnitudes)
    assert float(SIMILARITIES["spearman_abs"](a, b)) == pytest.approx(of_magnitudes)
    assert float(SIMILARITIES["spearman"](a, b)) == pytest.approx(expected)
    assert float(similarity_of("spearman_abs", a, -a, (6, 6))) == pytest.approx(1)


@pytest.mark.parametrize(("measure", "least"), [(ssim, 11), (hog, 48)])
def test_pictures_are_compared_from_the_smallest_size_on(
    measure: Callable[[Tensor, Tensor], Tensor], least: int
) -> None:
    maps = torch.rand(2, least, least, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(measure(maps, maps), torch.ones(2, dtype=D))
    for few in (maps[:, 1:], maps[:, :, 1:]):
        with pytest.raises(InputError, match=f"needs {least} x {least}"):
            measure(few, few)


def test_pictures_have_no_sign_and_no_scale() -> None:
    maps = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(0)) - 0.5
    torch.testing.assert_close(ssim(maps, -7 * maps), torch.ones(2, dtype=D))


@pytest.mark.parametrize("shape", [(3, 3), (1, 2, 3, 3)])
def test_maps_are_of_three_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"cannot be compared; give two of \(N, h, w\)"):
        spearman(torch.rand(shape), torch.rand(shape))


def test_a_billionth_of_the_largest_value_is_rounding_still() -> None:
    a = torch.tensor([[1e9, 1e9 - 1, 1e9]], dtype=D)
    b = torch.tensor([[2.0, 1.0, 2.0]])
    assert pearson(a, b).isnan().all()
    assert pearson(a - torch.tensor([0, 1, 0]), b).tolist() == pytest.approx([1.0])
