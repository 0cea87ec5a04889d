"""What the metrics of localization share: resamples drawn by each image's own key, whatever comes with it."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy.data.truth import Truth
from seewhy.metrics import (
    LocationAveragePrecision,
    MaxBoxAccuracy,
    MetricResult,
    PixelAveragePrecision,
    SegmentationIoU,
)
from seewhy.metrics.intervals import resampling_weights
from seewhy.metrics.localization import box_metrics
from seewhy.metrics.localization.metric import Item

N, SIZE = 6, (19, 23)
MAPS = torch.rand(N, *SIZE, generator=torch.Generator().manual_seed(0))
MASKS = torch.rand(N, *SIZE, generator=torch.Generator().manual_seed(1)) < 0.4
LEVELS = np.arange(10) / 10


def result_of(metric: Any, *arguments: Any, **also: Any) -> MetricResult:
    metric.update(*arguments, **also)
    found = metric.compute()
    assert isinstance(found, MetricResult)
    return found


def resampled(seed: int) -> np.ndarray:
    """How often each image comes in each of 200 resamples, (200, N)."""
    drawn = []
    for field, mask in zip(MAPS, MASKS, strict=True):
        marked = zlib.crc32(mask[::8, ::8].numpy().tobytes())
        key = zlib.crc32(field[::8, ::8].numpy().tobytes(), marked)
        drawn.append(resampling_weights(key, seed, 200))
    return np.stack(drawn, 1).astype(np.float64)


def scaled() -> Tensor:
    low, high = MAPS.amin((1, 2), keepdim=True), MAPS.amax((1, 2), keepdim=True)
    return ((MAPS - low) / (high - low)).double()


@pytest.mark.parametrize("seed", [0, 3])
def test_the_best_threshold_is_chosen_anew_in_each_resample(seed: int) -> None:
    found = result_of(SegmentationIoU(thresholds=10, seed=seed), MAPS, MASKS)
    shares = MAPS.double() / MAPS.amax((1, 2), keepdim=True).double()
    above = shares[..., None] > torch.from_numpy(LEVELS)
    marked = MASKS[..., None]
    ious = (above & marked).sum((1, 2)) / (above | marked).sum((1, 2))  # (N, levels)
    weights = resampled(seed)
    assert (weights.sum(1) == 0).any() == (seed == 3)
    means = weights @ ious.double().numpy() / weights.sum(1, keepdims=True).clip(1)
    expected = np.percentile(means.max(1), (2.5, 97.5))
    oracle = found.figures["oracle"]
    np.testing.assert_allclose((oracle.low, oracle.high), expected, rtol=1e-5)


@pytest.mark.parametrize("seed", [0, 3])
def test_pixels_are_pooled_anew_in_each_resample(seed: int) -> None:
    found = result_of(PixelAveragePrecision(thresholds=10, seed=seed), MAPS, MASKS)
    called = scaled()[..., None] >= torch.from_numpy(np.arange(11) / 10)
    hits = (called & MASKS[..., None]).sum((1, 2)).double().numpy()  # (N, levels)
    weights = resampled(seed)
    hits, everything = weights @ hits, weights @ called.sum((1, 2)).double().numpy()
    with np.errstate(invalid="ignore"):
        recall = hits / hits[:, :1]  # an empty resample has none
    falling = recall - np.append(recall[:, 1:], np.zeros((200, 1)), 1)
    precisions = (hits / np.maximum(everything, 1e-12) * falling).sum(1)
    expected = np.nanpercentile(precisions, (2.5, 97.5))
    np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-5)


def test_images_have_the_same_key_where_every_eighth_place_is_the_same() -> None:
    def key(field: Tensor, marked: Truth | Tensor) -> int:
        return Item(field, marked, marked, None, None).key

    field, mask = MAPS[0], MASKS[0]
    box = Truth(SIZE, torch.tensor([[1.0, 2, 5, 6]]), torch.zeros(1))
    for marked in (mask, box):
        same = key(field, marked)
        for y, x, is_read in ((8, 16, True), (16, 0, True), (8, 9, False), (3, 8, False)):
            changed = field.clone()
            changed[y, x] += 1
            assert (key(changed, marked) != same) == is_read
    other = mask.clone()
    other[16, 8] = ~other[16, 8]
    assert key(field, other) != key(field, mask)
    moved = Truth(SIZE, torch.tensor([[1.0, 2, 5, 7]]), torch.zeros(1))
    assert key(field, moved) != key(field, box)


def test_hits_are_counted_some_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = result_of(MaxBoxAccuracy(thresholds=10), MAPS, MASKS)
    for size in (1, 4, N):
        monkeypatch.setattr(box_metrics, "_CHUNK", size)
        found = result_of(MaxBoxAccuracy(thresholds=10), MAPS, MASKS)
        assert found.values.tolist() == whole.values.tolist()
        assert dict(found.figures) == dict(whole.figures)
        for mine, theirs in zip(found.mean_curve(), whole.mean_curve(), strict=True):
            assert mine.tolist() == theirs.tolist()


@pytest.mark.parametrize("label", [-1, 0, 2**40])
def test_classes_of_any_number_have_an_interval(label: int) -> None:
    scores = torch.arange(N).double()
    kinds = [label, label + 1] * (N // 2)
    found = result_of(LocationAveragePrecision(), MAPS, MASKS, labels=kinds, scores=scores)
    figure = found.figures[f"class {label}"]
    assert figure.low <= figure.mean <= figure.high
    assert set(found.figures) == {
        "mean",
        "classification",
        f"class {label}",
        f"class {label + 1}",
    }
