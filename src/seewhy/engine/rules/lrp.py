"""The rules of layer-wise relevance propagation, as data, for any linear map: convolution, transposed, dense.

Relevance R travels as g = R / a, "modified gradient": relevance at any tensor is the tensor times its signal. Under a
rule the relevance R_j of an output goes to the inputs in proportion to their contributions q_ij,

    R_i = sum over terms of coefficient * sum_j (q_ij / (sum_i q_ij + bias_j)) R_j,

and a rule says what counts as a contribution, by the signs of input and weight (Bach et al., PLoS ONE 2015; Montavon et
al., 2019). `propagation` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ...errors import InputError

Parts = tuple[float, float]  # what multiplies a weight's positive and its negative part
WHOLE: Parts = (1.0, 1.0)
POSITIVE: Parts = (1.0, 0.0)
NEGATIVE: Parts = (0.0, 1.0)
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
    above: Parts = WHOLE
    below: Parts = WHOLE
    where: Literal["everywhere", "z > 0", "z <= 0"] = "everywhere"

    @property
    def is_whole(self) -> bool:
        """Whether every contribution counts as it is."""
        return self.above == self.below == WHOLE


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
        whole = all(term.is_whole for term in self.terms)
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
    term = Term(above=POSITIVE, below=NEGATIVE)
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
    positive = Term(alpha, above=POSITIVE, below=NEGATIVE)
    negative = Term(-beta, above=NEGATIVE, below=POSITIVE)
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
