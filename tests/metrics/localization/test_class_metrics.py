"""Do maps tell classes apart? Against slow formulas and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from skimage.measure import label, regionprops
from sklearn.metrics import average_precision_score
from torch import Tensor

from seewhy.data.truth import Truth
from seewhy.errors import InputError
from seewhy.maps.values import resize
from seewhy.metrics import GridPointing, LookAlike, PairShare

SIDE = 48


def blob(x: float, y: float, spread: float = 6.0) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))


def two_objects(number: int) -> Truth:
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 4 : 16 + number, 3:20] = True
    masks[1, 24:44, 26 : 44 - number] = True
    boxes = [[3, 4, 20, 16 + number], [26, 24, 44 - number, 44]]
    return Truth((SIDE, SIDE), torch.tensor(boxes), torch.tensor([5, 9]), masks)


def maps_of_pairs(n: int) -> Tensor:
    """(n, 2, H, W): each on its object, with some of the other and some below zero."""
    noise = torch.randn(n, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    first = torch.stack([blob(11, 10) + 0.3 * i * blob(33, 33) for i in range(n)])
    second = torch.stack([blob(33, 33) + 0.5 * blob(11, 10)] * n)
    return torch.stack([first, second], 1) + 0.1 * noise


def share_by_hand(heat: Tensor, own: Tensor, other: Tensor) -> tuple[float, float, float]:
    positive = heat.double().clamp(min=0)
    mine, theirs = float(positive[own].sum()), float(positive[other].sum())
    return mine / (mine + theirs), mine / float(positive.sum()), theirs / float(positive.sum())


def test_the_share_of_the_own_object_is_that_of_the_formula() -> None:
    maps, metric = maps_of_pairs(3), PairShare()
    truths = [two_objects(i) for i in range(3)]
    metric.update(
        maps.flatten(0, 1), [each for each in truths for _ in range(2)], labels=[5, 9] * 3
    )
    found = metric.compute()
    by_hand = [
        share_by_hand(maps[i, k], *(masks if k == 0 else masks.flip(0)))
        for i, masks in enumerate(each.masks for each in truths if each.masks is not None)
        for k in range(2)
    ]
    share, own, other = np.array(by_hand).T
    assert found.values == pytest.approx(share, abs=1e-9)
    assert found.figures["own"].mean == pytest.approx(own.mean(), abs=1e-9)
    assert found.figures["other"].mean == pytest.approx(other.mean(), abs=1e-9)
    small = [
        [np.clip(resize(m[None], (56, 56))[0].numpy(), 0, None).ravel() for m in p] for p in maps
    ]
    alike = np.mean([pearsonr(a.astype(float), b.astype(float))[0] for a, b in small])
    assert found.figures["correlation"].mean == pytest.approx(alike, abs=1e-9)
    assert found.figures["uniform"].mean == pytest.approx(0.5)


def test_the_interval_of_a_correlation_ends_where_correlations_do() -> None:
    metric, pairs = PairShare(), maps_of_pairs(2)
    pairs[0] = torch.stack([blob(11, 10, 3), blob(33, 33, 3)])  # about 0
    pairs[1, 1] = pairs[1, 0]  # 1
    truths = [each for each in map(two_objects, range(2)) for _ in range(2)]
    metric.update(pairs.flatten(0, 1), truths, labels=[5, 9] * 2)
    found = metric.compute().figures["correlation"]
    assert found.mean == pytest.approx(
        0.5, abs=0.1
    )  # two values leave a t-interval 12.7 standard errors wide to each side
    assert (found.low, found.high) == (-1, 1)


def test_a_map_that_knows_no_class_has_half_and_is_the_same_for_both() -> None:
    metric, same = PairShare(), torch.rand(1, 9, 9).expand(2, -1, -1)
    metric.update(same, [two_objects(1)] * 2, labels=[5, 9])
    found = metric.compute()
    assert found.mean == pytest.approx(0.5)
    assert found.figures["correlation"].mean == pytest.approx(1)


def test_a_map_without_evidence_on_either_says_nothing() -> None:
    heat = torch.zeros(2, SIDE, SIDE)
    heat[0, 0, 47] = 1  # on neither object
    metric = PairShare()
    metric.update(heat, [two_objects(0)] * 2, labels=[5, 9])
    assert metric.compute().values.tolist() == [0.5, 0.5]
    assert metric.compute().failed == {"empty": 1}


def test_what_both_objects_mark_counts_for_neither() -> None:
    boxes = torch.tensor([[0, 0, 2, 1], [1, 0, 3, 1]])
    given = Truth((1, 3), boxes, torch.tensor([0, 1]))
    metric = PairShare()
    metric.update(torch.tensor([[[1.0, 100.0, 3.0]]]), [given], labels=[0])
    assert metric.compute().mean == pytest.approx(0.25)


def test_a_picture_of_one_class_is_no_pair() -> None:
    alone = Truth((4, 4), torch.tensor([[0, 0, 2, 2]]), torch.tensor([3]))
    hidden = Truth((4, 4), torch.tensor([[0, 0, 2, 2], [0, 0, 4, 4]]), torch.tensor([3, 4]))
    metric = PairShare(inside="boxes")
    metric.update(torch.rand(2, 4, 4), [alone, hidden], labels=[3, 3])
    assert metric.compute().left_out == {"no_truth": 2}
    assert math.isnan(metric.compute().figures["own"].mean)


@pytest.mark.parametrize("labels", [None, [3]])
def test_pairs_need_classes(labels: list[int] | None) -> None:
    truth = torch.ones(1, 4, 4, dtype=torch.bool) if labels else [two_objects(0)]
    with pytest.raises(InputError, match="pair_share compares with the other classes"):
        PairShare().update(torch.rand(1, 4, 4), truth, labels=labels)


def test_evidence_is_compared_at_another_size() -> None:
    heat, cell = torch.randn(1, 6, 6), torch.tensor([[0, 0, 8, 8]])
    given = Truth((16, 16), cell, torch.tensor([1]))
    metric = GridPointing(side=4)
    metric.update(heat, [given], labels=[1])
    positive = resize(heat, (4, 4))[0].clamp(min=0)
    expected = float(positive[:2, :2].sum() / positive.sum())
    assert metric.compute().mean == pytest.approx(expected, abs=1e-6)
    masked = GridPointing(side=4)
    masked.update(heat, given.region()[None])
    assert masked.compute().mean == pytest.approx(expected, abs=1e-6)


def one_object(number: int) -> Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[8 : 30 - number, 10 : 34 + number] = True
    return mask


def boxes_by_hand(heat: np.ndarray, mask: np.ndarray) -> list[bool]:
    """Whether the box of the largest part is right, at 5 %, 10 % ... of the maximum."""
    (true,) = regionprops(mask.astype(int))
    right = []
    for cut in np.arange(1, 20) / 20:
        parts = regionprops(label(heat > cut * heat.max()))
        y0, x0, y1, x1 = max(parts, key=lambda part: part.area).bbox
        v0, u0, v1, u1 = true.bbox
        inner = max(0, min(y1, v1) - max(y0, v0)) * max(0, min(x1, u1) - max(x0, u0))
        union = (y1 - y0) * (x1 - x0) + (v1 - v0) * (u1 - u0) - inner
        right.append(inner / union >= 0.5)
    return right


def test_a_look_alike_is_scored_as_by_other_libraries() -> None:
    maps = torch.stack([blob(14 + 6 * i, 19) - 0.1 * blob(40, 40) for i in range(4)])
    maps[1] = (maps[1] * 8).round()  # with ties
    masks = torch.stack([one_object(i) for i in range(4)])
    metric = LookAlike()
    metric.update(maps, masks)
    found = metric.compute().figures
    flat, inside = maps.flatten(1).numpy(), masks.flatten(1).numpy()
    precise = [average_precision_score(m, a) for m, a in zip(inside, flat, strict=True)]
    assert found["pixel_ap"].mean == pytest.approx(np.mean(precise), abs=1e-9)
    hits = [m[a.argmax()] for m, a in zip(inside, flat, strict=True)]
    assert found["pointing"].mean == np.mean(hits)
    positive = np.clip(flat.astype(float), 0, None)
    energy = [(p * m).sum() / p.sum() for p, m in zip(positive, inside, strict=True)]
    assert found["energy"].mean == pytest.approx(np.mean(energy), abs=1e-9)
    assert found["uniform"].mean == pytest.approx(inside.mean(), abs=1e-9)
    right = np.mean(
        [boxes_by_hand(a, m) for a, m in zip(maps.numpy(), masks.numpy(), strict=True)], 0
    )
    assert found["box"].mean == right.max()
    assert found["box"].thresholds == ((right.argmax() + 1) / 20,)
    assert 0 < found["box"].mean < 1


def test_a_map_without_evidence_is_no_look_alike_and_another_object_none_either() -> None:
    metric, mask = LookAlike(), one_object(0)
    metric.update(torch.zeros(1, 8, 8), mask[None])
    found = metric.compute()
    assert (found.mean, found.figures["pointing"].mean, found.figures["box"].mean) == (0, 0, 0)
    assert found.figures["pixel_ap"].mean == pytest.approx(float(mask.float().mean()))
    pair = LookAlike()
    pair.update(torch.rand(1, 8, 8), [two_objects(0)], labels=[5])
    assert pair.compute().left_out == {"no_truth": 1}
    assert math.isnan(pair.compute().figures["box"].mean)


def test_the_cut_at_which_most_boxes_are_right_need_not_be_the_first() -> None:
    """Around the object a map has so much that only above it the largest component is the object."""
    masks = torch.stack([one_object(i) for i in range(3)])
    around = torch.tensor([0.22, 0.42, 0.62])[:, None, None]
    maps = torch.where(masks, 1.0, around)
    metric = LookAlike()
    metric.update(maps, masks)
    found = metric.compute().figures["box"]
    right = [boxes_by_hand(a, m) for a, m in zip(maps.numpy(), masks.numpy(), strict=True)]
    assert np.mean(right, 0).argmax() == 12
    assert (found.mean, found.thresholds) == (1, (0.65,))
