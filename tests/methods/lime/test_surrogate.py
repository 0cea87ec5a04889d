"""The linear models of LIME and KernelSHAP against the lime package and brute force; their errors by simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lime_oracles import bent, package_fit, shapley_values
from seewhy.methods.lime.coalitions import LimeKernel, Sample, ShapleyKernel, lime_weights
from seewhy.methods.lime.superpixels import segment
from seewhy.methods.lime.surrogate import Surrogate, fit, fit_selected, stability

PLAIN = LimeKernel(0.25, 1.0, None, "auto")


def coins(n: int, d: int, seed: int = 0) -> Tensor:
    return PLAIN.draw(n, d, torch.Generator().manual_seed(seed), begun=False)


@pytest.mark.parametrize(
    ("n", "d", "features", "selection"),
    [
        *(
            (200, 12, k, how)
            for k in (4, 9)
            for how in ("none", "highest_weights", "forward_selection", "auto")
        ),
        *((1000, 40, 1000, how) for how in ("none", "highest_weights", "auto")),
        *(
            (30, 50, 3, how) for how in ("none", "highest_weights", "forward_selection")
        ),  # more features than samples
        *((60, 1, 1, how) for how in ("none", "auto")),
    ],
)
def test_coefficients_are_the_packages(n: int, d: int, features: int, selection: Any) -> None:
    shown = coins(n, d)
    scores = bent(shown, columns=2)
    ours = fit_selected(
        shown.double(),
        scores,
        lime_weights(shown, 0.25),
        ridge=1.0,
        features=features,
        selection=selection,
    )
    theirs = package_fit(shown, scores, features=features, selection=selection)
    for mine, (coefficients, intercept, r2) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.coefficients, coefficients, rtol=1e-9, atol=1e-10)
        assert mine.intercept == pytest.approx(intercept, abs=1e-10)
        assert mine.r2 == pytest.approx(r2, abs=1e-10)


def test_weights_are_the_papers() -> None:
    shown = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    expected = [1.0, math.sqrt(math.exp(-(0.5**2) / 0.3**2)), math.sqrt(math.exp(-1 / 0.3**2))]
    torch.testing.assert_close(
        lime_weights(shown, 0.3), torch.tensor(expected, dtype=torch.float64)
    )


# ---- standard errors, fit and stability


@pytest.mark.parametrize(("n", "d"), [(300, 15), (60, 30)])
def test_intervals_cover(n: int, d: int) -> None:
    fits = [
        fit((z := coins(n, d, seed)).double(), bent(z), lime_weights(z, 0.25), ridge=1.0)[0]
        for seed in range(150)
    ]
    coefficients, errors = (
        torch.stack([getattr(f, name) for f in fits]) for name in ("coefficients", "errors")
    )
    for truth in (
        coefficients.mean(0),
        many(d).coefficients,
    ):  # of samples of this size, and of all coalitions
        covered = ((coefficients - truth).abs() < 1.96 * errors).double().mean()
        assert 0.90 <= covered <= 0.99


def many(d: int) -> Surrogate:
    z = coins(20_000, d, 10_000)
    return fit(z.double(), bent(z), lime_weights(z, 0.25), ridge=0.0)[0]


def test_intervals_of_shapley_values_cover() -> None:
    kernel = ShapleyKernel(0.0, 300)
    truth = shapley_values(lambda z: bent(z)[:, 0], 10)
    hits = []
    for seed in range(150):
        z = kernel.draw(300, 10, torch.Generator().manual_seed(seed), begun=False)
        found = kernel.fit(z, bent(z))[0]
        hits.append((found.coefficients - truth).abs() < 1.96 * found.errors)
    assert 0.90 <= torch.stack(hits).double().mean() <= 0.99


def test_held_out_r2_leaves_each_sample_out() -> None:
    z = coins(40, 10)
    x, y, w = z.double(), bent(z), lime_weights(z, 0.25)
    residuals = []
    for i in range(len(x)):
        rest = torch.arange(len(x)) != i
        part = fit(x[rest], y[rest], w[rest], ridge=1.0)[0]
        residuals.append(y[i, 0] - part.intercept - x[i] @ part.coefficients)
    level = (w * y[:, 0]).sum() / w.sum()
    expected = 1 - (w * torch.stack(residuals) ** 2).sum() / (w * (y[:, 0] - level) ** 2).sum()
    found = fit(x, y, w, ridge=1.0)[0]
    assert found.r2_held_out == pytest.approx(float(expected), abs=1e-9)
    assert found.r2_held_out < found.r2


def test_stability_predicts_other_seeds() -> None:
    def coefficients(z: Tensor) -> Tensor:
        return fit(z.double(), bent(z), lime_weights(z, 0.25), ridge=1.0)[0].coefficients

    told = [
        stability([coefficients(part) for part in coins(800, 40, seed).chunk(4)])
        for seed in range(12)
    ]
    truth = stability([coefficients(coins(800, 40, 100 + seed)) for seed in range(12)])
    assert truth is not None
    mean = {
        name: np.mean([part[name] for part in told if part])
        for name in ("rank_correlation", "seed_correlation")
    }
    assert mean["rank_correlation"] < mean["seed_correlation"]
    assert mean["seed_correlation"] == pytest.approx(truth["rank_correlation"], abs=0.05)
    same = stability([torch.arange(20.0)] * 3)
    assert same is not None
    assert same["rank_correlation"] == pytest.approx(1.0)
    assert same["top_overlap"] == 1.0
    assert stability([torch.ones(1)] * 3) is None


# ---- Shapley values


@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_shapley_values_are_exact_where_all_coalitions_fit(d: int) -> None:
    kernel = ShapleyKernel(0.0, 2**d)
    shown = kernel.draw(2**d, d, torch.Generator().manual_seed(0), begun=False)
    assert len(shown) == len({tuple(row) for row in shown.tolist()}) == 2**d
    found = kernel.fit(shown, bent(shown))[0]
    torch.testing.assert_close(
        found.coefficients, shapley_values(lambda z: bent(z)[:, 0], d), rtol=1e-9, atol=1e-12
    )
    assert not found.errors.any()


def test_shapley_sizes_are_drawn_by_the_kernel() -> None:
    shown = ShapleyKernel(0.0, 2).draw(40_002, 12, torch.Generator().manual_seed(0), begun=False)
    assert shown[0].all()
    assert not shown[1].any()
    assert (shown[2::2] == ~shown[3::2]).all()
    share = torch.bincount(shown[2:].sum(1), minlength=13)[1:12].double() / 40_000
    k = torch.arange(1, 12).double()
    expected = 11 / (k * (12 - k))
    torch.testing.assert_close(share, expected / expected.sum(), atol=0.01, rtol=0)


# ---- what is drawn


def test_a_sample_uses_what_it_has_scores_for() -> None:
    sample = Sample(
        segment(torch.zeros(1, 1, 4, 4), "grid", options={"cells": 2})[0],
        PLAIN,
        torch.Generator().manual_seed(0),
    )
    new = sample.extend(30)
    assert len({tuple(row) for row in new.tolist()}) == len(new) <= 16
    sample.add(torch.arange(3.0)[:, None])
    shown, scores = sample.finished()
    assert len(shown) == sample.drawn.index(3)
    assert torch.equal(scores[:, 0].long(), torch.tensor(sample.drawn[: len(shown)]))
    sample.add(torch.arange(3.0, len(new))[:, None])
    assert len(sample.finished()[0]) == 30
