"""Max-sensitivity, complexity and sparsity, chance maps, intervals, and what all metrics share."""

from __future__ import annotations

import math
import pickle
from functools import partial
from typing import Any

import captum.metrics
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchmetrics import MetricCollection

import seewhy
from seewhy.errors import ArgumentTypeError, InputError, TargetError
from seewhy.methods.catalog import METHODS
from seewhy.metrics import (
    CHANCES,
    ChanceMethod,
    Complexity,
    MaxSensitivity,
    MetricResult,
    Sparsity,
    chance_maps,
)
from seewhy.metrics.base import ImageMetric
from seewhy.metrics.catalog import METRICS
from seewhy.metrics.intervals import interval_of, percentiles
from seewhy.metrics.metric import Case, ExplanationMetric, image_generator
from tiny_models import ModelState, Smooth, TinyCNN, pictures, randomised


def result_of(metric: Any, *arguments: Any, **also: Any) -> MetricResult:
    metric.update(*arguments, **also)
    found = metric.compute()
    assert isinstance(found, MetricResult)
    return found


# max-sensitivity


def test_max_sensitivity_equals_captums_on_the_same_draws() -> None:
    net, x, radius, samples = randomised(Smooth()), pictures(3), 0.3, 4
    saliency = METHODS["saliency"]
    target = [1, 0, 2]
    found = result_of(
        MaxSensitivity("saliency", radius=radius, samples=samples),
        saliency(net, x, target),
        net,
        x,
        target,
    )
    draws = [image_generator(image, 0) for image in x]
    step = [
        torch.stack([(2 * torch.rand(3, 32, 32, generator=g) - 1) * radius for g in draws])
        for _ in range(samples)
    ]

    def explain(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        return (saliency(net, inputs if isinstance(inputs, Tensor) else inputs[0], target),)

    turn = iter(step)
    expected = captum.metrics.sensitivity_max(
        explain,
        x,
        perturb_func=lambda inputs: inputs + next(turn),
        n_perturb_samples=samples,
        max_examples_per_batch=3,
    )
    np.testing.assert_allclose(found.values, expected.double().numpy(), rtol=1e-5)
    assert found.n == 3
    assert not found.higher_is_better


def test_max_sensitivity_is_zero_for_a_constant_explainer_and_linear_gradients() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    before = ModelState(net)
    fixed = torch.rand(1, 4, 4)
    constant = result_of(
        MaxSensitivity(lambda model, x, target: fixed.expand(len(x), -1, -1)),
        fixed.expand(2, -1, -1),
        net,
        x,
    )
    assert constant.values.tolist() == [0, 0]
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    small = pictures(2, 8)
    maps = METHODS["saliency"](linear, small, 1)
    assert result_of(
        MaxSensitivity("saliency", radius=1.0), maps, linear, small, 1
    ).values.tolist() == [0, 0]
    before.assert_unchanged()


def test_max_sensitivity_of_the_random_map_is_about_the_root_of_two_thirds_over_a_third() -> None:
    x = pictures(2, 64)
    random = ChanceMethod("random")
    found = result_of(MaxSensitivity(random, samples=2), random(None, x), randomised(TinyCNN()), x)
    # |u - v| / |u| of independent uniforms: sqrt((1/6) / (1/3))
    np.testing.assert_allclose(found.values, math.sqrt(0.5), atol=0.03)


def test_max_sensitivity_keeps_the_first_answer_as_target_and_the_layer() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    asked: list[Any] = []

    def explain(model: Any, x: Tensor, target: Any) -> Tensor:
        asked.append(target)
        return x.mean(1)

    result_of(MaxSensitivity(explain, samples=2, radius=5.0), x.mean(1), net, x)
    best = tuple(net(x).argmax(1).tolist())
    assert [target.index for target in asked] == [best, best]
    at = METHODS["grad_cam"](net, x, layer="relu1")
    named = result_of(MaxSensitivity("grad_cam", layer="relu1", samples=1), at, net, x)
    own = result_of(
        MaxSensitivity(partial(METHODS["grad_cam"], layer="relu1"), samples=1), at, net, x
    )
    np.testing.assert_array_equal(named.values, own.values)
    with pytest.raises(InputError, match="not resized"):
        MaxSensitivity("grad_cam").update(torch.rand(2, 32, 32), net, x)
    with pytest.raises(InputError, match=r"MaxSensitivity\(method\)"):
        MaxSensitivity().update(torch.rand(2, 32, 32), net, x)


def test_max_sensitivity_does_not_depend_on_the_batch() -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    maps = METHODS["grad_cam"](net, x, 1)
    whole = result_of(MaxSensitivity("grad_cam", samples=3), maps, net, x, 1)
    single = MaxSensitivity("grad_cam", samples=3)
    for i in range(3):
        single.update(maps[i : i + 1], net, x[i : i + 1], 1)
    np.testing.assert_allclose(single.compute().values, whole.values, rtol=1e-4)


# complexity and sparsity


def test_entropy_and_gini_in_closed_form() -> None:
    one = torch.zeros(4, 5)
    one[1, 2] = -3.0
    half = torch.zeros(4, 5)
    half.view(-1)[:10] = 2.0
    maps = torch.stack([one, half, torch.ones(4, 5)])
    entropy = result_of(Complexity(), maps)
    np.testing.assert_allclose(entropy.values, [0, math.log(10), math.log(20)], atol=1e-12)
    gini = result_of(Sparsity(), maps)
    np.testing.assert_allclose(gini.values, [1 - 1 / 20, 0.5, 0], atol=1e-12)
    assert (entropy.higher_is_better, gini.higher_is_better) == (False, True)


def test_entropy_and_gini_equal_slow_formulas() -> None:
    maps = torch.randn(2, 6, 7)
    for found, m in zip(result_of(Complexity(), maps).values, maps, strict=True):
        assert found == pytest.approx(stats.entropy(m.abs().flatten().double().numpy()), rel=1e-9)
    for found, m in zip(result_of(Sparsity(), maps).values, maps, strict=True):
        v = m.abs().flatten().double().numpy()
        # the Gini index as the mean absolute difference over twice the mean
        assert found == pytest.approx(np.abs(v[:, None] - v).mean() / (2 * v.mean()), rel=1e-9)


def test_complexity_compares_resolutions_at_the_size_of_the_input() -> None:
    x = torch.rand(1, 3, 32, 32)
    coarse, fine = torch.ones(1, 4, 4), torch.ones(1, 32, 32)
    assert result_of(Complexity(), coarse).mean == pytest.approx(math.log(16))
    assert result_of(Complexity(), coarse, None, x).mean == pytest.approx(
        result_of(Complexity(), fine).mean
    )


# what all share


@pytest.mark.parametrize("leave_out", [None, (), ("empty",)])
def test_a_metric_for_another_method_has_the_settings_and_no_images(leave_out: Any) -> None:
    metric = Sparsity(leave_out=("constant",), seed=3)
    metric.update(torch.rand(3, 4, 4))
    fresh = metric.for_method("lrp", leave_out=leave_out)
    assert fresh.leave_out == (("constant",) if leave_out is None else leave_out)
    assert fresh.settings == metric.settings
    fresh.update(torch.rand(1, 4, 4))
    assert (fresh.compute().n, metric.compute().n) == (1, 3)


def test_what_a_metric_is_unless_it_says_otherwise() -> None:
    kind = ImageMetric
    assert (kind.is_differentiable, kind.full_state_update, kind.higher_is_better) == (
        False,
        False,
        True,
    )
    assert (kind.leave_out, kind.by_chance, kind.axes) == ((), None, ("", ""))
    assert kind.limits == (-math.inf, math.inf)
    assert not ExplanationMetric.takes_colors


def test_maps_with_colors_are_summed_over_them_at_the_size_of_the_input() -> None:
    x, call = pictures(2, 8), seewhy.Call(TinyCNN())
    maps = torch.rand(2, 3, 4, 4) - 0.2
    clean = torch.zeros(2, dtype=torch.float64)
    case = Case(maps, call, x, seewhy.targets.Logit(0), clean, call)
    flat = torch.nn.functional.interpolate(
        maps.sum(1, keepdim=True), size=(8, 8), mode="bilinear", align_corners=False
    )[:, 0]
    torch.testing.assert_close(case.fields, flat)
    positive = flat.clamp(min=0)
    torch.testing.assert_close(case.heatmaps, positive / positive.amax((1, 2), keepdim=True))
    torch.testing.assert_close(Case(flat, call, x, case.score, clean, call).fields, flat)


@pytest.mark.parametrize("inference", [False, True])
def test_a_target_may_ask_for_gradients_of_its_own(inference: bool) -> None:
    def slope(scores: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = scores.detach().clone().requires_grad_()
            return torch.autograd.grad(leaf.square().sum(), leaf)[0][:, 1]

    net, x = randomised(TinyCNN()), pictures(2)
    maps, metric = torch.rand(2, 8, 8), seewhy.metrics.Infidelity(samples=3)
    plain = seewhy.metrics.Infidelity(samples=3)
    with torch.inference_mode(inference):
        metric.update(maps, net, x, target=slope)
    plain.update(maps, net, x, target=lambda scores: 2 * scores[:, 1])
    assert metric.compute().values == pytest.approx(plain.compute().values)


def test_maps_that_cannot_be_judged_are_left_out_and_counted() -> None:
    net, x = randomised(TinyCNN()), pictures(4)
    maps = torch.rand(4, 8, 8)
    maps[1], maps[2, 0, 0] = 0.0, math.nan
    maps[3] = -maps[3]
    for found in (
        result_of(Complexity(), maps),
        result_of(
            MaxSensitivity(lambda model, x, target: maps.nan_to_num(), samples=1), maps, net, x
        ),
    ):
        assert found.status == ("ok", "empty", "non_finite", "ok")
        assert np.isnan(found.values).tolist() == [False, True, True, False]
        assert found.n == 2
        assert found.left_out == {"empty": 1, "non_finite": 1}
        assert found.mean == pytest.approx(found.values[[0, 3]].mean())
    nothing = result_of(Complexity(), torch.zeros(2, 4, 4))
    assert nothing.n == 0
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.low)
    kept = result_of(Sparsity(leave_out=()), torch.zeros(1, 4, 4))  # no sum to divide by
    assert kept.status == ("undefined",)


def test_what_cannot_be_used_is_said_in_one_line() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    metric = MaxSensitivity("saliency")
    with pytest.raises(ArgumentTypeError, match="maps is a list"):
        metric.update([1], net, x)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"not \(N, h, w\); the map of a single image is map\[None\]"
    ):
        metric.update(torch.rand(8, 8), net, x)
    with pytest.raises(InputError, match="maps has 3 maps for 2 images"):
        metric.update(torch.rand(3, 8, 8), net, x)
    with pytest.raises(InputError, match=r"call update\(maps, model, x, target\)"):
        metric.update(torch.rand(2, 8, 8))
    with pytest.raises(TargetError, match="is 3 targets"):
        metric.update(torch.rand(2, 8, 8), net, x, "top3")
    with (
        pytest.raises(InputError, match="has no images yet"),
        pytest.warns(UserWarning, match="before the ``update``"),
    ):
        Complexity().compute()
    for wrong in ({"interval": "normal"}, {"leave_out": ["blank"]}):
        with pytest.raises(InputError, match=r"accepted|use 't'"):
            Complexity(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="samples=0"):
        MaxSensitivity("saliency", samples=0)


def test_states_merge_pickle_and_reset_and_forward_gives_the_batch() -> None:
    maps = torch.rand(6, 5, 5)
    whole = result_of(Complexity(), maps)
    first, second = Complexity(), Complexity()
    batch = first(maps[:2])
    assert batch.n == 2
    np.testing.assert_array_equal(batch.values, whole.values[:2])
    first(maps[2:3])
    second.update(maps[3:])
    copy = pickle.loads(pickle.dumps(second))
    first.merge_state(copy)
    np.testing.assert_array_equal(np.sort(first.compute().values), np.sort(whole.values))
    assert first.compute().mean == pytest.approx(whole.mean)
    first.reset()
    assert result_of(first, maps[:1]).n == 1


def test_sync_joins_the_processes() -> None:
    metric = Complexity(
        dist_sync_fn=lambda state, group: [state, state], distributed_available_fn=lambda: True
    )
    found = result_of(metric, torch.rand(3, 5, 5))
    assert found.n == 6
    assert found.status == ("ok",) * 6
    assert found.values[:3].tolist() == found.values[3:].tolist()
    assert metric.compute() is found


def test_a_collection_keeps_its_metrics_apart() -> None:
    # torchmetrics would share the states of metrics whose first states are equal, as they are of equal maps here
    apart = MetricCollection(
        {"a": Complexity(), "b": Complexity(interval="bootstrap"), "c": Sparsity()}
    )
    apart.update(torch.zeros(1, 4, 4))
    apart.update(torch.rand(3, 4, 4))
    found = apart.compute()
    assert found["a"].interval == "t"
    assert found["b"].interval == "bootstrap"
    assert found["a"].mean == found["b"].mean != found["c"].mean
    assert all(len(group) == 1 for group in apart.compute_groups.values())


# intervals


def test_intervals_in_closed_form() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0])
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    np.testing.assert_allclose(interval_of(values, "t"), expected)
    share = np.array([0.0] * 7 + [1.0] * 3)
    expected = stats.binomtest(3, 10).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(interval_of(share, "wilson"), expected, rtol=1e-9)
    assert interval_of(np.zeros(5), "wilson")[1] > 0.4
    assert all(math.isnan(bound) for bound in interval_of(np.ones(1), "t"))
    assert interval_of(np.ones(4), "bootstrap") == (1, 1)


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(8, 10, 0.490, 0.943), (10, 10, 0.722, 1.0), (0, 10, 0.0, 0.278), (1, 1, 0.207, 1.0)],
)
def test_wilsons_interval_has_its_published_values(
    right: int, of: int, low: float, high: float
) -> None:
    values = np.array([1.0] * right + [0.0] * (of - right))
    found = interval_of(values, "wilson")
    assert found == pytest.approx((low, high), abs=5e-4)
    assert found[0] <= right / of <= found[1]


@pytest.mark.parametrize("share", [0.03, 0.5, 0.9, 0.98])
def test_wilsons_interval_covers_shares_near_the_ends_too(share: float) -> None:
    drawn = np.random.default_rng(4)
    counts = drawn.binomial(20, share, 4000)
    bounds = {
        k: interval_of(np.repeat([1.0, 0.0], [k, 20 - k]), "wilson") for k in set(counts.tolist())
    }
    held = np.mean([bounds[k][0] <= share <= bounds[k][1] for k in counts.tolist()])
    assert 0.92 <= held <= 1


def test_the_interval_of_resamples_is_between_their_percentiles() -> None:
    level = np.arange(1001.0)
    assert percentiles(level[::-1]) == (25.0, 975.0)
    assert percentiles(np.append(level, [math.nan, math.inf])) == (25.0, 975.0)
    assert np.isnan(percentiles(np.array([math.nan]))).all()
    values = np.array([0.1, 0.9, 0.4, 0.45])
    drawn = np.random.default_rng(3).integers(0, 4, (2000, 4))
    means = np.sort(values)[drawn].mean(1)
    assert interval_of(values, "bootstrap", seed=3) == percentiles(means)


def test_intervals_end_where_values_do() -> None:
    values = np.array([1.0, 1.0, 0.9, 1.0])
    low, high = interval_of(values, "t")
    assert high > 1
    assert interval_of(values, "t", limits=(0, 1)) == (low, 1)
    assert interval_of(1 - values, "t", limits=(0, 1)) == (0, pytest.approx(1 - low))
    with pytest.raises(
        InputError, match=r"interval='wilson' is of shares, and values reach from 0\.2 to 3;"
    ):
        interval_of(np.array([0.2, 3.0]), "wilson")
    for beyond in (1.001, -0.001):
        with pytest.raises(InputError, match="is of shares"):
            interval_of(np.array([0.2, beyond]), "wilson")


def test_metrics_know_what_their_values_lie_between() -> None:
    maps = torch.zeros(3, 8, 8)
    maps[:, 0, 0] = 1  # one place: the sparsest there is
    maps[0, 0, 1] = 0.01
    sparse = Sparsity()
    sparse.update(maps)
    assert sparse.compute().high <= 1
    limits = {
        name: METRICS[name]()._limits()
        for name in ("deletion", "insertion", "average_drop", "road_morf")
    }
    assert set(limits.values()) == {(0, 1)}
    assert METRICS["deletion"](output="logit")._limits() == (-math.inf, math.inf)
    assert METRICS["road"]()._limits() == (-0.5, 0.5)
    assert METRICS["pixel_flipping"]()._limits() == METRICS["sensitivity_n"]()._limits() == (-1, 1)


@pytest.mark.parametrize(("how", "low"), [("t", 0.93), ("bootstrap", 0.91), ("wilson", 0.92)])
def test_intervals_hold_the_truth_as_often_as_they_say(how: Any, low: float) -> None:
    drawn = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        values = (
            (drawn.random(30) < 0.3).astype(float)
            if how == "wilson"
            else drawn.normal(0.3, 2.0, 30)
        )
        bounds = interval_of(values, how)
        held += bounds[0] <= 0.3 <= bounds[1]
    assert low <= held / 400 <= 0.99


# chance maps


def test_chance_maps() -> None:
    x = pictures(3, (24, 32))
    maps = chance_maps(x, seed=4)
    assert tuple(maps) == CHANCES
    for chance, found in maps.items():
        assert found.shape == (3, 24, 32)
        assert found.dtype == torch.float32
        assert found.min() >= 0
        assert found.max() <= 1
        # of the image alone
        assert torch.equal(chance_maps(x[1:2], seed=4)[chance], found[1:2])
        assert torch.equal(ChanceMethod(chance, seed=4)(None, x), found)
    assert not torch.equal(chance_maps(x, seed=5)["random"], maps["random"])
    assert (maps["uniform"] == 1).all()
    centre = maps["centre"][0]
    assert torch.equal(centre, centre.flip(0, 1))
    assert centre[12, 16] > 0.98
    assert centre[12, 16 + 8] == pytest.approx(math.exp(-0.5), abs=0.05)
    with pytest.raises(InputError, match="did you mean 'centre'"):
        ChanceMethod("center")  # type: ignore[arg-type]


def test_the_edge_map_is_where_the_picture_changes() -> None:
    x = torch.zeros(1, 3, 16, 16)
    x[:, :, :, 8:] = 1
    edges = chance_maps(x)["edges"][0]
    assert (edges[:, 7:9] == 1).all()
    assert edges[:, [*range(7), *range(9, 16)]].abs().max() == 0
    assert chance_maps(torch.ones(1, 1, 5, 5))["edges"].abs().max() == 0
    from skimage.filters import sobel_h, sobel_v

    photo = pictures(1)
    grey = photo[0].mean(0).double().numpy()
    inside = np.hypot(sobel_h(grey), sobel_v(grey))[
        1:-1, 1:-1
    ]  # scikit-image leaves the border out
    found = chance_maps(photo)["edges"][0, 1:-1, 1:-1]
    np.testing.assert_allclose(found / found.max(), inside / inside.max(), atol=1e-5)


def test_the_metrics_are_named_apart() -> None:
    for name, metric in seewhy.metrics.METRICS.items():
        assert metric.name == name
        assert metric.title
        assert metric.paper
        assert isinstance(metric.higher_is_better, bool)
        assert metric.__doc__


def test_options_that_no_metric_has_are_one_line() -> None:
    with pytest.raises(InputError, match="deletion has no option 'stepp'; did you mean 'step'"):
        seewhy.metrics.Deletion(stepp=3)
    for wrong in ({"seed": "today"}, {"seed": 1.5}, {"leave_out": "empty"}):
        for kind in (seewhy.metrics.Sparsity, seewhy.metrics.PointingGame):
            with pytest.raises(ArgumentTypeError, match=f"{next(iter(wrong))}="):
                kind(**wrong)
    assert seewhy.metrics.Sparsity(compute_on_cpu=True).passes(100) == 0


def test_an_average_drop_of_logits_has_no_upper_limit() -> None:
    by_logit = seewhy.metrics.AverageDrop(output="logit")._limits()
    assert by_logit == (0.0, float("inf"))
    assert seewhy.metrics.AverageDrop()._limits() == (0.0, 1.0)
