"""Starts as weights on the scores: what each is, and that a score near zero does not drown the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.rules.composites import uniform_epsilon
from seewhy.engine.targets.classes import Logit
from seewhy.engine.targets.numbers import Numbers
from seewhy.methods.starts import Seed, is_one_class, score_at_start, slopes_of_score
from tiny_models import pictures, randomised

LOGITS = Numbers("logits")


def weights(seed: Seed, z: Tensor, numbers: Numbers = LOGITS) -> Tensor:
    """The weight of each score in a start."""
    return slopes_of_score(score_at_start(Logit(1), seed, numbers), z)


def test_clrp_takes_the_mean_of_the_others_away() -> None:
    z = torch.randn(2, 5, dtype=torch.float64)
    torch.testing.assert_close(
        score_at_start(Logit(1), "clrp", LOGITS)(z), z[:, 1] - z[:, [0, 2, 3, 4]].mean(1)
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_sglrp_starts_with_the_slopes_of_the_probability(multi_label: bool) -> None:
    """For a softmax, y_t (1 - y_t) and -y_t y_n are the derivatives of y_t."""
    z = torch.randn(2, 5)
    numbers = Numbers("logits", multi_label)
    y = numbers.probabilities(z)
    expected = y[:, [1]] * (torch.eye(5)[1] - y)
    torch.testing.assert_close(weights("sglrp", z, numbers), expected)
    if not multi_label:
        leaf = z.clone().requires_grad_()
        (slope,) = torch.autograd.grad(leaf.softmax(1)[:, 1].sum(), leaf)
        torch.testing.assert_close(expected, slope)


@pytest.mark.parametrize("seed", ["clrp", "sglrp"])
def test_a_score_near_zero_weighs_no_more_than_another(seed: Seed) -> None:
    z = torch.tensor([[3.0, 2.0, 1e-6, -1e-6, 1.0]])
    assert float(weights(seed, z).abs().max()) <= 1.0
    published: Seed = "clrp_paper" if seed == "clrp" else "sglrp_paper"
    assert float(weights(published, z).abs().max()) > 1e3  # R_n / z_n


class Pooled(nn.Module):
    """Maps, pooled into one linear layer whose third score is nearly zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()
        self.fc = nn.Linear(6, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.stem(x)).mean((2, 3)))


@pytest.mark.parametrize("seed", ["clrp", "sglrp"])
def test_maps_of_a_start_are_its_weighted_sum(seed: Seed) -> None:
    """With z / z at the head the map is that of each class, weighted: also where a score is nearly zero."""
    net, x = randomised(Pooled()), pictures(1, 12)
    with torch.no_grad():
        a = net.relu(net.stem(x))
        pooled = a.mean((2, 3))[0]
        net.fc.weight[2] -= pooled * (net(x)[0, 2] - 1e-7) / pooled.dot(pooled)
        z = net(x)
    assert abs(float(z[0, 2])) < 1e-5
    maps = torch.einsum("kc,chw->khw", net.fc.weight.detach(), a[0]) / a[0, 0].numel()
    expected = torch.einsum("k,khw->hw", weights(seed, z)[0], maps)
    found = seewhy.methods.layer_relevance(
        seewhy.wrap(net, gives="logits"),
        x,
        1,
        layer="relu",
        composite=uniform_epsilon(0),
        seed=seed,
    )
    torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-5)


def test_what_is_one_class_is_seen_for_each_image() -> None:
    slopes = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, -1.0], [0.0, 2.0, 0.0], [1.0, 1.0, 0.0]])
    assert is_one_class(slopes).tolist() == [True, False, False, False]
