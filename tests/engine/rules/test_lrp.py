"""Every rule on every linear map against a dense Jacobian; the fallback, BatchNorm, limits, the accounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lrp_oracles as oracles
from seewhy.engine.rules.composites import Composite
from seewhy.engine.rules.linear import convolution, dense
from seewhy.engine.rules.lrp import (
    Bias,
    Rule,
    Term,
    alpha_beta,
    epsilon,
    flat,
    gamma,
    w_squared,
    z_box,
    z_plus,
)
from seewhy.engine.rules.propagation import LinearMap, propagate, safe
from seewhy.engine.rules.relevance import Relevance
from seewhy.errors import InputError

D = torch.float64
Oracle = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Call = Callable[[Tensor], Tensor]


class Case:
    """A linear operation with random weights and an input."""

    def __init__(
        self, kind: str, *, bias: bool = True, seed: int = 0, signed: bool = True, **options: object
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=D)

        groups = options.get("groups", 1)
        if kind == "linear":
            self.func, self.x, weight = F.linear, random(2, 7), random(5, 7)
            outputs = 5
        else:
            n, transposed = int(kind[-2]), "transpose" in kind
            size = {1: (9,), 2: (6, 5), 3: (4, 5, 3)}[n]
            kernel = options.pop("kernel", (3, 2, 3)[:n])
            self.func, self.x = getattr(F, kind), random(2, 4, *size)
            weight = (
                random(4, 6 // groups, *kernel) if transposed else random(6, 4 // groups, *kernel)
            )
            outputs = 6
        self.x = self.x if signed else self.x.clamp(min=0)
        self.x.flatten()[::11] = 0
        self.kwargs = {"weight": weight, "bias": random(outputs) if bias else None, **options}
        self.z = self.call(self.x)
        self.r = random(*self.z.shape) * (self.z != 0)  # relevance is z times a signal
        self.linear = self._map()

    def call(self, x: Tensor) -> Tensor:
        return self.func(x, **self.kwargs)

    def _map(self) -> LinearMap:
        if self.func is F.linear:
            return dense((self.x,), self.kwargs)[1]
        return convolution(self.func, (self.x,), self.kwargs)[1]

    def relevance(self, rule: Rule, **options: object) -> Tensor:
        g = torch.where(self.z == 0, 0, self.r / self.z)
        return safe(self.x) * propagate(rule, self.linear, self.x, self.z, g, **options)

    def expected(self, oracle: Oracle) -> Tensor:
        w, b = oracles.matrix(self.call, self.x[0])
        rows = [oracle(w, b, x.flatten(), r.flatten()) for x, r in zip(self.x, self.r, strict=True)]
        return torch.stack(rows).view_as(self.x)


CASES: dict[str, dict[str, object]] = {
    "linear": {"kind": "linear"},
    "conv1d": {"kind": "conv1d", "stride": 2, "padding": 1},
    "conv1d same, even": {"kind": "conv1d", "kernel": (4,), "padding": "same", "dilation": 3},
    "conv2d": {"kind": "conv2d"},
    "conv2d padded": {"kind": "conv2d", "stride": (2, 1), "padding": (1, 0)},
    "conv2d same, even": {"kind": "conv2d", "kernel": (4, 3), "padding": "same"},
    "conv2d valid": {"kind": "conv2d", "padding": "valid"},
    "conv2d dilated, grouped": {"kind": "conv2d", "dilation": 2, "groups": 2, "padding": 2},
    "conv3d": {"kind": "conv3d", "padding": 1, "stride": (1, 2, 1)},
    "conv3d same, even": {"kind": "conv3d", "kernel": (2, 2, 3), "padding": "same"},
    "conv_transpose1d": {"kind": "conv_transpose1d", "stride": 2, "output_padding": 1},
    "conv_transpose2d": {"kind": "conv_transpose2d", "stride": 2, "padding": 1, "groups": 2},
    "conv_transpose2d dilated": {"kind": "conv_transpose2d", "dilation": (2, 1), "stride": (1, 2)},
    "conv_transpose3d": {"kind": "conv_transpose3d", "stride": (1, 2, 1), "padding": (1, 0, 1)},
}
cases = pytest.mark.parametrize("case", CASES)
with_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])

PRODUCT: dict[str, tuple[Callable[[bool], Rule], Callable[[bool], Oracle]]] = {
    "epsilon": (
        lambda absorb: replace(epsilon(0.1), bias="absorb" if absorb else "exclude"),
        lambda absorb: lambda *a: oracles.epsilon_rule(*a, epsilon=0.1, absorb=absorb),
    ),
    "zero": (
        lambda absorb: replace(epsilon(0), bias="absorb" if absorb else "exclude"),
        lambda absorb: lambda *a: oracles.epsilon_rule(*a, epsilon=0, absorb=absorb),
    ),
    "gamma": (
        lambda absorb: gamma(0.3, 0.01, bias="absorb" if absorb else "exclude"),
        lambda absorb: lambda *a: oracles.gamma_rule(*a, gamma=0.3, epsilon=0.01, absorb=absorb),
    ),
    "alpha2 beta1": (
        lambda absorb: alpha_beta(2, 1, bias="absorb" if absorb else "exclude"),
        lambda absorb: (
            lambda *a: oracles.alpha_beta_rule(*a, alpha=2, beta=1, epsilon=1e-6, absorb=absorb)
        ),
    ),
    "alpha1 beta0": (
        lambda absorb: alpha_beta(1, 0, bias="absorb" if absorb else "exclude"),
        lambda absorb: (
            lambda *a: oracles.alpha_beta_rule(*a, alpha=1, beta=0, epsilon=1e-6, absorb=absorb)
        ),
    ),
    "z_plus": (
        lambda absorb: z_plus(bias="absorb" if absorb else "exclude", fallback=False),
        lambda absorb: (
            lambda *a: oracles.alpha_beta_rule(*a, alpha=1, beta=0, epsilon=1e-6, absorb=absorb)
        ),
    ),
}


def assert_same(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    scale = expected.abs().max().clamp(min=1e-12)
    worst = ((found - expected).abs() / scale).max()
    assert float(worst) < tolerance, f"relative error {float(worst):.1e}"


# ---------------------------------------------------------------- the rules


@pytest.mark.parametrize("absorb", [True, False], ids=["absorb", "exclude"])
@pytest.mark.parametrize("rule", PRODUCT)
@with_bias
@cases
def test_rule_is_its_formula(case: str, bias: bool, rule: str, absorb: bool) -> None:
    make, oracle = PRODUCT[rule]
    signed = Case(**CASES[case], bias=bias)
    assert_same(signed.relevance(make(absorb)), signed.expected(oracle(absorb)))
    positive = Case(**CASES[case], bias=bias, signed=False)
    expected = positive.expected(oracle(absorb))
    assert_same(positive.relevance(make(absorb)), expected)
    assert_same(positive.relevance(make(absorb), non_negative=True), expected)


@cases
def test_a_bias_that_spreads_is_its_formula(case: str) -> None:
    one = Case(**CASES[case], bias=True)
    found = one.relevance(epsilon(0.01, bias="spread"))
    expected = one.expected(lambda *a: oracles.epsilon_rule_with_bias_spread(*a, epsilon=0.01))
    assert_same(found, expected)


@with_bias
@cases
def test_rule_of_the_first_layer_is_its_formula(case: str, bias: bool) -> None:
    one = Case(**CASES[case], bias=bias)
    shape = (-1, *[1] * (one.x.ndim - 2))
    low = -4.5 - torch.rand(one.x.shape[1], dtype=D).view(shape)
    high = 4.5 + torch.rand(one.x.shape[1], dtype=D).view(shape)
    flat_low, flat_high = (v.expand_as(one.x[0]).flatten() for v in (low, high))
    if one.func is F.linear:
        low, high = flat_low, flat_high
    assert (one.x == 0).any()
    assert_same(
        one.relevance(w_squared()),
        one.expected(lambda *a: oracles.w_squared_rule(*a, epsilon=1e-6)),
    )
    assert_same(one.relevance(flat()), one.expected(lambda *a: oracles.flat_rule(*a, epsilon=1e-6)))
    expected = one.expected(lambda *a: oracles.z_box_rule(*a, flat_low, flat_high, epsilon=1e-6))
    assert_same(one.relevance(z_box(low, high)), expected)


def test_large_gamma_and_alpha_one_are_z_plus() -> None:
    case = Case("conv2d", padding=1)
    plus = z_plus(epsilon=0, fallback=False)
    only = alpha_beta(1, 0, 0, bias="exclude")
    assert_same(case.relevance(only), case.relevance(plus), 1e-15)
    case.r = case.r * (case.z > 0)
    assert_same(case.relevance(gamma(1e12, 0, bias="exclude")), case.relevance(plus))


@pytest.mark.parametrize(("alpha", "beta"), [(2, 2), (-1, -2), (0.5, -0.5)])
def test_alpha_and_beta_must_fit(alpha: float, beta: float) -> None:
    with pytest.raises(InputError, match="alpha - beta must be 1"):
        alpha_beta(alpha, beta)


def test_rules_have_their_published_defaults() -> None:
    up, down = (1.25, 1.0), (1.0, 1.25)
    plus = Term(1.0, (1.0, 0.0), (0.0, 1.0))
    assert epsilon() == Rule("epsilon", (Term(1.0, (1.0, 1.0), (1.0, 1.0)),), "absorb", 1e-6)
    assert z_plus() == Rule("z_plus", (plus,), "exclude", 1e-6, True)
    terms = Term(1.0, up, down, "z > 0"), Term(1.0, down, up, "z <= 0")
    assert gamma() == Rule("gamma", terms, "absorb", 1e-6)
    signed = Term(2.0, (1.0, 0.0), (0.0, 1.0)), Term(-1.0, (0.0, 1.0), (1.0, 0.0))
    assert alpha_beta() == Rule("alpha_beta", signed, "absorb", 1e-6)
    assert alpha_beta(1, 0).terms == (plus,)
    assert w_squared() == Rule("w_squared", form="squared", epsilon=1e-6)
    assert flat() == Rule("flat", form="flat", epsilon=1e-6)
    low, high = torch.zeros(1), torch.ones(1)
    assert (z_box(low, high).box, z_box(low, high).epsilon) == ((low, high), 1e-6)
    for rule in (epsilon(), w_squared(), flat(), z_box(low, high)):
        assert (rule.fallback, rule.hands_all_on) == (False, False)


TERMS = (
    Term(above=(1.0, 0.0), below=(0.0, 1.0)),
    Term(0.5, above=(1.0, 0.0), below=(0.0, 1.0)),
    Term(above=(1.0, 0.0), where="z > 0"),
    Term(-2.0, above=(3.0, 1.0), below=(1.0, 3.0), where="z <= 0"),
    Term(),
)


@pytest.mark.parametrize("terms", [TERMS, TERMS[:2]])
@pytest.mark.parametrize("bias", ["absorb", "exclude", "spread"])
@pytest.mark.parametrize("signed", [True, False])
def test_terms_add_up(terms: tuple[Term, ...], bias: Bias, signed: bool) -> None:
    for case in (Case("conv2d", signed=signed), Case("linear", signed=signed)):
        single = [
            case.relevance(Rule("one", (term,), bias, 0.01), non_negative=not signed)
            for term in terms
        ]
        together = case.relevance(Rule("all", terms, bias, 0.01), non_negative=not signed)
        assert_same(together, sum(single, torch.zeros_like(together)))
        general = case.relevance(Rule("all", terms, bias, 0.01))
        assert_same(together, general)  # that an input is known to be non-negative saves work alone


def test_nothing_contributes_gives_zero_not_nan() -> None:
    linear = dense(
        (), {"input": torch.zeros(1, 3), "weight": torch.ones(2, 3), "bias": torch.ones(2)}
    )[1]
    x, z, g = torch.zeros(1, 3), torch.ones(1, 2), torch.ones(1, 2)
    made = (
        gamma(bias="exclude"),
        alpha_beta(bias="exclude"),
        epsilon(bias="exclude"),
        epsilon(0, bias="exclude"),
    )
    for rule in (z_plus(), z_plus(0), z_plus(fallback=False), *made):
        tally: dict[str, float] = {}
        assert torch.equal(propagate(rule, linear, x, z, g, tally=tally), torch.zeros(1, 3))
        assert sum(tally.values()) == 2


def test_relevance_of_zeros_and_of_the_smallest_numbers_is_held() -> None:
    tiny = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1e-30, 0.5, -0.5])
    moved = safe(tiny)
    assert torch.equal(moved[-2:], tiny[-2:])
    assert ((torch.ones(7) / moved).isfinite()).all()


# ---------------------------------------------------------------- the fallback


def depthwise(*, channels: int = 4, seed: int = 0) -> Case:
    """A depthwise convolution of an image with zero channels and windows: many outputs have no contributor."""
    case = Case("conv2d", seed=seed, signed=False)
    generator = torch.Generator().manual_seed(seed)
    case.x = torch.rand(3, channels, 9, 9, generator=generator, dtype=D)
    case.x[:, 0] = 0
    case.x[:, 1, :, :5] = 0
    weight = torch.randn(channels, 1, 3, 3, generator=generator, dtype=D)
    weight[2] = -weight[2].abs()
    case.kwargs = {
        "weight": weight,
        "bias": torch.randn(channels, dtype=D),
        "groups": channels,
        "padding": 1,
    }
    case.z = case.call(case.x)
    case.r = torch.randn(case.z.shape, generator=generator, dtype=D)
    case.linear = case._map()
    return case


EXACT = z_plus(epsilon=0)


def test_fallback_is_its_formula() -> None:
    case = depthwise()
    assert_same(case.relevance(EXACT), case.expected(oracles.z_plus_with_fallback))
    assert_same(
        case.relevance(EXACT, non_negative=True), case.expected(oracles.z_plus_with_fallback)
    )
    signed = Case("conv2d", groups=2, padding=2)
    signed.x[:, :2, :, :3] = 0
    signed.z = signed.call(signed.x)
    assert_same(signed.relevance(EXACT), signed.expected(oracles.z_plus_with_fallback))


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
def test_an_image_of_zeros_has_no_signal_to_hand_on(kind: str) -> None:
    case = Case(kind)
    case.x[0] = 0
    case.z = case.call(case.x)  # the bias alone, for the first
    found = propagate(EXACT, case.linear, case.x, case.z, torch.ones_like(case.z))
    assert torch.equal(found[0], torch.zeros_like(found[0]))
    assert found[1].abs().min() > 0


def test_fallback_conserves_where_plain_z_plus_does_not() -> None:
    case = depthwise()
    given = case.r.flatten(1).sum(1)
    torch.testing.assert_close(
        case.relevance(EXACT).flatten(1).sum(1), given, rtol=1e-12, atol=1e-12
    )
    assert ((case.relevance(z_plus(0, fallback=False)).flatten(1).sum(1) - given).abs() > 1).all()


def test_fallback_is_linear_in_relevance() -> None:
    case = depthwise()
    first, second = case.r, torch.randn_like(case.r)
    second[:, 2] = 0
    found = []
    for r in (first, second, first + second):
        case.r = r
        found.append(case.relevance(EXACT))
    assert_same(found[0] + found[1], found[2])


def test_fallback_of_a_batch_is_that_of_its_images() -> None:
    case = depthwise()
    whole = case.relevance(EXACT)
    for n in range(3):
        one = depthwise()
        one.x, one.z, one.r = case.x[n : n + 1], case.z[n : n + 1], case.r[n : n + 1]
        assert_same(one.relevance(EXACT)[0], whole[n])


def test_fallback_changes_nothing_where_all_outputs_have_contributors() -> None:
    case = Case("conv2d")
    case.x = case.x.abs() + 0.1
    case.kwargs["weight"][:, 0] = case.kwargs["weight"][:, 0].abs()
    case.z = case.call(case.x)
    assert torch.equal(case.relevance(z_plus()), case.relevance(z_plus(fallback=False)))


def test_without_any_positive_contribution_the_negative_ones_share() -> None:
    x, weight = torch.tensor([[1.0, 2.0, 0.0]], dtype=D), -torch.ones(2, 3, dtype=D)
    weight[1, :2] = 0
    linear = dense((x,), {"weight": weight})[1]
    z, r = torch.tensor([[-3.0, -1.0]], dtype=D), torch.tensor([[3.0, 6.0]], dtype=D)
    assert_same(x * propagate(EXACT, linear, x, z, r / z), torch.tensor([[3.0, 6.0, 0.0]], dtype=D))


# ---------------------------------------------------------------- BatchNorm

NORMED: dict[str, tuple[nn.Module, type[nn.Module], tuple[int, ...]]] = {
    "linear": (nn.Linear(4, 6), nn.BatchNorm1d, (3, 4)),
    "conv1d": (nn.Conv1d(4, 6, 3, bias=False), nn.BatchNorm1d, (3, 4, 8)),
    "conv2d": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d, (3, 4, 6, 6)),
    "conv3d": (nn.Conv3d(4, 6, 2), nn.BatchNorm3d, (3, 4, 4, 4, 4)),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d, (3, 4, 5, 5)),
    "conv_transpose2d grouped": (
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        nn.BatchNorm2d,
        (3, 4, 5, 5),
    ),
}


@pytest.mark.parametrize(
    "rule", [z_plus(), z_plus(bias="absorb", fallback=False), epsilon(0.01), gamma()]
)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", NORMED)
def test_merged_batch_norm_is_one_map(name: str, affine: bool, rule: Rule) -> None:
    part, norm_class, shape = NORMED[name]
    net = nn.Sequential(part, norm_class(6, affine=affine)).double().eval()
    with torch.no_grad():
        for value in (net[1].running_mean, *net[1].parameters()):
            value.normal_()
        net[1].running_var.uniform_(0.5, 2)
    x = torch.randn(shape, dtype=D, requires_grad=True)
    rules = Relevance(Composite("one", (("any", rule),)))
    given = x.clone()
    rules.begin(given, net, "0")
    with rules:
        out = net(given)
    z = net(x).detach()
    assert torch.equal(out, z)
    r = torch.randn_like(z)
    (signal,) = torch.autograd.grad(out, x, r / z)
    x = x.detach()
    w, b = oracles.matrix(net, x[0])  # all of it as one dense layer, whose rules are tested above
    whole = dense((), {"input": x.flatten(1), "weight": w.T, "bias": b})[1]
    expected = x.flatten(1) * propagate(rule, whole, x.flatten(1), z.flatten(1), (r / z).flatten(1))
    assert_same(x * signal, expected.view_as(x))


class Tokens(nn.Module):
    """A dense layer on tokens (N, T, 4), and a norm over all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](self.layers[0](x).flatten(0, 1)).unflatten(0, x.shape[:2])


@pytest.mark.parametrize("rule", [z_plus(), gamma()])
def test_a_norm_over_tokens_is_merged_with_the_layer_before(rule: Rule) -> None:
    net = Tokens().double().eval()
    with torch.no_grad():
        net.layers[1].running_mean.normal_()
        net.layers[1].running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 4, dtype=D)
    composite = Composite("one", (("any", rule),))
    given, apart = x.clone().requires_grad_(), x.flatten(0, 1).requires_grad_()
    z = net(x).detach()
    r = torch.randn_like(z)
    for module, values, seed in ((net, given, r / z), (net.layers, apart, (r / z).flatten(0, 1))):
        rules = Relevance(composite)
        rules.begin(values, module, "0")
        with rules:
            module(values).backward(seed)
    assert given.grad is not None
    assert apart.grad is not None
    assert_same(given.grad, apart.grad.view_as(x))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("dtype", "most"),
    [(torch.float16, 65504.0), (torch.bfloat16, 119808.0), (torch.float32, 120e3)],
)
def test_what_half_precision_cannot_hold_is_the_most_it_can(
    dtype: torch.dtype, most: float, sign: int
) -> None:
    net = nn.Linear(1, 1, bias=False).to(dtype)
    with torch.no_grad():
        net.weight.fill_(2)
    x = torch.ones(1, 1, dtype=dtype, requires_grad=True)
    rules = Relevance(Composite("one", (("any", epsilon(0)),)))
    rules.begin(x, net, "0")
    with rules:
        y = net(x)
    (signal,) = torch.autograd.grad(y, x, torch.full_like(y, sign * 60e3))
    assert signal.dtype == dtype
    assert float(signal) == sign * most


# ---------------------------------------------------------------- the accounts

TALLIED = [
    epsilon(0.1),
    epsilon(0.1, bias="exclude"),
    gamma(0.3, 0.1),
    gamma(0.3, 0.1, bias="exclude"),
    alpha_beta(2, 1, 0.1),
    alpha_beta(2, 1, 0.1, bias="exclude"),
    z_plus(0.1),
    z_plus(0.1, bias="absorb"),
    z_plus(0.1, fallback=False),
    z_plus(0.1, bias="absorb", fallback=False),
    w_squared(),
    flat(),
    z_box(torch.tensor(-5.0), torch.tensor(5.0), 0.1),
]


@pytest.mark.parametrize(
    "rule", TALLIED, ids=lambda rule: f"{rule.name}-{rule.bias}-{rule.fallback}"
)
@pytest.mark.parametrize(
    "make", [lambda: Case("conv2d", padding=3), depthwise, lambda: Case("linear")]
)
def test_what_is_received_is_handed_on_or_accounted_for(
    rule: Rule, make: Callable[[], Case]
) -> None:
    case = make()
    tally: dict[str, float] = {}
    handed_on = float(case.relevance(rule, tally=tally).sum())
    assert set(tally) <= {"bias", "epsilon", "no_contributor"}
    received = float(case.r.sum())
    assert received == pytest.approx(
        handed_on + sum(tally.values()), rel=1e-9, abs=1e-9 * float(case.r.abs().sum())
    )
    if rule.bias == "exclude":
        assert tally.get("bias", 0) == 0
    if rule.fallback:
        assert tally.get("no_contributor", 0) == 0


def test_the_fallback_of_a_dense_layer_does_not_mix_images_behind_tokens() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 4, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    x = torch.randn(3, 2, 4, dtype=torch.float64).clamp(min=0)  # (L, N, E)
    x[0, 0] = 0
    g = torch.randn(3, 2, 5, dtype=torch.float64)

    def back(x: Tensor, g: Tensor) -> Tensor:
        linear = LinearMap(F.linear, lambda s, w, x: s @ w, weight, bias)
        return propagate(z_plus(), linear, x, F.linear(x, weight, bias), g)

    torch.testing.assert_close(back(x, g)[:, :1], back(x[:, :1], g[:, :1]))


def test_contributions_too_small_for_the_stabiliser_count_as_none() -> None:
    """A tenth of a millionth of what else there is: their relevance goes to all, and is not absorbed."""
    x = torch.tensor(
        [[[[-1e-10, -1e-10]], [[1.0, 2.0]]]], dtype=torch.float64
    )  # (1, 2, 1, 2), depthwise
    weight = torch.ones(2, 1, 1, 1, dtype=torch.float64)
    x_in = x.clone().requires_grad_()
    z = F.conv2d(x, weight, groups=2)
    _, linear, _, _ = convolution(F.conv2d, (x_in, weight), {"groups": 2})
    r = torch.tensor([[[[3.0, 4.0]], [[5.0, 6.0]]]], dtype=torch.float64)
    tally: dict[str, float] = {}
    back = propagate(z_plus(1e-9), linear, x, z, r / z, tally=tally)
    handed_on = back * x
    assert float(handed_on.sum()) == pytest.approx(18, rel=1e-6)
    expected = torch.tensor(
        [5 + 7 / 3, 6 + 14 / 3], dtype=torch.float64
    )  # 7 more, by the size of contributions
    torch.testing.assert_close(handed_on[0, 1, 0], expected, rtol=1e-6, atol=0)
    assert abs(tally["epsilon"]) < 1e-6
