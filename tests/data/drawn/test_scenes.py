"""Generated scenes: exact truth, disjoint splits, the same picture every time; and no shortcut finds the digits."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from seewhy.data import Example, Scenes
from seewhy.data.drawn.sprites import glyphs
from seewhy.data.sources import find_data
from seewhy.errors import InputError, SeewhyError


def same(a: Example, b: Example) -> bool:
    assert a.truth is not None
    assert b.truth is not None
    assert a.truth.masks is not None
    assert b.truth.masks is not None
    pictures = np.array_equal(np.asarray(a.photo), np.asarray(b.photo))
    truths = torch.equal(a.truth.boxes, b.truth.boxes) and torch.equal(a.truth.masks, b.truth.masks)
    return pictures and truths and a.labels == b.labels


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("size", [32, 96, 131])
def test_truth_is_exact(multi_label: bool, size: int) -> None:
    data = Scenes(25, size=size, multi_label=multi_label)
    for index, example in enumerate(data):
        truth = example.truth
        assert truth is not None
        assert truth.masks is not None
        assert example.photo.size == (size, size)
        assert example.photo.mode == "RGB"
        assert example.labels == data.labels[index] == tuple(sorted(set(truth.labels.tolist())))
        assert len(truth.boxes) in (range(1, 5) if multi_label else range(1, 4))
        assert truth.masks.sum(0).max() == 1  # none over another
        for box, mask in zip(truth.boxes.int().tolist(), truth.masks, strict=True):
            ys, xs = mask.nonzero().unbind(1)
            assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_digits_are_as_large_as_asked() -> None:
    data = Scenes(50, scale=(0.3, 0.4))
    for example in data:
        assert example.truth is not None
        heights = example.truth.boxes[:, 3] - example.truth.boxes[:, 1]
        # Turned by up to 0.2 radians and drawn a little past the ink; three that do not fit shrink by a tenth.
        assert heights.min() > 0.3 * 96 * 0.75
        assert heights.max() < 0.4 * 96 * 1.3


def test_digits_stand_out_and_nothing_covers_them() -> None:
    """A mask shifted to any side must lose contrast: it is where the light is."""
    lost = []
    for example in Scenes(30, multi_label=True, seed=5):
        assert example.truth is not None
        grey = np.asarray(example.photo.convert("L"), float)
        inside = example.truth.region().numpy()
        near = ndimage.binary_dilation(inside, iterations=2) & ~ndimage.binary_dilation(inside)
        assert grey[inside].mean() > grey[near].mean() + 20
        for shift in ((3, 0), (-3, 0), (0, 3), (0, -3)):
            moved = np.roll(inside, shift, (0, 1))
            lost.append(grey[inside].mean() - grey[moved].mean())
    assert min(lost) > 0


def test_picture_i_depends_on_the_seed_the_split_and_i_alone() -> None:
    data = Scenes(20, seed=3)
    fewer = pickle.loads(pickle.dumps(Scenes(12, seed=3)))
    for i in (11, 4, 0):
        assert same(data[i], fewer[i])
        assert same(data[i], data[i - 20])
    assert not same(data[0], Scenes(20, seed=4)[0])
    assert not same(data[0], Scenes(20, seed=3, split="val")[0])
    assert data.subset([7, 2])[1].name == data.names[2]
    with pytest.raises(IndexError):
        data[20]


def test_splits_share_no_glyph() -> None:
    seen = [
        {glyph.tobytes() for of_class in glyphs(split) for glyph in of_class}
        for split in ("train", "val", "test")
    ]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert (
        sum(len(of_class) for split in ("train", "val", "test") for of_class in glyphs(split))
        == 1797
    )
    assert min(len(of_class) for of_class in glyphs("val")) >= 20


def test_classes_are_balanced() -> None:
    assert Scenes(200).class_counts() == (20,) * 10
    assert Scenes(200).labels != Scenes(200, seed=1).labels
    counts = Scenes(1000, multi_label=True).class_counts()
    assert min(counts) > 0.8 * max(counts)
    assert not Scenes(10).multi_label
    assert Scenes(10, multi_label=True).multi_label


def pointing(data: Iterable[Example], where: Any) -> float:
    hits = []
    for example in data:
        assert example.truth is not None
        evidence = where(np.asarray(example.photo.convert("L"), float))
        hits.append(example.truth.region().flatten()[int(evidence.argmax())])
    return float(torch.stack(hits).float().mean())


def edges(grey: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(ndimage.gaussian_gradient_magnitude(grey, 1.0), 4))


def centre_iou(boxes: Tensor, size: int, share: float) -> Tensor:
    low, high = size * (1 - share) / 2, size * (1 + share) / 2
    wide = boxes[:, 2].clamp(max=high) - boxes[:, 0].clamp(min=low)
    tall = boxes[:, 3].clamp(max=high) - boxes[:, 1].clamp(min=low)
    both = wide.clamp(min=0) * tall.clamp(min=0)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return both / (area + (high - low) ** 2 - both)


def test_no_shortcut_finds_the_digits() -> None:
    data = list(Scenes(200, seed=2))
    assert pointing(data, edges) < 0.65
    assert pointing(data, lambda grey: ndimage.gaussian_filter(grey, 4)) < 0.6  # the lightest spot
    for share in (0.2, 0.3, 0.4, 0.5, 0.6):
        found = [
            float(centre_iou(one.truth.boxes, 96, share).max()) >= 0.5 for one in data if one.truth
        ]
        assert np.mean(found) < 0.2


def test_a_scene_takes_milliseconds() -> None:
    data = Scenes(200)
    data[0]
    took = []
    for i in range(50, 110):
        start = time.process_time()
        data[i]
        took.append(time.process_time() - start)
    assert np.median(took) < 0.008  # 0.0025 on an idle core


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": 0}, "count=0"),
        ({"count": 10**12}, "give a whole number from 1 to 10000000"),
        ({"size": 10**6}, "from 32 to 14142"),
        ({"size": 31}, "size=31"),
        ({"size": 64.5}, "size=64.5"),
        ({"seed": -1}, "seed=-1"),
        ({"split": "vall"}, "did you mean 'val'"),
        ({"scale": (0.5, 0.4)}, r"scale=\(0.5, 0.4\)"),
        ({"scale": (0.5, 1.0)}, "from 0.1 to 0.9"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SeewhyError, match=said):
        Scenes(**options)


def test_a_crowded_scene_is_still_drawn() -> None:
    for example in Scenes(20, scale=(0.9, 0.9), multi_label=True):
        assert example.truth is not None
        assert len(example.truth.boxes) >= 1


def test_specs() -> None:
    data = find_data("scenes:multi_label=true,count=5,size=48,scale=0.3-0.4", split="val", seed=7)
    assert isinstance(data, Scenes)
    assert (len(data), data.size, data.multi_label, data.scale, data.seed, data.split) == (
        5,
        48,
        True,
        (0.3, 0.4),
        7,
        "val",
    )
    assert (len(find_data("scenes")), len(find_data("scenes", split="test"))) == (4000, 1000)
    assert same(find_data("scenes:seed=5,count=1", seed=7)[0], find_data("scenes", seed=5)[0])
    with pytest.raises(InputError, match="sets 'split', which is asked for apart"):
        find_data("scenes:split=val")
    with pytest.raises(InputError, match="unexpected keyword argument 'sise'"):
        find_data("scenes:sise=3")
    with pytest.raises(InputError, match="needs options NAME=VALUE after the colon"):
        find_data("scenes:96")


def test_the_smallest_digits_are_still_there() -> None:
    data = Scenes(20, size=32, scale=(0.1, 0.1), multi_label=True)
    for i in range(len(data)):
        truth = data[i].truth
        assert truth is not None
        assert truth.masks is not None
        assert truth.masks.flatten(1).any(1).all()
