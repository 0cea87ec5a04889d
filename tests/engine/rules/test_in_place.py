"""Relevance through in-place and written-out arithmetic: forward values stay, nothing is lost, nothing is unknown."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.engine.rules.in_place import twin
from seewhy.engine.rules.relevance import Relevance
from seewhy.engine.trace import Trace
from seewhy.maps.ledger import Ledger


def test_the_twin_of_a_method_that_no_function_shares_gives_what_the_method_leaves() -> None:
    """`torch.normal(x)` draws around x; `x.normal_()` forgets it."""
    x = torch.full((4,), 9.0)
    made = twin(Tensor.normal_)
    assert made is not None
    assert made(x, 3.0, 0.0).tolist() == [3.0] * 4
    assert x.tolist() == [9.0] * 4


class _InPlace(nn.Module):
    """Statements whose result is not used, on tensors, views and slices."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.second(F.relu(y))
        z.add_(y)
        left, right = z.chunk(2, 1)
        left.relu_()  # z changes with it
        right.mul_(2.0)
        z[:, 0] += z[:, 1]
        h = torch.zeros_like(z)
        h[:, :4] = z[:, 4:]
        h[:, 4:].copy_(z[:, :4])
        h.clamp_(min=-5)
        return self.head(h.mean((2, 3)))


class _WrittenOut(nn.Module):
    """A norm, an attention and gates by hand."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)
        attention = F.softmax(torch.einsum("bchw,bdhw->bcd", x, x), -1)
        mixed = torch.einsum("bcd,bdhw->bchw", attention, x)
        x = mixed + torch.lerp(x, 2 * x, 0.3) + torch.addcmul(x, x, x.sigmoid())
        return torch.cat([x.sum((2, 3)), -x.sum((2, 3))], 1)


@pytest.mark.parametrize("make", [_InPlace, _WrittenOut])
def test_relevance_is_conserved_and_values_stay(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net, x = make().double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = net(x)
    rules = Relevance("conserving", ledger=Ledger())
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        relevance = x * trace.signal("top1")["input"]
        scores = trace.scores("top1")
    assert torch.equal(trace.output, expected)
    assert rules.unknown == {}
    assert rules.ledger is not None
    kept = rules.ledger.total("parameter")
    assert float(relevance.sum()) + kept == pytest.approx(float(scores.sum()), rel=1e-6)


def test_an_unknown_operation_is_counted() -> None:
    class Strange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.i0(x).mean((2, 3)) + torch.lgamma(x.abs() + 1).mean((2, 3))

    rules = Relevance("conserving")
    with Trace(nn.Sequential(Strange()), torch.rand(1, 3, 4, 4), layers=["input"], rules=rules):
        assert "lgamma" in rules.unknown
