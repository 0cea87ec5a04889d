"""Short forms give what the rules give at length, and absorb what bias and stabiliser absorb."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.engine.rules import lrp
from seewhy.engine.rules.linear import convolution, dense
from seewhy.engine.rules.linear_map import LinearMap
from seewhy.engine.rules.lrp import Rule
from seewhy.engine.rules.propagation import propagate
from seewhy.engine.rules.short import short_signal

RULES = {
    "epsilon": lrp.epsilon(0.01),
    "z_plus": lrp.z_plus(0.01, bias="absorb", fallback=False),
    "z_plus without bias": lrp.z_plus(0.01, fallback=False),
    "gamma": lrp.gamma(0.25, 0.01),
    "gamma 1": lrp.gamma(1.0, 0.01),
}


def convolved(bias: bool) -> tuple[Tensor, LinearMap, Tensor]:
    x, weight = torch.randn(2, 3, 5, 6).double(), torch.randn(4, 3, 3, 3).double()
    given = x, weight, torch.randn(4).double() if bias else None, 2, 1
    _, linear, _, _ = convolution(F.conv2d, given, {})
    return x, linear, F.conv2d(*given)


def densely(bias: bool) -> tuple[Tensor, LinearMap, Tensor]:
    x, weight = torch.randn(2, 5, 7).double(), torch.randn(4, 7).double()
    given = x, weight, torch.randn(4).double() if bias else None
    return x, dense(given, {})[1], F.linear(*given)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make", [convolved, densely])
@pytest.mark.parametrize("name", RULES)
def test_as_at_length(
    name: str, make: Callable[[bool], tuple[Tensor, LinearMap, Tensor]], bias: bool, positive: bool
) -> None:
    rule, (x, linear, z) = RULES[name], make(bias)
    if positive:
        x = x.abs()
        z = linear.apply(x, linear.weight) + (0 if linear.bias is None else linear.bias)
    g = torch.randn_like(z)
    found = short_signal(rule, linear, x, z, g, non_negative=positive)
    if name.startswith("z_plus") and not positive:
        assert found is None
        return
    assert found is not None
    slow = propagate(rule, linear, x, z, g.clone(), non_negative=positive)
    torch.testing.assert_close(found.signal, slow)
    # what does not arrive is what stayed
    torch.testing.assert_close(
        (found.share * found.all_own()).sum(), (g * z).sum() - (x * slow).sum()
    )


@pytest.mark.parametrize(
    "rule",
    [
        lrp.z_plus(),  # it has a fallback
        lrp.epsilon(0.0),
        lrp.epsilon(bias="spread"),
        lrp.alpha_beta(),
        lrp.flat(),
        lrp.gamma(-0.5),  # contributions of z's own sign count less: their sum may change its sign
        lrp.gamma(bias="exclude"),
    ],
)
def test_what_has_no_short_form(rule: Rule) -> None:
    x, linear, z = densely(bias=True)
    assert short_signal(rule, linear, x.abs(), z, z, non_negative=True) is None


def test_grouped_convolutions_have_none_of_gamma() -> None:
    given = torch.rand(1, 4, 3, 3), torch.randn(4, 2, 1, 1), None, 1, 0, 1, 2
    x, linear, _, _ = convolution(F.conv2d, given, {})
    z = F.conv2d(*given)
    assert short_signal(lrp.gamma(), linear, x, z, z, non_negative=True) is None
    assert short_signal(RULES["z_plus"], linear, x, z, z, non_negative=True) is not None
