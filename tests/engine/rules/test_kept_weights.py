"""What is made of weights is made once, and anew once one of them was written to or exchanged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from seewhy.engine.rules import kept_weights
from seewhy.engine.rules.kept_weights import made_of_weights
from seewhy.errors import TargetError
from seewhy.methods.catalog import METHODS
from tiny_models import TinyCNN, pictures, randomised


def test_what_was_made_is_there_until_a_tensor_is_written_to() -> None:
    weight, mean = nn.Parameter(torch.ones(2, 2)), torch.zeros(2)
    made_of_weights(weight, None, mean)["part"] = weight.detach(), None
    assert "part" in made_of_weights(weight, None, mean)
    mean.add_(1)
    assert not made_of_weights(weight, None, mean)


def test_other_tensors_and_other_settings_are_other_weights() -> None:
    weight, mean = nn.Parameter(torch.ones(2, 2)), torch.zeros(2)
    made_of_weights(weight, mean, settings=1)["part"] = weight.detach(), None
    assert not made_of_weights(weight, mean, settings=2)
    made_of_weights(weight, mean, settings=1)["part"] = weight.detach(), None
    assert not made_of_weights(weight, torch.zeros(2), settings=1)
    assert not made_of_weights(weight)


def test_nothing_is_kept_of_tensors_without_a_version() -> None:
    with torch.inference_mode():
        weight = torch.ones(2, 2)
        made_of_weights(weight)["part"] = weight, None
        assert not made_of_weights(weight)


def test_nothing_is_left_of_them_after_a_call() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    METHODS["lrp"](net, x, 1)
    assert not kept_weights._versions
    with pytest.raises(TargetError):
        METHODS["lrp"](net, x, 99)
    assert not kept_weights._versions


CHANGES: dict[str, Callable[[TinyCNN], object]] = {
    "weight in place": lambda net: net.conv2.weight.mul_(-1),
    "statistics in place": lambda net: net.bn2.running_var.mul_(9),
    "norm's weight in place": lambda net: net.bn2.weight.add_(1),
    "weight exchanged": lambda net: setattr(
        net.conv2, "weight", nn.Parameter(net.conv2.weight.flip(0))
    ),
    "data exchanged": lambda net: setattr(
        net.conv2.weight, "data", net.conv2.weight.detach().flip(0)
    ),
    "data in place": lambda net: net.conv2.weight.data.mul_(-1),
    "bias in place": lambda net: net.conv1.bias.add_(0.5),
}


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_gamma"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_weight_changed_between_two_calls_is_seen(change: str, composite: str) -> None:
    net, x = randomised(TinyCNN()), pictures(2)

    def relevance(net: nn.Module) -> Tensor:
        return METHODS["lrp"](net, x, 1, composite=composite, seed="lrp")

    before = relevance(net)
    with torch.no_grad():
        CHANGES[change](net)
    after = relevance(net)
    fresh = TinyCNN().eval()
    fresh.load_state_dict(net.state_dict())
    assert not torch.allclose(after, before, rtol=1e-3)
    torch.testing.assert_close(after, relevance(fresh))
