"""Rectifiers by what they compute: every spelling obeys the rule of the usual one, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import oracles
from seewhy import Trace
from seewhy.engine.rules.computed import gate_height, height, operands
from seewhy.engine.rules.guided import Rectifiers
from tiny_models import Rectified, pictures, randomised

Spelling = Callable[[Tensor], Tensor]


def _by_item(x: Tensor) -> Tensor:
    x[x < 0] = 0
    return x


def _leaky_by_item(x: Tensor) -> Tensor:
    below = x < 0
    x[below] = 0.1 * x[below]
    return x


def _zero(x: Tensor) -> Tensor:
    return torch.zeros(1).to(x)


RELU: dict[str, Spelling] = {
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum of a scalar": lambda x: torch.maximum(_zero(x)[0], x),
    "fmax": lambda x: torch.fmax(x, _zero(x)),
    "max of two": lambda x: torch.max(x, torch.zeros_like(x)),
    "where": lambda x: torch.where(x > 0, x, 0),
    "where, turned": lambda x: torch.where(x <= 0, torch.zeros_like(x), x),
    "Tensor.where": lambda x: x.where(x > 0, _zero(x)),
    "times a mask": lambda x: x * (x > 0),
    "a mask times": lambda x: (x > 0).to(x) * x,
    "mul_": lambda x: x.mul_(x > 0),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0),
    "masked_fill_": lambda x: x.masked_fill_(x < 0, 0),
    "item assignment": _by_item,
    "index_put_": lambda x: x.index_put_((x < 0,), _zero(x)[0]),
    "F.threshold_": lambda x: F.threshold_(x, 0, 0),
    "torch.threshold_": lambda x: torch.threshold_(x, 0, 0),
    "two halves": lambda x: (x + x.abs()) / 2,
    "halves, turned": lambda x: (torch.abs(x) + x) * 0.5,
    "aten packet": lambda x: torch.ops.aten.relu(x),
    "aten overload": lambda x: torch.ops.aten.relu.default(x),
    "aten in place": lambda x: torch.ops.aten.relu_(x),
    "aten clamp": lambda x: torch.ops.aten.clamp(x, 0),
    "torch._C._nn": lambda x: torch._C._nn.hardtanh(x, 0.0, 1e9),
}


@pytest.mark.parametrize("rule", ["gradient", "guided", "deconvnet"])
@pytest.mark.parametrize("spelling", RELU)
def test_spellings_of_relu(spelling: str, rule: Any) -> None:
    net, x = randomised(Rectified(RELU[spelling])).double(), pictures(2, 16).double()
    with torch.no_grad():
        plain = net(x)
    rules = Rectifiers(rule)
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        assert torch.equal(trace.output, plain)
        found = trace.signal(1)["input"]
    torch.testing.assert_close(
        found, oracles.rectified_back(list(net.convs), net.fc, x, 1, rule), rtol=1e-9, atol=1e-13
    )
    assert (rules.met, rules.hidden) == (3, {})


SMOOTH: dict[str, tuple[Spelling, Spelling]] = {
    "silu": (lambda x: x * x.sigmoid(), F.silu),
    "silu in place": (lambda x: x.mul_(x.sigmoid()), F.silu),
    "gelu": (lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)), F.gelu),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), F.mish),
    "hardswish": (lambda x: x * F.relu6(x + 3) / 6, F.hardswish),
    "leaky by where": (lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: F.leaky_relu(x, 0.1)),
    "leaky by maximum": (lambda x: torch.maximum(0.1 * x, x), lambda x: F.leaky_relu(x, 0.1)),
    "leaky by item": (_leaky_by_item, lambda x: F.leaky_relu(x, 0.1)),
    "elu": (lambda x: torch.where(x > 0, x, torch.exp(x) - 1), F.elu),
}


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("spelling", SMOOTH)
def test_spellings_of_smooth_rectifiers(spelling: str, rule: Any) -> None:
    x, signals, met = pictures(2, 16).double(), [], []
    for form in SMOOTH[spelling]:
        rules = Rectifiers(rule)
        with Trace(randomised(Rectified(form)).double(), x, layers=["input"], rules=rules) as trace:
            signals.append(trace.signal(1)["input"])
        met.append(rules.met)
    if rule == "guided":  # a rectifier inside of another's gate is none of its own
        assert met == [3, 3]
    torch.testing.assert_close(signals[0], signals[1], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    "other",
    [
        lambda x: x * x,
        lambda x: x * torch.linspace(-1, 1, x.numel()).view(x.shape).to(x),
        lambda x: x * (torch.arange(x.numel()).view(x.shape) % 2).to(x),
        lambda x: torch.maximum(x, x.flip(1)),
        lambda x: torch.maximum(x, torch.full_like(x, 0.3)),
        lambda x: torch.fmax(x, torch.tensor(0.3).to(x)),
        lambda x: x * torch.sigmoid(x.flip(1)),
        lambda x: x.masked_fill(torch.ones_like(x, dtype=torch.bool).tril(), -1.0),
        lambda x: x + x.flip(1).abs(),
        lambda x: x + torch.logaddexp(x, -x),  # as x + |x| does, but by no magnitude
        lambda x: x.masked_fill(x > 0, 0),
        lambda x: torch.where(x < 0, x, torch.zeros_like(x)),
    ],
)
def test_what_rectifies_nothing_keeps_its_gradient(other: Spelling) -> None:
    net, x = randomised(Rectified(other)).double(), pictures(2, 16).double()
    rules = Rectifiers("guided")
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        guided = trace.signal(1)["input"]
    with Trace(net, x, layers=["input"]) as trace:
        torch.testing.assert_close(trace.signal(1)["input"], guided)
    assert rules.met == 0


def test_how_far_a_gate_opens() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    expected = {F.relu: 1.0, F.silu: 1.0, F.gelu: 1.0, F.mish: 1.0, F.elu: 1.0}
    assert {f: gate_height(x, f(x)) for f in expected} == expected
    assert gate_height(x, x + x.abs()) == 2.0
    assert gate_height(x, 6 * F.hardswish(x)) == pytest.approx(6)
    assert [gate_height(x, y) for y in (x, -x, x.tanh(), x.sigmoid(), x**2, x.flip(0))] == [
        None
    ] * 6
    assert gate_height(x[:4], x[:4].relu()) is None  # too few to tell


@pytest.mark.parametrize(
    "product",
    [
        lambda x: (x.sigmoid(), 1 + x.sigmoid()),
        lambda x: (x.sigmoid(), x.sigmoid().exp()),
        lambda x: (x.softmax(0), 1 + x.softmax(0)),
        lambda x: (x.abs(), 2 * x.abs()),
        lambda x: (x, x + 5),
        lambda x: (x, x.exp()),
    ],
)
def test_products_that_grow_are_no_rectifiers(product: Any) -> None:
    x, factor = product(torch.randn(1000, generator=torch.Generator().manual_seed(0)))
    assert gate_height(x, x * factor) is None


@pytest.mark.parametrize("act", [F.silu, F.gelu, F.mish, F.hardswish])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_smooth_gates_are_known_at_any_scale(act: Any, scale: float) -> None:
    x = scale * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert gate_height(x, act(x)) == pytest.approx(1.0, abs=0.25)


LINE = torch.arange(-40, 41) / 10  # -4 to 4, and 0.1 apart
LINE[40] = 1e-3  # where a smooth gate is half open


def gate(below: float, above: float, *, later: float | None = None) -> Tensor:
    """A gate half open by 1 that grows by these slopes on both sides of zero, and by another from x = 2 on."""
    low, high = 1 + below * LINE, 1 + above * LINE.clamp(max=2)
    rest = (above if later is None else later) * (LINE - 2).clamp(min=0)
    return torch.where(LINE < 0, low, high + rest)


@pytest.mark.parametrize(
    ("below", "above", "later", "opens"),
    [
        (0.12, 0.12, None, True),  # to less than 1.5 times half
        (0.13, 0.13, None, False),
        (0.189, 0.2, None, True),  # it closes to less than a quarter of half
        (0.186, 0.2, None, False),
        (0.1, 0.4, 0.31, True),  # it slows to less than 0.9 times
        (0.1, 0.4, 0.33, False),
        (0.2, 0.372, None, True),  # to less than 2.5 times half
        (0.2, 0.376, None, False),
    ],
)
@pytest.mark.parametrize("half", [1.0, 3.0])
def test_a_smooth_gate_closes_slows_or_opens_little(
    below: float, above: float, later: float | None, opens: bool, half: float
) -> None:
    found = gate_height(LINE, LINE * half * gate(below, above, later=later))
    assert found == (pytest.approx(2 * half) if opens else None)


EIGHT = torch.tensor([-4.0, -3, -2, -1, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("gates", "height"),
    [
        ([0, 0, 0, 0, 1, 1, 1, 1], 1.0),
        ([0.009, 0, 0, 0, 1, 1, 1, 1], 1.0),  # rounding, where x is small
        ([0.011, 0, 0, 0, 1, 1, 1, 1], None),
        ([-0.009, -0.009, 0, 0, 1, 1, 1, 1], 1.0),
        ([-0.02, -0.02, 0, 0, 1, 1, 1, 1], None),  # it turns a sign
        ([0.9985] * 4 + [1.0] * 4, 1.0),
        ([0.9995] * 4 + [1.0] * 4, None),  # nearly the same everywhere
        ([0, 0, 0, 0, 1.0005, 1.0005, 1.0005, 1.0005], 1.0),
        ([0, 0, 0, 0, 1.5, 1.5, 1.5, 1.5], 1.5),
        ([0, 0, 0, 0, 1.5, 1.5, 1.51, 1.514], 1.514),  # a step, up to rounding
    ],
)
def test_a_gate_that_is_a_step(gates: list[float], height: float | None) -> None:
    found = gate_height(EIGHT, EIGHT * torch.tensor(gates))
    assert found == (None if height is None else pytest.approx(height))


def test_a_gate_needs_four_values_of_either_sign_whatever_is_zero() -> None:
    assert gate_height(EIGHT, EIGHT.relu()) == 1.0
    assert gate_height(EIGHT - 1, (EIGHT - 1).relu()) is None  # five below, three above, one zero
    for shift in (-1.5, 1.5):
        x = EIGHT + shift
        assert gate_height(x, x.relu()) is None
    x = torch.cat([EIGHT, torch.zeros(5)])
    assert gate_height(x, x.relu()) == 1.0
    assert gate_height(torch.empty(0), torch.empty(0)) is None


def test_a_gate_is_looked_at_in_a_sample_of_large_tensors() -> None:
    x = torch.linspace(-1, 1, 8192)
    y = x.relu()
    y[1::2] = -5.0  # not among every second place
    assert gate_height(x, y) == 1.0
    assert gate_height(x[:8000:2], y[:8000:2]) == 1.0
    y[::2] = -5.0
    assert gate_height(x, y) is None
    small = torch.linspace(-1, 1, 4096)
    rectified = small.relu()
    rectified[3001] = -5.0  # of so few all are
    assert gate_height(small, rectified) is None
    x = torch.linspace(-1, 1, 4097)  # and of one more every second
    y = x.relu()
    y[1::2] = -5.0
    assert gate_height(x, y) == 1.0


def test_what_may_be_rectified_depends_on_x_and_has_the_shape_of_all_that_is_given() -> None:
    x, flat = EIGHT.clone().requires_grad_(), torch.zeros(8)
    (found,) = operands(torch.maximum, (flat, x), {})
    assert found is x
    (found,) = operands(torch.mul, (x, torch.tensor(2.0)), {})
    assert found is x
    assert operands(torch.maximum, (x, torch.zeros(2, 8)), {}) == []
    assert operands(torch.maximum, (flat, flat + 1), {}) == []


def test_what_turns_the_least_value_over_is_no_gate() -> None:
    y = EIGHT.relu()
    lowest = EIGHT.argmin()
    y[lowest] = (
        -0.5 * EIGHT[lowest]
    )  # its factor is -1/2; those after it are 0 and 1, as of a rectifier
    assert gate_height(EIGHT, EIGHT.relu()) == 1.0
    assert gate_height(EIGHT, y) is None


def test_the_larger_of_x_and_zero_is_known_whatever_x_is() -> None:
    x, zero = torch.ones(3).requires_grad_(), torch.zeros(3)
    for args, named in (((x, zero), {}), ((zero, x), {}), ((x, 0), {}), ((x,), {"other": zero})):
        assert height(torch.maximum, args, named, x, x.relu()) == 1.0
    for other in (torch.tensor([0.0, 0.0, 1e-9]), torch.zeros(3).requires_grad_(), False, 0.1):
        assert height(torch.maximum, (x, other), {}, x, x.relu()) is None
    assert height(torch.mul, (x, zero), {}, x, x.relu()) is None
    wide = EIGHT.clone().requires_grad_()
    assert height(torch.mul, (wide, wide > 0), {}, wide, wide.relu()) == 1.0
    assert height(torch.mul, (wide, wide > 0), {}, wide, wide.relu()[None]) is None


@pytest.mark.parametrize("images", [1, 2])
def test_items_are_rectified_by_a_mask_of_every_place_alone(images: int) -> None:
    x = torch.randn(images, 2, 3).requires_grad_()
    assign, mask = Tensor.__setitem__, x < 0
    for index in (mask, (mask,), [mask]):
        assert operands(assign, (x, index, 0), {}) == [x]
    for index in ((mask, 0), [mask, mask], mask[0], mask[0, 0], mask.long(), slice(0, 1), ()):
        assert operands(assign, (x, index, 0), {}) == []
    assert operands(assign, (x.detach(), mask, 0), {}) == []
