"""LIME and KernelSHAP as methods, against the lime package, brute force and planted truth."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lime_oracles import package_fit, shapley_values
from seewhy.engine.call import Call
from seewhy.engine.masking import Running, ScorerError, image_seed
from seewhy.engine.targets.classes import Logit
from seewhy.errors import InputError, SeewhyWarning
from seewhy.maps.attribution import Estimate
from seewhy.methods.lime.coalitions import LimeKernel
from seewhy.methods.lime.lime import lime
from seewhy.methods.lime.superpixels import segment
from tiny_models import Called, ModelState, TinyCNN, pictures, randomised

PLAIN = LimeKernel(0.25, 1.0, None, "auto")


def explain(model: nn.Module, x: Tensor, *classes: int, **options: Any) -> list[Estimate]:
    """All targets of one sample, without the warning that a toy is not locally linear."""
    assert lime.run is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the model is not locally linear", SeewhyWarning)
        return list(
            lime.run(
                Call(model),
                x,
                [Logit(c) for c in classes or (0,)],
                layer=None,
                **{**lime.options, **options},
            )
        )


def grid(size: tuple[int, int], cells: int) -> Tensor:
    return segment(torch.zeros(1, 1, *size), "grid", options={"cells": cells})[0]


class Planted(nn.Module):
    """score_t = sum_k c_tk x the mean of superpixel k, and, if it is bent, products of neighbours and a sigmoid."""

    def __init__(self, labels: Tensor, weights: Tensor, bend: float = 0.0) -> None:
        super().__init__()
        self.labels, self.weights, self.bend = labels, weights, bend
        self.seen = 0

    def values(self, means: Tensor) -> Tensor:
        linear = means @ self.weights.T.to(means)
        return linear + self.bend * (means[:, :1] * means[:, -1:] * 2 + (3 * linear).sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        flat, d = self.labels.flatten(), self.weights.shape[1]
        sums = torch.zeros(len(x), d, dtype=torch.float64).index_add_(
            1, flat, x.mean(1).flatten(1).double()
        )
        return self.values(sums / torch.bincount(flat))


def planted(
    bend: float = 0.0, cells: int = 3, classes: int = 2
) -> tuple[Planted, Tensor, Tensor, Tensor]:
    """A model, a picture whose superpixels have mean 1, their labels and the weights."""
    labels = grid((12, 15), cells)
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(classes, cells**2, generator=generator, dtype=torch.float64)
    x = torch.randn(1, 3, 12, 15, generator=generator)
    flat = labels.flatten()
    means = torch.zeros(cells**2).index_add_(0, flat, x[0].mean(0).flatten()) / torch.bincount(flat)
    return Planted(labels, weights, bend), x + (1 - means)[labels], labels, weights


# ---- against the lime package and brute force


def test_the_whole_is_the_packages() -> None:
    """The package's way from the picture on: pixels exchanged in numpy, its kernel, its regression."""
    net, x = randomised(TinyCNN(5)), pictures(1, (20, 24))
    labels = segment(x, "slic", options={"n_segments": 12})[0]
    found = explain(net, x, 3, 1, samples=150, superpixels=labels, seed=5)
    shown = PLAIN.draw(
        150, int(labels.max()) + 1, torch.Generator().manual_seed(image_seed(x[0], 5)), begun=False
    )
    image, segments = x[0].permute(1, 2, 0).numpy(), labels.numpy()
    fudged = image.copy()
    for s in np.unique(segments):
        fudged[segments == s] = image[segments == s].mean(0)
    made = np.stack([np.where(row.numpy()[segments][..., None], image, fudged) for row in shown])
    with torch.no_grad():
        scores = net(torch.from_numpy(made).permute(0, 3, 1, 2)).double()[:, [3, 1]]
    for estimate, (coefficients, intercept, r2) in zip(
        found, package_fit(shown, scores, features=100_000, selection="auto"), strict=True
    ):
        torch.testing.assert_close(
            estimate.map[0].double(), coefficients[labels], rtol=1e-5, atol=1e-5
        )
        assert estimate.facts[0]["r2"] == pytest.approx(r2, abs=1e-5)
        assert estimate.facts[0]["intercept"] == pytest.approx(intercept, abs=1e-5)


def test_shapley_values_of_a_model() -> None:
    model, x, labels, _ = planted(bend=1.0)
    estimate = explain(
        model, x, 1, kernel="shap", superpixels=labels, baseline="zeros", samples=600
    )[0]
    truth = shapley_values(lambda z: model.values(z.double())[:, 1], 9)
    torch.testing.assert_close(estimate.map[0].double(), truth[labels], rtol=1e-5, atol=1e-5)
    assert estimate.interval is not None
    assert not estimate.interval.any()
    assert estimate.facts[0]["samples"] == 512
    sampled = explain(
        model, x, 1, kernel="shap", superpixels=labels, baseline="zeros", samples=200
    )[0]
    assert sampled.interval is not None
    assert ((sampled.map[0] - truth[labels]).abs() < 2 * sampled.interval[0] + 1e-6).all()
    total = model.values(torch.ones(1, 9).double()) - model.values(torch.zeros(1, 9).double())
    first = [int((labels == k).flatten().int().argmax()) for k in range(9)]
    assert float(sampled.map[0].flatten()[first].sum()) == pytest.approx(
        float(total[0, 1]), abs=1e-5
    )


# ---- planted truth, and what the method keeps to


def test_a_linear_model_is_found() -> None:
    model, x, labels, weights = planted()
    exact = explain(model, x, 0, 1, superpixels=labels, baseline="zeros", ridge=1e-9, samples=300)
    for t, estimate in enumerate(exact):
        torch.testing.assert_close(
            estimate.map[0].double(), weights[t][labels], rtol=1e-5, atol=1e-5
        )
        assert estimate.facts[0]["r2"] == pytest.approx(1.0, abs=1e-6)
        assert estimate.facts[0]["locally_linear"] is True
        best = estimate.facts[0]["top"][0]
        k = int(weights[t].abs().argmax())
        assert best["superpixel"] == k
        assert best["pixels"] == int((labels == k).sum())
        rows, columns = (labels == k).nonzero().double().mean(0).tolist()
        assert best["centre"] == pytest.approx([rows, columns], abs=0.05)
    shrunk = (
        explain(model, x, 0, superpixels=labels, baseline="zeros", samples=1000)[0].map[0].double()
    )
    torch.testing.assert_close(shrunk, weights[0][labels], rtol=0.05, atol=0.02)
    kept = explain(model, x, 0, superpixels=labels, baseline="zeros", features=3, samples=300)[
        0
    ].map[0]
    top = weights[0].abs().argsort(descending=True)[:3]
    assert set(labels[kept != 0].unique().tolist()) == set(top.tolist())


def test_every_coalition_runs_once() -> None:
    model, x, labels, _ = planted(cells=2)
    found = explain(model, x, superpixels=labels, samples=400, running=Running(batch_size=8))[0]
    assert found.facts[0]["samples"] == 400
    assert found.facts[0]["distinct"] == 16
    assert model.seen == 16 + 3 * 8  # three batches, to see whether pictures depend on each other
    shown = PLAIN.draw(400, 4, torch.Generator().manual_seed(image_seed(x[0], 0)), begun=False)
    flat = x[0].flatten(1)
    mean = torch.stack([flat[:, labels.flatten() == k].mean(1) for k in range(4)], 1)  # (3, 4)
    rows = torch.where(shown[:, labels][:, None], x, mean[:, labels])
    (coefficients, _, _), *_ = package_fit(shown, model(rows)[:, :1], features=9, selection="none")
    torch.testing.assert_close(found.map[0].double(), coefficients[labels], rtol=1e-5, atol=1e-5)


def test_neither_batch_nor_order_matters() -> None:
    net, x = randomised(TinyCNN()), pictures(3, (20, 24))
    options: dict[str, Any] = {
        "samples": 60,
        "superpixels": "slic",
        "superpixel_options": {"n_segments": 9},
    }
    before = ModelState(net)
    whole = explain(net, x, 1, **options)[0]
    before.assert_unchanged()
    assert whole.map.shape == (3, 20, 24)
    assert whole.map.dtype == torch.float32
    json.dumps(whole.facts, allow_nan=False)
    for size in (1, 7, 500):
        other = explain(net, x.flip(0), 1, running=Running(batch_size=size), **options)[0]
        torch.testing.assert_close(other.map.flip(0), whole.map, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other.interval.flip(0), whole.interval, rtol=1e-4, atol=1e-5)  # type: ignore[union-attr]
    assert not torch.allclose(explain(net, x, 1, seed=1, **options)[0].map, whole.map, rtol=1e-3)
    each = lime(net, x[1:2], 1, **{**options, "samples": 1500})
    assert each.shape == (1, 20, 24)


def test_it_goes_on_until_it_is_precise() -> None:
    model, x, labels, _ = planted(bend=1.0)
    x = torch.cat([x, 0.5 * x])
    options: dict[str, Any] = {
        "superpixels": labels,
        "baseline": "zeros",
        "samples": 50,
        "kernel_width": 0.5,
    }
    found = explain(model, x, 0, 1, precision=0.02, max_samples=5000, **options)
    drawn = [facts["samples"] for facts in found[0].facts]
    assert all(50 < n < 5000 and n % 50 == 0 for n in drawn)
    for estimate in found:
        for i, facts in enumerate(estimate.facts):
            assert facts["precise"] is True
            errors = [part["standard_error"] for part in facts["top"][:5]]
            assert max(errors) <= 0.02 * abs(facts["top"][0]["coefficient"])
            alone = explain(model, x[i : i + 1], 0, 1, precision=0.02, max_samples=5000, **options)
            assert alone[0].facts[0]["samples"] == drawn[i]
    once = explain(model, x, 0, 1, **{**options, "samples": drawn[0]})[0]
    torch.testing.assert_close(
        once.map[0], found[0].map[0], rtol=1e-5, atol=1e-5
    )  # drawn in one go or in many
    bounded = explain(model, x, 0, precision=1e-9, max_samples=120, **options)[0]
    assert [facts["samples"] for facts in bounded.facts] == [120, 120]
    assert bounded.facts[0]["precise"] is False
    shap = explain(model, x, 0, precision=1e-9, max_samples=121, **{**options, "kernel": "shap"})[0]
    assert shap.facts[0]["samples"] == 120


def test_it_says_where_the_model_is_not_linear() -> None:
    _, x, labels, _ = planted()
    parity = Called(lambda x: x[:, 0].flatten(1)[:, ::20].sign().prod(1, keepdim=True))
    options = {"superpixels": labels, "baseline": Flipped(), "samples": 200}
    with pytest.warns(
        SeewhyWarning, match=r"LIME of image 0, class 0: a linear model has \d+ % of the score's"
    ):
        lime(parity, x, 0, **options)
    facts = explain(parity, x, **options)[0].facts[0]
    assert facts["locally_linear"] is False
    assert facts["r2_held_out"] < facts["r2"] < 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat = explain(Called(lambda x: x.new_ones(len(x), 2)), x, **options)[0]
    assert not flat.map.any()
    assert flat.facts[0]["r2"] is None
    assert flat.facts[0]["locally_linear"] is None


class Flipped:
    """A baseline of the user's own: what is hidden changes its sign."""

    name = "flipped"

    def picture(self, x: Tensor) -> Tensor:
        return -x


# ---- bad input


class Fails(nn.Module):
    """Answers for so many pictures, and then no more."""

    def __init__(self, net: nn.Module, after: int, how: str) -> None:
        super().__init__()
        self.net, self.left, self.how = net, after, how

    def forward(self, x: Tensor) -> Tensor:
        self.left -= len(x)
        if self.left >= 0:
            return self.net(x)
        if self.how == "raises":
            raise OSError("the service is gone")
        return self.net(x)[:, :0] if self.how == "shape" else self.net(x) * math.nan


@pytest.mark.parametrize("how", ["raises", "nan", "shape"])
@pytest.mark.parametrize("kernel", ["lime", "shap"])
def test_what_was_scored_before_a_failure_is_returned(how: str, kernel: str) -> None:
    net, x, labels = randomised(TinyCNN()), pictures(2, (12, 16)), grid((12, 16), 4)
    options: dict[str, Any] = {
        "superpixels": labels,
        "kernel": kernel,
        "running": Running(batch_size=10, memory_format="contiguous"),
    }
    found = explain(Fails(net, 99 + 30, how), x, samples=80, **options)[0]
    first, second = found.facts
    assert "failed" not in first
    assert second["failed"].startswith("scoring stopped")
    assert (first["samples"], first["partial"]) == (80, False)
    assert second["partial"] is True
    assert second["distinct"] == 90 - first["distinct"]
    torch.testing.assert_close(
        found.map[:1], explain(net, x[:1], samples=80, **options)[0].map, rtol=1e-5, atol=1e-5
    )
    if kernel == "lime":  # the beginning of a sample is a sample
        part = explain(net, x[1:], samples=second["samples"], **options)[0]
        torch.testing.assert_close(found.map[1:], part.map, rtol=1e-5, atol=1e-5)
    assert found.map.isfinite().all()
    nothing = explain(Fails(net, 28 + 30, how), x, samples=30, **options)[0]
    assert nothing.map[1].isnan().all()
    assert nothing.facts[1]["samples"] == 0
    json.dumps(nothing.facts, allow_nan=False)
    with pytest.raises(InputError):
        explain(Fails(net, 0, how), x, samples=30, **options)
    with pytest.raises(ScorerError, match="scoring stopped after 1 of"):
        explain(Fails(net, 1, how), x, samples=30, **{**options, "running": Running(batch_size=1)})


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 32])
@pytest.mark.parametrize("size", [(5, 9), (1, 1), (24, 17)])
@pytest.mark.parametrize("superpixels", ["quickshift", "slic", "felzenszwalb", "grid"])
def test_any_channels_and_sizes(channels: int, size: tuple[int, int], superpixels: str) -> None:
    x = pictures(2, size, channels=channels)
    model = Called(lambda x: x.flatten(2).mean(2).cumsum(1))
    found = explain(model, x, channels - 1, superpixels=superpixels, samples=20)[0]
    assert found.map.shape == (2, *size)
    assert found.map.isfinite().all()
    for i, labels in enumerate(segment(x, superpixels)):
        assert labels.unique().tolist() == list(range(found.facts[i]["superpixels"]))
        assert all(len(found.map[i][labels == k].unique()) == 1 for k in labels.unique())


def test_one_superpixel_and_more_superpixels_than_samples() -> None:
    net, x = randomised(TinyCNN()), pictures(1, 12)
    single = explain(net, x, superpixels=torch.zeros(12, 12, dtype=torch.int64), samples=50)[0]
    assert single.facts[0]["superpixels"] == 1
    assert single.facts[0]["stability"] is None
    with torch.no_grad():
        drop = float((net(x) - net(x.mean((2, 3), keepdim=True).expand_as(x)))[0, 0])
    whole = explain(
        net, x, superpixels=torch.zeros(12, 12, dtype=torch.int64), samples=50, kernel="shap"
    )[0]
    torch.testing.assert_close(whole.map, torch.full((1, 12, 12), drop), rtol=1e-4, atol=1e-5)
    pixels = torch.arange(144).reshape(12, 12)
    for kernel, error in (("lime", float), ("shap", type(None))):
        found = explain(net, x, superpixels=pixels, samples=40, kernel=kernel)[0]
        assert found.map.isfinite().all()
        assert found.facts[0]["more_features_than_samples"] is True
        assert isinstance(found.facts[0]["top"][0]["standard_error"], error)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 1}, "samples=1 is too few"),
        ({"samples": 50, "precision": 0.1, "max_samples": 20}, "max_samples=20 is below"),
        ({"precision": 0.0}, "precision=0.0"),
        ({"kernel": "cosine"}, "kernel='cosine' is not known; use 'lime', 'shap'"),
        ({"selection": "forward"}, "did you mean 'forward_selection'"),
        ({"kernel_width": 0.0}, "kernel_width=0.0"),
        ({"ridge": -1.0}, "ridge=-1.0"),
        ({"features": 0}, "features=0"),
        ({"features": 3, "kernel": "shap"}, "Shapley values are of all superpixels"),
        ({"superpixels": "quickshft"}, "did you mean 'quickshift'"),
        (
            {"superpixels": "grid", "superpixel_options": {"n": 3}},
            "cannot be made with the options {'n': 3}",
        ),
        ({"superpixels": "grid", "superpixel_options": {"cells": 0}}, "cells=0 is no grid"),
        (
            {"superpixels": torch.zeros(7, 12).long()},
            r"shape \(7, 12\), .* \(12, 12\) for all images or \(2, 12, 12\)",
        ),
        ({"superpixels": torch.zeros(3, 12, 12).long()}, r"shape \(3, 12, 12\)"),
        ({"superpixels": torch.zeros(12, 12)}, "holds float32; give integer labels"),
        ({"baseline": "zeroes"}, "did you mean 'zeros'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        lime(randomised(TinyCNN()), pictures(2, 12), 0, **options)
