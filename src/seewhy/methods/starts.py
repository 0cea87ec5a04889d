"""Where relevance starts: at the target's score, or contrastively at a weighted sum of all scores.

A start is a weight for each score: the score z_n starts with weight x z_n and goes back as its weight, however small it
is. Some papers fix the relevance R_n of each score instead, which goes back as R_n / z_n: under rules that divide by
the score itself a score near zero then drowns all others. These are there by name, for rules of positive parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..arguments import brief
from ..engine.causes import check_differentiable
from ..engine.rules.propagation import stabilized
from ..engine.targets.classes import Logit, ScoreFunction, class_scores
from ..engine.targets.numbers import Numbers
from ..errors import InputError, TargetError

Seed = Literal[
    "lrp",
    "elsewhere",
    "clrp",
    "sglrp",
    "magnitude",
    "others",
    "clrp_paper",
    "sglrp_paper",
    "unit",
    "auto",
]
# (scores z (N, K), one-hot target (N, K), what the scores are) -> (N, K)
_OfScores = Callable[[Tensor, Tensor, Numbers], Tensor]


def _clrp(z: Tensor, chosen: Tensor, numbers: Numbers) -> Tensor:
    return torch.where(chosen > 0, 1.0, -1 / max(z.shape[1] - 1, 1)).to(z)


def _sglrp(z: Tensor, chosen: Tensor, numbers: Numbers) -> Tensor:
    y = numbers.probabilities(z).to(z)
    return (chosen * y).sum(1, keepdim=True) * (chosen - y)


def _clrp_paper(z: Tensor, chosen: Tensor, numbers: Numbers) -> Tensor:
    return (chosen * z).sum(1, keepdim=True) * _clrp(z, chosen, numbers)


def _unit(z: Tensor, chosen: Tensor, numbers: Numbers) -> Tensor:
    return torch.where(chosen > 0, 1.0, -1 / z.shape[1]).to(z)


_WEIGHTS: dict[str, _OfScores] = {
    "clrp": _clrp,
    "sglrp": _sglrp,
    "magnitude": lambda z, chosen, numbers: chosen * z.sign(),
    "others": lambda z, chosen, numbers: (1 - chosen) * z.sign(),
}
_RELEVANCE: dict[str, _OfScores] = {
    "clrp_paper": _clrp_paper,
    "auto": _clrp_paper,
    "sglrp_paper": _sglrp,
    "unit": _unit,
}


def score_at_start(score: ScoreFunction, seed: Seed, numbers: Numbers) -> ScoreFunction:
    """The score from which relevance starts, as a function of the output; "elsewhere" needs a trace (`rivals`).

    - "lrp": the target's score, R_t = z_t; any target.
    - "clrp" (after Gu et al., ACCV 2018): z_t less the mean of the others.
    - "sglrp" (after Iwana et al., ICCVW 2019): y_t (z_t - sum_n y_n z_n), y the probabilities: weights dy_t / dz_n.
    - "magnitude", "others": |z_t| for the target's class, or |z_n| for each other: the passes of CLRP's official code.
    - "clrp_paper": relevance z_t for the target's class, -z_t / (N - 1) for each other, as in the paper; sums to zero.
    - "auto": as "clrp_paper" where the target is one class, else as "lrp"; a margin is contrastive by itself.
    - "sglrp_paper": relevance y_t (1 - y_t) for the target's class, -y_t y_n for each other, as in the paper.
    - "unit": relevance 1 for the target's class and -1 / N for each other, as the official code of Relevance-CAM.

    Raises:
        InputError: no such seed.
        TargetError: a contrastive one, and the target is no class.
    """
    if seed == "lrp":
        return score
    if seed not in _WEIGHTS and seed not in _RELEVANCE:
        known = ", ".join(map(repr, get_args(Seed)))
        raise InputError(f"seed={brief(seed)} is not known; use {known}")

    def start(output: object) -> Tensor:
        z = class_scores(output)
        slopes = slopes_of_score(score, z)
        if not is_a_logit(score) and not bool(is_one_class(slopes).all()):
            if seed == "auto":
                return score(output)
            raise TargetError(
                f"seed={brief(seed)} needs one class as the target: a class, a label or 'top1'; or seed='lrp'"
            )
        with torch.no_grad():
            weights = _weights_of(seed, z, slopes, numbers)
        return (z * weights).sum(1)

    return start


def _weights_of(seed: Seed, z: Tensor, chosen: Tensor, numbers: Numbers) -> Tensor:
    if seed in _WEIGHTS:
        return _WEIGHTS[seed](z, chosen, numbers)
    return _RELEVANCE[seed](z, chosen, numbers) / stabilized(z, 1e-12)


def is_a_logit(score: ScoreFunction) -> bool:
    """Whether a score is known to be one class's for each image, without a look at its slopes."""
    return isinstance(score, Logit)


def is_one_class(slopes: Tensor) -> Tensor:
    """For each image (N,) whether a target with these slopes (N, K) is the score of one class."""
    return ((slopes == 0) | (slopes == 1)).all(1) & (slopes.sum(1) == 1)


def slopes_of_score(score: ScoreFunction, output: Tensor) -> Tensor:
    """The derivative of the score by each number of the output."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = output.detach().clone().requires_grad_()
        slopes: Tensor = torch.autograd.grad(check_differentiable(score(leaf)).sum(), leaf)[0]
    return slopes


def starting_relevance(score: ScoreFunction, output: object) -> Tensor:
    """Relevance of the output, (N, K): for each image what is then shared out."""
    if not isinstance(output, Tensor):
        return score(output).detach().float()[:, None]
    output = output.to(torch.promote_types(output.dtype, torch.float32))  # else slopes are rounded
    slopes = slopes_of_score(score, output)
    parts = torch.where(slopes == 0, 0, output * slopes)  # of a class ruled out the score is -inf
    return parts.detach().float().reshape(len(output), -1)
