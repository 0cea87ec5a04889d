"""How a rule of layer-wise relevance propagation is carried out at a linear map; forward values are never touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...maps.ledger import total
from ..constants import scalar
from ..readings import is_read_at_once
from .linear_map import LinearMap, no_memory
from .lrp import POSITIVE, Rule, Term
from .short import short_signal, with_factors

Tally = dict[str, float]  # what did not go on, by reason


class Account(Protocol):
    """Who wants to know what a linear map does with relevance."""

    def listens(self) -> bool:
        """Whether this signal is accounted for."""

    def settle(self, received: Tensor, handed_on: Tensor, tally: Tally | None) -> None:
        """Is told relevance of the output, of the input, and the tally."""

    def absorb(self, share: Tensor, own: Tensor) -> None:
        """Is told, where that is all there is to tell, what contributes beside the input, and its share for a unit."""


def stabilized(z: Tensor, epsilon: float) -> Tensor:
    """z + epsilon sign(z), with sign(0) = 1; epsilon is at least the smallest normal number of the precision."""
    if not epsilon:
        return z
    epsilon = max(epsilon, torch.finfo(z.dtype).tiny)
    return torch.copysign(scalar(epsilon, z.dtype, z.device), z).add_(z)


def safe(x: Tensor) -> Tensor:
    """x with its zeros moved by a hair, so that relevance of a zero input can be held as R / x."""
    hair = torch.finfo(x.dtype).tiny ** 0.5
    return torch.where(x.abs() < hair, hair, x)


def propagate(
    rule: Rule,
    linear: LinearMap,
    x: Tensor,
    z: Tensor,
    g: Tensor,
    *,
    non_negative: bool = False,
    tally: Tally | None = None,
) -> Tensor:
    """The signal at the input of a linear map, from the signal g at its output z, under a rule.

    Relevance of the input is `safe(x)` times the signal.

    Args:
        rule: what counts as a contribution.
        linear: the map, with its weight and bias.
        x: its input.
        z: its output, of x's batch; relevance of it is g * z.
        g: the signal, of the shape of z.
        non_negative: the input is known to have no negative values, which halves the work of most rules.
        tally: is told what the bias and epsilon absorbed, and what was lost for want of a contributor.
    """
    if rule.box is not None:
        return _signal_within_box(rule, rule.box, linear, x, g * z, tally)
    if rule.form != "product":
        return _signal_without_input(rule, linear, x, g * z, tally)
    r = g * z
    first, *more = (
        _signal_of_term(rule, term, linear, x, z, r, non_negative, tally) for term in rule.terms
    )
    return sum(more, first)


def _signal_of_term(
    rule: Rule,
    term: Term,
    m: LinearMap,
    x: Tensor,
    z: Tensor,
    r: Tensor,
    non_negative: bool,
    tally: Tally | None,
) -> Tensor:
    """The signal that one term of a rule hands to the input, from relevance r of the output."""
    r = _relevance_of_term(term, z, r)
    q, bias, pull = _contributions_to_term(rule, term, m, x, z, non_negative)
    rescued = _handed_on_by_fallback(rule, m, x, r, q, tally) if rule.fallback else None
    if tally is None and _divides_in_place(rule, term, non_negative):
        s = r.div_(q.add_(rule.epsilon))  # new memory costs more; where q = 0 nothing is pulled
    else:
        s = _share_for_each_unit(
            r, q, rule.epsilon, tally, least=_least_that_counts(rule) if rule.fallback else None
        )
    if rescued is not None:
        s = s + rescued[0]
    if tally is not None:
        _note_what_stays(tally, rule, s, r, q, bias)
    back = pull(s)
    if bias is not None and rule.bias == "spread":
        back = back + _spread_by_magnitude(s * bias, x, dense=m.weight.ndim == 2)
    if rescued is None:
        return back
    return back + m.pull(rescued[1], m.weight, x)


def _relevance_of_term(term: Term, z: Tensor, r: Tensor) -> Tensor:
    """The part of the output's relevance that goes the term's way."""
    if term.coefficient != 1:
        r = r * term.coefficient
    if term.where == "everywhere":
        return r
    return torch.where((z > 0) == (term.where == "z > 0"), r, 0)


class _Contributions(NamedTuple):
    """What counts as a contribution to each output, added up."""

    q: Tensor
    bias: Tensor | None  # its share of q; None where it has none
    pull: Callable[[Tensor], Tensor]  # shares of q, back to the inputs


def _contributions_to_term(
    rule: Rule, term: Term, m: LinearMap, x: Tensor, z: Tensor, non_negative: bool
) -> _Contributions:
    above = with_factors(m.weight, term.above)

    def pull_above(s: Tensor) -> Tensor:
        return m.pull(s, above, x)

    bias = None if m.bias is None or rule.bias == "exclude" else with_factors(m.bias, term.above)
    if term.is_whole:
        excluded = m.bias if bias is None else None
        return _Contributions(z if excluded is None else z - excluded, bias, pull_above)
    pull: Callable[[Tensor], Tensor] = pull_above
    if non_negative:
        q = m.apply(x, above)
    else:
        q, pull = _two_sided(m, x, above, with_factors(m.weight, term.below))
    return _Contributions(q if bias is None else q.add_(bias), bias, pull)


def _divides_in_place(rule: Rule, term: Term, non_negative: bool) -> bool:
    """Whether no contribution is negative, and neither they nor the relevance are needed again."""
    only_positive = non_negative and term.above == POSITIVE and rule.epsilon > 0
    return only_positive and len(rule.terms) == 1 and not rule.fallback


def _note_what_stays(
    tally: Tally, rule: Rule, s: Tensor, r: Tensor, q: Tensor, bias: Tensor | None
) -> None:
    """Notes what the bias keeps, and what has no contributor to go to."""
    _add_to_tally(tally, "bias", 0.0 if bias is None or rule.bias == "spread" else s * bias)
    _add_to_tally(tally, "no_contributor", 0.0 if rule.fallback else torch.where(q == 0, r, 0))


def _two_sided(
    m: LinearMap, x: Tensor, above: Tensor, below: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """What positive inputs give with one weight and negative ones with another, and what pulls shares of it back."""
    if m.along is None:
        q = m.apply(x.clamp(min=0), above).add_(m.apply(x.clamp(max=0), below))
        return q, lambda s: torch.where(x > 0, m.pull(s, above, x), m.pull(s, below, x))
    dim, of_weight = m.along
    signed, weight = (
        torch.cat([x.clamp(min=0), x.clamp(max=0)], dim),
        torch.cat([above, below], of_weight),
    )

    def pull(s: Tensor) -> Tensor:
        up, down = m.pull(s, weight, signed).chunk(2, dim)
        return torch.where(x > 0, up, down)

    return m.apply(signed, weight), pull


def _share_for_each_unit(
    r: Tensor, q: Tensor, epsilon: float, tally: Tally | None, *, least: float | None = None
) -> Tensor:
    """Relevance for a unit of contribution, r / (q + epsilon sign q); none where no more than the least contributes."""
    below = stabilized(q, epsilon)
    s = (r / below).masked_fill(q == 0 if least is None else q <= least, 0)
    if tally is not None:
        _add_to_tally(tally, "epsilon", s * (below - q))
    return s


def _spread_by_magnitude(share: Tensor, x: Tensor, *, dense: bool) -> Tensor:
    """The bias's shares, added up and handed to the inputs in proportion to their magnitude."""
    dims = (-1,) if dense else tuple(range(1, x.ndim))
    magnitude = x.abs().sum(dims, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    return x.sign() * (share.sum(dims, keepdim=True) / magnitude)


def _least_that_counts(rule: Rule) -> float:
    """Contributions of no more than this count as none: the stabiliser would have their relevance."""
    return 10 * rule.epsilon


def _handed_on_by_fallback(
    rule: Rule, m: LinearMap, x: Tensor, r: Tensor, q: Tensor, tally: Tally | None
) -> tuple[Tensor, Tensor] | None:
    """What the fallback hands on for a unit of the rule's contributions (N, 1, ...), and of those of the other sign."""
    least = _least_that_counts(rule)
    alone = q <= least
    if is_read_at_once(r) and not bool((alone & (r != 0)).any()):
        return None
    # applied anew: z less its bias would leave rounding where nothing contributes
    others = torch.where(alone, m.apply(x, m.weight), 0).clamp(max=0)
    scarce = others >= -least
    own = _share_for_each_unit(torch.where(scarce, 0, r), others, rule.epsilon, tally)
    # never over images: a dense layer may have tokens before them, (L, N, E), so there each token is by itself
    dims = (-1,) if m.weight.ndim == 2 else tuple(range(1, q.ndim))
    orphaned = torch.where(alone & scarce, r, 0).sum(dims, keepdim=True)
    everything = (q.clamp(min=0) - others).sum(dims, keepdim=True)
    spread = (orphaned / everything).masked_fill(everything == 0, 0)
    if tally is not None:
        _add_to_tally(tally, "no_contributor", torch.where(everything == 0, orphaned, 0))
    return spread, torch.where(others < 0, own - spread, 0)


def _signal_within_box(
    rule: Rule, box: tuple[Tensor, Tensor], m: LinearMap, x: Tensor, r: Tensor, tally: Tally | None
) -> Tensor:
    # (C, 1, 1) has one dimension less than a volume's (C, D, H, W)
    deep = (bound.to(x)[..., *[None] * (x.ndim - 1 - bound.ndim)] for bound in box)
    low, high = (bound.expand_as(x) for bound in deep)
    up, down = m.weight.clamp(min=0), m.weight.clamp(max=0)
    q = m.apply(x, m.weight) - m.apply(low, up) - m.apply(high, down)
    s = _share_for_each_unit(r, q, rule.epsilon, tally)
    if tally is not None:
        _add_to_tally(tally, "no_contributor", torch.where(q == 0, r, 0))
    return (x * m.pull(s, m.weight, x) - low * m.pull(s, up, x) - high * m.pull(s, down, x)) / safe(
        x
    )


def _signal_without_input(
    rule: Rule, m: LinearMap, x: Tensor, r: Tensor, tally: Tally | None
) -> Tensor:
    w = m.weight**2 if rule.form == "squared" else torch.ones_like(m.weight)
    q = m.apply(torch.ones_like(x), w)
    s = _share_for_each_unit(r, q, rule.epsilon, tally)
    if tally is not None:
        _add_to_tally(tally, "no_contributor", torch.where(q == 0, r, 0))
    return m.pull(s, w, x) / safe(x)


def _add_to_tally(tally: Tally, name: str, relevance: Tensor | float) -> None:
    amount = total(relevance) if isinstance(relevance, Tensor) else relevance
    tally[name] = tally.get(name, 0.0) + amount


class Context(Protocol):
    """What autograd keeps of a function between its way forward and its way back."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _RuledContext(Context, Protocol):
    linear: Callable[[], LinearMap]
    rule: Rule
    non_negative: bool
    account: Account | None
    detailed: bool


def _accounted_signal(
    ctx: _RuledContext, linear: LinearMap, x: Tensor, z: Tensor, g: Tensor, tally: Tally | None
) -> Tensor:
    """The signal at the input, and a word of what stays behind to whom it concerns."""
    account = ctx.account if ctx.account is not None and ctx.account.listens() else None
    short = None
    if tally is None:
        short = short_signal(ctx.rule, linear, x, z, g, non_negative=ctx.non_negative)
    if short is None:
        non_negative = ctx.non_negative
        back = propagate(ctx.rule, linear, x, z, g, non_negative=non_negative, tally=tally)
        if account is not None:
            account.settle(g * z, safe(x) * back, tally)
        return back
    if account is not None:
        account.absorb(short.share, short.all_own())
    return short.signal


class RuledLinear(torch.autograd.Function):
    """A linear operation whose forward value is the model's own and whose way back is a rule's."""

    @staticmethod
    def forward(
        ctx: _RuledContext,
        x: Tensor,
        z: Tensor,
        linear: Callable[[], LinearMap],
        rule: Rule,
        non_negative: bool,
        account: Account | None,
        detailed: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, z)
        ctx.linear, ctx.rule, ctx.non_negative = linear, rule, non_negative
        ctx.account, ctx.detailed = account, detailed
        return z.detach()

    @staticmethod
    def backward(
        ctx: _RuledContext, g: Tensor
    ) -> tuple[Tensor, None, None, None, None, None, None]:
        x, z = ctx.saved_tensors
        tally: Tally | None = {} if ctx.detailed else None
        linear, given = ctx.linear(), x.dtype
        ran, full = z.dtype, torch.promote_types(z.dtype, torch.float32)
        if not given == ran == g.dtype == linear.weight.dtype == full:
            x, z, g = x.to(full), z.to(full), g.to(full)
            linear = _in_full_precision(linear, full, _type_of_products(ctx.rule, ran))
        with torch.autocast(x.device.type, enabled=False):
            back = _accounted_signal(ctx, linear, x, z, g, tally)
        most = torch.finfo(given).max
        back = back.clamp(-most, most) if given == torch.float16 else back
        return back.to(given), None, None, None, None, None, None


def _type_of_products(rule: Rule, ran: torch.dtype) -> torch.dtype:
    """The type of a rule's products with weights, of a layer that ran in some type.

    Those of bfloat16 are as good as the layer's own. Of float16 R / a is often beyond its range, and under zB a small
    sum is the difference of large ones.
    """
    return torch.float32 if ran == torch.float16 or rule.box is not None else ran


def _in_full_precision(linear: LinearMap, full: torch.dtype, products: torch.dtype) -> LinearMap:
    """A map of tensors in full precision, whose products are made in another."""
    bias = None if linear.bias is None else linear.bias.to(full)
    weight = linear.weight.to(full)
    if products == full:
        return replace(linear, weight=weight, bias=bias, made=no_memory)

    def apply(x: Tensor, w: Tensor, b: Tensor | None = None, /) -> Tensor:
        y = linear.apply(x.to(products), w.to(products)).to(full)
        if b is None:
            return y
        return y + (b if linear.is_dense else b.view(-1, *[1] * (y.ndim - 2)))

    def pull(s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return linear.pull(s.to(products), w.to(products), x.to(products)).to(full)

    return replace(linear, apply=apply, pull=pull, weight=weight, bias=bias, made=no_memory)
