"""Composites: the first row that fits, every kind of key, tables of one's own, and what is wrong with one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seewhy import Trace
from seewhy.engine.rules.composites import (
    COMPOSITES,
    Composite,
    Operation,
    epsilon_gamma_box,
    epsilon_plus,
    epsilon_plus_box,
)
from seewhy.engine.rules.lrp import Bias, Rule, Term, epsilon, flat, gamma, z_plus
from seewhy.engine.rules.propagation import safe
from seewhy.engine.rules.relevance import Relevance
from seewhy.errors import InputError
from tiny_models import TinyCNN, TinyResNet, pictures, randomised

A, B = epsilon(0.1), epsilon(0.2)


def op(
    kind: str = "conv",
    depth: int = 3,
    *,
    first: bool = False,
    depthwise: bool = False,
    name: str = "",
) -> Operation:
    return Operation(kind, depth, first, depthwise, name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "fits", "misses"),
    [
        ("first", op(first=True, depth=0), op(depth=0)),
        ("depthwise", op(depthwise=True), op()),
        ("conv", op("conv"), op("linear")),
        ("linear", op("linear"), op("conv")),
        ("name:features.*", op(name="features.3.conv"), op(name="head")),
        ("name:head", op(name="head"), op(name="head.fc")),
        (lambda o: o.depth < 8, op(depth=7), op(depth=8)),
    ],
)
def test_a_row_holds_where_its_key_fits(key: object, fits: Operation, misses: Operation) -> None:
    made = Composite("mine", ((key, A), ("any", B)))  # type: ignore[arg-type]
    assert made.rule(fits) is A
    assert made.rule(misses) is B


def test_the_first_row_that_fits_holds() -> None:
    assert Composite("mine", (("any", A), ("conv", B))).rule(op()) is A


def test_an_operation_without_a_row_is_an_error_with_the_way_out() -> None:
    with pytest.raises(
        InputError, match=r"'mine' has no rule for .*linear.*\('any', epsilon\(\)\)"
    ):
        Composite("mine", (("conv", A),)).rule(op("linear"))


@pytest.mark.parametrize("key", ["dense", "convolution", ""])
def test_an_unknown_key_is_an_error_also_behind_rows_that_fit(key: str) -> None:
    with pytest.raises(InputError, match="is no key of a composite; use 'first'"):
        Composite("mine", (("any", A), (key, A)))


def seen(net: nn.Module, layer: str = "input") -> list[Operation]:
    """The operations a composite is asked about."""
    asked: list[Operation] = []

    def note(operation: Operation) -> bool:
        asked.append(operation)
        return True

    rules = Relevance(Composite("seen", ((note, epsilon()),)))
    with Trace(net, pictures(1), layers=[layer], rules=rules):
        return asked


def test_operations_are_described_by_kind_depth_and_name() -> None:
    net = randomised(TinyCNN())
    found = [(o.kind, o.depth, o.first, o.name) for o in seen(net)]
    assert found == [
        ("conv", 0, True, "conv1"),
        ("conv", 0, True, "conv1"),  # and again, merged with its BatchNorm
        ("conv", 1, False, "conv2"),
        ("conv", 1, False, "conv2"),
        ("linear", 2, False, "fc"),
    ]
    assert not any(o.first for o in seen(net, "conv1"))


def test_depthwise_convolutions_are_known() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3),
        nn.Conv2d(6, 2, 3, groups=2),
        nn.Conv2d(2, 4, 3, groups=2),  # two channels are enough
        nn.Conv2d(4, 1, 3),
        nn.Conv2d(1, 2, 3),  # a single one is none of several
        nn.Flatten(),
        nn.LazyLinear(2),
    )
    net(pictures(1))
    assert [o.depthwise for o in seen(net)] == [True, False, True, False, False, False]


def test_dense_layers_are_never_depthwise_merged_with_a_norm_either() -> None:
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    net(pictures(1))
    assert [(o.kind, o.depthwise) for o in seen(net)] == [("linear", False)] * 3


def test_a_table_of_ones_own_reaches_the_operations() -> None:
    net = randomised(TinyResNet())
    mine = Composite(
        "mine",
        (
            ("name:stem.0*", flat()),
            (lambda o: o.depth < 3, gamma(0.25)),
            ("conv", z_plus()),
            ("linear", epsilon()),
        ),
    )
    x = pictures(1)
    with Trace(net, x, layers=["input"], rules=Relevance(mine)) as trace:
        r = safe(x) * trace.signal(1)["input"]
    assert r.isfinite().all()
    torch.testing.assert_close(r[:, 0], r[:, 1])  # flat: channels alike
    torch.testing.assert_close(r[:, 0], r[:, 2])


@pytest.mark.parametrize("make", [epsilon_plus_box, epsilon_gamma_box])
def test_box_composites_hold_at_the_input_alone(make: type) -> None:
    low, high = torch.full((3, 1, 1), -3.0), torch.full((3, 1, 1), 3.0)
    made = make(low, high)
    assert made.rule(op(first=True)).box == (low, high)
    assert made.rule(op()).box is None
    net, x = randomised(TinyCNN()), pictures(1).clamp(-3, 3)
    with Trace(net, x, layers=["input"], rules=Relevance(made)) as trace:
        r = safe(x) * trace.signal(1)["input"]
    with Trace(net, x, layers=["input"], rules=Relevance(epsilon_plus())) as trace:
        plain = safe(x) * trace.signal(1)["input"]
    assert r.isfinite().all()
    assert not torch.allclose(r, plain)
    wider = make(low * 2, high * 2)
    with Trace(net, x, layers=["input"], rules=Relevance(wider)) as trace:
        assert not torch.allclose(safe(x) * trace.signal(1)["input"], r)


def test_every_composite_by_name_has_a_rule_for_all_operations() -> None:
    for name, make in COMPOSITES.items():
        made = make()
        assert made.name == name
        for kind in ("conv", "linear"):
            made.rule(op(kind))


def test_an_unknown_composite_is_an_error_that_lists_them() -> None:
    with pytest.raises(InputError, match=r"did you mean 'epsilon_plus'.*accepted: epsilon_plus"):
        Relevance("epsilon_pluss")


def test_a_composite_promises_that_all_goes_on_where_all_its_rules_do() -> None:
    promised = {name for name, make in COMPOSITES.items() if make().conserves}
    assert promised == {"conserving"}
    table = (("any", epsilon(bias="spread")),)
    assert Composite("mine", table, norm_bias="exclude").conserves
    assert not Composite("mine", table).conserves  # norms keep their biases
    assert not Composite("mine", table, norm_bias="exclude", attention="attn").conserves
    for loses in (epsilon(), z_plus(fallback=False), flat(), z_plus(bias="absorb")):
        assert not Composite("mine", (*table, ("conv", loses)), norm_bias="exclude").conserves
    for keeps in (epsilon(bias="exclude"), z_plus(), gamma(bias="spread")):
        assert Composite("mine", (("conv", keeps), *table), norm_bias="exclude").conserves == (
            keeps.name != "gamma"
        )


def test_composites_by_name_are_their_published_tables() -> None:
    def z(bias: Bias, stabilizer: float = 1e-6, *, fallback: bool = False) -> Rule:
        term = Term(1.0, above=(1.0, 0.0), below=(0.0, 1.0))
        return Rule("z_plus", (term,), bias, stabilizer, fallback)

    def signed(more: float) -> Rule:
        up, down = (more, 1.0), (1.0, more)
        terms = Term(1.0, up, down, "z > 0"), Term(1.0, down, up, "z <= 0")
        return Rule("gamma", terms, "absorb", 1e-6)

    dense = Rule("epsilon", (Term(),), "absorb", 1e-6)
    alpha = Term(2.0, above=(1.0, 0.0), below=(0.0, 1.0))
    beta = Term(-1.0, above=(0.0, 1.0), below=(1.0, 0.0))
    two_one = Rule("alpha_beta", (alpha, beta), "absorb", 1e-6)
    spread = Rule("epsilon", (Term(),), "spread", 1e-9)
    expected = {
        "epsilon_plus": ((("conv", z("absorb")), ("linear", dense)), "cp", "absorb"),
        "epsilon_gamma": ((("conv", signed(2.0)), ("linear", dense)), "cp", "absorb"),
        "z_plus": ((("any", z("absorb")),), "cp", "absorb"),
        "epsilon_alpha2_beta1": ((("conv", two_one), ("linear", dense)), "cp", "absorb"),
        "uniform_epsilon": ((("any", dense),), "cp", "absorb"),
        "relevance_cam": ((("any", z("exclude")),), "cp", "absorb"),
        "attn_lrp": ((("conv", signed(1.25)), ("linear", dense)), "attn", "absorb"),
        "conserving": (
            (("conv", z("exclude", 1e-9, fallback=True)), ("linear", spread)),
            "cp",
            "exclude",
        ),
    }
    found = {name: make() for name, make in COMPOSITES.items()}
    assert {name: (c.table, c.attention, c.norm_bias) for name, c in found.items()} == expected
    assert {name: c.name for name, c in found.items()} == {name: name for name in expected}
    low, high = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    for make, rest in (
        (epsilon_plus_box, expected["epsilon_plus"][0]),
        (epsilon_gamma_box, (("conv", signed(1.25)), ("linear", dense))),
    ):
        (key, box), *others = make(low, high).table
        assert (key, box.box, tuple(others)) == ("first", (low, high), rest)
