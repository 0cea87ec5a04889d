"""What each style makes of a photo and a map: colours, and how they lie over it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .superpixels import outline_top

Array = npt.NDArray[np.float32]
Painter = Callable[[Array, Array, Array, float], Array]
_REGIONS = 2000  # more are no superpixels
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def in_gray(pixels: Array) -> Array:
    """(H, W, 3) without its colours: (H, W, 1)."""
    return np.asarray((pixels @ _LUMA)[..., None], np.float32)


def _look_up(table: Array, share: Array) -> Array:
    """Colours (..., 3) of values in [0, 1]."""
    return table[np.clip(share * 256, 0, 255).astype(np.uint8)]


def _blend(base: Array, colors: Array, alpha: Array) -> Array:
    return base + (colors - base) * alpha[..., None]


def _paint_heat(photo: Array, heat: Array, table: Array, opacity: float) -> Array:
    # Opacity that grows with heat: plain blending veils the cold places too, and the photo is lost.
    return _blend(
        in_gray(photo) * (1 - 0.4 * opacity), _look_up(table, heat), heat * min(1.0, 1.6 * opacity)
    )


def _paint_jet(photo: Array, heat: Array, table: Array, opacity: float) -> Array:
    return photo * (1 - opacity) + _look_up(table, heat) * opacity


def _paint_signed(photo: Array, share: Array, table: Array, opacity: float) -> Array:
    # The root keeps weak evidence off the pale middle of the colours, where its sign could not be told.
    strength = np.abs(share)
    colors = _look_up(
        table, np.float32(0.5) + np.float32(0.42) * np.sign(share) * np.sqrt(strength)
    )
    alpha = strength ** np.float32(0.75) * np.float32(min(1.0, 1.8 * opacity))
    # A pale photo, for both ends of the colours are dark.
    return _blend(in_gray(photo) * (1 - 0.8 * opacity) + 180 * opacity, colors, alpha)


def _paint_gray(photo: Array, share: Array, table: Array, opacity: float) -> Array:
    return _look_up(table, 0.5 + 0.5 * share) if share.ndim == 2 else np.rint(127.6 + 127.4 * share)


def _paint_mask(photo: Array, heat: Array, table: Array, opacity: float) -> Array:
    return np.where(
        (heat >= 0.5)[..., None], photo, photo * np.float32(1 - min(1.0, 1.6 * opacity))
    )


def _paint_map(photo: Array, share: Array, table: Array, opacity: float) -> Array:
    return _look_up(table, share)


def _paint_sure(photo: Array, sure: Array, table: Array, opacity: float) -> Array:
    return _look_up(table, (sure > 0).astype(np.float32))


def _paint_superpixels(photo: Array, weights: Array, table: Array, opacity: float) -> Array:
    coefficients, labels = np.unique(weights, return_inverse=True)
    if len(coefficients) > _REGIONS:
        raise InputError(
            f"style 'superpixels' is for few regions, such as LIME's; here are {len(coefficients)}"
        )
    return outline_top(
        photo / np.float32(255), labels.reshape(weights.shape), coefficients
    ) * np.float32(255)


_PAINTERS: dict[str, Painter] = {
    "heatmap": _paint_heat,
    "jet": _paint_jet,
    "signed": _paint_signed,
    "grey": _paint_gray,
    "mask": _paint_mask,
    "map": _paint_map,
    "sure": _paint_sure,
    "superpixels": _paint_superpixels,
}


def paint(style: str, pixels: Array, values: Array, table: Array, opacity: float) -> Array:
    """What a style makes of a photo (H, W, 3) and of the values of its map on it.

    Args:
        style: One of `STYLES`.
        pixels: The photo, 0 to 255.
        values: (H, W) in [0, 1], signed in [-1, 1], or (H, W, 3); NaN counts as zero.
        table: The 256 colours of the colour map, (256, 3).
        opacity: 0 (only the photo) to 1.

    Returns:
        (H, W, 1 or 3), 0 to 255.

    Raises:
        InputError: The style is for few regions, and there are many.
    """
    return _PAINTERS[style](pixels, np.nan_to_num(values), table, opacity)
