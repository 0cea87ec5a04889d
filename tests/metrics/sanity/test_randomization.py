"""The sanity checks: what is randomised, in which order, and how alike maps are said to be."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import skimage.data
import skimage.feature
import skimage.metrics
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

import seewhy
from seewhy.errors import InputError, LayerError, ModelError, TargetError
from seewhy.methods import Call
from seewhy.methods.catalog import METHODS
from seewhy.metrics import (
    ChanceMethod,
    ParameterRandomization,
    label_randomization,
    parameter_randomization,
)
from seewhy.metrics.sanity.weights import Steps, layers_from_the_top, reinitialize
from seewhy.metrics.similarity import SIMILARITIES, hog, similarity_of, spearman, ssim
from tiny_models import ModelState, TinyCNN, TinyResNet, pictures, randomised, tiny_vit

LAYERS = ("fc", "bn2", "conv2", "bn1", "conv1")


def edge_detector(model: Any, x: Tensor, target: Any) -> Tensor:
    return ChanceMethod("edges")(model, x, target)


def steps_of(
    order: Any, module: nn.Module, x: Tensor, **options: Any
) -> list[tuple[str, dict[str, Tensor]]]:
    plan = Steps(
        order,
        options.pop("layers", None),
        options.pop("seed", 0),
        options.pop("reset_statistics", False),
    )
    model = seewhy.wrap(module)
    return [(n, copy.deepcopy(changed.module.state_dict())) for n, changed in plan.copies(model, x)]


def changed_layers(state: dict[str, Tensor], net: nn.Module) -> set[str]:
    now = net.state_dict()
    return {
        name.rpartition(".")[0]
        for name, value in state.items()
        if not torch.equal(value, now[name])
    }


# what is randomised


def test_cascading_goes_from_the_top_and_leaves_what_it_changed() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    before = ModelState(net)
    steps = steps_of("cascading", net, x)
    assert tuple(name for name, _ in steps) == LAYERS
    for i, (_, state) in enumerate(steps):
        assert changed_layers(state, net) == set(LAYERS[: i + 1])
    before.assert_unchanged()


def test_independent_changes_one_layer_at_a_time_to_the_same_values() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    alone, together = steps_of("independent", net, x), steps_of("cascading", net, x)
    for (name, state), (_, all_of_them) in zip(alone, together, strict=True):
        assert changed_layers(state, net) == {name}
        torch.testing.assert_close(
            state[f"{name}.weight"], all_of_them[f"{name}.weight"], rtol=0, atol=0
        )


def test_statistics_stay_unless_asked_and_each_layer_has_its_own_seed() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    last = steps_of("cascading", net, x)[-1][1]
    for kind in ("running_mean", "running_var"):
        assert torch.equal(last[f"bn1.{kind}"], net.state_dict()[f"bn1.{kind}"])
    reset = steps_of("cascading", net, x, reset_statistics=True)[-1][1]
    assert reset["bn1.running_mean"].abs().max() == 0
    assert (reset["bn1.running_var"] == 1).all()
    twins = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    found = steps_of("cascading", twins, x)[-1][1]
    assert not torch.equal(found["0.weight"], found["1.weight"])
    again = steps_of("cascading", twins, x)[-1][1]
    assert torch.equal(again["0.weight"], found["0.weight"])
    other = steps_of("cascading", twins, x, seed=1)[-1][1]
    assert not torch.equal(other["0.weight"], found["0.weight"])


def test_the_order_is_that_of_execution_not_of_registration() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Conv2d(3, 4, 3)
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).mean((2, 3))) * self.scale

    x = pictures(1)
    # the model's own parameter counts with the model, which runs first
    assert layers_from_the_top(Call(Backwards()), x) == ("last", "first", "")
    assert layers_from_the_top(Call(TinyResNet()), x, ["layer1", "fc", "down"]) == (
        "fc",
        "down",
        "layer1",
    )
    vit = layers_from_the_top(Call(tiny_vit()), x)
    assert vit[0] == "head"
    assert vit[-2:] == ("patch_embed.proj", "")


def test_parameters_without_an_initialiser_are_drawn_like_themselves() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(5 + 2 * torch.randn(4000))

    part = Scale()
    old = part.weight.detach().clone()
    reinitialize(part, 3)
    now = part.weight.detach()
    assert abs(np.corrcoef(old, now)[0, 1]) < 0.1
    assert float(now.mean()) == pytest.approx(5, abs=0.2)
    assert float(now.std()) == pytest.approx(2, abs=0.2)
    state = torch.random.get_rng_state()
    reinitialize(nn.Linear(3, 3), 3)
    torch.random.set_rng_state(state)  # making the layer drew
    nn.Linear(3, 3)
    after = torch.random.get_rng_state()
    torch.random.set_rng_state(state)
    reinitialize(nn.Linear(3, 3), 3)
    assert torch.equal(torch.random.get_rng_state(), after)


def test_a_parameter_of_one_value_without_an_initialiser_is_that_value() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([2.5]))

    part = Scale()
    reinitialize(part, 3)
    assert part.weight.tolist() == [2.5]


# what comes out


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_gradients_change_and_an_edge_detector_does_not(order: Any) -> None:
    net, x = randomised(TinyResNet()), pictures(3, 48)
    before = ModelState(net)
    measures = list(SIMILARITIES)
    gradient = parameter_randomization(net, x, "saliency", order=order, similarity=measures)
    edges = parameter_randomization(net, x, edge_detector, order=order, similarity=measures)
    before.assert_unchanged()
    assert gradient.layers[0] == "fc"
    assert len(gradient.layers) == 12
    for measure in measures:
        assert gradient.similarity[measure].shape == (12, 3)
        torch.testing.assert_close(edges.mean(measure), torch.ones(3).double())
        assert (gradient.mean(measure) < 0.9).all()
    assert gradient.mean("spearman").abs().max() < (0.45 if order == "cascading" else 0.7)


def test_the_originals_one_is_not_averaged_in() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    maps = METHODS["saliency"](net, x, "top1")
    done = parameter_randomization(net, x, "saliency")
    metric = ParameterRandomization("saliency")
    metric.update(maps, net, x)
    found = metric.compute()
    np.testing.assert_allclose(found.values, done.similarity["spearman_abs"].mean(0).numpy())
    assert [len(curve) for curve in found.curves] == [5, 5]
    np.testing.assert_allclose(found.curves[0], done.similarity["spearman_abs"][:, 0])
    assert not found.higher_is_better
    one = next(iter(Steps("cascading", ["fc"], 0, False).copies(seewhy.wrap(net), x)))[1]
    best = net(x).argmax(1).tolist()
    expected = spearman(maps, METHODS["saliency"](one, x, best), absolute=True)
    torch.testing.assert_close(done.similarity["spearman_abs"][0], expected)


def test_the_layer_that_was_chosen_stays_when_the_model_changes() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    chosen = parameter_randomization(net, x, "grad_cam", 1, similarity="spearman")
    named = parameter_randomization(net, x, "grad_cam", 1, similarity="spearman", layer="relu2")
    torch.testing.assert_close(
        chosen.similarity["spearman"], named.similarity["spearman"], equal_nan=True
    )
    fused = parameter_randomization(net, x, "layer_relevance", 1, layers=["fc", net.conv2])
    assert fused.layers == ("fc", "conv2")


def test_randomisation_does_not_depend_on_the_batch() -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    whole = parameter_randomization(net, x, "saliency", 1)
    for i in range(3):
        one = parameter_randomization(net, x[i : i + 1], "saliency", 1)
        torch.testing.assert_close(
            one.similarity["spearman_abs"][:, 0],
            whole.similarity["spearman_abs"][:, i],
            rtol=0,
            atol=1e-3,
        )


def test_label_randomisation_compares_two_models() -> None:
    net, other, x = randomised(TinyCNN(), 1), randomised(TinyCNN(), 2), pictures(2)
    same = label_randomization(
        net, copy.deepcopy(net), x, "saliency", similarity=["spearman", "spearman_abs"]
    )
    torch.testing.assert_close(same["spearman"], torch.ones(2).double())
    apart = label_randomization(net, other, x, "saliency")["spearman_abs"]
    best = net(x).argmax(1).tolist()  # the class of the first, for both
    expected = spearman(
        METHODS["saliency"](net, x, best), METHODS["saliency"](other, x, best), absolute=True
    )
    torch.testing.assert_close(apart, expected)
    assert (apart < 0.9).all()
    torch.testing.assert_close(
        label_randomization(net, other, x, edge_detector)["spearman_abs"], torch.ones(2).double()
    )


def test_models_that_cannot_be_randomised_are_told() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    with pytest.raises(ModelError, match="no parameters to randomise"):
        parameter_randomization(nn.Flatten(), x, edge_detector)
    with pytest.raises(InputError, match="order='up'"):
        parameter_randomization(net, x, edge_detector, order="up")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 'spearman'"):
        parameter_randomization(net, x, edge_detector, similarity="spearmann")
    with pytest.raises(LayerError, match="did you mean 'conv1' or 'conv2'"):
        parameter_randomization(net, x, edge_detector, layers=["conv"])
    with pytest.raises(TargetError, match="2 targets"):
        parameter_randomization(net, x, edge_detector, "top2")
    net.lock = (i for i in range(3))  # generators cannot be copied
    with pytest.raises(ModelError, match="cannot be copied"):
        parameter_randomization(net, x, edge_detector)


# similarities


def test_spearman_equals_scipys_with_ties() -> None:
    a, b = torch.randn(4, 9, 11), torch.randn(4, 9, 11)
    a[0] = (a[0] * 2).round()
    b[1] = b[1].clamp(min=0)  # half of it ties at zero
    signed, absolute = spearman(a, b), spearman(a, b, absolute=True)
    for i in range(4):
        assert signed[i] == pytest.approx(
            stats.spearmanr(a[i].flatten(), b[i].flatten()).statistic, abs=1e-12
        )
        expected = stats.spearmanr(a[i].abs().flatten(), b[i].abs().flatten()).statistic
        assert absolute[i] == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(spearman(a, -a), -torch.ones(4).double())
    torch.testing.assert_close(spearman(a, -a, absolute=True), torch.ones(4).double())
    assert spearman(a, torch.full_like(a, 0.1)).isnan().all()


def test_ssim_equals_its_formula_and_scikit_images() -> None:
    a, b = pictures(2, (40, 33), channels=1)[:, 0], pictures(2, (40, 33), seed=1, channels=1)[:, 0]
    found = ssim(a, b)
    for i in range(2):
        first, second = (np.abs(m[i].double().numpy()) / float(m[i].abs().max()) for m in (a, b))
        assert found[i] == pytest.approx(slow_ssim(first, second), abs=1e-6)
        theirs = skimage.metrics.structural_similarity(
            first,
            second,
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert found[i] == pytest.approx(theirs, abs=1e-6)
    torch.testing.assert_close(ssim(a, a), torch.ones(2).double())
    with pytest.raises(InputError, match="11 x 11"):
        ssim(torch.rand(1, 7, 7), torch.rand(1, 7, 7))


def slow_ssim(a: Any, b: Any) -> float:
    """The mean over all windows of 11 x 11 pixels that lie in the picture, window by window."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = 0.01**2, 0.03**2
    values = []
    for i in range(5, a.shape[0] - 5):
        for j in range(5, a.shape[1] - 5):
            p, q = a[i - 5 : i + 6, j - 5 : j + 6], b[i - 5 : i + 6, j - 5 : j + 6]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            values.append(
                (2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
            )
    return float(np.mean(values))


def test_hog_correlates_histograms_of_oriented_gradients() -> None:
    a, b = pictures(2, 64, channels=1)[:, 0], pictures(2, 64, seed=1, channels=1)[:, 0]
    found, ranked = hog(a, b), hog(a, b, ranks=True)
    for i in range(2):
        first, second = (
            skimage.feature.hog(
                (m[i].abs() / m[i].abs().max()).double().numpy(), pixels_per_cell=(16, 16)
            )
            for m in (a, b)
        )
        assert len(first) == 2 * 2 * 3 * 3 * 9
        assert found[i] == pytest.approx(stats.pearsonr(first, second).statistic, abs=1e-6)
        assert ranked[i] == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-6)
    with pytest.raises(InputError, match="48 x 48"):
        hog(torch.rand(1, 32, 32), torch.rand(1, 32, 32))
    coarse = torch.rand(2, 7, 7)
    torch.testing.assert_close(
        similarity_of("hog_pearson", coarse, coarse, (64, 64)), torch.ones(2).double()
    )


def test_maps_that_cannot_be_compared_are_told() -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        spearman(torch.rand(2, 3, 3), torch.rand(2, 4, 4))
    with pytest.raises(InputError, match="accepted: spearman_abs"):
        ParameterRandomization("saliency", similarity="cosine")


def test_a_map_that_dies_on_the_way_is_left_out_of_the_mean() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    turn = iter([x.mean(1), torch.zeros(1, 32, 32), 2 * x.mean(1)])

    def explain(model: Any, x: Tensor, target: Any) -> Tensor:
        return next(turn)

    done = parameter_randomization(net, x, explain, layers=["fc", "conv2"])
    assert math.isnan(done.similarity["spearman_abs"][0, 0])
    assert done.mean("spearman_abs").item() == pytest.approx(1)


@pytest.mark.parametrize("size", [(50, 70), (70, 50)])
def test_pictures_of_maps_are_compared_at_the_size_of_the_input(size: tuple[int, int]) -> None:
    net, x, maps = randomised(TinyCNN()), pictures(2, size), list[Tensor]()

    def method(model: Any, x: Tensor, target: Any) -> Tensor:
        maps.append(torch.rand(2, size[0] // 5, size[1] // 5))
        return maps[-1]

    found = parameter_randomization(
        net, x, method, 1, similarity=["ssim", "hog_pearson", "spearman"], layers=["fc", "conv2"]
    )
    before, *after = maps
    assert len(after) == 2
    for i, now in enumerate(after):
        whole = [
            F.interpolate(m[:, None], size, mode="bilinear", antialias=True)[:, 0]
            for m in (before, now)
        ]
        for name, expected in (
            ("ssim", ssim(*whole)),
            ("hog_pearson", hog(*whole)),
            ("spearman", spearman(before, now)),
        ):
            torch.testing.assert_close(found.similarity[name][i], expected, rtol=1e-4, atol=1e-5)
    metric = ParameterRandomization(method, similarity="ssim", layers=["fc", "conv2"])
    maps.clear()
    metric.update(before, net, x, 1)
    expected = torch.stack([similarity_of("ssim", before, now, size) for now in maps])  # (steps, N)
    np.testing.assert_allclose(metric.compute().values, expected.mean(0), atol=1e-9)
