"""What is true of a picture: boxes and masks that check themselves, and follow what a model saw of it."""

from __future__ import annotations

import pytest
import torch

from seewhy.data.truth import Truth
from seewhy.errors import InputError


def boxed(
    *boxes: tuple[float, float, float, float],
    size: tuple[int, int] = (20, 30),
    labels: list[int] | None = None,
):
    return Truth(size, torch.tensor(boxes), torch.tensor(labels or [0] * len(boxes)))


def from_boxes(truth: Truth) -> torch.Tensor:
    """The boxes as masks, pixel by pixel."""
    height, width = truth.size
    masks = torch.zeros(len(truth.boxes), height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, truth.boxes.tolist(), strict=True):
        for y in range(height):
            for x in range(width):
                mask[y, x] = x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1
    return masks


def test_region_is_the_pixels_whose_centres_are_in_a_box() -> None:
    truth = boxed((1, 2, 5, 9), (4.4, 8, 20.5, 12), (0, 0, 30, 1))
    assert torch.equal(truth.region(), from_boxes(truth).any(0))
    assert not boxed(size=(4, 5)).region().any()


def test_region_prefers_masks() -> None:
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[0, 3, 4] = True
    truth = Truth((20, 30), torch.tensor([[4, 3, 9, 9]]), torch.tensor([7]), mask)
    assert truth.region().sum() == 1


def test_of_keeps_one_class() -> None:
    truth = boxed((0, 0, 1, 1), (2, 2, 4, 4), (5, 5, 8, 8), labels=[1, 2, 1])
    assert truth.of(1).boxes.tolist() == [[0, 0, 1, 1], [5, 5, 8, 8]]
    assert len(truth.of(9).boxes) == 0


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((3, 3, 3, 8), "has no area"),
        ((3, 3, 2, 8), "has no area"),
        ((-1, 0, 4, 4), "reaches beyond the picture of 30 x 20"),
        ((0, 0, 4, 21), "reaches beyond the picture"),
    ],
)
def test_a_box_that_is_none_is_named(box: tuple[float, float, float, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        boxed(box)


def test_shapes_that_do_not_go_together() -> None:
    with pytest.raises(InputError, match=r"labels has shape \(2,\)"):
        boxed((0, 0, 1, 1), labels=[1, 2])
    with pytest.raises(InputError, match="masks has shape"):
        Truth(
            (4, 4),
            torch.tensor([[0, 0, 1, 1]]),
            torch.tensor([0]),
            torch.ones(1, 4, 5, dtype=torch.bool),
        )


@pytest.mark.parametrize(
    "box", [(0.0, 0.0, 30.0, 20.0), (5.0, 2.0, 25.0, 17.0), (-6.0, -4.0, 36.0, 24.0)]
)
def test_cropped_masks_are_the_cropped_boxes(box: tuple[float, float, float, float]) -> None:
    """A whole number of new pixels for each old one, so that masks and boxes must agree to the pixel."""
    plain = boxed((6, 3, 12, 9), (20, 10, 28, 19))
    truth = Truth(plain.size, plain.boxes, plain.labels, from_boxes(plain))
    size = (round(box[3] - box[1]) * 2, round(box[2] - box[0]) * 2)
    seen = truth.cropped(box, size)
    assert seen.size == size
    assert torch.equal(seen.masks, from_boxes(seen))
    assert seen.boxes[0].tolist() == [
        2 * (6 - box[0]),
        2 * (3 - box[1]),
        2 * (12 - box[0]),
        2 * (9 - box[1]),
    ]


def test_cropped_leaves_out_what_is_not_seen() -> None:
    truth = boxed((0, 0, 4, 4), (10, 5, 20, 15), labels=[1, 2])
    seen = truth.cropped((8.0, 4.0, 24.0, 20.0), (32, 32))
    assert seen.labels.tolist() == [2]
    assert seen.boxes.tolist() == [[4, 2, 24, 22]]
    # a mask whose pixels all fall outside goes with its box
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[0, 0, 0] = True
    corner = Truth((20, 30), torch.tensor([[0, 0, 12, 12]]), torch.tensor([3]), mask)
    assert len(corner.cropped((8.0, 4.0, 24.0, 20.0), (32, 32)).boxes) == 0


def test_cropped_ignores_the_same_pixels() -> None:
    ignore = torch.zeros(20, 30, dtype=torch.bool)
    ignore[:, :15] = True
    truth = Truth((20, 30), torch.tensor([[20, 5, 25, 9]]), torch.tensor([0]), ignore=ignore)
    assert truth.cropped((0.0, 0.0, 30.0, 20.0), (10, 10)).ignore.float().mean() == 0.5
