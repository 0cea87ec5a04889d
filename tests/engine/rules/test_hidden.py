"""What rules cannot see: known all the same where it rectifies place by place, else refused or warned of by name."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from seewhy import Trace
from seewhy.engine.rules import hidden
from seewhy.engine.rules.bias import BiasGradients
from seewhy.engine.rules.composites import Composite, Operation
from seewhy.engine.rules.guided import Rectifiers
from seewhy.engine.rules.lrp import epsilon
from seewhy.engine.rules.relevance import Relevance
from seewhy.errors import InputError, LayerError, ModelError, SeewhyWarning
from seewhy.methods import (
    deconvnet,
    fullgrad,
    grad_cam,
    guided_backprop,
    layer_relevance,
    lrp,
    rise,
    saliency,
)
from tiny_models import Called, pictures, randomised

RULED = (guided_backprop, deconvnet, partial(lrp, seed="lrp"))


class Net(nn.Module):
    def __init__(
        self, act: Callable[[Tensor], Tensor], first: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.a, self.b, self.fc = (
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.Linear(8, 5),
        )
        self.first, self.act = first or act, act

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.b(self.first(self.a(x)))).mean((2, 3)))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.a(x)).mean((2, 3)))


class OwnSwish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return g * s * (1 + x * (1 - s))


class OwnReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * (ctx.saved_tensors[0] > 0)


class OwnTriple(torch.autograd.Function):
    """A ReLU that opens three times as far."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = 3 * x.clamp(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * g * (ctx.saved_tensors[0] > 0)


class OwnMixing(torch.autograd.Function):
    """A ReLU and the mean over channels: not place by place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu() + x.mean(1, keepdim=True)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * (ctx.saved_tensors[0] > 0) + g.mean(1, keepdim=True)


class OwnTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * (1 - ctx.saved_tensors[0] ** 2)


def _alike(net: nn.Module, usual: nn.Module) -> None:
    x = pictures(2, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SeewhyWarning)
        for method in RULED:
            expected = method(usual, x, 1)
            torch.testing.assert_close(
                method(net, x, 1), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
            )


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("own", "usual"),
    [
        (OwnSwish, F.silu),
        (OwnReLU, F.relu),
        (OwnTriple, lambda x: 3 * F.relu(x)),
    ],
)
def test_an_own_rectifier_is_known_by_what_it_does(own: Any, usual: Any, mixed: bool) -> None:
    _alike(randomised(Net(own.apply, usual if mixed else None)), randomised(Net(usual)))


def test_what_an_own_rectifier_gives_may_be_used_twice() -> None:
    def both(y: Tensor) -> Tensor:
        return y * 2 + y.flip(1)

    _alike(
        randomised(Net(lambda x: both(OwnReLU.apply(x)))), randomised(Net(lambda x: both(x.relu())))
    )


@pytest.mark.parametrize("make", [lambda: Relevance("conserving"), lambda: Rectifiers("guided")])
def test_rules_change_nothing_outside_of_a_forward_pass(make: Callable[[], Any]) -> None:
    x = torch.randn(2, 3, requires_grad=True)
    with make():
        y = F.gelu(input=x, approximate="tanh").square()
        (found,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad(F.gelu(x, approximate="tanh").square().sum(), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("before", [True, False])
def test_depth_is_counted_through_what_is_hidden(before: bool) -> None:
    """Behind an own function an operation has the place that it has behind the usual one."""
    told = []
    for act in (F.relu, OwnReLU.apply):
        seen: list[tuple[str, int, bool]] = []

        def note(operation: Operation, seen: list[tuple[str, int, bool]] = seen) -> bool:
            seen.append((operation.name, operation.depth, operation.first))
            return True

        net = randomised(Net(act))
        rules = Relevance(Composite("seen", ((note, epsilon()),)))
        whole = nn.Sequential(Called(act), net) if before else net
        with Trace(whole, pictures(1), layers=["input"], rules=rules) as trace:
            trace.signal(1)
        told.append([(name.rpartition(".")[2], *rest) for name, *rest in seen])
    assert told[0] == [("a", 0, True), ("b", 1, False), ("fc", 2, False)]
    assert told[1] == told[0]


@pytest.mark.parametrize(
    ("own", "name"),
    [(lambda x: OwnMixing.apply(x), "OwnMixing"), (lambda x: OwnTanh.apply(x), "OwnTanh")],
)
def test_another_function_is_named(own: Any, name: str) -> None:
    net, x = randomised(Net(own, F.relu)), pictures(2, 32)
    for method in (lrp, layer_relevance):
        with pytest.raises(ModelError, match=rf"no relevance rule for {name} \(1\) in Net"):
            method(net, x, 1)
    with pytest.warns(SeewhyWarning, match=rf"no relevance rule for {name} \(1\)"):
        lrp(net, x, 1, strict=False)
    for ruled in (guided_backprop, deconvnet):
        with pytest.warns(SeewhyWarning, match=rf"do not reach {name} \(1\)"):
            ruled(net, x, 1)
    with pytest.warns(SeewhyWarning, match=rf"leaves out the biases of {name} \(1\)"):
        fullgrad(net, x, 1)


def test_rules_hold_behind_what_is_hidden() -> None:
    """What comes after it is as without it, and the gradient stands in for it alone."""

    class Rest(nn.Module):
        def forward(self, t: Tensor) -> Tensor:
            return net.fc(F.silu(net.b(t)).mean((2, 3)))

    net, x = randomised(Net(F.silu, lambda x: OwnTanh.apply(x))), pictures(1, 32)
    rules = Relevance("conserving")
    with Trace(net, x, layers=["a"], rules=rules) as trace:
        found, t = trace.signal(1)["a"], trace.activations["a"].tanh()
    with Trace(Rest().eval(), t, layers=["input"], rules=Relevance("conserving")) as trace:
        torch.testing.assert_close(found, trace.signal(1)["input"] * (1 - t**2))
    assert rules.unknown == {"OwnTanh": 1}


def _with_part(make: Callable[[nn.Module], Any]) -> nn.Module:
    net = randomised(Plain())
    net.b = make(net.b)
    return net


SCRIPTED: dict[str, Callable[[], nn.Module]] = {
    "scripted": lambda: torch.jit.script(randomised(Plain())),
    "traced": lambda: torch.jit.trace(randomised(Plain()), pictures(2, 32)),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(randomised(Plain()))),
    "a scripted part": lambda: _with_part(torch.jit.script),
    "a traced part": lambda: _with_part(
        lambda part: torch.jit.trace(part, torch.randn(2, 8, 16, 16))
    ),
}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", SCRIPTED)
def test_torchscript_is_refused_or_warned_of(form: str) -> None:
    net, x, plain = SCRIPTED[form](), pictures(2, 32), randomised(Plain())
    for _ in range(3):  # it changes its ways as it is run again
        with pytest.raises(
            ModelError, match=r"no relevance rule for .*(Convolution|scripted part)"
        ):
            lrp(net, x, 1)
        with pytest.warns(
            SeewhyWarning, match=r"guided and deconvnet rules do not reach .*(Relu|scripted part)"
        ):
            guided_backprop(net, x, 1)
        with pytest.warns(SeewhyWarning, match="FullGrad leaves out the biases of"):
            fullgrad(net, x, 1)
    torch.testing.assert_close(saliency(net, x, 1), saliency(plain, x, 1), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(
        rise(net, x, 1, samples=8), rise(plain, x, 1, samples=8), rtol=1e-4, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", ["scripted", "traced"])
@pytest.mark.parametrize("layer", [None, "b"])
def test_layers_of_torchscript_cannot_be_read(form: str, layer: str | None) -> None:
    with pytest.raises(
        LayerError,
        match=r"layers of TorchScript do not run as modules; give the nn.Module .*rise, lime",
    ):
        grad_cam(SCRIPTED[form](), pictures(2, 32), 1, layer=layer)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_layers_beside_a_scripted_part_are_read() -> None:
    net, x = SCRIPTED["a scripted part"](), pictures(2, 32)
    torch.testing.assert_close(
        grad_cam(net, x, 1, layer="a"), grad_cam(randomised(Plain()), x, 1, layer="a")
    )
    with pytest.raises(LayerError, match="layer 'b' cannot be read"):
        grad_cam(net, x, 1, layer="b")


def test_an_exported_model_is_seen() -> None:
    x, usual = pictures(2, 32), randomised(Plain())
    net = torch.export.export(usual, (x,)).module()
    _alike(net, usual)
    for ask in (
        lambda: saliency(net, x[:1], 1),
        lambda: fullgrad(net, x, 1),
    ):  # which tries one picture
        with pytest.raises(
            InputError, match=r"not what the model was exported for .*dynamic_shapes"
        ):
            ask()
    with pytest.raises(LayerError, match=r"layers of an exported graph do not run as modules"):
        grad_cam(net, x, 1, layer="b")


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_parts_are_seen(backend: str) -> None:
    usual = randomised(Plain())
    _alike(_with_part(lambda part: torch.compile(part, backend=backend)), usual)
    _alike(torch.compile(copy.deepcopy(usual), backend=backend), usual)


def test_functional_calls_are_seen() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = randomised(Plain())

        def forward(self, x: Tensor) -> Tensor:
            return functional_call(self.net, dict(self.net.named_parameters()), (x,))

    _alike(Functional().eval(), randomised(Plain()))


def test_an_operator_of_another_library_is_named() -> None:
    with torch.library._scoped_library("seewhy_tests", "DEF") as library:
        library.define("mixed(Tensor x) -> Tensor")
        library.impl(
            "mixed", lambda x: x.relu() + x.mean(1, keepdim=True), "CompositeImplicitAutograd"
        )
        net, x = randomised(Net(torch.ops.seewhy_tests.mixed, F.relu)), pictures(2, 32)
        with pytest.raises(ModelError, match=r"no relevance rule for .*Relu \(1\)"):
            lrp(net, x, 1)
        with pytest.warns(SeewhyWarning, match=r"do not reach Relu \(1\)"):
            guided_backprop(net, x, 1)


def test_threads_share_a_model_with_a_function_of_its_own() -> None:
    net, x, found = randomised(Net(OwnSwish.apply)), pictures(2, 32), []
    expected = lrp(net, x, 1)
    threads = [threading.Thread(target=lambda: found.append(lrp(net, x, 1))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(torch.equal(each, expected) for each in found)


def test_full_backward_hooks_hide_nothing() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    net, x = randomised(net), pictures(2, 32)
    expected = [method(net, x, 1) for method in (lrp, guided_backprop)]
    net[1].register_full_backward_hook(lambda *_: None)
    for method, one in zip((lrp, guided_backprop), expected, strict=True):
        torch.testing.assert_close(method(net, x, 1), one)


# ---------------------------------------------------------------- what hidden operations concern whom

X = torch.randn(2, 4, 6, 6, requires_grad=True)
ROWS = torch.randn(4, 4, requires_grad=True)
ONES = torch.ones(4)
HIDDEN: dict[str, tuple[Tensor, bool, bool]] = {  # whether it may rectify, and may add a bias
    "relu": (X.relu(), True, False),
    "clamp": (X.clamp(min=0), True, False),
    "leaky_relu": (F.leaky_relu(X), True, False),
    "gelu": (F.gelu(X), True, False),
    "softplus": (F.softplus(X), True, False),
    "where": (torch.where(X > 0, X, 0), True, False),
    "product": (X * X, True, False),
    "abs": (X.abs(), True, False),
    "conv": (F.conv2d(X, torch.ones(3, 4, 1, 1)), False, True),
    "addmm": (torch.addmm(ONES, ROWS, ROWS), False, True),
    "batch norm": (F.batch_norm(X, 0 * ONES, ONES, eps=1e-3), False, True),
    "layer norm": (F.layer_norm(X, (6,)), False, True),
    "group norm": (F.group_norm(X, 2), False, True),
    "sum": (X + X, False, False),
    "mean": (X.mean((2, 3)), False, False),
    "tanh": (X.tanh(), False, False),
    "matmul": (ROWS.mm(ROWS), False, False),
    "a Function": (OwnSwish.apply(X), True, True),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_operations_concern_the_rules_that_are_about_them(name: str) -> None:
    made, may_rectify, may_add = HIDDEN[name]
    assert made.grad_fn is not None
    assert Rectifiers("guided").concerns(made.grad_fn) == may_rectify
    assert BiasGradients(lambda g, w: None).concerns(made.grad_fn) == may_add
    assert Relevance("conserving").concerns(made.grad_fn)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Relevance("conserving"),
        lambda: Rectifiers("guided"),
        lambda: BiasGradients(lambda g, w: None),
    ],
)
def test_rules_are_under_way_in_a_pass_alone(make: Callable[[], Any]) -> None:
    rules, seen = make(), list[bool]()
    net = Called(lambda x: seen.append(rules.under_way) or x.relu().mean((2, 3)))
    assert not rules.under_way
    for _ in range(2):
        with Trace(net, pictures(1), layers=["input"], rules=rules) as trace:
            assert not rules.under_way
            assert trace.signal(1)["input"].any()
    assert seen == [True, True]
    assert not rules._sights.open


@pytest.mark.parametrize(
    ("made", "is_so"),
    [
        (lambda x: x.relu(), True),
        (lambda x: x**3 - x, True),
        (lambda x: x * torch.linspace(-1, 1, 36).view(6, 6), True),
        (lambda x: x + 0.01 * x.roll(1, -1), False),
        (lambda x: x + 0.01 * x.mean(), False),
        (lambda x: x * x.mean(), False),
        (lambda x: x.cumsum(-1), False),
        (lambda x: x.flip(-1), False),
        (lambda x: ROWS.sum() * torch.ones_like(x), False),
    ],
)
def test_place_by_place_is_where_no_other_place_counts(
    made: Callable[[Tensor], Tensor], is_so: bool
) -> None:
    assert hidden._by_place(X, made(X)) == is_so


def test_a_height_is_of_what_has_the_same_places() -> None:
    assert hidden._height_by_place(X, X.relu()) == 1.0
    assert hidden._height_by_place(X, 3 * X.relu()) == pytest.approx(3)
    assert hidden._height_by_place(X, X.relu()[:1]) is None
    assert hidden._height_by_place(X, X.tanh()) is None


def test_spans_that_touch_are_one() -> None:
    spans: list[tuple[int, int]] = []
    for start, stop in ((0, 2), (2, 5), (6, 6), (6, 9), (10, 11)):
        hidden._add_span(spans, start, stop)
    assert spans == [(0, 5), (6, 9), (10, 11)]
