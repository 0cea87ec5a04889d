"""What becomes of each operation: relevance is input x gradient of the same operation with its constants held still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy import Trace
from seewhy.engine.rules.composites import Composite
from seewhy.engine.rules.lrp import epsilon
from seewhy.engine.rules.operations import Arguments, Function, Options
from seewhy.engine.rules.relevance import Relevance

D = torch.float64
Op = Callable[[Tensor], Tensor]
LRP_0 = Composite("lrp_0", (("any", epsilon(0)),))
SPREADING = Composite("spreading", (("any", epsilon(0)),), norm_bias="exclude")
SHAPE = (2, 4, 3, 6)
READ = torch.randn(
    3, *SHAPE[1:], dtype=D, generator=torch.Generator().manual_seed(5)
)  # three scores
PLACES = torch.linspace(-1, 2, 72, dtype=D).view(4, 3, 6)
CHANNELS = torch.tensor([0.5, -1.5, 2.0, 0.25], dtype=D)
UP = CHANNELS.view(-1, 1, 1)


class Net(nn.Module):
    """One operation, and scores that are linear in what it gives."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        y = self.op(x)
        read = READ.flatten(1)[:, : y[0].numel()]
        return y.flatten(1) @ read.T


def relevance(net: nn.Module, x: Tensor, composite: Composite) -> tuple[Tensor, dict[str, int]]:
    rules = Relevance(composite)
    with torch.no_grad():
        plain = net(x)
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        torch.testing.assert_close(trace.output, plain, rtol=1e-12, atol=1e-12)
        return x * trace.signal(1)["input"], rules.unknown


def check(op: Op, held: Op, composite: Composite) -> None:
    """The relevance of an operation against input x gradient of one whose constants are held still."""
    x = torch.randn(SHAPE, dtype=D)
    found, unknown = relevance(Net(op), x, composite)
    x.requires_grad_()
    score = Net(held)(x)
    with torch.no_grad():
        torch.testing.assert_close(score, Net(op)(x))
    expected = (x * torch.autograd.grad(score[:, 1].sum(), x)[0]).detach()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert unknown == {}


# ---------------------------------------------------------------- how constants are held still


def passed(f: Op) -> Op:
    """f place by place, as x times a constant."""
    return lambda x: x * (f(x) / x).detach()


def still(f: Op) -> Op:
    return lambda x: f(x).detach()


def shared(product: Tensor, factors: int = 2) -> Tensor:
    """A product each of whose factors has its share."""
    return product / factors + (product - product / factors).detach()


def normed(
    x: Tensor, dims: tuple[int, ...], scale: Tensor | float = 1.0, *, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / deviation, over which is divided as by a constant."""
    centered = x - x.mean(dims, keepdim=True)
    return centered * ((x.var(dims, correction=0, keepdim=True) + eps).rsqrt() * scale).detach()


def in_groups(x: Tensor, groups: int) -> Tensor:
    return normed(x.unflatten(1, (groups, -1)), (2, 3, 4)).flatten(1, 2)


def spread(bias: Tensor | float, x: Tensor, dims: Any) -> Tensor:
    """A bias whose share goes to x by magnitude."""
    magnitude = x.abs().sum(dims, keepdim=True)
    return bias * (magnitude / magnitude.detach())


def other(x: Tensor) -> Tensor:
    """A second tensor that comes from x."""
    return x.flip(1) + 0.5


def third(x: Tensor) -> Tensor:
    return x.flip(3) - 0.25


def below(x: Tensor) -> Tensor:
    """What is divided by."""
    return x.flip(2).abs() + 1


def by_moments(x: Tensor, *options: Any, **named: Any) -> Tensor:
    spread_, mean = torch.var_mean(x, *options, **named)
    if mean.ndim == 2:
        spread_, mean = spread_[..., None, None], mean[..., None, None]
    return (x - mean) / (spread_ + 1e-5).sqrt()


def in_place_then_by_name(x: Tensor) -> Tensor:
    y = x * 2
    y.relu_()
    return F.linear(input=y, weight=READ[0, 0], bias=None)


def grid_of(x: Tensor) -> Tensor:
    """Where to look, (N, H, W, 2)."""
    return x[:, :2].permute(0, 2, 3, 1).tanh()


def matrices(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 4, 4), (N, 4, 18) and (N, 18, 4)."""
    return x.flatten(2)[..., :4], x.flatten(2), third(x).flatten(2).mT


WEIGHT = torch.linspace(-1, 1.5, 18, dtype=D).view(3, 6)
OFFSET = torch.linspace(2, -1, 18, dtype=D).view(3, 6)


def drawn_slopes(x: Tensor) -> Tensor:
    """A rectifier in training, whose slopes below zero are drawn; torch takes that by its place."""
    torch.manual_seed(0)
    return torch.rrelu(x, 0.1, 0.5, True)


MEAN, VAR = (
    torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=D),
    torch.tensor([0.5, 1.5, 2.0, 1.0], dtype=D),
)
BATCH_SCALE = (VAR + 1e-5).rsqrt().view(-1, 1, 1)

PAIRS: dict[str, tuple[Op, Op]] = {
    # place by place
    "relu": (F.relu, F.relu),
    "gelu": (F.gelu, passed(F.gelu)),
    "tanh": (torch.tanh, passed(torch.tanh)),
    "rrelu in training": (drawn_slopes, passed(drawn_slopes)),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), passed(lambda x: x.clamp(-0.5, 0.5))),
    "softmax alone": (lambda x: x.softmax(1), passed(lambda x: x.softmax(1))),
    "a gate alone": (torch.sigmoid, passed(torch.sigmoid)),
    "rms norm": (lambda x: F.rms_norm(x, (6,)), passed(lambda x: F.rms_norm(x, (6,)))),
    "normalize": (F.normalize, passed(F.normalize)),
    # gates and products
    "a gate": (lambda x: x * x.sigmoid(), lambda x: x * x.sigmoid().detach()),
    "a gate before": (lambda x: x.sigmoid() * x, lambda x: x * x.sigmoid().detach()),
    "a gate by name": (
        lambda x: torch.mul(input=x, other=x.sigmoid()),
        lambda x: x * x.sigmoid().detach(),
    ),
    "a gate of channels": (
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid().detach(),
    ),
    "two gates": (
        lambda x: x.sigmoid() * other(x).sigmoid(),
        lambda x: shared(passed(torch.sigmoid)(x) * passed(torch.sigmoid)(other(x))),
    ),
    "weights": (
        lambda x: torch.matmul(x.softmax(-1), other(x).mT),
        lambda x: x.softmax(-1).detach() @ other(x).mT,
    ),
    "two factors": (lambda x: x * other(x), lambda x: shared(x * other(x))),
    "two factors by name": (
        lambda x: torch.mul(input=x, other=other(x)),
        lambda x: shared(x * other(x)),
    ),
    "three factors": (
        lambda x: torch.einsum("nchw,nchw,nchw->nchw", x, other(x), third(x)),
        lambda x: shared(x * other(x) * third(x), 3),
    ),
    "a gate and two factors": (
        lambda x: torch.einsum("nchw,nchw,nchw->nchw", x, x.sigmoid(), third(x)),
        lambda x: shared(x * third(x)) * x.sigmoid().detach(),
    ),
    "a number": (lambda x: -2 * x, lambda x: -2 * x),
    # sums
    "sum": (lambda x: x + other(x), lambda x: x + other(x)),
    "alpha": (lambda x: torch.add(x, other(x), alpha=-2), lambda x: x - 2 * other(x)),
    "difference": (lambda x: torch.sub(x, PLACES, alpha=3), lambda x: x - 3 * PLACES),
    "turned": (lambda x: 1.5 - x, lambda x: 1.5 - x),
    "rsub": (lambda x: torch.rsub(x, PLACES), lambda x: PLACES - x),
    "by name": (lambda x: torch.add(input=PLACES, other=x), lambda x: x + PLACES),
    # quotients
    "by a number": (lambda x: x / 4, lambda x: x / 4),
    "by what comes from x": (lambda x: x / below(x), lambda x: x / below(x).detach()),
    "div by name": (
        lambda x: torch.div(input=x, other=below(x)),
        lambda x: x / below(x).detach(),
    ),
    "by the norm": (
        lambda x: x / x.norm(dim=1, keepdim=True),
        lambda x: x / x.norm(dim=1, keepdim=True).detach(),
    ),
    "a quotient is a factor": (
        lambda x: (x / below(x)) * other(x),
        lambda x: shared(x / below(x).detach() * other(x)),
    ),
    "a reciprocal is a gate": (
        lambda x: (2 / below(x)) * other(x),
        lambda x: (2 / below(x)).detach() * other(x),
    ),
    "turned quotient": (
        lambda x: below(x).__rtruediv__(x),
        lambda x: x / below(x).detach(),
    ),
    # norms
    "moments by place": (
        lambda x: by_moments(x, 1, False, True),
        lambda x: normed(x, (1,)),
    ),
    "moments by name": (
        lambda x: by_moments(x, dim=(2, 3), correction=0, keepdim=True),
        lambda x: normed(x, (2, 3)),
    ),
    "moments without dims kept": (
        lambda x: by_moments(x, (2, 3), correction=0),
        lambda x: normed(x, (2, 3)),
    ),
    "moments of all": (
        lambda x: by_moments(x, False),
        lambda x: normed(x, (0, 1, 2, 3)),
    ),
    "layer norm": (
        lambda x: F.layer_norm(x, (3, 6), WEIGHT, OFFSET),
        lambda x: normed(x, (2, 3), WEIGHT) + OFFSET,
    ),
    "plain layer norm": (lambda x: F.layer_norm(x, (6,)), lambda x: normed(x, (3,))),
    "layer norm by torch": (
        lambda x: torch.layer_norm(x, (3, 6), bias=OFFSET),
        lambda x: normed(x, (2, 3)) + OFFSET,
    ),
    "group norm by torch": (lambda x: torch.group_norm(x, 2), lambda x: in_groups(x, 2)),
    "group norm": (
        lambda x: F.group_norm(x, 2, CHANNELS, MEAN),
        lambda x: in_groups(x, 2) * UP + MEAN.view(-1, 1, 1),
    ),
    "instance norm": (
        lambda x: F.instance_norm(x, weight=CHANNELS, bias=MEAN),
        lambda x: normed(x, (2, 3)) * UP + MEAN.view(-1, 1, 1),
    ),
    "instance norm by torch": (
        lambda x: torch.instance_norm(x, CHANNELS, MEAN, None, None, True, 0.1, 1e-3, False),
        lambda x: normed(x, (2, 3), eps=1e-3) * UP + MEAN.view(-1, 1, 1),
    ),
    "batch norm alone": (
        lambda x: F.batch_norm(x, MEAN, VAR, CHANNELS, VAR),
        lambda x: (x - MEAN.view(-1, 1, 1)) * BATCH_SCALE * UP + VAR.view(-1, 1, 1),
    ),
    "plain batch norm alone": (
        lambda x: F.batch_norm(x, MEAN, VAR),
        lambda x: (x - MEAN.view(-1, 1, 1)) * BATCH_SCALE,
    ),
    # several at once
    "baddbmm": (
        lambda x: torch.baddbmm(*matrices(x), beta=2, alpha=-3),
        lambda x: 2 * matrices(x)[0] - 3 * shared(matrices(x)[1] @ matrices(x)[2]),
    ),
    "baddbmm without options": (
        lambda x: torch.baddbmm(*matrices(x)),
        lambda x: matrices(x)[0] + shared(matrices(x)[1] @ matrices(x)[2]),
    ),
    "addcmul without options": (
        lambda x: torch.addcmul(x, other(x), third(x)),
        lambda x: x + shared(other(x) * third(x)),
    ),
    "addcdiv without options": (
        lambda x: torch.addcdiv(x, other(x), below(x)),
        lambda x: x + other(x) / below(x).detach(),
    ),
    "addcmul": (
        lambda x: torch.addcmul(x, other(x), third(x), value=-2),
        lambda x: x - 2 * shared(other(x) * third(x)),
    ),
    "addcdiv": (
        lambda x: torch.addcdiv(x, other(x), below(x), value=0.5),
        lambda x: x + 0.5 * other(x) / below(x).detach(),
    ),
    "lerp": (lambda x: torch.lerp(x, other(x), 0.3), lambda x: 0.7 * x + 0.3 * other(x)),
    "lerp by a gate": (
        lambda x: torch.lerp(x, other(x), x.sigmoid()),
        lambda x: x * (1 - x.sigmoid()).detach() + other(x) * x.sigmoid().detach(),
    ),
    "glu": (lambda x: F.glu(x, 1), lambda x: x[:, :2] * x[:, 2:].sigmoid().detach()),
    "glu of the last": (F.glu, lambda x: x[..., :3] * x[..., 3:].sigmoid().detach()),
    "glu of the last, below": (
        torch.ops.aten.glu,
        lambda x: x[..., :3] * x[..., 3:].sigmoid().detach(),
    ),
    "where it looks": (
        lambda x: F.grid_sample(x, grid_of(x), align_corners=False),
        lambda x: F.grid_sample(x, grid_of(x).detach(), align_corners=False),
    ),
    "where it looks by name": (
        lambda x: F.grid_sample(input=x, grid=grid_of(x), align_corners=True),
        lambda x: F.grid_sample(x, grid_of(x).detach(), align_corners=True),
    ),
    "where torch's own sampler looks by name": (
        lambda x: torch.grid_sampler(
            x, grid=grid_of(x), interpolation_mode=0, padding_mode=0, align_corners=True
        ),
        lambda x: F.grid_sample(x, grid_of(x).detach(), align_corners=True),
    ),
    "where torch's own sampler looks, all by name": (
        lambda x: torch.grid_sampler(
            input=x, grid=grid_of(x), interpolation_mode=0, padding_mode=0, align_corners=True
        ),
        lambda x: F.grid_sample(x, grid_of(x).detach(), align_corners=True),
    ),
    "in place, then by name": (
        in_place_then_by_name,
        lambda x: F.linear((2 * x).relu(), READ[0, 0]),
    ),
}


def statement(act: Callable[[Tensor, Tensor], object]) -> Op:
    """A statement on a tensor y = 2 x, which is then used."""

    def op(x: Tensor) -> Tensor:
        y = x * 2
        act(y, x)
        return y * 1

    return op


def first_as(rest: Op) -> Op:
    """2 x with other values in the first two channels."""
    return lambda x: torch.cat([rest(x).expand(2, 2, 3, 6), 2 * x[:, 2:]], 1)


def through_views_that_overlap(x: Tensor) -> Tensor:
    y = x * 2
    first, last = y[:, :3], y[:, 1:]
    last.mul_(3)
    first.relu_()
    return torch.cat([first, last[:, 2:]], 1)


CONSTANT = torch.full((2, 1, 1, 1), 0.5, dtype=D)
STATEMENTS: dict[str, tuple[Op, Op]] = {
    "zero_": (statement(lambda y, x: y[:, :2].zero_()), first_as(lambda x: 0 * CONSTANT)),
    "fill_": (statement(lambda y, x: y[:, :2].fill_(0.5)), first_as(lambda x: CONSTANT)),
    "copy_": (statement(lambda y, x: y[:, :2].copy_(x[:, 1:3])), first_as(lambda x: x[:, 1:3])),
    "copy_ of one": (
        statement(lambda y, x: y[:, :2].copy_(x[:, 3:])),
        first_as(lambda x: x[:, 3:]),
    ),
    "an item": (
        statement(lambda y, x: y.__setitem__((slice(None), slice(2)), 3 * x[:, 3:])),
        first_as(lambda x: 3 * x[:, 3:]),
    ),
    "add_": (
        statement(lambda y, x: y[:, :2].add_(x[:, 2:], alpha=-3)),
        first_as(lambda x: 2 * x[:, :2] - 3 * x[:, 2:]),
    ),
    "sub_": (
        statement(lambda y, x: y[:, :2].sub_(x[:, 2:])),
        first_as(lambda x: 2 * x[:, :2] - x[:, 2:]),
    ),
    "mul_": (
        statement(lambda y, x: y[:, :2].mul_(x[:, 2:].sigmoid())),
        first_as(lambda x: 2 * x[:, :2] * x[:, 2:].sigmoid().detach()),
    ),
    "div_": (
        statement(lambda y, x: y[:, :2].div_(below(x)[:, 2:])),
        first_as(lambda x: 2 * x[:, :2] / below(x)[:, 2:].detach()),
    ),
    "neg_": (statement(lambda y, x: y[:, :2].neg_()), first_as(lambda x: -2 * x[:, :2])),
    "tanh_": (
        statement(lambda y, x: y[:, :2].tanh_()),
        first_as(lambda x: passed(torch.tanh)(2 * x[:, :2])),
    ),
    "lerp_": (
        statement(lambda y, x: y[:, :2].lerp_(x[:, 2:], 0.25)),
        first_as(lambda x: 1.5 * x[:, :2] + 0.25 * x[:, 2:]),
    ),
    "relu by its place": (
        statement(lambda y, x: F.relu(y[:, :2], True)),
        first_as(lambda x: (2 * x[:, :2]).relu()),
    ),
    "elu by its name": (
        statement(lambda y, x: F.elu(y[:, :2], inplace=True)),
        first_as(lambda x: passed(F.elu)(2 * x[:, :2])),
    ),
    "elu by its place": (
        statement(lambda y, x: F.elu(y[:, :2], 0.5, True)),
        first_as(lambda x: passed(lambda v: F.elu(v, 0.5))(2 * x[:, :2])),
    ),
    "through views that overlap": (
        through_views_that_overlap,
        lambda x: torch.cat([2 * x[:, :1].relu(), 6 * x[:, 1:3].relu(), 6 * x[:, 3:]], 1),
    ),
    "through a transposed view": (
        statement(lambda y, x: y[:, :2].transpose(2, 3).relu_()),
        first_as(lambda x: (2 * x[:, :2]).relu()),
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_relevance_of_a_statement_is_that_of_what_it_leaves(name: str) -> None:
    check(*STATEMENTS[name], LRP_0)


@pytest.mark.parametrize("name", PAIRS)
def test_relevance_is_that_of_the_operation_with_its_constants_held_still(name: str) -> None:
    check(*PAIRS[name], LRP_0)


BIASES: dict[str, tuple[Op, Op]] = {
    "layer norm": (
        lambda x: F.layer_norm(x, (3, 6), WEIGHT, OFFSET),
        lambda x: normed(x, (2, 3), WEIGHT) + spread(OFFSET, x, (2, 3)),
    ),
    "group norm": (
        lambda x: F.group_norm(x, 2, CHANNELS, MEAN),
        lambda x: in_groups(x, 2) * UP + spread(MEAN.view(-1, 1, 1), x, 1),
    ),
    "batch norm alone": (
        lambda x: F.batch_norm(x, MEAN, VAR, CHANNELS, VAR),
        lambda x: (
            x * BATCH_SCALE * UP
            + spread(VAR.view(-1, 1, 1) - MEAN.view(-1, 1, 1) * BATCH_SCALE * UP, x, 1)
        ),
    ),
    "of channels": (lambda x: x + UP, lambda x: x + spread(UP, x, 1)),
    "of channels, turned": (lambda x: UP - x, lambda x: spread(UP, x, 1) - x),
    "of channels, and twice x": (
        lambda x: torch.add(UP, x, alpha=2),
        lambda x: 2 * x + spread(UP, x, 1),
    ),
    "of channels, less": (
        lambda x: torch.sub(x, UP, alpha=2),
        lambda x: x - spread(2 * UP, x, 1),
    ),
    "of the last axis": (lambda x: x + OFFSET[0], lambda x: x + spread(OFFSET[0], x, -1)),
    "a number": (lambda x: x + 0.5, lambda x: x + spread(0.5, x, 1)),
    "of places": (lambda x: x + PLACES, lambda x: x + PLACES),
    "a number beside a gate": (
        lambda x: x.sigmoid() + 0.5,
        lambda x: passed(torch.sigmoid)(x) + 0.5,
    ),
    "of channels beside a gate": (
        lambda x: UP - x.sigmoid(),
        lambda x: UP - passed(torch.sigmoid)(x),
    ),
    "of tokens": (
        lambda x: x.flatten(2) + OFFSET.flatten(),
        lambda x: x.flatten(2) + spread(OFFSET.flatten(), x.flatten(2), -1),
    ),
    "of a vector": (
        lambda x: x.mean((2, 3)) + CHANNELS,
        lambda x: x.mean((2, 3)) + spread(CHANNELS, x.mean((2, 3)), -1),
    ),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_goes_to_the_input_by_magnitude(name: str) -> None:
    check(*BIASES[name], SPREADING)


# ---------------------------------------------------------------- what is noted


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (lambda x: x + torch.div(other(x), 0.5, rounding_mode="floor"), "div"),
        (lambda x: x + x.norm(dim=1, keepdim=True), "add"),
        (lambda x: x.norm(dim=1, keepdim=True) - x, "sub"),
        (lambda x: F.batch_norm(x, MEAN, VAR, training=True, momentum=0.0), "batch_norm"),
        (lambda x: F.instance_norm(x, MEAN.clone(), VAR.clone()), "instance_norm"),
        (
            lambda x: torch.instance_norm(
                x, None, None, MEAN.clone(), VAR.clone(), True, 0.1, 1e-5, False
            ),
            "instance_norm",
        ),
        (
            lambda x: F.conv2d(torch.ones(1, 4, 3, 6, dtype=D), x[:, :, :2, :2]).transpose(0, 1),
            "conv2d",
        ),
        (lambda x: F.conv2d(x[0], torch.ones(4, 4, 1, 1, dtype=D)), "conv2d"),
        (lambda x: F.linear(torch.ones(2, 6, dtype=D), x[0, 0]), "linear"),
    ],
)
def test_an_operation_without_a_rule_is_noted(op: Op, name: str) -> None:
    with Trace(
        Net(op), torch.randn(SHAPE, dtype=D), layers=["input"], rules=(r := Relevance(LRP_0))
    ):
        assert {key.strip("_") for key in r.unknown} == {name}


class Told(Relevance):
    """Checks what is known of each tensor."""

    def handle(self, func: Function, args: Arguments, kwargs: Options) -> Any:
        out = super().handle(func, args, kwargs)
        if isinstance(out, Tensor) and self.notes.is_non_negative(out):
            assert bool((out >= 0).all()), func
        return out


NEGATIVE: dict[str, Op] = {
    "product of one sign": lambda x: x.relu() * other(x),
    "product with a number": lambda x: x.relu() * -1,
    "sum with what is signed": lambda x: x.relu() + x,
    "difference": lambda x: x.relu() - other(x).relu(),
    "less a number": lambda x: x.relu() + -0.5,
    "quotient": lambda x: x.relu() / -2,
    "quotient of what is signed": lambda x: x / 2,
    "bicubic": lambda x: F.interpolate(x.relu(), scale_factor=2, mode="bicubic")[..., :3, :6],
    "padding": lambda x: F.pad(x.relu(), (0, 1), value=-1.0)[..., 1:],
    "cat": lambda x: torch.cat([x.relu(), x[:, :1]], 1)[:, 1:],
    "clamp": lambda x: x.clamp(min=-0.5),
    "clamp by place": lambda x: x.clamp(-0.5, 0.5),
    "hardtanh": lambda x: F.hardtanh(x),
    "softplus less": lambda x: F.softplus(x) - 1,
}


@pytest.mark.parametrize("name", [*PAIRS, *NEGATIVE])
def test_what_is_said_to_be_non_negative_is(name: str) -> None:
    op = PAIRS[name][0] if name in PAIRS else NEGATIVE[name]
    for x in (torch.randn(SHAPE, dtype=D), torch.rand(SHAPE, dtype=D)):
        with Trace(Net(op), x, layers=["input"], rules=Told(LRP_0)) as trace:
            assert trace.output.isfinite().all()


KNOWN: dict[str, Op] = {
    "relu": F.relu,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "clamp": lambda x: x.clamp(0, 2),
    "hardtanh": lambda x: F.hardtanh(x, min_val=0.0),
    "sum": lambda x: x.relu() + other(x).relu(),
    "sum with a number": lambda x: x.relu() + 0.5,
    "sum with nothing": lambda x: x.relu() + 0,
    "product": lambda x: x.relu() * other(x).relu(),
    "product with a number": lambda x: x.relu() * 3,
    "quotient": lambda x: x.relu() / 3,
    "cat": lambda x: torch.cat([x.relu(), other(x).relu()], 1)[:, 2:6],
    "pooled": lambda x: F.max_pool2d(x.relu(), 2).mean((2, 3)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_non_negative_is_known(name: str) -> None:
    known: list[bool] = []

    class Last(Relevance):
        def handle(self, func: Function, args: Arguments, kwargs: Options) -> Any:
            out = super().handle(func, args, kwargs)
            if func is torch.neg:
                known.append(self.notes.is_non_negative(args[0]))
            return out

    net = Net(lambda x: torch.neg(KNOWN[name](x)))
    with Trace(net, torch.randn(2, 4, 3, 6, dtype=D), layers=["input"], rules=Last(LRP_0)):
        assert known == [True]
