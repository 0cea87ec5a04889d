"""How strong the evidence is that the top colour stands for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_SHARING = 1.0  # percent of the pixels that have the top colour
_LEAST = 0.25  # of the maximum: evidence on fewer pixels must not bring traces of it to the top


def scaled(values: Array) -> Array:
    """Divides a map on a photo by what its top colour stands for, and clips what is beyond.

    That is the 99th percentile of the magnitude over the pixels that the model saw, so that the strongest 1 % share
    the top colour and one peak does not hide how far the evidence extends; at least a quarter of the maximum, where
    evidence lies on hardly more pixels than that. Evidence for and against is on one scale: (0, 1, -4) is (0, .25, -1).

    Args:
        values: (H, W), from 0 or signed; NaN where the model did not see.

    Returns:
        (H, W) in [0, 1], or [-1, 1]; NaN stays NaN, and all zero stays so.
    """
    strength = np.abs(values[np.isfinite(values)])
    if not strength.any():
        return values
    top = max(float(np.percentile(strength, 100 - _SHARING)), _LEAST * float(strength.max()))
    return np.asarray(np.clip(values / np.float32(top), -1, 1), np.float32)
