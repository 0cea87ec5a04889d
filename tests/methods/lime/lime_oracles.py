"""What LIME and Shapley values are by other means: the lime package, and brute force."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from lime.lime_base import LimeBase
from sklearn.metrics import pairwise_distances
from torch import Tensor


def package_fit(
    shown: Tensor, scores: Tensor, *, features: int, selection: str, width: float = 0.25
) -> list[Any]:
    """(coefficients (d,), intercept, r2) of each column of the scores, as the lime package has them."""

    def kernel(d: np.ndarray, kernel_width: float) -> np.ndarray:  # as in lime_image.py
        return np.sqrt(np.exp(-(d**2) / kernel_width**2))

    data = shown.long().numpy()
    distances = pairwise_distances(data, np.ones((1, data.shape[1])), metric="cosine").ravel()
    base = LimeBase(partial(kernel, kernel_width=width), random_state=0)
    found = []
    for label in range(scores.shape[1]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its ridge without penalty meets singular systems
            intercept, told, r2, _ = base.explain_instance_with_data(
                data, scores.numpy(), distances, label, features, selection
            )
        coefficients = np.zeros(data.shape[1])
        for feature, value in told:
            coefficients[feature] = value
        found.append((torch.from_numpy(coefficients), float(intercept), r2))
    return found


def shapley_values(game: Callable[[Tensor], Tensor], d: int) -> Tensor:
    """By the definition: each superpixel's marginal contribution, averaged over the orders in which all may come."""
    worth = game(torch.tensor(list(itertools.product([False, True], repeat=d)))).tolist()
    values = torch.zeros(d, dtype=torch.float64)
    for coalition in itertools.product([0, 1], repeat=d):
        number, k = int("".join(map(str, coalition)), 2), sum(coalition)
        for i in range(d):
            if not coalition[i]:
                weight = math.factorial(k) * math.factorial(d - k - 1) / math.factorial(d)
                values[i] += weight * (worth[number + 2 ** (d - 1 - i)] - worth[number])
    return values


def bent(shown: Tensor, seed: int = 1, columns: int = 1) -> Tensor:
    """Scores that depend on coalitions linearly and otherwise: (n, d) -> (n, columns)."""
    generator = torch.Generator().manual_seed(seed)
    d, z = shown.shape[1], shown.double()
    linear = z @ torch.randn(d, columns, generator=generator, dtype=torch.float64)
    pairs = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
    return ((linear + 0.7 * ((z @ pairs) * z).sum(1, keepdim=True)) / 2).sigmoid()
