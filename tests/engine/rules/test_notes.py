"""What rules know of tensors: as long as these live, of this pass and thread alone, and never of another tensor."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.engine.rules.composites import Composite
from seewhy.engine.rules.lrp import epsilon, z_plus
from seewhy.engine.rules.notes import Notes
from seewhy.engine.rules.relevance import Relevance
from seewhy.engine.trace import Trace
from tiny_models import TinyCNN, TinyResNet, pictures, randomised


def test_notes_of_a_tensor_are_not_taken_for_anothers() -> None:
    notes, reused = Notes(), False
    for _ in range(100):
        x = notes.tag(torch.zeros(1), depth=3, non_negative=True, coefficient=True)
        assert notes.depth(x) == 3
        was = id(x)
        del x
        y = torch.zeros(1)
        reused |= id(y) == was
        assert notes.depth(y) is None
        assert not notes.is_non_negative(y)
        assert not notes.is_coefficient(y)
    assert reused


def test_notes_hold_no_tensor() -> None:
    notes, x = Notes(), torch.zeros(1)
    now = torch.ones(1)
    seen, held = weakref.ref(x), weakref.ref(now)
    notes.tag(x, depth=0)
    notes.supersede(x, lambda now=now: now)  # type: ignore[misc]
    del now
    assert held() is not None  # as long as what it stands for
    del x
    assert seen() is None
    assert held() is None


@pytest.mark.parametrize(
    ("make", "back"),
    [
        (lambda y: y.view(3, 1), lambda out: out._base),
        (lambda y: y * y, lambda out: out.grad_fn._saved_self),
    ],
)
def test_notes_stay_while_autograd_alone_holds_a_tensor(
    make: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]
) -> None:
    notes = Notes()
    y = notes.tag(torch.randn(3, requires_grad=True) * 2, depth=4)
    out = make(y)
    del y
    gc.collect()
    assert notes.depth(back(out)) == 4


def test_nothing_is_set_on_a_tensor() -> None:
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.seen = randomised(TinyResNet()), list[Tensor]()
            for part in self.net.modules():
                part.register_forward_hook(lambda part, args, out: self.seen.extend([*args, out]))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(F.silu(x, inplace=True))
            assert all(vars(t) == {} for t in [*self.seen, x, out, *self.parameters()])
            return out

    with Trace(Watched(), pictures(1), layers=["input"], rules=Relevance("conserving")) as trace:
        assert trace.signal(1)["input"].any()


# ---------------------------------------------------------------- one rule set, several passes

_BY_NAME = Composite(
    "by_name", (("name:*conv1", epsilon(0.1)), ("first", epsilon(0.5)), ("any", z_plus()))
)


def signal(net: nn.Module, x: Tensor, rules: Any, layer: str = "input") -> Tensor:
    with Trace(net, x, layers=[layer], rules=rules) as trace:
        return trace.signal(1)[layer]


def test_a_rule_set_is_used_again() -> None:
    rules, x = Relevance(_BY_NAME), pictures(1)
    for make, layer in ((TinyCNN, "relu1"), (TinyResNet, "input"), (TinyCNN, "input")):
        net = randomised(make())
        assert torch.equal(signal(net, x, rules, layer), signal(net, x, Relevance(_BY_NAME), layer))


class Asking(nn.Module):
    """A model that explains another in the middle of its own forward pass."""

    def __init__(self, rules: Relevance) -> None:
        super().__init__()
        self.net, self.other, self.rules = randomised(TinyCNN()), randomised(TinyResNet()), rules
        self.said: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        a = self.net.stem(x)
        self.said = signal(self.other, pictures(1, seed=3), self.rules)
        return self.net.fc(self.net.relu2(self.net.bn2(self.net.conv2(a))).mean((2, 3)))


def test_a_rule_set_is_used_inside_a_pass_of_itself() -> None:
    rules, x = Relevance(_BY_NAME), pictures(1)
    net = Asking(rules)
    found = signal(net, x, rules)
    assert torch.equal(found, signal(net.net, x, Relevance(_BY_NAME)))
    assert net.said is not None
    torch.testing.assert_close(
        net.said, signal(net.other, pictures(1, seed=3), Relevance(_BY_NAME))
    )


def test_threads_share_a_rule_set() -> None:
    rules = Relevance(_BY_NAME)
    nets = [randomised(TinyCNN()), randomised(TinyResNet())]
    jobs = [(nets[i % 2], pictures(1, seed=i)) for i in range(12)]
    expected = [signal(net, x, Relevance(_BY_NAME)) for net, x in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: signal(*job, rules), jobs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
