"""Networks drawn at random: relevance that is to conserve the score does, and what it says of the rest adds up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seewhy import Trace
from seewhy.engine.rules.composites import COMPOSITES
from seewhy.engine.rules.propagation import safe
from seewhy.engine.rules.relevance import Relevance
from seewhy.engine.targets.classes import Logit
from seewhy.maps.ledger import Entry, Ledger
from tiny_models import pictures, randomised

RANDOM = settings(max_examples=30, deadline=None, derandomize=True)
CLASSES = 3


class Added(nn.Module):
    """A convolution beside a way that skips it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def part(kind: str, channels: int) -> nn.Module:
    made = {
        "conv": lambda: nn.Conv2d(channels, channels, 3, padding=1),
        "strided": lambda: nn.Conv2d(channels, channels, 2, stride=2),
        "pointwise": lambda: nn.Conv2d(channels, channels, 1, bias=False),
        "grouped": lambda: nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        "norm": lambda: nn.BatchNorm2d(channels),
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "maximum": lambda: nn.MaxPool2d(2, ceil_mode=True),
        "mean": lambda: nn.AvgPool2d(2, ceil_mode=True),
        "skip": lambda: Added(channels),
        "none": nn.Identity,
    }
    return made[kind]()


KINDS = st.sampled_from(
    [
        "conv",
        "strided",
        "pointwise",
        "grouped",
        "norm",
        "relu",
        "relu6",
        "maximum",
        "mean",
        "skip",
        "none",
    ]
)


@st.composite
def networks(draw: st.DrawFn, *, biased: bool = True) -> nn.Sequential:
    """A convolution, up to five parts, and a linear head, with random weights in double precision."""
    channels = draw(st.integers(2, 4))
    parts = [part(kind, channels) for kind in draw(st.lists(KINDS, max_size=5))]
    net = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.ReLU(),
        *parts,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, CLASSES),
    )
    randomised(net, draw(st.integers(0, 99)))
    if not biased:
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if name.endswith(("bias", "running_mean")):
                nn.init.zeros_(tensor)
    return net.double()


@RANDOM
@given(networks(), st.integers(0, CLASSES - 1), st.sampled_from(sorted(COMPOSITES)))
def test_what_a_picture_is_not_given_is_accounted_for(
    net: nn.Sequential, column: int, composite: str
) -> None:
    x, ledger = pictures(2, 16).double(), Ledger()
    with Trace(net, x, layers=["input"], rules=Relevance(composite, ledger=ledger)) as trace:
        arrived = safe(x) * trace.signal(Logit(column))["input"]
    with torch.no_grad():
        scores = net(x)[:, column]
    assert relative_rest(float(scores.sum()), float(arrived.sum()), ledger.entries) < 1e-6
    for entry in ledger.entries:
        assert relative_rest(entry.received, entry.handed_on, [entry]) < 1e-6
    if composite == "conserving":
        assert ledger.total("bias") == ledger.total("parameter") == 0


def relative_rest(started: float, arrived: float, entries: Sequence[Entry]) -> float:
    """What is nowhere, as a share of the largest relevance on the way."""
    kept = sum(
        entry.bias + entry.epsilon + entry.no_contributor + entry.parameter for entry in entries
    )
    size = max(abs(started), abs(arrived), *(entry.peak for entry in entries), 1e-9)
    return abs(started - arrived - kept) / size


@RANDOM
@given(networks(biased=False), st.integers(0, CLASSES - 1))
def test_without_biases_the_relevance_of_each_picture_is_its_score(
    net: nn.Sequential, column: int
) -> None:
    x, ledger = pictures(2, 16).double(), Ledger()
    with Trace(net, x, layers=["input"], rules=Relevance("conserving", ledger=ledger)) as trace:
        arrived = (safe(x) * trace.signal(Logit(column))["input"]).flatten(1).sum(1)
    with torch.no_grad():
        scores = net(x)[:, column]
    size = max(entry.peak for entry in ledger.entries)
    torch.testing.assert_close(arrived, scores, rtol=1e-6, atol=1e-6 * size)
