"""Where relevance starts: at the target's score, or contrastively at all classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..arguments import brief
from ..engine.causes import check_differentiable
from ..engine.rules.propagation import stabilized
from ..engine.targets.classes import ScoreFunction, class_scores
from ..engine.targets.numbers import Numbers
from ..errors import InputError, TargetError

Seed = Literal["lrp", "clrp", "auto", "sglrp", "unit", "magnitude", "others"]


def _clrp(z: Tensor, chosen: Tensor, numbers: Numbers) -> Tensor:
    own = (chosen * z).sum(1, keepdim=True)
    return torch.where(chosen > 0, own, -own / (z.shape[1] - 1))


def _sglrp(z: Tensor, chosen: Tensor, numbers: Numbers) -> Tensor:
    y = numbers.probabilities(z).to(z)
    return (chosen * y).sum(1, keepdim=True) * (chosen - y)


def _unit(z: Tensor, chosen: Tensor, numbers: Numbers) -> Tensor:
    return torch.where(chosen > 0, 1.0, -1 / z.shape[1]).to(z)


# (scores z (N, K), one-hot target (N, K), what the scores are) -> relevance of the output (N, K)
_STARTS: dict[str, Callable[[Tensor, Tensor, Numbers], Tensor]] = {
    "clrp": _clrp,
    "auto": _clrp,
    "sglrp": _sglrp,
    "unit": _unit,
    "magnitude": lambda z, chosen, numbers: chosen * z.abs(),
    "others": lambda z, chosen, numbers: (1 - chosen) * z.abs(),
}


def seeded(score: ScoreFunction, seed: Seed, numbers: Numbers) -> ScoreFunction:
    """The score from which relevance starts, as a function of the output.

    - "lrp": the target's score, R_t = Z_t; any target.
    - "clrp" (Gu et al., ACCV 2018): Z_t for the target's class and -Z_t / (N - 1) for each other; sums to zero.
    - "auto": as "clrp" where the target is one class, else as "lrp"; a margin is contrastive by itself.
    - "sglrp" (Iwana et al., ICCVW 2019): y_t (1 - y_t) for the target's class, -y_t y_n for each other; y: probability.
    - "unit": 1 for the target's class and -1 / N for each other, as the official code of Relevance-CAM.
    - "magnitude", "others": |Z_t| for the target's class, or |Z_n| for each other: the passes of CLRP's official code.
    """
    if seed == "lrp":
        return score
    if seed not in _STARTS:
        raise InputError(
            f"seed={brief(seed)} is not known; use 'lrp', {', '.join(map(repr, _STARTS))}"
        )

    def start(output: object) -> Tensor:
        z = class_scores(output)
        chosen = one_class(score, z)
        if chosen is None and seed == "auto":
            return score(output)
        if chosen is None:
            raise TargetError(
                f"seed={brief(seed)} needs one class as the target: a class, a label or 'top1'; or seed='lrp'"
            )
        with torch.no_grad():
            factor = _STARTS[seed](z, chosen, numbers) / stabilized(z, 1e-12)
        return (z * factor).sum(1)

    return start


def one_class(score: ScoreFunction, z: Tensor) -> Tensor | None:
    """One-hot (N, K) of the class that a logit target names; None for a target that is no one class."""
    weights = _slopes_of_score(score, z)
    one_hot = bool(((weights == 0) | (weights == 1)).all()) and bool((weights.sum(1) == 1).all())
    return weights if one_hot else None


def _slopes_of_score(score: ScoreFunction, output: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        leaf = output.detach().clone().requires_grad_()
        slopes: Tensor = torch.autograd.grad(check_differentiable(score(leaf)).sum(), leaf)[0]
    return slopes


def starting_relevance(score: ScoreFunction, output: object) -> Tensor:
    """Relevance of the output, (N, K): for each image what is then shared out."""
    if not isinstance(output, Tensor):
        return score(output).detach().float()[:, None]
    return (output * _slopes_of_score(score, output)).detach().float().reshape(len(output), -1)
