"""Boxes drawn at random: overlaps are those of pixels that are counted, and go with moving and scaling."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seewhy.data.truth import Truth
from seewhy.maps.boxes import box_iou, boxes, masks, peaks, region

RANDOM = settings(max_examples=50, deadline=None, derandomize=True)
SIDE = 12
Box = tuple[int, int, int, int]


@st.composite
def drawn_boxes(draw: st.DrawFn) -> Box:
    x0, y0 = draw(st.integers(0, SIDE - 1)), draw(st.integers(0, SIDE - 1))
    return x0, y0, draw(st.integers(x0 + 1, SIDE)), draw(st.integers(y0 + 1, SIDE))


BOX = drawn_boxes()
BOXES = st.lists(BOX, min_size=1, max_size=4)


def pixels(box: Box) -> Tensor:
    """(SIDE, SIDE) bool: those in a half-open box."""
    filled = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    x0, y0, x1, y1 = box
    filled[y0:y1, x0:x1] = True
    return filled


@RANDOM
@given(BOXES, BOXES)
def test_an_overlap_is_that_of_the_pixels(first: list[Box], second: list[Box]) -> None:
    found = box_iou(torch.tensor(first), torch.tensor(second))
    for a, row in zip(map(pixels, first), found, strict=True):
        for b, iou in zip(map(pixels, second), row, strict=True):
            assert abs(iou.item() - ((a & b).sum() / (a | b).sum()).item()) < 1e-6


@RANDOM
@given(BOXES, BOXES, st.integers(-50, 50), st.integers(1, 9))
def test_overlaps_are_symmetric_and_keep_with_moving_and_scaling(
    first: list[Box], second: list[Box], shift: int, factor: int
) -> None:
    a, b = torch.tensor(first), torch.tensor(second)
    found = box_iou(a, b)
    assert torch.equal(found, box_iou(b, a).T)
    assert torch.equal(found, box_iou(a + shift, b + shift))
    torch.testing.assert_close(found, box_iou(factor * a, factor * b))
    assert torch.equal(box_iou(a, a).diagonal(), torch.ones(len(a), dtype=torch.float64))


@RANDOM
@given(BOX, st.integers(-3, 8))
def test_the_box_of_a_filled_box_is_itself_at_any_height(box: Box, exponent: int) -> None:
    field = pixels(box).float() * 2.0**exponent
    (found,) = boxes(field)
    whole = box == (0, 0, SIDE, SIDE)
    assert found.status == ("constant" if whole else "ok")
    assert found.boxes.tolist() == ([] if whole else [list(box)])
    if not whole:
        assert torch.equal(region(field)[0], pixels(box))
        assert found.areas.item() == pixels(box).sum()


@RANDOM
@given(st.lists(BOX, min_size=2, max_size=4))
def test_components_part_the_region_and_each_box_holds_its_own(marked: list[Box]) -> None:
    field = torch.stack([pixels(box) for box in marked]).any(0).float()
    (found,), (parts,) = (
        boxes(field, components="all", rule="wsol_v2"),
        masks(field, rule="wsol_v2"),
    )
    assert torch.equal(parts.sum(0), region(field, rule="wsol_v2")[0].long())
    for box, area, part in zip(found.boxes.tolist(), found.areas, parts, strict=True):
        assert not (part & ~pixels(tuple(box))).any()
        assert area == part.sum()
    assert found.areas.tolist() == sorted(found.areas.tolist(), reverse=True)


@RANDOM
@given(BOX, st.integers(1, 6), st.integers(1, 6))
def test_scaling_boxes_there_and_back_changes_nothing(box: Box, down: int, across: int) -> None:
    (found,) = boxes(pixels(box).float())
    there = found.scaled((down * SIDE, across * SIDE))
    assert torch.equal(there.boxes, found.boxes * torch.tensor([across, down, across, down]))
    back = there.scaled((SIDE, SIDE))
    assert torch.equal(back.boxes, found.boxes)
    assert torch.equal(back.areas, found.areas)


@RANDOM
@given(st.permutations(range(SIDE * SIDE)))
def test_the_first_peak_is_the_maximum(order: list[int]) -> None:
    field = torch.tensor(order).view(SIDE, SIDE).float()
    (found,) = peaks(field, most=3)
    x, y = found.points[0].tolist()
    assert field[y, x] == field.max() == found.values[0]
    assert torch.equal(found.values, found.values.sort(descending=True).values)


@RANDOM
@given(BOX, BOX)
def test_what_is_marked_is_cropped_as_the_picture_is(marked: Box, seen: Box) -> None:
    x0, y0, x1, y1 = seen
    truth = Truth(
        (SIDE, SIDE), torch.tensor([marked]).float(), torch.tensor([3]), pixels(marked)[None]
    )
    found = truth.cropped(seen, (y1 - y0, x1 - x0))
    assert torch.equal(found.region(), pixels(marked)[y0:y1, x0:x1])
    without_masks = Truth(truth.size, truth.boxes, truth.labels).cropped(seen, found.size)
    assert torch.equal(without_masks.region(), found.region())
