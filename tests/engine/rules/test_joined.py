"""What joins a picture's tokens is known by its name, and what is computed of it alone is still that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy import Trace
from seewhy.engine.rules.balance import StayedBehind
from seewhy.engine.rules.composites import Composite
from seewhy.engine.rules.joined import JoinedConstants, kind_by_name
from seewhy.engine.rules.lrp import epsilon
from seewhy.engine.rules.relevance import Relevance


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cls_token", "class_token"),
        ("vit.embeddings.cls_token", "class_token"),
        ("visual.class_embedding", "class_token"),
        ("class_token", "class_token"),
        ("dist_token", "class_token"),
        ("reg_token", "registers"),
        ("embeddings.register_tokens", "registers"),
        ("pos_embed", "position_embedding"),
        ("encoder.pos_embedding", "position_embedding"),
        ("visual.positional_embedding", "position_embedding"),
        ("embeddings.position_embedding.weight", "position_embedding"),
        ("blocks.0.norm1.weight", None),
        ("head.weight", None),
    ],
)
def test_names_of_the_libraries(name: str, kind: str | None) -> None:
    assert kind_by_name(name) == kind


def test_a_token_at_its_position_is_that_token_and_what_comes_of_the_picture_is_past_the_layer() -> (
    None
):
    net = nn.Module()
    net.cls_token, net.reg_token, net.pos_embed, net.scale = (
        nn.Parameter(torch.randn(4)) for _ in range(4)
    )
    joined = JoinedConstants(net)

    def followed(*values: torch.Tensor) -> str | None:
        made = torch.randn(4)
        joined.follow(made, values)
        return joined.kind(made)

    assert followed(net.cls_token) == "class_token"
    assert followed(net.cls_token, net.pos_embed) == "class_token"
    assert followed(net.reg_token, net.pos_embed, net.scale) == "registers"
    assert followed(net.pos_embed, net.scale) == "position_embedding"
    assert followed(net.cls_token, net.reg_token) is None
    assert followed(net.scale) is None
    assert followed() is None
    picture = torch.randn(4)
    assert joined.kind(picture) == "past_layer"
    assert followed(picture, net.pos_embed) == "past_layer"


class Tokens(nn.Module):
    """Four tokens of three channels, to which something is joined, and scores that are linear in what that gives."""

    def __init__(self, join: Callable[[Tokens, Tensor], Tensor]) -> None:
        super().__init__()
        self.join = join
        drawn = torch.Generator().manual_seed(2)
        for name, shape in (
            ("cls_token", (1, 1, 3)),
            ("pos_embed", (1, 5, 3)),
            ("shift", (1, 1, 3)),
        ):
            setattr(self, name, nn.Parameter(torch.randn(shape, generator=drawn)))
        self.register_buffer("read", torch.randn(2, 5, 3, generator=drawn))

    def forward(self, x: Tensor) -> Tensor:
        y = self.join(self, x.flatten(2).mT)
        return F.linear(y.flatten(1), self.read[:, -y.shape[1] :].flatten(1))


def with_class_token(net: Tokens, x: Tensor) -> Tensor:
    return torch.cat([net.cls_token.expand(len(x), -1, -1), x], 1)


def overwritten(net: Tokens, x: Tensor) -> Tensor:
    y = x * 2
    y[:, 1] = 0.5
    return y


class Hidden(torch.autograd.Function):
    """The same values, by an operation that is not seen from outside."""

    @staticmethod
    def forward(ctx: object, v: Tensor) -> Tensor:
        return v.clone()

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        return g


def stayed_behind(join: Callable[[Tokens, Tensor], Tensor]) -> tuple[Tokens, StayedBehind]:
    """What stays of the second score in two pictures."""
    net, x = Tokens(join), torch.randn(2, 3, 2, 2)
    rules = Relevance(Composite("lrp_0", (("any", epsilon(0)),)))
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        rules.balance.begin(2)
        relevance = x * trace.signal(1)["input"]
        found = rules.balance.stayed_behind(x.device)
        went_on = relevance.flatten(1).sum(1)
        torch.testing.assert_close(went_on + found.kept, trace.scores(1).float())
    return net, found


@torch.no_grad()
def check(found: Tensor, kept: Tensor | float) -> None:
    torch.testing.assert_close(found, torch.as_tensor(kept).expand(2), atol=1e-5, rtol=1e-5)


def test_a_class_token_and_its_position_keep_their_own_shares() -> None:
    net, found = stayed_behind(lambda net, x: with_class_token(net, x) + net.pos_embed)
    token, position = (
        (net.read[1] * v[0]).sum() for v in (net.cls_token * torch.eye(5, 1), net.pos_embed)
    )
    check(found.class_token, token)
    check(found.position_embedding, position)
    check(found.kept, token + position)
    check(found.past_layer, 0.0)


@pytest.mark.parametrize(
    ("join", "value"),
    [
        (lambda net, x: x.sigmoid() + 0.5, lambda net: 0.5),
        (lambda net, x: x.sigmoid() + 0, lambda net: 0.0),
        (lambda net, x: x.sigmoid() + net.shift, lambda net: net.shift),  # the same for all places
        (lambda net, x: x.sigmoid() + Hidden.apply(net.shift), lambda net: net.shift),
        (overwritten, lambda net: 0.5 * torch.eye(4)[1][:, None]),
    ],
    ids=["a number", "zero", "channels", "hidden", "a number in a place"],
)
def test_other_constants_keep_their_share_and_are_no_part_that_joined(
    join: Callable[[Tokens, Tensor], Tensor], value: Callable[[Tokens], Tensor | float]
) -> None:
    net, found = stayed_behind(join)
    check(found.kept, (net.read[1, 1:] * value(net)).sum())
    for part in (found.class_token, found.registers, found.position_embedding, found.past_layer):
        check(part, 0.0)


def test_what_is_read_nowhere_keeps_nothing_even_where_it_is_infinite() -> None:
    def join(net: Tokens, x: Tensor) -> Tensor:
        net.read.copy_(torch.tensor([0.0, 1.0, 0.0, 2.0, 1.0])[:, None].expand(2, 5, 3))
        return with_class_token(net, x) + net.pos_embed

    net, found = stayed_behind(join)
    check(found.class_token, 0.0)
    check(found.position_embedding, (net.read[1] * net.pos_embed).sum())

    def unbounded(net: Tokens, x: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x[:, :1], torch.inf), join(net, x)[:, 1:]], 1)[:, 1:]

    net, found = stayed_behind(unbounded)
    check(found.kept, (net.read[1, 1:] * net.pos_embed[0, 1:]).sum())
    check(found.past_layer, 0.0)
