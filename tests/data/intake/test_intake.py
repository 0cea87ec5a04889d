"""From what annotations say to truths: boxes, masks, sizes, ids."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from seewhy.data.intake.intake import Intake, corners, extent
from seewhy.data.intake.records import Annotation, MarkedObject
from seewhy.data.truth import Truth
from seewhy.errors import InputError


def mask_of(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return pixels


def taken(
    annotation: Annotation, size: tuple[int, int], on_error: str = "raise"
) -> tuple[Truth, tuple[str, ...]]:
    intake = Intake(range(10), corners, on_error)  # type: ignore[arg-type]
    truth, notes = intake.truth("a", lambda: annotation, size)
    assert truth is not None
    return truth, notes


def test_overhang_of_rounding_is_no_mistake() -> None:
    truth, notes = taken(Annotation([MarkedObject("object 1", 3, [-0.5, 0, 31, 20.4])]), (20, 30))
    assert (truth.boxes.tolist(), notes) == ([[0, 0, 30, 20]], ())
    beyond = Annotation([MarkedObject("object 1", 3, [0, 0, "31.1", 20])])
    truth, notes = taken(beyond, (20, 30), "skip")
    assert notes == ("object 1: box [0.0, 0.0, 31.1, 20.0] reaches beyond the picture of 30 x 20",)
    assert truth.boxes.tolist() == [[0, 0, 30, 20]]
    with pytest.raises(
        InputError,
        match=r"annotation of 'a': object 1: .*31.1, .*; mend it, or pass on_error='skip'",
    ):
        taken(beyond, (20, 30))
    truth, _ = taken(Annotation([]), (20, 30))
    assert not truth.region().any()


def test_a_crowd_may_be_written_as_text() -> None:
    for said, boxes in (("0", 1), (0, 1), (None, 1), ("1", 0), (1, 0), (True, 0)):
        mask = partial(mask_of, np.ones((20, 30), bool))
        truth, _ = taken(
            Annotation([MarkedObject("object 1", 3, [1, 2, 9, 8], mask, crowd=said)]), (20, 30)
        )
        assert len(truth.boxes) == boxes


def test_shares_of_the_sides_are_no_pixels() -> None:
    for box in ([0.1, 0.1, 0.5, 0.5], ["0", "0", "1", "0.25"]):
        said = r"object 1: box .* is in shares of the picture's sides; give pixels"
        with pytest.raises(InputError, match=said):
            taken(Annotation([MarkedObject("object 1", 3, box)]), (20, 30))
    for box in ([0, 0, 1, 1], [0.5, 0.5, 1.5, 2]):
        assert taken(Annotation([MarkedObject("object 1", 3, box)]), (20, 30))[
            0
        ].boxes.tolist() == [box]


def test_what_belongs_to_a_box_goes_with_it() -> None:
    pixels = np.zeros((3, 4, 5), bool)
    for i in range(3):
        pixels[i, i, i] = True
    objects = [
        MarkedObject(f"object {i}", 7 + i, box, partial(mask_of, pixels[i]), difficult)
        for i, (box, difficult) in enumerate(
            (([0, 0, 1, 1], "0"), ([2, 2, 2, 2], None), ([2, 2, 3, 3], True))
        )
    ]
    truth, notes = taken(
        Annotation(objects, ignore=partial(mask_of, pixels[0] | pixels[1])), (4, 5), "skip"
    )
    assert truth.labels.tolist() == [7, 9]
    assert np.array_equal(truth.masks, pixels[[0, 2]])  # type: ignore[arg-type]
    assert truth.difficult.tolist() == [False, True]  # type: ignore[union-attr]
    assert np.array_equal(truth.ignore, pixels[1])  # type: ignore[arg-type]
    assert notes == ("object 1: box [2.0, 2.0, 2.0, 2.0] has no area in the picture",)
    one_without = [objects[0], objects[2]._replace(mask=None)]
    assert taken(Annotation(one_without), (4, 5))[0].masks is None


def test_masks_of_another_size() -> None:
    pixels = np.zeros((40, 60), bool)
    pixels[10:20, 30:60] = True
    one = Annotation([MarkedObject("object 1", 1, [15, 5, 30, 10], partial(mask_of, pixels))])
    with pytest.raises(
        InputError, match="object 1: its mask has 60 x 40 pixels, the photo 30 x 20"
    ):
        taken(one, (20, 30))
    scaled = Annotation(one.objects, scaled=True)
    assert taken(scaled, (20, 30))[0].masks.nonzero()[:, 1:].amin(0).tolist() == [5, 15]  # type: ignore[union-attr]
    assert taken(scaled, (21, 31))[0].masks is not None  # rounded edges
    with pytest.raises(InputError, match="its mask has 60 x 40 pixels, the photo 20 x 30"):
        taken(scaled, (30, 20))


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ((20, 30), None),
        (("20", " 30 "), None),
        ((20.0, "30.0"), None),
        ((30, 20), "picture of 20 x 30 .* the photo has 30 x 20, so it was turned after"),
        ((40, 60), "picture of 60 x 40 .* so it was made larger or smaller after"),
        ((20, None), "annotation of 'a': None is no number of pixels"),
        (("20", "wide"), "'wide' is no number of pixels"),
        ((20, 30.5), "30.5 is no number of pixels"),
        ((True, 30), "True is no number of pixels"),
        ((float("nan"), 30), "nan is no number of pixels"),
    ],
)
def test_the_size_that_is_stated(stated: tuple[object, object], said: str | None) -> None:
    annotation = Annotation([MarkedObject("object 1", 1, [0, 0, 1, 1])], stated)
    if said is None:
        assert taken(annotation, (20, 30))[1] == ()
        return
    with pytest.raises(InputError, match=said):
        taken(annotation, (20, 30))
    intake = Intake(range(10), corners, "skip")
    truth, notes = intake.truth("a", lambda: annotation, (20, 30))
    assert truth is None
    assert len(notes) == 1


def test_classes_by_their_ids() -> None:
    intake = Intake(["7", "08", "cat", 2.0], extent, "skip")
    shown = [
        MarkedObject(str(said), said, [0, 0, 1, 1])
        for said in (7, "7", "2", 2, "cat", "08", 8, None, True, [7])
    ]
    assert [intake.shown("a", [one]) for one in shown] == [
        (0,),
        (0,),
        (3,),
        (3,),
        (2,),
        (1,),
        (),
        (),
        (),
        (),
    ]
    with pytest.raises(InputError, match="class of id 7 is listed twice"):
        Intake(["7", 7], extent, "raise")
    with pytest.raises(
        InputError,
        match=r"annotation of 'a': 8: its class 8 is not listed; mend it, or pass on_error",
    ):
        Intake(["7"], extent, "raise").shown("a", shown[6:7])


def test_whatever_a_mask_raises_is_a_fault_of_its_object() -> None:
    def torn(size: tuple[int, int]) -> np.ndarray:
        raise ZeroDivisionError("of\nsome decoder")

    objects = [
        MarkedObject("object 1", 1, [0, 0, 1, 1], torn),
        MarkedObject("object 2", 2, [0, 0, 1, 1]),
    ]
    with pytest.raises(
        InputError, match="annotation of 'a': object 1: ZeroDivisionError: of some decoder; mend"
    ):
        taken(Annotation(objects), (4, 5))
    truth, notes = taken(Annotation(objects), (4, 5), "skip")
    assert (truth.labels.tolist(), notes) == (
        [2],
        ("object 1: ZeroDivisionError: of some decoder",),
    )
