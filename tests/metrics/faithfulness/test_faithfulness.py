"""Faithfulness against the official evaluation, slow loops, dense solves, closed forms and captum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import captum.metrics
import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

import seewhy
from seewhy.engine.masking import Running
from seewhy.engine.targets.classes import Margin
from seewhy.errors import InputError, TargetError
from seewhy.methods.catalog import METHODS
from seewhy.metrics import MetricResult, chance_maps
from seewhy.metrics.catalog import METRICS
from seewhy.metrics.faithfulness.curves import (
    AverageDrop,
    AverageIncrease,
    ConfidenceDrop,
    Deletion,
    Insertion,
    PixelFlipping,
    pixel_ranks,
    region_labels,
)
from seewhy.metrics.faithfulness.imputing import NEIGHBORS, impute
from seewhy.metrics.faithfulness.road import ROAD, ROADLeRF, ROADMoRF, removed
from seewhy.metrics.faithfulness.subsets import Infidelity, SensitivityN, SubsetMasks
from seewhy.metrics.metric import image_generator
from tiny_models import Called, ModelState, TinyCNN, pictures, randomised

FAST: dict[str, dict[str, Any]] = {
    "insertion": {"step": 100},
    "deletion": {"step": 100},
    "pixel_flipping": {"regions": 5},
    "infidelity": {"samples": 10},
    "sensitivity_n": {"samples": 5, "sizes": (0.1, 0.5)},
    "max_sensitivity": {"method": "saliency", "samples": 2},
    "randomization": {"method": "saliency", "side": 16},
    "parameter_randomization": {"method": "saliency", "layers": ["fc", "conv2"]},
    **{name: {"shares": (0.2, 0.6)} for name in ("road", "road_morf", "road_lerf")},
}


def made(name: str, **options: Any) -> Any:
    return METRICS[name](**{**FAST.get(name, {}), **options})


def result_of(metric: Any, *arguments: Any, **also: Any) -> MetricResult:
    metric.update(*arguments, **also)
    found = metric.compute()
    assert isinstance(found, MetricResult)
    return found


def linear(weights: Tensor, *, bias: float = 0.0) -> nn.Module:
    """A model with one class, whose score is the sum of weights (C, H, W) times x."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weights.numel(), 1))
    with torch.no_grad():
        net[1].weight.copy_(weights.reshape(1, -1))
        net[1].bias.fill_(bias)
    return net


# insertion and deletion


def official_run(
    net: nn.Module, image: Tensor, explanation: np.ndarray, mode: str, step: int
) -> Any:
    """RISE's evaluation.py: one image (1, 3, H, W), the softmax of its first answer, one step a run."""
    pixels = explanation.size
    salient = np.flip(np.argsort(explanation.reshape(-1)))
    inp = np.zeros((11, 11))
    inp[5, 5] = 1
    kernel = np.zeros((3, 3, 11, 11))
    for channel in range(3):
        kernel[channel, channel] = gaussian_filter(inp, 5)
    blurred = nn.functional.conv2d(image, torch.from_numpy(kernel).float(), padding=5)
    start, finish = (
        (image.clone(), torch.zeros_like(image)) if mode == "del" else (blurred, image.clone())
    )
    with torch.no_grad():
        best = int(net(image).argmax())
        steps = (pixels + step - 1) // step
        scores = np.empty(steps + 1)
        for i in range(steps + 1):
            scores[i] = net(start).softmax(1)[0, best]
            if i < steps:
                coords = torch.from_numpy(salient[step * i : step * (i + 1)].copy())
                start.view(3, -1)[:, coords] = finish.view(3, -1)[:, coords]
    return scores, (scores.sum() - scores[0] / 2 - scores[-1] / 2) / steps


@pytest.mark.parametrize(("mode", "metric"), [("del", Deletion), ("ins", Insertion)])
@pytest.mark.parametrize("step", [37, 64])
def test_insertion_and_deletion_equal_the_official_evaluation(
    mode: str, metric: Any, step: int
) -> None:
    net, x = randomised(TinyCNN()), pictures(3, (20, 24))
    maps = torch.randn(3, 20, 24)
    found = result_of(metric(step=step), maps, net, x)
    for i in range(3):
        curve, auc = official_run(net, x[i : i + 1], maps[i].numpy(), mode, step)
        np.testing.assert_allclose(found.curves[i], curve, atol=1e-6)
        assert found.values[i] == pytest.approx(auc, abs=1e-6)
    assert found.settings["output"] == "probability"
    assert found.settings["step"] == step
    assert metric().step == 224


def test_the_area_under_a_planted_patch_in_closed_form() -> None:
    # the score is the mean of a patch of 16 among 256 pixels of one: a ramp over 16 / 256, then nothing
    weights = torch.zeros(1, 16, 16)
    weights[:, 4:8, 8:12] = 1 / 16
    net, x = linear(weights), torch.ones(1, 1, 16, 16)
    maps = weights + 1e-3 * torch.rand(1, 16, 16)
    deleted = result_of(Deletion(step=4, output="logit"), maps, net, x, 0)
    inserted = result_of(Insertion(step=4, output="logit", baseline="zeros"), maps, net, x, 0)
    ramp = 16 / 256 / 2
    assert deleted.mean == pytest.approx(ramp, abs=1e-6)
    assert inserted.mean == pytest.approx(1 - ramp, abs=1e-6)
    np.testing.assert_allclose(deleted.curves[0][:6], [1, 0.75, 0.5, 0.25, 0, 0], atol=1e-6)
    assert len(deleted.curves[0]) == 65
    low = result_of(Deletion(step=4, output="logit"), 1 - maps, net, x, 0)  # the patch goes last
    assert low.mean == pytest.approx(1 - ramp, abs=1e-6)


def test_a_coarse_map_is_resized_and_a_last_step_is_short() -> None:
    net, x = randomised(TinyCNN()), pictures(2, (20, 24))
    coarse = torch.rand(2, 5, 6)
    fine = seewhy.maps.resize(coarse, (20, 24))
    a, b = (result_of(Deletion(step=100), maps, net, x) for maps in (coarse, fine))
    np.testing.assert_array_equal(a.values, b.values)
    assert [len(curve) for curve in a.curves] == [6, 6]
    grey = net(torch.zeros(1, 3, 20, 24)).softmax(1)[0, net(x).argmax(1)]
    np.testing.assert_allclose([curve[-1] for curve in a.curves], grey.detach(), atol=1e-6)


def test_ties_go_in_an_order_that_is_drawn_for_the_image() -> None:
    x = pictures(2, 16)
    maps = torch.zeros(2, 16, 16)
    maps[:, 3, 5] = 1
    ranks = pixel_ranks(maps, x, 0)
    assert (ranks[:, 3, 5] == 0).all()
    for rank in ranks:
        assert sorted(rank.flatten().tolist()) == list(range(256))
        assert abs(float(np.corrcoef(rank.flatten(), np.arange(256))[0, 1])) < 0.2  # not row by row
    assert not torch.equal(ranks[0], ranks[1])
    assert torch.equal(pixel_ranks(maps[1:], x[1:], 0)[0], ranks[1])
    assert not torch.equal(pixel_ranks(maps, x, 1), ranks)


def test_probability_and_logit_are_said() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    maps = torch.rand(1, 8, 8)
    logits, chances = (
        result_of(Deletion(step=512, output=o), maps, net, x, 2) for o in ("logit", "probability")
    )
    with torch.no_grad():
        assert logits.curves[0][0] == pytest.approx(float(net(x)[0, 2]), abs=1e-5)
        assert chances.curves[0][0] == pytest.approx(float(net(x).softmax(1)[0, 2]), abs=1e-6)
    margin = result_of(Deletion(step=512, output="logit"), maps, net, x, Margin(1, 2))
    with torch.no_grad():
        assert margin.curves[0][0] == pytest.approx(float(net(x)[0, 1] - net(x)[0, 2]), abs=1e-5)
    with pytest.raises(TargetError, match="output='logit'"):
        Deletion().update(maps, net, x, Margin(1, 2))
    with pytest.raises(InputError, match="output='prob'"):
        Deletion(output="prob")  # type: ignore[arg-type]


# pixel-flipping


def test_pixel_flipping_equals_a_slow_loop() -> None:
    net, x = randomised(TinyCNN()), pictures(2, (20, 26))
    maps = torch.randn(2, 20, 26)
    found = result_of(PixelFlipping(region=6, regions=9, baseline="mean"), maps, net, x, [1, 3])
    for i, target in enumerate((1, 3)):
        picture, fill = x[i].clone(), x[i].mean((1, 2))
        boxes = [(r, c) for r in range(0, 20, 6) for c in range(0, 26, 6)]
        boxes.sort(key=lambda box: -float(maps[i, box[0] : box[0] + 6, box[1] : box[1] + 6].mean()))
        scores = []
        with torch.no_grad():
            for k in range(10):
                scores.append(float(net(picture[None]).softmax(1)[0, target]))
                row, column = boxes[k]
                picture[:, row : row + 6, column : column + 6] = fill[:, None, None]
        np.testing.assert_allclose(found.curves[i], scores, atol=1e-6)
        aopc = sum(scores[0] - score for score in scores) / 10
        assert found.values[i] == pytest.approx(aopc, abs=1e-6)


def test_pixel_flipping_stops_where_regions_end() -> None:
    net, x = randomised(TinyCNN()), pictures(1, 16)
    found = result_of(PixelFlipping(region=8, regions=100), torch.rand(1, 4, 4), net, x)
    assert len(found.curves[0]) == 5
    assert region_labels((3, 5), 2).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    with pytest.raises(InputError, match="region=0"):
        PixelFlipping(region=0)


def test_pixel_flipping_with_regions_of_one_pixel_is_deletion() -> None:
    net, x = randomised(TinyCNN()), pictures(1, 12)
    maps = torch.randn(1, 12, 12)
    flipped = result_of(PixelFlipping(region=1, regions=144, baseline="zeros"), maps, net, x)
    deleted = result_of(Deletion(step=1), maps, net, x)
    np.testing.assert_allclose(flipped.curves[0], deleted.curves[0], atol=1e-6)


# the map as a mask


def test_drops_and_increases_in_closed_form() -> None:
    # f = 1 + mean(w x) over ones: Y = 1 + mean w, and under the heatmap O = 1 + mean w h
    heat = torch.rand(4, 16, 16)
    heat /= heat.amax((1, 2), keepdim=True)
    weights = torch.tensor([1.0]).view(1, 1, 1).expand(1, 16, 16) / 256
    net, x = linear(weights, bias=1.0), torch.ones(4, 1, 16, 16)
    means = heat.mean((1, 2)).double().numpy()
    drop = result_of(AverageDrop(output="logit"), 7 * heat, net, x, 0)
    np.testing.assert_allclose(drop.values, (1 - means) / 2, atol=1e-6)
    np.testing.assert_allclose(
        result_of(ConfidenceDrop(output="logit"), heat, net, x, 0).values, 1 - means, atol=1e-6
    )
    none = result_of(AverageIncrease(output="logit"), heat, net, x, 0)
    assert none.values.tolist() == [0] * 4
    assert none.interval == "wilson"
    assert none.low == 0
    assert none.high > 0.4
    against = linear(-weights / 2, bias=1.0)  # hiding anything raises it
    assert result_of(AverageIncrease(output="logit"), heat, against, x, 0).mean == 1
    assert result_of(AverageDrop(output="logit"), heat, against, x, 0).mean == 0
    rises = result_of(ConfidenceDrop(output="logit"), heat, against, x, 0)
    np.testing.assert_allclose(rises.values, (means - 1) / 2, atol=1e-6)


def test_drops_follow_the_probability_of_the_masked_image() -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    maps = torch.randn(3, 32, 32)
    heat = maps.clamp(min=0) / maps.amax((1, 2), keepdim=True)
    with torch.no_grad():
        best = net(x).argmax(1)
        whole, shown = (
            net(p).softmax(1)[torch.arange(3), best].double() for p in (x, x * heat[:, None])
        )
    drop = result_of(AverageDrop(), maps, net, x)
    np.testing.assert_allclose(drop.values, ((whole - shown).clamp(min=0) / whole), atol=1e-6)
    np.testing.assert_allclose(
        result_of(ConfidenceDrop(), maps, net, x).values, whole - shown, atol=1e-6
    )
    np.testing.assert_array_equal(
        result_of(AverageIncrease(), maps, net, x).values, (whole < shown).double()
    )


def test_where_labels_are_many_the_probability_is_a_sigmoid() -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    maps, model = torch.randn(3, 32, 32), seewhy.wrap(net, multi_label=True)
    heat = maps.clamp(min=0) / maps.amax((1, 2), keepdim=True)
    with torch.no_grad():
        whole, shown = (net(p).sigmoid()[:, 2].double() for p in (x, x * heat[:, None]))
        best = net(x).amax(1).sigmoid().double()
    np.testing.assert_allclose(
        result_of(ConfidenceDrop(), maps, model, x, 2).values, whole - shown, atol=1e-6
    )
    followed = result_of(ConfidenceDrop(output="logit"), maps, model, x, "probability:2")
    np.testing.assert_allclose(followed.values, whole - shown, atol=1e-6)
    curves = result_of(Deletion(step=100), maps, model, x, "probability:top1").curves
    np.testing.assert_allclose([curve[0] for curve in curves], best, atol=1e-6)


def test_keep_shows_exactly_so_many_pixels() -> None:
    x, maps = torch.ones(2, 1, 16, 16), torch.rand(2, 16, 16)
    net = linear(torch.full((1, 16, 16), 1 / 256))
    kept = result_of(ConfidenceDrop(keep=0.25, output="logit"), maps, net, x, 0)
    np.testing.assert_allclose(kept.values, [0.75, 0.75], atol=1e-6)
    with pytest.raises(InputError, match="is no share"):
        AverageDrop(keep=1.5)


def test_a_drop_from_nothing_is_undefined() -> None:
    net, x = linear(torch.ones(1, 4, 4)), torch.zeros(2, 1, 4, 4)
    x[1] = 1
    found = result_of(AverageDrop(output="logit"), torch.rand(2, 4, 4), net, x, 0)
    assert found.status == ("undefined", "ok")
    assert found.n == 1


# ROAD


def dense_solve(image: Tensor, kept: Tensor) -> np.ndarray:
    """Every removed pixel is the weighted mean of the neighbours that exist, by one dense system."""
    channels, height, width = image.shape
    matrix, right = np.eye(height * width), image.reshape(channels, -1).double().numpy().T.copy()
    for row in range(height):
        for column in range(width):
            if kept[row, column]:
                continue
            here = row * width + column
            near = {
                (row + r) * width + column + c: 1 / 6 if 0 in (r, c) else 1 / 12
                for r in (-1, 0, 1)
                for c in (-1, 0, 1)
                if (r, c) != (0, 0) and 0 <= row + r < height and 0 <= column + c < width
            }
            right[here] = 0
            for there, weight in near.items():
                matrix[here, there] = -weight / sum(near.values())
    return np.linalg.solve(matrix, right).T.reshape(image.shape)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_imputation_equals_a_dense_solve_and_the_peers(share: float) -> None:
    image, kept = pictures(1, (13, 17))[0], torch.rand(13, 17) >= share
    kept[6, 8] = True
    found = impute(image, kept)
    np.testing.assert_allclose(found, dense_solve(image, kept), atol=1e-5)
    assert torch.equal(found[:, kept], image[:, kept])
    theirs = NoisyLinearImputer(noise=0.0)(image, kept.float())
    np.testing.assert_allclose(found, theirs, atol=1e-4)


def test_imputation_at_its_ends() -> None:
    image = pictures(1, 8)[0]
    assert torch.equal(impute(image, torch.ones(8, 8, dtype=torch.bool)), image)
    single = torch.zeros(8, 8, dtype=torch.bool)
    single[2, 3] = True
    np.testing.assert_allclose(
        impute(image, single), image[:, 2:3, 3:4].expand(-1, 8, 8), atol=1e-5
    )
    with pytest.raises(InputError, match="keep at least one"):
        impute(image, ~torch.ones(8, 8, dtype=torch.bool))
    assert sum(NEIGHBORS.values()) == pytest.approx(1)


@pytest.mark.parametrize(("metric", "first"), [(ROADMoRF, True), (ROADLeRF, False)])
def test_road_removes_exact_counts_of_a_map_that_is_almost_all_zero(
    metric: Any, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = randomised(TinyCNN()), pictures(1, 32)
    relevant = torch.rand(1, 32, 32).flatten().argsort()[: round(0.03 * 1024)]
    maps = torch.zeros(1, 32, 32)
    maps.view(-1)[relevant] = 1 + torch.rand(len(relevant))
    seen: list[Tensor] = []
    monkeypatch.setattr(
        "seewhy.metrics.faithfulness.road.impute", lambda image, kept: seen.append(kept) or image
    )
    result_of(metric(), maps, net, x)
    assert [int((~kept).sum()) for kept in seen] == [
        round(share / 10 * 1024) for share in range(1, 10)
    ]
    for kept in seen:
        assert bool(kept.view(-1)[relevant].any()) is not first
    assert bool(seen[-1].view(-1)[relevant].all()) is not first
    assert removed(0.999, 100) == 99


def test_road_is_the_score_of_imputed_pictures() -> None:
    net, x = randomised(TinyCNN()), pictures(2, 16)
    maps = torch.randn(2, 16, 16)
    options: dict[str, Any] = {"shares": (0.3, 0.7), "noise": 0.0}
    morf, lerf, both = (
        result_of(m(**options), maps, net, x, 1) for m in (ROADMoRF, ROADLeRF, ROAD)
    )
    ranks = pixel_ranks(maps, x, 0)
    for i in range(2):
        for j, share in enumerate((0.3, 0.7)):
            count = round(share * 256)
            for found, kept in ((morf, ranks[i] >= count), (lerf, ranks[i] < 256 - count)):
                picture = torch.from_numpy(dense_solve(x[i], kept)).float()[None]
                with torch.no_grad():
                    assert found.curves[i][j] == pytest.approx(
                        float(net(picture).softmax(1)[0, 1]), abs=1e-5
                    )
    np.testing.assert_allclose(both.values, (lerf.values - morf.values) / 2, atol=1e-9)
    np.testing.assert_allclose(morf.positions[0], [0.3, 0.7])
    assert (ROADMoRF.higher_is_better, ROADLeRF.higher_is_better, ROAD.higher_is_better) == (
        False,
        True,
        True,
    )
    noisy = result_of(ROADMoRF(shares=(0.3, 0.7), noise=0.5), maps, net, x, 1)
    assert np.abs(noisy.values - morf.values).min() > 1e-6
    with pytest.raises(InputError, match="rising"):
        ROAD(shares=(0.5, 0.2))


# infidelity and sensitivity-n


def test_infidelity_is_zero_for_the_gradient_of_a_linear_model() -> None:
    weights = torch.randn(3, 12, 12)
    net, x = linear(weights, bias=2.0), pictures(2, 12)
    gradients = weights.expand(2, -1, -1, -1)
    for normalize in (True, False):
        for baseline in ("zeros", "noise"):
            options: dict[str, Any] = {
                "normalize": normalize,
                "baseline": baseline,
                "maps_are": "gradients",
            }
            assert result_of(Infidelity(**options), gradients, net, x, 0).values.max() < 1e-8
    contributions = (weights * x).sum(1)
    exact = result_of(Infidelity(normalize=False), contributions, net, x, 0)
    assert exact.values.max() < 1e-8
    scaled = result_of(Infidelity(), 100 * contributions, net, x, 0)  # scale does not count
    assert scaled.values.max() < 1e-8
    assert result_of(Infidelity(normalize=False), 100 * contributions, net, x, 0).values.min() > 1
    assert result_of(Infidelity(), contributions.flip(1), net, x, 0).values.min() > 1e-3


@pytest.mark.parametrize("normalize", [True, False])
def test_infidelity_equals_captums_on_the_same_squares(normalize: bool) -> None:
    net, x, n = randomised(TinyCNN()), pictures(3, 16), 20
    gradients = METHODS["saliency"](net, x, [0, 1, 2], channels=True)
    metric = Infidelity(samples=n, normalize=normalize, maps_are="gradients")
    found = result_of(metric, gradients, net, x, [0, 1, 2])
    hidden = torch.cat([1 - metric._squares(image).render(0, n, x.device) for image in x])[:, None]

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        change = hidden * inputs
        return change, inputs - change

    expected = captum.metrics.infidelity(
        net,
        perturb,
        x,
        gradients,
        target=torch.tensor([0, 1, 2]),
        n_perturb_samples=n,
        normalize=normalize,
    )
    np.testing.assert_allclose(found.values, expected.detach().numpy(), rtol=1e-3, atol=1e-9)


def test_squares_lie_in_the_picture_and_everywhere() -> None:
    image = pictures(1, (20, 30))[0]
    boxes = Infidelity(samples=400, sides=(0.1, 0.5))._squares(image).boxes
    assert boxes.min() == 0
    assert boxes[:, 2].max() == 30
    assert boxes[:, 3].max() == 20
    sides = boxes[:, 2] - boxes[:, 0]
    assert torch.equal(sides, boxes[:, 3] - boxes[:, 1])
    assert sorted(set(sides.tolist())) == [2, 10]
    assert 0.4 < float((sides == 2).float().mean()) < 0.6


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (20, 12)])
@pytest.mark.parametrize("coarse", [(4, 4), (2, 5), (5, 2), (24, 40)])
def test_resizing_keeps_the_sum_of_a_map(size: tuple[int, int], coarse: tuple[int, int]) -> None:
    net, x = linear(torch.ones(1, *size)), torch.ones(1, 1, *size)
    share = size[0] * size[1] / (coarse[0] * coarse[1])  # what each place stands for
    metric = Infidelity(normalize=False, leave_out=())
    assert result_of(metric, torch.full((1, *coarse), share), net, x, 0).mean < 1e-8


@pytest.mark.parametrize("metric", [Infidelity(samples=4), SensitivityN(sizes=(0.5,), samples=4)])
def test_maps_that_are_below_zero_everywhere_add_up_too(metric: Any) -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    found = result_of(metric, -torch.rand(2, *x.shape[2:]) - 0.1, net, x, 1)
    assert (found.n, dict(found.left_out)) == (2, {})


def test_maps_that_are_below_zero_everywhere_rank_nothing() -> None:
    net, x, metric = randomised(TinyCNN()), pictures(2), Deletion(step=200)
    metric.update(-torch.rand(2, *x.shape[2:]) - 0.1, net, x, 1)
    metric.update(torch.rand(2, *x.shape[2:]), net, x, 1)
    found = metric.compute()
    assert (found.n, found.left_out) == (2, {"empty": 2})


def test_sensitivity_n_is_one_for_input_x_gradient_of_a_linear_model() -> None:
    weights = torch.randn(3, 12, 12)
    net, x = linear(weights, bias=2.0), pictures(2, 12)
    maps = METHODS["input_x_gradient"](net, x, 0)
    for region in (1, 5):
        found = result_of(SensitivityN(samples=20, region=region), maps, net, x, 0)
        for curve in found.curves:
            np.testing.assert_allclose(curve, np.ones(8), atol=1e-6)
    opposite = result_of(SensitivityN(samples=20), -maps, net, x, 0)
    np.testing.assert_allclose(opposite.values, [-1, -1], atol=1e-6)
    gradients = METHODS["saliency"](net, x, 0, channels=True)
    assert result_of(
        SensitivityN(samples=20, maps_are="gradients"), gradients, net, x, 0
    ).mean == pytest.approx(1)


def test_sensitivity_n_equals_a_slow_loop() -> None:
    net, x = randomised(TinyCNN()), pictures(1, 12)
    maps = torch.randn(1, 12, 12)
    metric = SensitivityN(samples=6, sizes=(0.1, 0.5), region=2)
    found = result_of(metric, maps, net, x, 3)
    labels = region_labels((12, 12), 2)
    masks = SubsetMasks(labels, [4] * 6 + [18] * 6, seewhy.masking.image_seed(x[0], 0))
    said, lost = [], []
    with torch.no_grad():
        for i in range(12):
            kept = masks.render(i, i + 1, x.device)[0]
            assert len(labels[kept == 0].unique()) == (4 if i < 6 else 18)
            said.append(float(maps[0][kept == 0].sum()))
            lost.append(float(net(x)[0, 3] - net(x * kept)[0, 3]))
    expected = [np.corrcoef(said[a : a + 6], lost[a : a + 6])[0, 1] for a in (0, 6)]
    np.testing.assert_allclose(found.curves[0], expected, atol=1e-4)
    assert found.values[0] == pytest.approx(np.mean(expected), abs=1e-4)
    constant = result_of(SensitivityN(samples=5, sizes=(0.2,)), torch.ones(1, 12, 12), net, x, 3)
    assert constant.status == ("undefined",)


def test_options_that_make_no_sense_are_told() -> None:
    x = pictures(1, 8)
    cases: list[tuple[str, Callable[[], Any]]] = [
        ("step=0", lambda: Deletion(step=0)),
        ("samples=0", lambda: Infidelity(samples=0)),
        ("samples=2", lambda: SensitivityN(samples=2)),
        ("maps_are='heat'", lambda: Infidelity(maps_are="heat")),  # type: ignore[arg-type]
        ("not several", lambda: SensitivityN(baseline=["zeros", "mean"])),
        ("noise=-1", lambda: ROAD(noise=-1)),
        (
            "are no gradients",
            lambda: Infidelity(maps_are="gradients").update(torch.rand(1, 8, 8), net, x),
        ),
        (r"\(N, h, w\) or \(N, C, H, W\)", lambda: Infidelity().update(torch.rand(8, 8), net, x)),
        ("did you mean 'deletion'", lambda: seewhy.metrics.find_metric("deletoin")),
    ]
    net = randomised(TinyCNN())
    for said, call in cases:
        with pytest.raises(InputError, match=said):
            call()
    assert seewhy.metrics.find_metric("road").name == "road"


# what holds for all of them


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_of_a_batch_is_that_of_its_images(name: str) -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    before = ModelState(net)
    maps = METHODS["saliency"](net, x, 1)
    whole = result_of(made(name), maps, net, x, 1)
    before.assert_unchanged()
    assert whole.n == 3
    assert whole.metric == name
    assert whole.low <= whole.mean <= whole.high
    parts, merged = made(name), made(name)
    parts.update(maps[:1], net, x[:1], 1)
    merged.update(maps[1:], net, x[1:], 1)
    parts.merge_state(merged)
    found = parts.compute()
    np.testing.assert_allclose(np.sort(found.values), np.sort(whole.values), atol=2e-5)
    if whole.curves:
        assert len(whole.curves) == len(whole.positions) == 3
        at, mean = whole.mean_curve()
        np.testing.assert_allclose(mean, np.mean(whole.curves, axis=0))
        np.testing.assert_array_equal(at, whole.positions[0])
        assert at.min() >= 0
        assert at.max() <= 1
        assert all(whole.settings)
        assert METRICS[name].axes[0]
    with torch.inference_mode():
        again = result_of(made(name), maps, net, x, 1)
    np.testing.assert_allclose(again.values, whole.values, atol=2e-5)


@pytest.mark.parametrize("name", METRICS)
def test_maps_that_cannot_be_judged_do_not_stop_the_others(name: str) -> None:
    net, x = randomised(TinyCNN()), pictures(4)
    good = METHODS["saliency"](net, x, 1)
    maps = good.clone()
    maps[1], maps[2, 3, 4] = 0, math.nan
    found = result_of(made(name), maps, net, x, 1)
    alone = result_of(made(name), good[[0, 3]], net, x[[0, 3]], 1)
    assert found.status == ("ok", "empty", "non_finite", "ok")
    assert found.left_out == {"empty": 1, "non_finite": 1}
    np.testing.assert_allclose(found.values[[0, 3]], alone.values, atol=2e-5)
    assert found.mean == pytest.approx(alone.mean, abs=2e-5)


UPRIGHT: dict[str, dict[str, Any]] = {
    "insertion": {"step": 10},
    "deletion": {"step": 7},
    "pixel_flipping": {"region": 3, "regions": 9, "baseline": "mean"},
    "average_drop": {"keep": 0.3},
    "confidence_drop": {},
    "road": {"shares": (0.2, 0.6), "noise": 0.0},
    "complexity": {},
    "sparsity": {},
}


@pytest.mark.parametrize("resized", [False, True])
@pytest.mark.parametrize("name", UPRIGHT)
def test_a_picture_on_its_side_has_the_same_value(name: str, resized: bool) -> None:
    net, x = randomised(TinyCNN()), pictures(2, (12, 18))
    lying = Called(lambda turned: net(turned.mT))
    maps = torch.rand(2, *((6, 9) if resized else (12, 18)))
    upright = result_of(METRICS[name](**UPRIGHT[name]), maps, net, x, 1)
    turned = result_of(METRICS[name](**UPRIGHT[name]), maps.mT, lying, x.mT.contiguous(), 1)
    assert np.isfinite(upright.values).all()
    np.testing.assert_allclose(upright.values, turned.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["infidelity", "sensitivity_n"])
@pytest.mark.parametrize("size", [(12, 18), (18, 12)])
def test_maps_of_pictures_that_are_no_squares_add_up(name: str, size: tuple[int, int]) -> None:
    weights = torch.randn(3, *size)
    net, x = linear(weights), pictures(2, size)
    perfect = {"infidelity": 0.0, "sensitivity_n": 1.0}[name]
    found = result_of(made(name), (weights * x).sum(1), net, x, 0)
    np.testing.assert_allclose(found.values, perfect, atol=1e-6)
    gradients = weights.expand(2, -1, -1, -1)
    found = result_of(made(name, maps_are="gradients"), gradients, net, x, 0)
    np.testing.assert_allclose(found.values, perfect, atol=1e-6)


@pytest.mark.parametrize("size", [(12, 18), (18, 12)])
def test_squares_may_lie_anywhere_in_a_picture_that_is_none(size: tuple[int, int]) -> None:
    masks = Infidelity(samples=400, sides=(0.5, 1 / 12))._squares(pictures(1, size)[0])
    left, top, right, bottom = masks.boxes.T
    assert set((right - left).tolist()) == set((bottom - top).tolist()) == {1, 6}
    assert (int(left.min()), int(right.max())) == (0, size[1])
    assert (int(top.min()), int(bottom.max())) == (0, size[0])


@pytest.mark.parametrize("name", ["deletion", "average_drop", "complexity", "sparsity"])
def test_places_that_are_not_finite_count_as_none_where_such_maps_are_kept(name: str) -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    maps = METHODS["saliency"](net, x, 1)
    torn, zeros = maps.clone(), maps.clone()
    for i, value in enumerate((math.nan, math.inf, -math.inf)):
        torn[i, 3:9, 4], zeros[i, 3:9, 4] = value, 0.0
    found = result_of(made(name, leave_out=()), torn, net, x, 1)
    assert found.status == ("non_finite",) * 3
    expected = result_of(made(name, leave_out=()), zeros, net, x, 1)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)


@pytest.mark.parametrize("name", ["deletion", "pixel_flipping", "road", "average_drop"])
def test_constant_maps_are_left_out_unless_they_are_the_baseline(name: str) -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    uniform = chance_maps(x)["uniform"]
    assert result_of(made(name), uniform, net, x).status == ("constant", "constant")
    kept = made(name).for_method(None, leave_out=["non_finite"])
    found = result_of(kept, uniform, net, x)
    assert found.n == 2
    assert found.status == ("constant", "constant")
    if name == "average_drop":  # it shows all of the image
        np.testing.assert_allclose(found.values, [0, 0], atol=1e-6)


def test_curves_of_pictures_of_different_sizes_merge() -> None:
    net = randomised(TinyCNN())
    metric = Deletion(step=100)
    for size in (16, 32):
        metric.update(torch.rand(1, 4, 4), net, pictures(1, size), 1)
    found = metric.compute()
    assert [len(curve) for curve in found.curves] == [4, 12]
    at, mean = found.mean_curve()
    assert len(at) == len(mean) == 12
    assert mean[0] == pytest.approx((found.curves[0][0] + found.curves[1][0]) / 2)


def test_the_batch_of_masked_images_does_not_count_and_black_boxes_do() -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    maps = torch.rand(3, 8, 8)
    usual = result_of(Insertion(step=100), maps, net, x)
    for size in (1, 7, 64):
        found = result_of(Insertion(step=100, running=Running(batch_size=size)), maps, net, x)
        np.testing.assert_allclose(found.values, usual.values, atol=1e-6)

    def service(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            return net(pictures)

    for name in ("insertion", "road", "average_drop", "infidelity"):
        black, white = (result_of(made(name), maps, model, x) for model in (Called(service), net))
        np.testing.assert_allclose(black.values, white.values, atol=1e-6)


def test_better_maps_score_better() -> None:
    # a model that sees one patch alone: the map of the patch against chance
    weights = torch.zeros(1, 24, 24)
    weights[:, 6:12, 14:20] = 1 / 36
    net, x = linear(weights), 1 + 0.1 * torch.rand(4, 1, 24, 24)
    maps = weights.expand(4, -1, -1) + 1e-4 * torch.rand(4, 24, 24)
    for name in (
        "insertion",
        "deletion",
        "pixel_flipping",
        "sensitivity_n",
        "infidelity",
        "average_drop",
    ):
        options = {"output": "logit", **({"baseline": "zeros"} if name != "infidelity" else {})}
        ours = result_of(made(name, **options), maps, net, x, 0)
        for chance in chance_maps(x).values():
            metric = made(name, **options).for_method(None, leave_out=["non_finite"])
            theirs = result_of(metric, chance, net, x, 0)
            if math.isnan(theirs.mean) or (name == "average_drop" and (chance == 1).all()):
                continue  # the uniform map hides nothing
            assert (ours.mean > theirs.mean) is ours.higher_is_better


def test_removed_pixels_have_the_noise_that_was_drawn_for_the_image() -> None:
    x, seen = pictures(1, 8), list[Tensor]()
    net = Called(lambda x: seen.append(x) or x.mean((2, 3)))
    maps = torch.arange(64.0).view(1, 8, 8)
    last = []
    for noise in (0.0, 0.5):
        ROADMoRF(shares=(0.25,), noise=noise, seed=3, output="logit").update(maps, net, x, 0)
        last.append(seen[-1])
    drawn = torch.randn(3, 8, 8, generator=image_generator(x[0], 3))
    expected = 0.5 * drawn * (maps >= 48)
    torch.testing.assert_close(last[1] - last[0], expected[None], rtol=1e-4, atol=1e-5)
