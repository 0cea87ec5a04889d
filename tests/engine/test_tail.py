"""The network after a layer: the shortcuts it takes, and that they give what the whole network gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.engine.tail import Tail
from seewhy.errors import InputError, LayerError, ModelError
from tiny_models import Called, ModelState, TinyCNN, pictures, randomised


def tail_of(net: nn.Module, layer: str) -> Tail:
    return Tail(net, pictures(1), layer, read=lambda output, n: output.double())


def scores_of(x: Tensor) -> Tensor:
    return torch.stack(
        [x.mean((1, 2, 3)), x.amax((1, 2, 3)), x[:, :, ::2].square().mean((1, 2, 3))], 1
    )


Same = Callable[[Tensor, Tensor], None]


@pytest.fixture
def same(device: torch.device) -> Same:
    """Holds scores of float32, read as float64, to be the same."""
    # where there is an accelerator the processor is another too, whose kernels may add up a batch in another order than
    # a single image: float32 then agrees to its last digits alone
    tolerance = 1e-6 if device.type == "cuda" else 1e-7
    return lambda found, expected: torch.testing.assert_close(
        found, expected, rtol=tolerance, atol=tolerance
    )


class After(nn.Module):
    """A convolution before, one whose output is changed, and any way on."""

    def __init__(self, on: Callable[..., Tensor]) -> None:
        super().__init__()
        self.before, self.layer, self.on = (
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.Conv2d(4, 4, 3, 1, 1),
            Called(on),
        )

    def forward(self, x: Tensor) -> Tensor:
        skip = self.before(x)
        return self.on(skip, self.layer(skip.tanh()))


@pytest.mark.parametrize(
    ("on", "together", "replays"),
    [
        (lambda skip, x: scores_of(skip + x), True, True),
        (lambda skip, x: scores_of(x.add_(skip).relu_()), True, True),
        (lambda skip, x: scores_of(torch.cat([skip.expand(len(x), -1, -1, -1), x], 1)), True, True),
        (lambda skip, x: scores_of(torch.cat([skip, x], 1)), False, True),
        (lambda skip, x: scores_of(x.view(1, 4, 16, 16)), False, True),
        (lambda skip, x: scores_of(x.reshape(len(skip), -1, 16, 16)), False, True),
        (lambda skip, x: scores_of(x - x.mean(0)), False, True),  # batch statistics
        (lambda skip, x: scores_of(x[:1]).expand(len(x), -1), False, True),
        (lambda skip, x: scores_of(skip.add_(x)), False, False),
        (lambda skip, x: scores_of(skip.mul_(2) + x), False, False),
    ],
)
def test_shortcuts_are_taken_where_they_give_what_the_network_gives(
    on: Any, together: bool, replays: bool, same: Same
) -> None:
    net, x = randomised(After(on)), pictures(1)
    tail = tail_of(net, "layer")
    changed = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    found = tail.run(changed.clone())
    assert (tail.together, tail.replays) == (together, replays)
    with torch.no_grad():
        for one, scores in zip(changed, found, strict=True):
            handle = net.layer.register_forward_hook(
                lambda m, args, value, one=one: one[None].clone()
            )
            torch.testing.assert_close(scores, net(x)[0].double(), rtol=1e-5, atol=1e-6)
            handle.remove()
        same(tail.scores, net(x).double())
    assert torch.equal(tail.run(changed.clone()), found)


def test_the_last_call_of_a_layer_counts(same: Same) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.layer = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            once = self.layer(self.stem(x)).relu_()
            return scores_of(self.layer(once) + once)

    net, x = randomised(Twice()), pictures(1)
    tail = tail_of(net, "layer")
    with torch.no_grad():
        once = net.layer(net.stem(x)).relu()
        torch.testing.assert_close(tail.activation, net.layer(once))
        changed = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        same(tail.run(changed.clone()), scores_of(changed + once).double())
    assert tail.together


@pytest.mark.parametrize("after", [False, True])
def test_a_network_may_write_into_its_input(after: bool, same: Same) -> None:
    """Before the layer, and after it too."""

    class Writing(After):
        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x.mul_(0.5))
            return scores + x.mul_(3).mean() if after else scores

    net, x = randomised(Writing(lambda skip, x: scores_of(skip + x))), pictures(1)
    tail = Tail(net, x, "layer", read=lambda output, n: output.double())
    assert torch.equal(x, pictures(1))
    found = tail.run(torch.cat([tail.activation, torch.zeros_like(tail.activation)]))
    assert tail.replays is not after
    same(found[:1], tail.scores)
    with torch.no_grad():
        expected = scores_of(net.before(0.5 * x)) + (1.5 * x.mean() if after else 0)
    same(found[1:], expected.double())


def test_networks_that_do_not_call_the_same_operations_each_time(same: Same) -> None:
    ways = [1, 0, 0, 0, 0]  # what a network makes on its first call alone
    first = Called(lambda x: x.relu().mul(2) if ways.pop(0) else x.clamp(min=0) + x.clamp(min=0))
    net = nn.Sequential(first, randomised(nn.Conv2d(3, 4, 3)), Called(scores_of))
    tail = tail_of(net, "1")
    same(tail.run(tail.activation.clone()), tail.scores)
    assert not tail.replays
    ways[:] = [1, 1, 1, 0]
    tail = tail_of(net, "1")
    with pytest.raises(
        ModelError, match="the model does not call the same operations for the same image"
    ):
        tail.run(tail.activation.clone())


def test_layers_without_numbers() -> None:
    net = nn.Sequential(Called(lambda x: (x > 0).long()), Called(lambda x: scores_of(x.float())))
    with pytest.raises(LayerError, match=r"the layer gives torch\.int64; choose another"):
        tail_of(net, "0")
    net[0] = Called(lambda x: None)
    net[1] = Called(lambda x: torch.ones(1, 3))
    with pytest.raises(
        LayerError, match="the layer gives a NoneType without a tensor; choose another"
    ):
        tail_of(net, "0")


def test_the_model_is_borrowed(same: Same) -> None:
    net = randomised(TinyCNN(), train=True)
    before = ModelState(net)
    tail = tail_of(net, "relu1")
    with torch.inference_mode():
        found = tail.run(torch.cat([tail.activation, 2 * tail.activation]))
    before.assert_unchanged()
    same(found[:1], tail.scores)
    with pytest.raises(InputError):
        tail.run(torch.zeros(1, 3, 32, 32))  # three channels, not eight
    before.assert_unchanged()
