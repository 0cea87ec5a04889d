"""Attention in one call: relevance is that of its parts written out, whatever the call's options are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy import Trace
from seewhy.engine.rules.composites import Composite
from seewhy.engine.rules.lrp import epsilon
from seewhy.engine.rules.relevance import Relevance

D = torch.float64
N, L, E, HEADS = 2, 5, 8, 2
Kind = Literal["cp", "attn"]
KINDS: tuple[Kind, ...] = ("cp", "attn")


def lrp_0(attention: Kind) -> Composite:
    """LRP-0: but for attention, relevance is the input times the gradient."""
    return Composite("lrp_0", (("any", epsilon(0)),), attention=attention)


def relevance(net: nn.Module, x: Tensor, attention: Kind) -> tuple[Tensor, dict[str, int]]:
    rules = Relevance(lrp_0(attention))
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        return x * trace.signal(1)["input"], rules.unknown


def halved(product: Tensor) -> Tensor:
    """A product whose factors have half of the relevance each."""
    return product / 2 + (product / 2).detach()


def attend(
    q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, scale: float, attention: Kind
) -> Tensor:
    """softmax(q k^T scale + hidden) v; the weights are constants ("cp"), or factors of two products ("attn")."""
    if attention == "cp":
        q, k = q.detach(), k.detach()
    logits = halved(q @ k.transpose(-2, -1)) * scale
    weights = (logits if hidden is None else logits + hidden).softmax(-1)
    return weights @ v if attention == "cp" else halved(weights @ v)


def minus_infinity(hides: Tensor) -> Tensor:
    return torch.zeros(hides.shape, dtype=D).masked_fill(hides, -torch.inf)


def gradient(answer: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(answer[:, 1].sum(), x)[0]


class Whole(nn.Module):
    """Pictures (N, E, 1, L) as tokens through one attention, to scores (N, E)."""

    def __init__(self, attend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x.flatten(2).transpose(1, 2)).sum(1)  # tokens (N, L, E)


CAUSAL = torch.ones(L, L, dtype=torch.bool).triu(1)  # True hides
BIAS = torch.linspace(-1, 2, L * L, dtype=D).view(L, L)
CALLS: dict[str, tuple[dict[str, object], Tensor | None, float]] = {
    "plain": ({}, None, E**-0.5),
    "scale": ({"scale": 0.7}, None, 0.7),
    "causal": ({"is_causal": True}, minus_infinity(CAUSAL), E**-0.5),
    "what is seen": ({"attn_mask": ~CAUSAL}, minus_infinity(CAUSAL), E**-0.5),
    "what is added": ({"attn_mask": BIAS}, BIAS, E**-0.5),
}


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_its_formula(call: str, attention: Kind) -> None:
    options, hidden, scale = CALLS[call]
    x = torch.randn(N, E, 1, L, dtype=D)
    net = Whole(lambda t: F.scaled_dot_product_attention(2 * t, t + 1, value=t, **options))  # type: ignore[arg-type]
    found, unknown = relevance(net, x, attention)
    x.requires_grad_()
    slow = Whole(lambda t: attend(2 * t, t + 1, t, hidden, scale, attention))
    torch.testing.assert_close(found, (x * gradient(slow(x), x)).detach(), rtol=1e-9, atol=1e-12)
    assert unknown == {}


def test_what_a_hidden_place_keeps_is_a_number() -> None:
    x, rules = torch.randn(N, E, 1, L, dtype=D), Relevance(lrp_0("attn"))
    net = Whole(lambda t: F.scaled_dot_product_attention(2 * t, t + 1, t, ~CAUSAL))
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        rules.balance.begin(N)
        trace.signal(1)
        stayed = rules.balance.stayed_behind(x.device)
    assert stayed.kept.isfinite().all()
    assert stayed.absorbed.isfinite().all()


@pytest.mark.parametrize("attention", KINDS)
def test_keys_that_several_heads_share_are_repeated(attention: Kind) -> None:
    x = torch.randn(N, E, 1, L, dtype=D)

    def heads(t: Tensor, count: int) -> Tensor:
        return t[..., : count * 2].unflatten(-1, (count, 2)).transpose(1, 2)  # (N, heads, L, 2)

    def grouped(t: Tensor) -> Tensor:
        q, k, v = heads(t, 4), heads(t.flip(-1), 2), heads(t + 1, 2)
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2)

    def slow(t: Tensor) -> Tensor:
        q, k, v = heads(t, 4), heads(t.flip(-1), 2), heads(t + 1, 2)
        each = [
            attend(q[:, i], k[:, i // 2], v[:, i // 2], None, 2**-0.5, attention) for i in range(4)
        ]
        return torch.cat(each, -1)

    found, _ = relevance(Whole(grouped), x, attention)
    x.requires_grad_()
    expected = (x * gradient(Whole(slow)(x), x)).detach()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


Options = dict[str, object]
PER_HEAD = torch.arange(N * HEADS * L * L).view(N * HEADS, L, L) % 3 == 1
MULTI_HEAD: dict[str, tuple[Options, Options, Tensor | None]] = {
    # of the module, of its call, and what is added to the logits, to broadcast to (N, heads, L, L)
    "plain": ({}, {}, None),
    "without biases": ({"bias": False}, {}, None),
    "projections of their own": ({"kdim": E // 2, "vdim": 2 * E}, {}, None),
    "what is hidden": ({}, {"attn_mask": CAUSAL}, minus_infinity(CAUSAL)),
    "hidden of each head": (
        {},
        {"attn_mask": PER_HEAD},
        minus_infinity(PER_HEAD).view(N, HEADS, L, L),
    ),
    "what is added": ({}, {"attn_mask": BIAS}, BIAS),
    "causal": (
        {},
        {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False},
        minus_infinity(CAUSAL),
    ),
}


def inputs(module: nn.MultiheadAttention, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of the widths that a module takes."""
    wide = torch.cat([t, 1 - 3 * t.flip(1)], -1)
    return t, wide[..., : module.kdim], wide.flip(-1)[..., : module.vdim]


def multi_head(
    module: nn.MultiheadAttention, t: Tensor, hidden: Tensor | None, attention: Kind
) -> Tensor:
    """The module's formula."""
    weights = (
        module.in_proj_weight.chunk(3)
        if module.in_proj_weight is not None
        else (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    )
    biases = (0, 0, 0) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    q, k, v = (
        (x @ w.T + b).unflatten(-1, (HEADS, -1)).transpose(1, 2)  # (N, heads, L, d)
        for x, w, b in zip(inputs(module, t), weights, biases, strict=True)
    )
    mixed = attend(q, k, v, hidden, (E // HEADS) ** -0.5, attention).transpose(1, 2).flatten(2)
    out = mixed @ module.out_proj.weight.T
    return out if module.out_proj.bias is None else out + module.out_proj.bias


def module_of(**options: object) -> nn.MultiheadAttention:
    """An attention with biases that are not zero."""
    module = nn.MultiheadAttention(E, HEADS, batch_first=True, dtype=D, **options)  # type: ignore[arg-type]
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("name", MULTI_HEAD)
def test_multi_head_attention_is_its_formula(name: str, attention: Kind) -> None:
    made, called, hidden = MULTI_HEAD[name]
    module, x = module_of(**made), torch.randn(N, E, 1, L, dtype=D)
    net = Whole(lambda t: module(*inputs(module, t), **called)[0])
    found, unknown = relevance(net, x, attention)
    x.requires_grad_()
    slow = Whole(lambda t: multi_head(module, t, hidden, attention))
    with torch.no_grad():
        torch.testing.assert_close(slow(x), net(x))
    expected = (x * gradient(slow(x), x)).detach()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert unknown == {}
