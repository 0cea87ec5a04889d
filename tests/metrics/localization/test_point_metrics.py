"""Pointing, locations and mosaics against loops over pixels, closed forms and planted truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from localization_oracles import blobs, pointing_hit, ranked_ap, true_boxes
from seewhy.data.truth import Truth
from seewhy.errors import InputError
from seewhy.metrics import (
    EnergyPointing,
    Focus,
    GridPointing,
    LocationAveragePrecision,
    MaxBoxAccuracy,
    MetricResult,
    PixelAveragePrecision,
    PointingGame,
    SegmentationIoU,
    chance_maps,
    focus_mosaics,
    grid_mosaics,
)
from seewhy.metrics.intervals import percentiles, resampling_weights, wilson
from tiny_models import pictures


def result_of(metric: Any, *arguments: Any, **also: Any) -> MetricResult:
    metric.update(*arguments, **also)
    found = metric.compute()
    assert isinstance(found, MetricResult)
    return found


def dot(x: int, y: int, size: tuple[int, int] = (40, 60)) -> torch.Tensor:
    made = torch.zeros(size)
    made[y, x] = 1
    return made


def boxed(*boxes: tuple[float, ...], labels: Any = None, **also: Any) -> Truth:
    return Truth((40, 60), torch.tensor(boxes), torch.tensor(labels or [0] * len(boxes)), **also)


# pointing


@pytest.mark.parametrize("tolerance", [1, 2.5, 5, 15])
def test_pointing_equals_torchray_s_rule(tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(12, 14, 19, generator=generator)
    maps[::3] = (maps[::3] * 3).round()  # with ties
    masks = torch.rand(12, 14, 19, generator=generator) < (0.02 if tolerance < 5 else 0.01)
    masks[:, 7, 9] = True
    found = result_of(PointingGame(tolerance=tolerance), maps, masks)
    expected = [
        pointing_hit(m.numpy(), mask.numpy(), tolerance)
        for m, mask in zip(maps, masks, strict=True)
    ]
    assert found.values.tolist() == expected
    if tolerance < 15:
        assert 0 < sum(expected) < 12


def test_the_radius_is_strict() -> None:
    marked = [boxed((30, 10, 40, 20))]
    for x, hit in (
        (30, 1),
        (16, 1),
        (15, 0),
        (53, 1),
        (54, 0),
    ):  # pixels 30 to 39 belong to the box
        assert result_of(PointingGame(), dot(x, 12)[None], marked).mean == hit
    assert result_of(PointingGame(tolerance=1), dot(29, 12)[None], marked).mean == 0
    assert result_of(PointingGame(tolerance=1), dot(30, 10)[None], marked).mean == 1


def test_pointing_averages_over_classes_and_over_the_difficult() -> None:
    small, large, alone = (
        boxed((0, 0, 5, 5), (20, 20, 40, 40), labels=[0, 1]),
        boxed((0, 0, 40, 40), (50, 30, 60, 40), labels=[1, 2]),
        boxed((0, 0, 5, 5), labels=[0]),
    )
    #              hits: class 0: 1 1 0, class 1: 0
    maps = torch.stack([dot(2, 2), dot(3, 3), dot(30, 30), dot(59, 5)])
    found = result_of(PointingGame(), maps, [small, alone, alone, large], labels=[0, 0, 0, 1])
    assert found.values.tolist() == [1, 1, 0, 0]
    assert found.figures["images"].mean == pytest.approx(0.5)
    assert found.mean == found.figures["classes"].mean == pytest.approx(1 / 3)  # of 2 / 3 and 0
    assert (
        found.figures["difficult, images"].mean == 1
    )  # the first alone: small, and not the only class
    averaged = result_of(
        PointingGame(average="images"), maps, [small, alone, alone, large], labels=[0, 0, 0, 1]
    )
    assert averaged.mean == pytest.approx(0.5)
    assert (averaged.low, averaged.high) == pytest.approx(wilson(0.5, 4))
    assert (found.low, found.high) == pytest.approx(wilson(1 / 3, 4 / (1 / 3 + 1)))


@pytest.mark.parametrize(("width", "is_difficult"), [(31, True), (32, False), (33, False)])
def test_an_object_is_difficult_below_a_quarter_of_the_picture(
    width: int, is_difficult: bool
) -> None:
    boxes = torch.tensor([[0, 0, width, 32], [60, 60, 64, 64]])
    truth = Truth((64, 64), boxes, torch.tensor([0, 1]))
    heat = torch.zeros(1, 64, 64)
    heat[0, 2, 2] = 1
    found = result_of(PointingGame(), heat, [truth], labels=[0])
    assert math.isnan(found.figures["difficult, images"].mean) != is_difficult


def test_images_whose_objects_are_all_difficult_are_left_out() -> None:
    hard = boxed((0, 0, 5, 5), difficult=torch.tensor([True]))
    mixed = boxed((0, 0, 5, 5), (30, 30, 40, 40), difficult=torch.tensor([True, False]))
    found = result_of(PointingGame(), torch.stack([dot(2, 2)] * 2), [hard, mixed])
    assert found.n == 1
    assert found.values[1] == 1
    assert math.isnan(found.values[0])
    assert found.left_out == {"no_truth": 1}


# locations


@pytest.mark.parametrize("interpolated", [True, False])
def test_location_ap_equals_a_loop(interpolated: bool) -> None:
    rng = np.random.default_rng(0)
    maps, marked, labels, scores, right, shown = [], [], [], [], [], []
    for i in range(60):
        label = i % 3
        x, y = int(rng.integers(60)), int(rng.integers(40))
        box = (20.0, 10.0, 35.0, 30.0)
        there = bool(rng.random() < 0.6)
        marked.append(boxed(box, (0.0, 0.0, 2.0, 2.0), labels=[label if there else 7, 9]))
        maps.append(dot(x, y))
        labels.append(label)
        scores.append(float(rng.integers(8)))  # with ties
        inside = box[0] - 5 < x + 0.5 < box[2] + 5 and box[1] - 5 < y + 0.5 < box[3] + 5
        right.append(there and inside)
        shown.append(there)
    metric = LocationAveragePrecision(tolerance=5, interpolated=interpolated)
    found = result_of(metric, torch.stack(maps), marked, labels=labels, scores=scores)
    each, named = [], []
    for label in range(3):
        mine = [i for i in range(60) if labels[i] == label]
        of = [scores[i] for i in mine]
        count = sum(shown[i] for i in mine)
        each.append(ranked_ap(of, [right[i] for i in mine], count, interpolated=interpolated))
        named.append(ranked_ap(of, [shown[i] for i in mine], count, interpolated=interpolated))
        assert found.figures[f"class {label}"].mean == pytest.approx(each[-1])
    assert found.mean == pytest.approx(np.mean(each))
    assert found.figures["classification"].mean == pytest.approx(np.mean(named))
    assert found.low < found.mean < found.high
    assert found.n == sum(shown)
    assert found.left_out == {"no_truth": 60 - sum(shown)}


@pytest.mark.parametrize(("x", "right"), [(3, 1), (33, 1), (18, 0)])
def test_a_place_on_one_of_the_objects_of_a_class_is_right(x: int, right: int) -> None:
    truth = boxed((0, 0, 6, 6), (30, 0, 36, 6), labels=[1, 1])
    metric = LocationAveragePrecision(tolerance=2)
    assert result_of(metric, dot(x, 3)[None], [truth], labels=[1], scores=[1]).values == [right]


def test_location_ap_of_planted_maps() -> None:
    marked = [boxed((20, 10, 30, 20), labels=[1])] * 2 + [boxed((20, 10, 30, 20), labels=[2])]
    metric = LocationAveragePrecision()
    # right, 18 pixels beside (right), and a picture without the class that is ranked last
    maps = torch.stack([dot(25, 15), dot(47, 15), dot(25, 15)])
    assert result_of(metric, maps, marked, labels=[1, 1, 1], scores=[2, 1, 0]).mean == 1
    far = torch.stack([dot(25, 15), dot(49, 15), dot(25, 15)])
    wrong = result_of(LocationAveragePrecision(), far, marked, labels=[1, 1, 1], scores=[2, 1, 0])
    assert wrong.mean == pytest.approx(0.5)  # the second object stays unfound
    assert wrong.figures["classification"].mean == 1
    first = result_of(LocationAveragePrecision(), maps, marked, labels=[1, 1, 1], scores=[1, 0, 2])
    assert first.mean == pytest.approx(
        2 / 3
    )  # both wait behind a false positive: 1/2, 2/3, made monotonous


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize(
    ("place", "right"), [(17, False), (18, False), (19, True), (30, True), (31, False), (32, False)]
)
def test_a_place_on_the_border_of_an_enlarged_box_is_outside(
    axis: str, place: int, right: bool
) -> None:
    metric = LocationAveragePrecision(tolerance=0.5)
    box, point = [(19, 5, 31, 9), (place, 6)] if axis == "x" else [(5, 19, 9, 31), (6, place)]
    found = result_of(metric, dot(*point)[None], [boxed(box)], labels=[0], scores=[1.0])
    assert found.values.tolist() == [float(right)]


# mosaics


def test_at_least_one_mosaic() -> None:
    x, _, labels = classified()
    assert len(focus_mosaics(x, labels, count=1)) == 1
    with pytest.raises(InputError, match="count=0 mosaics; give at least 1"):
        focus_mosaics(x, labels, count=0)


def classified(n: int = 24, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, labels = pictures(n, (6, 8)), torch.arange(n) % classes
    return x, 10.0 * torch.nn.functional.one_hot(labels, classes), labels


@pytest.mark.parametrize("n", [2, 3])
def test_grids_hold_different_classes_where_they_say(n: int) -> None:
    x, scores, labels = classified(classes=10)
    made = grid_mosaics(x, scores, n=n, count=15)
    assert made.pictures.shape == (15, 3, 6 * n, 8 * n)
    for picture, truth, members, target in zip(
        made.pictures, made.truths, made.members, made.targets, strict=True
    ):
        assert len(set(truth.labels.tolist())) == n * n
        assert int(target) in truth.labels
        for box, label, member in zip(
            truth.boxes.int().tolist(), truth.labels, members, strict=True
        ):
            assert torch.equal(picture[:, box[1] : box[3], box[0] : box[2]], x[member])
            assert labels[member] == label
    again = grid_mosaics(x, scores, n=n, count=5)
    assert torch.equal(again.members, made.members[:5])
    assert not torch.equal(grid_mosaics(x, scores, n=n, count=5, seed=1).members, again.members)


def test_only_pictures_that_are_surely_right_are_laid() -> None:
    x, scores, labels = classified()
    scores = scores.clone()
    scores[:6] *= 0.1  # unsure
    wrong = labels.clone()
    wrong[6:12] = (wrong[6:12] + 1) % 6
    members = grid_mosaics(x, scores, count=40, labels=wrong).members
    assert members.min() >= 12
    assert grid_mosaics(x, scores, count=40, confidence=0.1).members.min() < 6
    assert len(grid_mosaics(x[:4], 10 * torch.eye(4), count=2)) == 2  # one of each class is enough
    with pytest.raises(InputError, match="3 classes have one"):
        grid_mosaics(x[:3], 10 * torch.eye(3), count=1)
    with pytest.raises(InputError, match="2 classes have one"):
        grid_mosaics(x, scores[:, :2] * 1e3, count=1)


def test_a_picture_with_just_that_confidence_is_laid() -> None:
    x, scores, _ = classified()
    sure = scores.softmax(1).amax(1)
    least = float(sure.min())  # rounding makes them differ
    assert int(sure.argmin()) in grid_mosaics(x, scores, count=99, confidence=least).members
    with pytest.raises(InputError, match="0 classes have one"):
        grid_mosaics(x, scores, count=3, confidence=float(sure.max()) * (1 + 1e-6))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, scores: (x[0], scores),
        lambda x, scores: (x, scores[:, 0]),
        lambda x, scores: (x[1:], scores),
        lambda x, scores: (x, scores[None]),
    ],
)
def test_what_are_no_pictures_with_scores_is_told(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"give \(P, C, H, W\) and \(P, K\)"):
        grid_mosaics(*wrong(*classified()[:2]), count=1)


def test_grid_pointing_is_the_share_in_the_cell() -> None:
    x, scores, _ = classified()
    made = grid_mosaics(x, scores, count=8)
    size = (len(made), *made.pictures.shape[2:])
    cells = torch.stack(
        [t.of(int(c)).region() for t, c in zip(made.truths, made.targets, strict=True)]
    )
    perfect = result_of(GridPointing(), cells.float(), made.truths, labels=made.targets)
    assert perfect.mean == 1
    level = result_of(GridPointing(), torch.ones(size), made.truths, labels=made.targets)
    assert level.mean == level.figures["uniform"].mean == 0.25
    drawn = result_of(
        GridPointing(), chance_maps(made.pictures)["random"], made.truths, labels=made.targets
    )
    assert drawn.mean == pytest.approx(0.25, abs=0.05)
    mixed = cells.float() + 3 * cells.roll(1, 0) * (~cells)
    expected = [float(m[c].sum() / m.sum()) for m, c in zip(mixed, cells, strict=True)]
    np.testing.assert_allclose(
        result_of(GridPointing(), mixed, made.truths, labels=made.targets).values, expected
    )
    coarse = torch.nn.functional.avg_pool2d(cells[:, None].float(), 2)[
        :, 0
    ]  # blurred over the border
    assert 0.7 < result_of(GridPointing(), coarse, made.truths, labels=made.targets).mean < 1


def test_focus_mosaics_hold_two_of_the_class_and_two_others() -> None:
    x, _, labels = classified()
    made = focus_mosaics(x, labels, count=30)
    for members, target in zip(made.members, made.targets, strict=True):
        assert (labels[members] == target).sum() == 2
        assert len(set(members.tolist())) == 4
    places = torch.stack(
        [labels[m] == t for m, t in zip(made.members, made.targets, strict=True)]
    ).sum(0)
    assert (places > 5).all()  # shuffled
    level = result_of(Focus(), torch.ones(30, 12, 16), made.truths, labels=made.targets)
    assert level.mean == 0.5
    assert set(focus_mosaics(x, labels, count=4, target=3).targets.tolist()) == {3}


def test_two_pictures_of_a_class_are_enough_where_two_are_of_others() -> None:
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(-1, 3, 2, 3)
    made = focus_mosaics(x, [7, 7, 2, 5], count=20)
    assert len(made) == 20
    assert set(made.targets.tolist()) == {7}
    for members, picture, truth in zip(made.members, made.pictures, made.truths, strict=True):
        assert sorted(members.tolist()) == [0, 1, 2, 3]
        assert picture.shape == (3, 4, 6)
        assert picture[0, ::2, ::3].flatten().tolist() == members.tolist()
        assert truth.size == (4, 6)
        assert truth.labels.tolist() == [[7, 7, 2, 5][i] for i in members]
        assert truth.boxes.tolist() == [[0, 0, 3, 2], [3, 0, 6, 2], [0, 2, 3, 4], [3, 2, 6, 4]]
    for labels in ([7, 7, 7, 2], [7, 2, 5, 1]):
        with pytest.raises(InputError, match="a class with two pictures"):
            focus_mosaics(x, labels)
    with pytest.raises(InputError, match="class 2 with two pictures"):
        focus_mosaics(x, [7, 7, 2, 5], target=2)


# intervals


def test_resamples_give_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(0).random(400)
    weights = np.stack([resampling_weights(i, 0, 500) for i in range(400)])
    low, high = percentiles((values @ weights) / weights.sum(0))
    error = 1.96 * values.std() / 20
    assert (high - low) / 2 == pytest.approx(error, rel=0.12)
    assert low < values.mean() < high
    assert np.array_equal(resampling_weights(3, 0, 50), resampling_weights(3, 0, 50))
    assert not np.array_equal(resampling_weights(3, 0, 50), resampling_weights(3, 1, 50))


def test_the_interval_of_pixel_ap_and_of_max_box_accuracy_covers_new_images() -> None:
    maps, boxes = torch.from_numpy(blobs(60, 40)), [torch.tensor(b) for b in true_boxes(60, 40)]
    for kind in (PixelAveragePrecision, MaxBoxAccuracy):
        found = result_of(kind(thresholds=50), maps[:30], boxes[:30])
        whole = result_of(kind(thresholds=50), maps, boxes)
        assert found.low < whole.mean < found.high
        assert 0.02 < found.high - found.low < 0.5
        assert whole.high - whole.low < found.high - found.low


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("options", [{}, {"version": 1}])
def test_few_images_that_are_all_right_or_all_wrong_leave_doubt(
    right: bool, options: dict[str, Any]
) -> None:
    maps, box = torch.zeros(10, 40, 60), (10, 10, 20, 20) if right else (30, 30, 40, 40)
    maps[:, 10:20, 10:20] = 1
    validation = (0.5,) if options else (0.5, 0.5, 0.5)
    accuracy = MaxBoxAccuracy(thresholds=20, validation=validation, **options)
    found = result_of(accuracy, maps, [boxed(box)] * 10)
    assert len(found.figures) == (3 if options else 6)
    for figure in (
        found,
        *found.figures.values(),
        result_of(PointingGame(tolerance=1), maps, [boxed(box)] * 10),
    ):
        assert figure.mean == float(right)
        assert (figure.low, figure.high) == pytest.approx(
            (0.722, 1) if right else (0, 0.278), abs=5e-4
        )
    assert found.interval == "wilson"


def test_localisation_scores_end_where_shares_do() -> None:
    maps = torch.zeros(5, 40, 60)
    maps[:, 10:20, 10:20] = 1
    maps[0, 10:20, 20:30] = 1
    for kind in (EnergyPointing, SegmentationIoU):
        found = result_of(kind(), maps, [boxed((10, 10, 20, 20))] * 5)
        assert 0.5 < found.mean < 1
        assert 0 <= found.low < found.high <= 1


@pytest.mark.long
def test_intervals_of_box_accuracy_cover_new_images() -> None:
    def scored(n: int, seed: int) -> MetricResult:
        drawn, metric = np.random.default_rng(seed), MaxBoxAccuracy(thresholds=20, threshold=0.3)
        maps = np.zeros((n, 16, 16), np.float32)
        for picture in maps:  # a square as high as 1 in a larger one that is lower
            edge, lower = drawn.integers(0, 4), drawn.random() * 0.9
            picture[4 - edge : 12 + edge, 4 - edge : 12 + edge] = lower
            picture[4:12, 4 : 12 - drawn.integers(0, 3)] = 1
        truth = Truth((16, 16), torch.tensor([[4.0, 4, 12, 12]]), torch.zeros(1))
        return result_of(metric, torch.from_numpy(maps), [truth] * n)

    truth = scored(2000, 0).figures
    several = [scored(20, seed).figures for seed in range(1, 151)]
    for name, figure in truth.items():
        held = [found[name].low <= figure.mean <= found[name].high for found in several]
        assert np.mean(held) >= 0.9


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: PointingGame(tolerance=-1), "tolerance=-1"),
        (lambda: PointingGame(average="all"), "average='all'"),  # type: ignore[arg-type]
        (lambda: LocationAveragePrecision(tolerance=-1), "tolerance=-1"),
        (
            lambda: LocationAveragePrecision().update(
                dot(1, 1)[None], [boxed((0, 0, 2, 2))], labels=[0], scores=[math.nan]
            ),
            "finite one for each",
        ),
        (
            lambda: grid_mosaics(pictures(4, 6), torch.ones(4, 2)),
            "n=2 asks for pictures of 4 classes",
        ),
        (lambda: grid_mosaics(pictures(4, 6), torch.ones(3, 2)), r"\(P, K\)"),
        (lambda: grid_mosaics(*classified()[:2], count=0), "count=0"),
        (lambda: focus_mosaics(pictures(4, 6), [0, 0, 0, 1]), "a class with two pictures"),
        (
            lambda: focus_mosaics(pictures(4, 6), [0, 0, 1, 1], target=2),
            "class 2 with two pictures",
        ),
        (lambda: focus_mosaics(pictures(4, 6), [0, 0]), "labels has 2 classes for 4 pictures"),
    ],
)
def test_mistakes_are_told_in_one_line(made: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        made()
    assert "\n" not in str(caught.value)
