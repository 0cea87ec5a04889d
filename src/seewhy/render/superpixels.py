"""The superpixels that matter most, outlined on the photo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data.rgb import Array
from ..errors import InputError

FOR, AGAINST = (0.1, 0.85, 0.2), (0.95, 0.15, 0.15)  # green, red
DIMMED = 0.35


def outline_top(
    photo: Array, labels: Array, coefficients: Array, k: int = 5
) -> npt.NDArray[np.float32]:
    """Outlines the k superpixels of largest coefficient: green speaks for the target, red against it; the rest is dim.

    Of a LIME map alone, coefficients and labels are `np.unique(map, return_inverse=True)`, with neighbours of equal
    coefficient as one.

    Args:
        photo: (H, W, 3) floats in [0, 1].
        labels: (H, W) integers 0 to d - 1.
        coefficients: (d,); those that are zero are never shown.
        k: how many.

    Returns:
        (H, W, 3) float32 in [0, 1].

    Raises:
        InputError: the shapes do not fit, or k is below 1.

    Example:
        >>> import numpy as np
        >>> labels = np.repeat([[0, 1]], 4, axis=1).reshape(2, 4)
        >>> seewhy.render.outline_top(np.full((2, 4, 3), 0.5), labels, np.array([0.3, 0.0]), k=1).shape
        (2, 4, 3)
    """
    from skimage.segmentation import mark_boundaries

    shown, weights, regions = (
        np.asarray(photo, np.float32),
        np.asarray(coefficients),
        np.asarray(labels),
    )
    _check(shown, regions, weights, k)
    top = np.argsort(-np.abs(weights), kind="stable")[:k]
    top = top[weights[top] != 0]
    kept = np.isin(regions, top)
    picture = np.where(kept[..., None], shown, shown * np.float32(DIMMED))
    for color, side in ((FOR, top[weights[top] > 0]), (AGAINST, top[weights[top] < 0])):
        mine = np.where(np.isin(regions, side), regions + 1, 0)
        # inside the superpixel, so that neighbours do not draw over each other
        picture = mark_boundaries(picture, mine, color=color, mode="inner", background_label=0)
    return np.asarray(picture, np.float32)


def _check(photo: Array, labels: Array, coefficients: Array, k: int) -> None:
    if photo.ndim != 3 or photo.shape[2] != 3:
        raise InputError(f"photo has shape {photo.shape}; give (H, W, 3) floats in [0, 1]")
    if labels.shape != photo.shape[:2]:
        raise InputError(
            f"labels has shape {labels.shape}, the photo {photo.shape}; give one label for each pixel"
        )
    if coefficients.ndim != 1 or not 0 <= labels.min() <= labels.max() < len(coefficients):
        raise InputError(
            f"labels go from {labels.min()} to {labels.max()} and coefficients has shape {coefficients.shape}; "
            "give a coefficient for each label from 0"
        )
    if k < 1:
        raise InputError(f"k={k} superpixels; give at least 1")
