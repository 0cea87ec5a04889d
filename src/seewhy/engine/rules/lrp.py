"""The rules of layer-wise relevance propagation, as data, for any linear map: convolution, transposed, dense.

Relevance R travels as g = R / a, "modified gradient": relevance at any tensor is the tensor times its signal. Under a
rule the relevance R_j of an output goes to the inputs in proportion to their contributions q_ij,

    R_i = sum over terms of coefficient * sum_j (q_ij / (sum_i q_ij + bias_j)) R_j,

and a rule says what counts as a contribution, by the signs of input and weight (Bach et al., PLoS ONE 2015; Montavon et
al., 2019). Forward values are never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import InputError
from ...maps.ledger import total

Tally = dict[str, float]  # what did not go on, by reason
Account = Callable[
    [Tensor, Tensor, Tally | None], None
]  # is told relevance of the output, of the input, and the tally
Parts = tuple[float, float]  # what multiplies a weight's positive and its negative part
_WHOLE: Parts = (1.0, 1.0)
Bias = Literal["absorb", "exclude", "spread"]


@dataclass(frozen=True)
class Term:
    """A part of the relevance, and what counts as a contribution to it.

    Attributes:
        coefficient: the share of R_j that goes this way.
        above: for positive inputs, factors of the weight's positive and negative part.
        below: the same for negative inputs.
        where: the outputs this holds for.
    """

    coefficient: float = 1.0
    above: Parts = _WHOLE
    below: Parts = _WHOLE
    where: Literal["everywhere", "z > 0", "z <= 0"] = "everywhere"


@dataclass(frozen=True)
class Rule:
    """How a linear map hands relevance back.

    Attributes:
        terms: added up.
        bias: "absorb" lets the bias take its share, "exclude" leaves it out of the denominator, so that all goes on;
            "spread" hands its share to the inputs of the token (dense) or image in proportion to their magnitude, which
            keeps relevance too and, unlike "exclude", bounded where contributions of both signs cancel.
        epsilon: added to the denominator, away from zero; it absorbs a little.
        fallback: for rules of positive contributions alone: outputs that have none keep their relevance in the image.
            It is shared among their contributions of the other sign; and where there are none at all, so that only the
            bias speaks, among all contributions to the layer, each by its size. Depthwise convolutions, which see one
            channel, have many such outputs.
        box: the lowest and highest values of the input, for the zB rule; only over the input.
        form: "product" rules weigh contributions x w; "squared" (w2) weighs w^2, "flat" weighs 1; these two only over
            the input, since they hand relevance to inputs that are zero.
    """

    name: str
    terms: tuple[Term, ...] = (Term(),)
    bias: Bias = "exclude"
    epsilon: float = 1e-6
    fallback: bool = False
    box: tuple[Tensor, Tensor] | None = None
    form: Literal["product", "squared", "flat"] = "product"

    @property
    def hands_all_on(self) -> bool:
        """Whether nothing but the stabiliser keeps relevance back."""
        whole = all(term.above == term.below == _WHOLE for term in self.terms)
        return (
            self.bias != "absorb"
            and self.box is None
            and self.form == "product"
            and (whole or self.fallback)
        )


def epsilon(epsilon: float = 1e-6, *, bias: Bias = "absorb") -> Rule:
    """LRP-epsilon: q = x w; LRP-0 for epsilon = 0 (on ReLU networks with absorbing biases: input x gradient)."""
    return Rule("epsilon", bias=bias, epsilon=epsilon)


def z_plus(epsilon: float = 1e-6, *, bias: Bias = "exclude", fallback: bool = True) -> Rule:
    """z+ (Montavon et al., 2017): positive contributions alone, x+ w+ + x- w-."""
    term = Term(above=(1.0, 0.0), below=(0.0, 1.0))
    return Rule("z_plus", (term,), bias, epsilon, fallback)


def gamma(gamma: float = 0.25, epsilon: float = 1e-6, *, bias: Bias = "absorb") -> Rule:
    """LRP-gamma for signed inputs: contributions of the output's own sign count 1 + gamma times."""
    more: tuple[Parts, Parts] = ((1 + gamma, 1.0), (1.0, 1 + gamma))
    return Rule(
        "gamma",
        (
            Term(above=more[0], below=more[1], where="z > 0"),
            Term(above=more[1], below=more[0], where="z <= 0"),
        ),
        bias,
        epsilon,
    )


def alpha_beta(
    alpha: float = 2.0, beta: float = 1.0, epsilon: float = 1e-6, *, bias: Bias = "absorb"
) -> Rule:
    """LRP-alpha-beta, alpha - beta = 1: alpha times the positive contributions less beta times the negative ones."""
    if alpha < 0 or beta < 0 or abs(alpha - beta - 1) > 1e-9:
        raise InputError(
            f"alpha={alpha}, beta={beta}: both must be at least 0, and alpha - beta must be 1"
        )
    positive = Term(alpha, above=(1.0, 0.0), below=(0.0, 1.0))
    negative = Term(-beta, above=(0.0, 1.0), below=(1.0, 0.0))
    return Rule("alpha_beta", (positive, negative) if beta else (positive,), bias, epsilon)


def z_box(low: Tensor, high: Tensor, epsilon: float = 1e-6) -> Rule:
    """zB (Montavon et al., 2017), for inputs between low and high (C, 1, 1): q = x w - low w+ - high w-."""
    return Rule("z_box", box=(low, high), epsilon=epsilon)


def w_squared() -> Rule:
    """w2: q = w^2, whatever the input."""
    return Rule("w_squared", form="squared")


def flat() -> Rule:
    """Flat: q = 1, every input of a receptive field alike."""
    return Rule("flat", form="flat")


@dataclass(frozen=True, eq=False)
class LinearMap:
    """What a linear operation does with a weight: `apply(x, w)` forwards, without bias, and `pull(s, w, x)` back."""

    apply: Callable[[Tensor, Tensor], Tensor]
    pull: Callable[[Tensor, Tensor, Tensor], Tensor]
    weight: Tensor
    bias: Tensor | None  # shaped to broadcast over the output
    along: tuple[int, int] | None = (
        None  # the inputs' dimension in x and in the weight, where all reach all outputs
    )


def stabilized(z: Tensor, epsilon: float) -> Tensor:
    """z + epsilon sign(z), with sign(0) = 1; epsilon is at least the smallest normal number of the precision."""
    if not epsilon:
        return z
    epsilon = max(epsilon, torch.finfo(z.dtype).tiny)
    return torch.copysign(z.new_tensor(epsilon), z).add_(z)


def safe(x: Tensor) -> Tensor:
    """x with its zeros moved by a hair, so that relevance of a zero input can be held as R / x."""
    hair = torch.finfo(x.dtype).tiny ** 0.5
    return torch.where(x.abs() < hair, hair, x)


def _parts(w: Tensor, parts: Parts) -> Tensor:
    """The weight with its positive and its negative part each times a factor."""
    if parts == _WHOLE:
        return w
    if parts == (1.0, 0.0):
        return w.clamp(min=0)
    if parts == (0.0, 1.0):
        return w.clamp(max=0)
    return torch.where(w > 0, w * parts[0], w * parts[1])


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
        non_negative: the input is known to have no negative values, which halves the work of most rules.
        tally: is told what the bias and epsilon absorbed, and what was lost for want of a contributor.
    """
    if rule.box is not None:
        return _box(rule, rule.box, linear, x, g * z, tally)
    if rule.form != "product":
        return _without_input(rule, linear, x, g * z, tally)
    r = g * z
    first, *more = (_term(rule, term, linear, x, z, r, non_negative, tally) for term in rule.terms)
    return sum(more, first)


def _term(
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
    r = r * term.coefficient if term.coefficient != 1 else r
    r = r if term.where == "everywhere" else torch.where((z > 0) == (term.where == "z > 0"), r, 0)
    whole = term.above == term.below == _WHOLE
    above = _parts(m.weight, term.above)
    below = above if non_negative or whole else _parts(m.weight, term.below)

    def one_sided(s: Tensor) -> Tensor:
        return m.pull(s, above, x)

    pull: Callable[[Tensor], Tensor] = one_sided
    bias = None if m.bias is None or rule.bias == "exclude" else _parts(m.bias, term.above)
    if whole:
        q = z if m.bias is None or bias is not None else z - m.bias
    else:
        q, pull = (m.apply(x, above), pull) if non_negative else _two_sided(m, x, above, below)
        q = q if bias is None else q.add_(bias)
    positive = non_negative and term.above == (1.0, 0.0) and rule.epsilon > 0 and tally is None
    if positive and len(rule.terms) == 1 and not rule.fallback:
        s = r.div_(
            q.add_(rule.epsilon)
        )  # in place: new memory costs more than the sum; where q = 0 nothing is pulled
        rescued = None
    else:
        rescued = _rescued(rule, m, x, r, q, tally) if rule.fallback else None
        s = _share(r, q, rule.epsilon, tally, least=_least(rule) if rule.fallback else None)
        s = s if rescued is None else s + rescued[0]
    if tally is not None:
        _note(tally, "bias", 0.0 if bias is None or rule.bias == "spread" else s * bias)
        _note(tally, "no_contributor", torch.where(q == 0, r, 0) if not rule.fallback else 0.0)
    back = pull(s)
    if bias is not None and rule.bias == "spread":
        back = back + _spread(s * bias, x, dense=m.weight.ndim == 2)
    return back if rescued is None else back + m.pull(rescued[1], m.weight, x)


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


def _share(
    r: Tensor, q: Tensor, epsilon: float, tally: Tally | None, *, least: float | None = None
) -> Tensor:
    """Relevance for a unit of contribution, r / (q + epsilon sign q); none where no more than the least contributes."""
    below = stabilized(q, epsilon)
    s = (r / below).masked_fill(q == 0 if least is None else q <= least, 0)
    if tally is not None:
        _note(tally, "epsilon", s * (below - q))
    return s


def _spread(share: Tensor, x: Tensor, *, dense: bool) -> Tensor:
    """The bias's shares, added up and handed to the inputs in proportion to their magnitude."""
    dims = (-1,) if dense else tuple(range(1, x.ndim))
    magnitude = x.abs().sum(dims, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    return x.sign() * (share.sum(dims, keepdim=True) / magnitude)


def _least(rule: Rule) -> float:
    """Contributions of no more than this count as none: the stabiliser would have their relevance."""
    return 10 * rule.epsilon


def _rescued(
    rule: Rule, m: LinearMap, x: Tensor, r: Tensor, q: Tensor, tally: Tally | None
) -> tuple[Tensor, Tensor] | None:
    """What the fallback hands on for a unit of the rule's contributions (N, 1, ...), and of those of the other sign."""
    least = _least(rule)
    alone = q <= least
    if not bool((alone & (r != 0)).any()):
        return None
    # applied anew: z less its bias would leave rounding where nothing contributes
    others = torch.where(alone, m.apply(x, m.weight), 0).clamp(max=0)
    scarce = others >= -least
    own = _share(torch.where(scarce, 0, r), others, rule.epsilon, tally)
    # never over images: a dense layer may have tokens before them, (L, N, E), so there each token is by itself
    dims = (-1,) if m.weight.ndim == 2 else tuple(range(1, q.ndim))
    orphaned = torch.where(alone & scarce, r, 0).sum(dims, keepdim=True)
    everything = (q.clamp(min=0) - others).sum(dims, keepdim=True)
    spread = (orphaned / everything).masked_fill(everything == 0, 0)
    if tally is not None:
        _note(tally, "no_contributor", torch.where(everything == 0, orphaned, 0))
    return spread, torch.where(others < 0, own - spread, 0)


def _box(
    rule: Rule, box: tuple[Tensor, Tensor], m: LinearMap, x: Tensor, r: Tensor, tally: Tally | None
) -> Tensor:
    # (C, 1, 1) has one dimension less than a volume's (C, D, H, W)
    deep = (bound.to(x)[..., *[None] * (x.ndim - 1 - bound.ndim)] for bound in box)
    low, high = (bound.expand_as(x) for bound in deep)
    up, down = m.weight.clamp(min=0), m.weight.clamp(max=0)
    q = m.apply(x, m.weight) - m.apply(low, up) - m.apply(high, down)
    s = _share(r, q, rule.epsilon, tally)
    if tally is not None:
        _note(tally, "no_contributor", torch.where(q == 0, r, 0))
    return (x * m.pull(s, m.weight, x) - low * m.pull(s, up, x) - high * m.pull(s, down, x)) / safe(
        x
    )


def _without_input(rule: Rule, m: LinearMap, x: Tensor, r: Tensor, tally: Tally | None) -> Tensor:
    w = m.weight**2 if rule.form == "squared" else torch.ones_like(m.weight)
    q = m.apply(torch.ones_like(x), w)
    s = _share(r, q, rule.epsilon, tally)
    if tally is not None:
        _note(tally, "no_contributor", torch.where(q == 0, r, 0))
    return m.pull(s, w, x) / safe(x)


def _note(tally: Tally, name: str, relevance: Tensor | float) -> None:
    amount = total(relevance) if isinstance(relevance, Tensor) else relevance
    tally[name] = tally.get(name, 0.0) + amount


class RuledLinear(torch.autograd.Function):
    """A linear operation whose forward value is the model's own and whose way back is a rule's."""

    @staticmethod
    def forward(
        ctx: Any,
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
    def backward(ctx: Any, g: Tensor) -> Any:
        x, z = ctx.saved_tensors
        tally: Tally | None = {} if ctx.detailed else None
        linear, given = ctx.linear(), x.dtype
        precise = torch.promote_types(given, linear.weight.dtype)  # autocast mixes them
        if precise == torch.float16:  # R / a is often beyond its range
            precise = torch.float32
        if not given == z.dtype == g.dtype == linear.weight.dtype == precise:
            x, z, g = x.to(precise), z.to(precise), g.to(precise)
            bias = None if linear.bias is None else linear.bias.to(precise)
            linear = replace(linear, weight=linear.weight.to(precise), bias=bias)
        with torch.autocast(x.device.type, enabled=False):
            back = propagate(ctx.rule, linear, x, z, g, non_negative=ctx.non_negative, tally=tally)
        if ctx.account is not None:
            ctx.account(g * z, safe(x) * back, tally)
        most = torch.finfo(given).max
        back = back.clamp(-most, most) if given == torch.float16 else back
        return back.to(given), None, None, None, None, None, None
