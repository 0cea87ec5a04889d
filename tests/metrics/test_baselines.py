"""Maps that know nothing of the model, in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from seewhy.metrics import chance_maps


def test_noise_is_that_of_seed_0_unless_another_is_given() -> None:
    x = torch.rand(2, 3, 8, 8)
    noise = chance_maps(x)["random"]
    assert torch.equal(noise, chance_maps(x, seed=0)["random"])
    assert not torch.equal(noise, chance_maps(x, seed=1)["random"])


def test_the_centre_is_a_gaussian_of_a_quarter_of_each_side() -> None:
    found = chance_maps(torch.ones(2, 3, 8, 12))["centre"]
    for y in range(8):
        for x in range(12):
            down, right = (y - 3.5) / 2, (x - 5.5) / 3
            expected = math.exp(-(down**2) / 2 - right**2 / 2)
            assert found[:, y, x].tolist() == pytest.approx([expected] * 2, rel=1e-5)
