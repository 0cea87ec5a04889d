"""Superpixels against the lime package's, users' own labels, and the outlined picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lime.wrappers.scikit_image import SegmentationAlgorithm
from skimage.data import chelsea

from seewhy.errors import ArgumentTypeError, InputError
from seewhy.methods.lime.superpixels import centers, display_pictures, segment, sizes
from seewhy.render.superpixels import outline_top
from tiny_models import pictures


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("quickshift", {"kernel_size": 4, "max_dist": 200, "ratio": 0.2}),
        ("slic", {"n_segments": 50, "compactness": 10.0, "sigma": 1.0, "start_label": 0}),
        ("felzenszwalb", {"scale": 100, "sigma": 0.5, "min_size": 50}),
    ],
)
def test_segmentations_are_the_packages(name: str, parameters: dict[str, Any]) -> None:
    photos = (
        torch.from_numpy(np.stack([chelsea()[::4, ::4], chelsea()[::-4, ::4]])).permute(0, 3, 1, 2)
        / 255
    )
    x = (photos - 0.45) / 0.22
    for image, labels in zip(display_pictures(x), segment(x, name), strict=True):
        expected = SegmentationAlgorithm(name, **parameters)(image)
        assert len(np.unique(expected)) > 5
        assert np.array_equal(
            labels.numpy(), np.unique(expected, return_inverse=True)[1].reshape(labels.shape)
        )


def test_own_labels() -> None:
    x = pictures(2, (4, 6))
    labels = torch.tensor([[7, 7, -2], [7, 90, 90]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    expected = torch.tensor([[1, 1, 0], [1, 2, 2]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    for given in (
        labels,
        labels.numpy().astype(np.int16),
        labels[None].expand(2, 4, 6),
        lambda picture: labels.numpy(),
    ):
        found = segment(x, given)
        assert len(found) == 2
        assert all(torch.equal(one, expected) for one in found)
    assert sizes(expected).tolist() == [4, 12, 8]
    assert centers(expected)[0].tolist() == [0.5, 4.5]
    with pytest.raises(ArgumentTypeError, match="superpixels is a float"):
        segment(x, 3.0)  # type: ignore[arg-type]


def test_what_is_segmented_is_the_photo() -> None:
    photo = torch.randint(0, 256, (1, 3, 6, 8), generator=torch.Generator().manual_seed(0)).float()
    mean, std = (
        torch.tensor([120.0, 110, 100]).view(3, 1, 1),
        torch.tensor([50.0, 60, 70]).view(3, 1, 1),
    )
    shown = display_pictures((photo - mean) / std, ((0 - mean) / std, (255 - mean) / std))[0]
    assert np.array_equal(shown, photo[0].permute(1, 2, 0).numpy().astype(np.uint8))
    ranged = display_pictures(photo)[0].astype(float)
    assert (ranged.min(), ranged.max()) == (0, 255)
    hidden = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    hidden[:, 1] = -hidden[:, 0]  # the mean of the channels would be blank
    assert display_pictures(hidden)[0].std() > 20


def test_the_top_superpixels_are_outlined() -> None:
    labels = segment(torch.zeros(1, 1, 30, 30), "grid", options={"cells": 3})[0].numpy()
    photo = np.full((30, 30, 3), 0.5, np.float32)
    coefficients = np.array([0.1, -2.0, 0.3, 0, 0, 0, 0, 0, 1.0])
    picture = outline_top(photo, labels, coefficients, 2)
    assert picture.shape == photo.shape
    assert picture.dtype == np.float32
    green, red = (
        (picture[..., 1] > 0.8) & (picture[..., 0] < 0.2),
        (picture[..., 0] > 0.9) & (picture[..., 1] < 0.2),
    )
    assert set(labels[green]) == {8}
    assert set(labels[red]) == {1}
    assert (picture[5, 15] == 0.5).all()  # inside of a chosen one, outside of the rest
    assert np.allclose(picture[15, 15], 0.5 * 0.35)
    assert (outline_top(photo, labels, np.zeros(9), 9) < 0.5).all()
    for bad in (
        {"k": 0},
        {"labels": labels[:5]},
        {"coefficients": coefficients[:4]},
        {"photo": photo[..., 0]},
    ):
        with pytest.raises(InputError):
            outline_top(
                **{"photo": photo, "labels": labels, "coefficients": coefficients, "k": 2, **bad}
            )
