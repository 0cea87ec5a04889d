"""Shapes of COCO against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coder

from seewhy.data.formats.shapes import read_shape
from seewhy.errors import InputError


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (20, 30), (300, 200)])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_run_lengths_are_those_of_pycocotools(size: tuple[int, int], share: float) -> None:
    pixels = np.random.default_rng(0).random(size) < share
    pixels[size[0] // 3 :, size[1] // 2 :] |= share > 0
    coded = coder.encode(np.asfortranarray(pixels, np.uint8))
    assert np.array_equal(
        read_shape({"size": list(size), "counts": coded["counts"].decode()}, (0, 0)), pixels
    )
    flat = pixels.T.ravel()
    edges = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    counts = ([0] if flat[0] else []) + np.diff(edges).tolist()
    assert np.array_equal(read_shape({"size": list(size), "counts": counts}, (0, 0)), pixels)


def test_polygons_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(1)
    for count in (1, 3):
        shape = [(rng.random(2 * points) * 50 - 5).tolist() for points in rng.integers(3, 9, count)]
        oracle = coder.decode(coder.merge(coder.frPyObjects(shape, 40, 60)))
        assert np.array_equal(read_shape(shape, (40, 60)), oracle)


def test_a_text_that_is_cut_short_is_not_read_on() -> None:
    coded = coder.encode(np.asfortranarray(np.eye(20), np.uint8))["counts"].decode()
    for end in range(len(coded)):
        with pytest.raises(InputError, match="run lengths"):
            read_shape({"size": [20, 20], "counts": coded[:end]}, (20, 20))
