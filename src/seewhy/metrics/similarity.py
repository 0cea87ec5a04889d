"""How alike two maps of one image are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, did_you_mean
from ..maps import values as map_tools

CELL, BLOCK = 16, 3  # HOG: pixels of a cell, cells of a block


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of the rows of two (N, d), (N,) float64; NaN where a row varies by rounding alone."""
    a, b = a.double(), b.double()
    flat = [(row.amax(1) - row.amin(1)) <= 1e-9 * row.abs().amax(1) for row in (a, b)]
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    found: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return found.clamp(-1, 1).masked_fill(flat[0] | flat[1], torch.nan)


def spearman(a: Tensor, b: Tensor, *, absolute: bool = False) -> Tensor:
    """Spearman's rank correlation of maps (N, h, w), in [-1, 1]; equal values share their mean rank.

    With `absolute` it is of their magnitudes: maps that differ in sign alone are then the same.
    """
    a, b = _comparable(a, b)
    if absolute:
        a, b = a.abs(), b.abs()
    return pearson(_ranks(a), _ranks(b))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004) of |map| / max |map|, in [-1, 1]; at least 11 x 11 pixels.

    ((2 m_a m_b + C1)(2 s_ab + C2)) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2)), C = (K L)^2 with K = .01 and .03 and
    L = 1, under Gaussian weights of sigma 1.5.
    """
    from skimage.metrics import structural_similarity

    a, b = (map_tools.normalize(m.abs()) for m in _comparable(a, b))
    if min(a.shape[1:]) < 11:
        raise InputError(
            f"maps of {a.shape[1]} x {a.shape[2]} are too small for SSIM, which needs 11 x 11; resize them"
        )
    found = [
        structural_similarity(
            *(m.double().numpy() for m in pair),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            K1=0.01,
            K2=0.03,
        )
        for pair in zip(a, b, strict=True)
    ]
    return torch.tensor(found, dtype=torch.float64)


def hog(a: Tensor, b: Tensor, *, ranks: bool = False) -> Tensor:
    """Correlation of histograms of oriented gradients of |map| / max |map| (cells of 16 x 16), in [-1, 1].

    Pearson's, as Adebayo et al. write, or with `ranks` Spearman's, as their notebook computes; at least 48 x 48 pixels.
    """
    from skimage.feature import hog as histogram

    a, b = (map_tools.normalize(m.abs()) for m in _comparable(a, b))
    if min(a.shape[1:]) < CELL * BLOCK:
        raise InputError(
            f"maps of {a.shape[1]} x {a.shape[2]} are too small for HOG, which needs {CELL * BLOCK} x {CELL * BLOCK}; "
            "resize them"
        )
    features = [
        torch.from_numpy(
            np.stack(
                [
                    histogram(
                        m.double().numpy(),
                        pixels_per_cell=(CELL, CELL),
                        cells_per_block=(BLOCK, BLOCK),
                    )
                    for m in maps
                ]
            )
        )
        for maps in (a, b)
    ]
    return pearson(*(map(_ranks, features) if ranks else features))


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spearman_abs": lambda a, b: spearman(a, b, absolute=True),
    "spearman": spearman,
    "ssim": ssim,
    "hog_pearson": hog,
    "hog_spearman": lambda a, b: hog(a, b, ranks=True),
}
_OF_PICTURES = ("ssim", "hog_pearson", "hog_spearman")


def similarity_of(name: str, a: Tensor, b: Tensor, size: tuple[int, int]) -> Tensor:
    """One of `SIMILARITIES` of maps (N, h, w): (N,). SSIM and HOG see them at `size`, the input's."""
    check_similarity(name)
    if name in _OF_PICTURES:
        a, b = map_tools.resize(a, size), map_tools.resize(b, size)
    return SIMILARITIES[name](a, b)


def check_similarity(name: str) -> None:
    if name not in SIMILARITIES:
        accepted = ", ".join(SIMILARITIES)
        raise InputError(
            f"similarity={name!r} is unknown{did_you_mean(name, SIMILARITIES)}; accepted: {accepted}"
        )


def _comparable(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape or a.ndim != 3:
        raise InputError(
            f"maps of {tuple(a.shape)} and {tuple(b.shape)} cannot be compared; give two of (N, h, w)"
        )
    return a.detach().float().cpu(), b.detach().float().cpu()


def _ranks(values: Tensor) -> Tensor:
    from scipy.stats import rankdata

    return torch.from_numpy(rankdata(values.flatten(1).numpy(), axis=1))
