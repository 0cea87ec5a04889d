"""95 % intervals of a mean over images."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import InputError

Interval = Literal["t", "bootstrap", "wilson"]
INTERVALS: tuple[Interval, ...] = ("t", "bootstrap", "wilson")
RESAMPLES = 2000
Z = 1.959963984540054  # the normal distribution's 97.5 % point


def interval_of(
    values: npt.NDArray[np.float64],
    how: Interval,
    *,
    seed: int = 0,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """The 95 % interval (low, high) of the mean of n values; NaN where too few values leave it unknown.

    - "t": mean -+ t(.975, n - 1) s / sqrt(n), for values that are about normal or many; n >= 2.
    - "bootstrap": the 2.5th and the 97.5th percentile of the means of 2,000 resamples, for skewed values; n >= 2.
    - "wilson": of a share, where each value is 0 or 1 (Wilson, 1927); also right at none and at all. Of values between
      it is wider than it need be, for none vary more than those; n >= 1.

    Args:
        values: (n,).
        how: which of these.
        seed: of the resamples.
        limits: what the values lie between; t-intervals end there.

    Raises:
        InputError: no such interval, or "wilson" of values that are not in [0, 1].
    """
    n = len(values)
    if how not in INTERVALS:
        raise InputError(f"interval={how!r} is not known; use 't', 'bootstrap' or 'wilson'")
    if n < (1 if how == "wilson" else 2):
        return math.nan, math.nan
    if how == "wilson" and not 0 <= values.min() <= values.max() <= 1:
        raise InputError(
            f"interval='wilson' is of shares, and values reach from {values.min():g} to {values.max():g}; use 't' or "
            "'bootstrap'"
        )
    mean = float(values.mean())
    if how == "t":
        from scipy.stats import t

        half = float(t.ppf(0.975, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
        return max(mean - half, limits[0]), min(mean + half, limits[1])
    if how == "bootstrap":
        drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
        low, high = np.percentile(np.sort(values)[drawn].mean(1), (2.5, 97.5))
        return float(low), float(high)
    return wilson(mean, n)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n, which may be an effective number; NaN where n is 0."""
    if n <= 0:
        return math.nan, math.nan
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(min(middle - half, share), 0.0), min(
        max(middle + half, share), 1.0
    )  # rounding leaves no share outside


def resampling_weights(key: int, seed: int, resamples: int) -> npt.NDArray[np.float32]:
    """How often one image comes in each resample of a Poisson bootstrap (Chamandy et al., 2012): (resamples,).

    Drawn by the image's own key, so that resamples can be summed image by image, in any order and on any machine, and
    no image has to be kept.
    """
    return np.random.default_rng((seed, key)).poisson(1.0, resamples).astype(np.float32)


def percentiles(estimates: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5th and the 97.5th percentile of what the resamples give; NaN where none gives a number."""
    told = estimates[np.isfinite(estimates)]
    if not len(told):
        return math.nan, math.nan
    low, high = np.percentile(told, (2.5, 97.5))
    return float(low), float(high)
