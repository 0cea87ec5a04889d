"""Composites: which rule holds at which operation, as a short table.

Your own takes a few lines, by kind of operation, by depth, or by layer name (rules are in `lrp.py`):

>>> from seewhy.engine.rules.composites import Composite
>>> from seewhy.engine.rules.lrp import epsilon, flat, gamma, z_plus
>>> table = (
...     ("name:features.0*", flat()),  # a dotted name, with wildcards
...     (lambda op: op.depth < 8, gamma(0.25)),  # depth counts linear maps from the earliest tap
...     ("conv", z_plus()),
...     ("linear", epsilon()),
... )
>>> seewhy.methods.lrp(net, x, 0, composite=Composite("mine", table)).sum().round(decimals=3)
tensor(4.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

from torch import Tensor

from ...errors import InputError
from ...names import known_name
from ..call import Bounds
from .lrp import Rule, alpha_beta, epsilon, gamma, z_box, z_plus
from .notes import Kind


@dataclass(frozen=True)
class Operation:
    """A linear map as a composite sees it."""

    kind: Kind
    depth: int  # linear maps between it and the earliest tap
    first: bool  # it reads the model's input
    depthwise: bool
    name: str  # of its weight's module; "" where the weight is no parameter


Key = str | Callable[[Operation], bool]
_KEYS = ("first", "depthwise", "conv", "linear", "any")


@dataclass(frozen=True)
class Composite:
    """Rules by operation: the first row that fits gives the rule.

    Attributes:
        table: (key, rule); keys are "first", "depthwise", "conv", "linear", "any", "name:PATTERN" or a predicate.
        attention: "cp" treats attention weights as coefficients (CP-LRP, Ali et al., ICML 2022); "attn" hands half
            of relevance to them and through the softmax (AttnLRP, Achtibat et al., ICML 2024), which does not conserve.
        norm_bias: whether the biases of norms that merge with no linear map absorb relevance.
    """

    name: str
    table: tuple[tuple[Key, Rule], ...]
    attention: Literal["cp", "attn"] = "cp"
    norm_bias: Literal["absorb", "exclude"] = "absorb"

    def __post_init__(self) -> None:
        for key, _ in self.table:
            if not callable(key) and not key.startswith("name:") and key not in _KEYS:
                raise InputError(
                    f"{key!r} is no key of a composite; use {', '.join(map(repr, _KEYS))}, 'name:...' or a predicate"
                )

    @property
    def conserves(self) -> bool:
        """Whether it promises that all relevance goes on to the image, but for what constants keep."""
        rules_do = all(rule.hands_all_on for _, rule in self.table)
        return rules_do and self.norm_bias == "exclude" and self.attention == "cp"

    def rule(self, operation: Operation) -> Rule:
        for key, rule in self.table:
            if _key_fits(key, operation):
                return rule
        raise InputError(
            f"composite {self.name!r} has no rule for {operation}; end its table with ('any', epsilon())"
        )


def _key_fits(key: Key, operation: Operation) -> bool:
    if callable(key):
        return key(operation)
    if key.startswith("name:"):
        return fnmatch(operation.name, key.removeprefix("name:"))
    if key in ("first", "depthwise"):
        return bool(getattr(operation, key))
    return key in ("any", operation.kind)


def epsilon_plus() -> Composite:
    """z+ for convolutions and epsilon for dense layers, biases absorbing: zennit's EpsilonPlus."""
    return Composite(
        "epsilon_plus", (("conv", z_plus(bias="absorb", fallback=False)), ("linear", epsilon()))
    )


def epsilon_plus_box(low: Tensor, high: Tensor) -> Composite:
    """zB at the input, else as `epsilon_plus`; low and high (C, 1, 1) are the preprocessing's own bounds."""
    return Composite("epsilon_plus_box", (("first", z_box(low, high)), *epsilon_plus().table))


def epsilon_gamma_box(low: Tensor, high: Tensor) -> Composite:
    """zB at the input, gamma 0.25 for convolutions, epsilon for dense layers (Montavon et al., 2019)."""
    return Composite(
        "epsilon_gamma_box", (("first", z_box(low, high)), ("conv", gamma()), ("linear", epsilon()))
    )


def epsilon_gamma(value: float = 1.0) -> Composite:
    """gamma for convolutions, epsilon for dense layers, biases absorbing; `layer_relevance` uses it."""
    return Composite("epsilon_gamma", (("conv", gamma(value)), ("linear", epsilon())))


def z_plus_everywhere() -> Composite:
    """z+ for convolutions and dense layers, biases absorbing."""
    return Composite("z_plus", (("any", z_plus(bias="absorb", fallback=False)),))


def epsilon_alpha2_beta1() -> Composite:
    """alpha 2 beta 1 for convolutions, epsilon for dense layers."""
    return Composite("epsilon_alpha2_beta1", (("conv", alpha_beta(2, 1)), ("linear", epsilon())))


def uniform_epsilon(value: float = 1e-6) -> Composite:
    """epsilon everywhere."""
    return Composite("uniform_epsilon", (("any", epsilon(value)),))


def relevance_cam() -> Composite:
    """z+ everywhere without biases, as the official code of Relevance-CAM (Lee et al., CVPR 2021)."""
    return Composite("relevance_cam", (("any", z_plus(fallback=False)),))


def attn_lrp() -> Composite:
    """epsilon for dense layers, gamma for convolutions, relevance through attention weights too."""
    return Composite("attn_lrp", (("conv", gamma()), ("linear", epsilon())), attention="attn")


def conserving() -> Composite:
    """z+ with fallback for convolutions and epsilon for dense layers, no bias absorbing: seewhy's default."""
    return Composite(
        "conserving",
        (("conv", z_plus(1e-9)), ("linear", epsilon(1e-9, bias="spread"))),
        norm_bias="exclude",
    )


COMPOSITES: dict[str, Callable[[], Composite]] = {
    "epsilon_plus": epsilon_plus,
    "epsilon_gamma": epsilon_gamma,
    "z_plus": z_plus_everywhere,
    "epsilon_alpha2_beta1": epsilon_alpha2_beta1,
    "uniform_epsilon": uniform_epsilon,
    "relevance_cam": relevance_cam,
    "attn_lrp": attn_lrp,
    "conserving": conserving,
}
BOXED: dict[str, Callable[[Tensor, Tensor], Composite]] = {
    "epsilon_plus_box": epsilon_plus_box,
    "epsilon_gamma_box": epsilon_gamma_box,
}


def find_composite(composite: str | Composite, bounds: Bounds | None = None) -> Composite:
    """The composite of that name; those with a box take the bounds of the model's preprocessing.

    Raises:
        InputError: there is none of that name, or it needs bounds.
    """
    if isinstance(composite, Composite):
        return composite
    meant = known_name(str(composite), [*COMPOSITES, *BOXED], what="composite")
    if meant in COMPOSITES:
        return COMPOSITES[meant]()
    if bounds is None:
        raise InputError(
            f"composite {composite!r} needs the input's bounds, and the model has no preprocessing to take them from; "
            f"wrap(module, preprocess=...), or give seewhy.engine.rules.composites.{meant}(low, high)"
        )
    return BOXED[meant](*bounds)
