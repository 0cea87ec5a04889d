"""The commonest rules in few operations: on an accelerator each costs the same, however little it does.

They give what `propagation` gives at length, up to rounding, where nothing has to be told apart for a ledger.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..constants import scalar
from .linear_map import LinearMap
from .lrp import NEGATIVE, POSITIVE, WHOLE, Parts, Rule


class Short(NamedTuple):
    """What a short form gives."""

    signal: Tensor  # at the input
    share: Tensor  # of relevance, for a unit of what contributes to an output
    own: tuple[Tensor, ...]  # what bias and stabiliser contribute, to be broadcast over the share

    def all_own(self) -> Tensor:
        """What bias and stabiliser contribute together."""
        first, *more = self.own
        return sum(more, first)


def short_signal(
    rule: Rule, m: LinearMap, x: Tensor, z: Tensor, g: Tensor, *, non_negative: bool
) -> Short | None:
    """The signal at the input of a linear map, as `propagate` gives it; None where a rule has no short form here."""
    at_length = rule.form != "product" or rule.box is not None or rule.fallback
    if at_length or not rule.epsilon:
        return None
    if _is_epsilon(rule, m):
        return _epsilon(rule, m, x, z, g)
    if non_negative and _is_z_plus(rule):
        return _z_plus(rule, m, x, z, g)
    if _is_gamma(rule) and m.along is not None:
        return _gamma(rule, m, x, z, g, non_negative=non_negative)
    return None


def with_factors(w: Tensor, parts: Parts) -> Tensor:
    """The weight with its positive and its negative part each times a factor."""
    if parts == WHOLE:
        return w
    if parts == POSITIVE:
        return w.clamp(min=0)
    if parts == NEGATIVE:
        return w.clamp(max=0)
    return torch.where(w > 0, w * parts[0], w * parts[1])


def _has_one_plain_term(rule: Rule) -> bool:
    term = rule.terms[0]
    return len(rule.terms) == 1 and term.coefficient == 1 and term.where == "everywhere"


def _is_epsilon(rule: Rule, m: LinearMap) -> bool:
    takes_all = m.bias is None or rule.bias == "absorb"
    return _has_one_plain_term(rule) and rule.terms[0].is_whole and takes_all


def _epsilon(rule: Rule, m: LinearMap, x: Tensor, z: Tensor, g: Tensor) -> Short:
    """All contributions: their sum is z, and where that is zero there is no relevance to share."""
    away = torch.copysign(
        scalar(max(rule.epsilon, torch.finfo(z.dtype).tiny), z.dtype, z.device), z
    )
    share = (g * z).div_(away + z)
    own = (away,) if m.bias is None else (away, m.bias)
    return Short(m.pull(share, m.weight, x), share, own)


def _is_z_plus(rule: Rule) -> bool:
    plain = _has_one_plain_term(rule) and rule.bias != "spread"
    return plain and rule.terms[0].above == POSITIVE


def _z_plus(rule: Rule, m: LinearMap, x: Tensor, z: Tensor, g: Tensor) -> Short:
    """z+ of inputs that are not negative: whatever contributes is positive, and the sums are."""
    made, key = m.made(), ("z_plus", rule.bias, rule.epsilon)
    if key not in made:
        kept = None if m.bias is None or rule.bias == "exclude" else m.bias.clamp(min=0)
        made[key] = m.weight.clamp(min=0), _own(m, kept, z, rule.epsilon)
    weight, own = made[key]
    assert own is not None
    share = (g * z).div_(m.apply(x, weight, own.reshape(-1)))
    return Short(m.pull(share, weight, x), share, (own,))


def _own(m: LinearMap, bias: Tensor | None, z: Tensor, epsilon: float) -> Tensor:
    """What is added to the contributions of each output, (outputs,) or (outputs, 1, ...)."""
    if bias is not None:
        return bias + epsilon
    outputs = z.shape[m.outputs_at]
    return z.new_full((outputs,) if m.is_dense else (outputs, *[1] * (z.ndim - 2)), epsilon)


def _is_gamma(rule: Rule) -> bool:
    where = [term.where for term in rule.terms]
    plain = all(term.coefficient == 1 for term in rule.terms)
    if where != ["z > 0", "z <= 0"] or not plain or rule.bias != "absorb":
        return False
    up, down = rule.terms
    return _leans(up.above, up.below) and _leans(down.below, down.above)


def _leans(above: Parts, below: Parts) -> bool:
    """Whether contributions that are positive count as much as others, or more: their sum keeps z's sign."""
    return above[0] >= above[1] == 1 == below[0] <= below[1]


def _gamma(
    rule: Rule, m: LinearMap, x: Tensor, z: Tensor, g: Tensor, *, non_negative: bool
) -> Short:
    """gamma's two terms at once, as outputs of one map: one for what is positive in z, one for what is negative.

    Contributions of z's own sign count more, so that their sum has z's sign, and the stabiliser too.
    """
    assert m.along is not None
    made, key = m.made(), ("gamma", *rule.terms, rule.epsilon, non_negative)
    if key not in made:
        made[key] = _weight_of_terms(rule, m, non_negative), _own_of_terms(rule, m, z)
    weight, own = made[key]
    assert own is not None
    dim, both = m.along[0], -2 if m.is_dense else 1
    of_signs = torch.stack([z.clamp(min=0), z.clamp(max=0)], both)
    relevance = (of_signs * g.unsqueeze(both)).flatten(*((-2, -1) if m.is_dense else (1, 2)))
    given = x if non_negative else torch.cat([x.clamp(min=0), x.clamp(max=0)], dim)
    share = relevance.div_(m.apply(given, weight, own.reshape(-1)))
    signal = m.pull(share, weight, given)
    if not non_negative:
        up, down = signal.chunk(2, dim)
        signal = torch.where(x > 0, up, down)
    return Short(signal, share, (own,))


def _weight_of_terms(rule: Rule, m: LinearMap, non_negative: bool) -> Tensor:
    """The weights of both terms, outputs one after the other; of signed inputs with those of negative ones beside."""
    assert m.along is not None
    rows = []
    for term in rule.terms:
        parts = [term.above] if non_negative else [term.above, term.below]
        rows.append(torch.cat([with_factors(m.weight, p) for p in parts], m.along[1]))
    return torch.cat(rows, 0)


def _own_of_terms(rule: Rule, m: LinearMap, z: Tensor) -> Tensor:
    """The biases of both terms with the stabiliser, which has the sign of z."""
    of_each = []
    for term, sign in zip(rule.terms, (1, -1), strict=True):
        bias = None if m.bias is None else with_factors(m.bias, term.above)
        of_each.append(_own(m, bias, z, sign * rule.epsilon))
    return torch.cat(of_each, 0)
