"""Maps before and after the last layer is drawn anew, against plain autograd."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import seewhy
from seewhy.errors import InputError, ModelError
from seewhy.metrics import LastLayerRandomization
from tiny_models import ModelState, TinyCNN, randomised

METHODS = seewhy.METHODS


def input_times_gradient(net: nn.Module, x: Tensor, target: int) -> Tensor:
    given = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(given)[:, target].sum(), given)
    return (gradient * x).sum(1)


def last_linear_redrawn(net: nn.Module, seed: int) -> nn.Module:
    changed = copy.deepcopy(net)
    last = [part for part in changed.modules() if isinstance(part, nn.Linear)][-1]
    drawn = torch.randn(last.weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        last.weight.copy_(drawn * last.weight.std() + last.weight.mean())
    return changed


@pytest.mark.parametrize("seed", [0, 7])
def test_it_is_the_rank_correlation_with_the_map_of_a_redrawn_layer(seed: int) -> None:
    net, x = randomised(TinyCNN()), torch.rand(3, 3, 16, 16)
    before = ModelState(net)
    metric = LastLayerRandomization("input_x_gradient", side=16, seed=seed)
    metric.update(METHODS["input_x_gradient"](net, x, 1), net, x, 1)
    before.assert_unchanged()
    maps = [input_times_gradient(each, x, 1) for each in (net, last_linear_redrawn(net, seed))]
    expected = [spearmanr(*(m[i].flatten() for m in maps))[0] for i in range(3)]
    assert metric.compute().values == pytest.approx(expected, abs=1e-5)
    assert metric.by_chance == 0


def test_a_method_that_asks_no_last_layer_stays_as_it_was() -> None:
    net, x = randomised(TinyCNN()), torch.rand(2, 3, 16, 16)
    metric = LastLayerRandomization(lambda model, x, target: x.sum(1))
    metric.update(x.sum(1), net, x, 0)
    assert metric.compute().mean == pytest.approx(1)


def test_a_map_that_is_constant_afterwards_has_no_value() -> None:
    net, x = randomised(TinyCNN()), torch.rand(1, 3, 16, 16)
    metric = LastLayerRandomization(lambda model, x, target: torch.ones(1, 4, 4))
    metric.update(torch.rand(1, 4, 4), net, x, 0)
    assert math.isnan(metric.compute().mean)
    assert metric.compute().left_out == {"undefined": 1}


def test_a_convolution_may_be_last_and_a_norm_is_passed_over() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
            self.norm = nn.LayerNorm(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.head(self.body(x).relu()).mean((2, 3)))

    from seewhy.engine.call import Call
    from seewhy.metrics.sanity.weights import last_layer

    assert last_layer(Call(Head().eval()), torch.rand(1, 3, 8, 8)) == "head"


def test_a_model_without_weights_is_told() -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) * self.scale * 90

    net, x = Scales().eval(), torch.rand(1, 3, 8, 8)
    metric = LastLayerRandomization("saliency")
    with pytest.raises(ModelError, match="Scales has no layer with a matrix of weights"):
        metric.update(torch.rand(1, 8, 8), net, x, 0)
    usual = seewhy.evaluate(net, x, methods="saliency", chance=())
    assert [row.metric for row in usual] == ["insertion", "deletion", "max_sensitivity"]


def test_a_side_of_one_pixel_has_no_ranks() -> None:
    with pytest.raises(InputError, match="side=1 leaves nothing to rank"):
        LastLayerRandomization(side=1)
