"""Linear imputation (Rong et al., ICML 2022, section 4): a removed pixel is the weighted mean of its neighbours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import InputError

# (rows down, columns right): weight
NEIGHBORS = {
    (down, right): 1 / 6 if 0 in (down, right) else 1 / 12
    for down in (-1, 0, 1)
    for right in (-1, 0, 1)
    if (down, right) != (0, 0)
}


def impute(image: Tensor, kept: Tensor) -> Tensor:
    """Fills the removed pixels so that each is the weighted mean of its neighbours (direct 1/6, diagonal 1/12).

    One sparse symmetric system for all channels; at the border the weights of the neighbours that exist are used.

    Args:
        image: (C, H, W); removed values are not read.
        kept: (H, W) bool, at least one True.

    Returns:
        (C, H, W), kept pixels as they were.
    """
    from scipy.sparse.linalg import splu

    known = kept.cpu().numpy().astype(bool)
    if not known.any():
        raise InputError(
            "every pixel is removed, and nothing is left to impute from; keep at least one"
        )
    if known.all():
        return image.clone()
    pixels = image.detach().cpu().double().flatten(1).numpy()  # (C, H W)
    matrix, right = _linear_system(known, pixels)
    # symmetric positive definite: no pivoting, and an ordering that keeps the factors sparse
    solved = splu(
        matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    filled = torch.from_numpy(solved.solve(right)).T.to(image)  # (C, removed)
    whole = image.detach().clone().flatten(1)
    whole[:, torch.from_numpy(np.flatnonzero(~known)).to(image.device)] = filled
    return whole.reshape(image.shape)


def _linear_system(
    known: npt.NDArray[np.bool_], pixels: npt.NDArray[np.float64]
) -> tuple[object, npt.NDArray[np.float64]]:
    """The sparse matrix (removed, removed) and the right-hand side (removed, C)."""
    from scipy.sparse import coo_array

    height, width = known.shape
    places = np.arange(height * width).reshape(height, width)
    removed = np.flatnonzero(~known)
    index = np.full(height * width, -1)
    index[removed] = np.arange(len(removed))
    rows, columns, values = [], [], []
    diagonal, right = np.zeros(len(removed)), np.zeros((len(removed), len(pixels)))
    for (down, across), weight in NEIGHBORS.items():
        here = places[
            max(0, -down) : height - max(0, down), max(0, -across) : width - max(0, across)
        ].ravel()
        here = here[index[here] >= 0]
        there, equation = here + down * width + across, index[here]
        diagonal[equation] += weight
        unknown = index[there] >= 0
        rows.append(equation[unknown])
        columns.append(index[there[unknown]])
        values.append(np.full(int(unknown.sum()), -weight))
        right[equation[~unknown]] += weight * pixels[:, there[~unknown]].T
    every = np.arange(len(removed))
    entries = np.concatenate([*values, diagonal])
    where = np.concatenate([*rows, every]), np.concatenate([*columns, every])
    return coo_array((entries, where), shape=(len(removed), len(removed))).tocsc(), right
