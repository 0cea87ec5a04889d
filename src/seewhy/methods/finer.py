"""Finer-CAM: a class activation map of what tells a class from those that the model takes for most alike."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ..engine.call import Call
from ..engine.readings import Reading, noted
from ..engine.targets.classes import ScoreFunction, class_scores
from ..engine.targets.numbers import Numbers, known_or_seen
from ..engine.targets.resolve import one_each, part_of
from ..engine.targets.target import Target
from ..errors import InputError, TargetError
from ..maps.attribution import Estimate, Facts
from .cam import grad_cam
from .method import Method
from .shared import shared_pass
from .starts import is_a_logit, is_one_class, slopes_of_score


@dataclass(frozen=True, eq=False)
class RatherThanAlike(Target):
    """A class's logit less the mean of those nearest to it, weighted by their probabilities (Finer-CAM).

    z_t - strength sum_k w_k z_k, where w is the softmax over the `references` classes k whose logits differ least from
    z_t, up or down. The weights have their gradient too, as in the authors' code, which adds 1e-9 to the sum of their
    probabilities: there the map fades where all of these classes are that unlikely, here it does not.

    Attributes:
        score: the target, of one class for each image.
        references: how many classes; of fewer all.
        strength: how much of them is taken away; 0 leaves the class's own logit.
        numbers: what the scores are; where no model says it the output itself is looked at.
    """

    score: ScoreFunction
    references: int = 3
    strength: float = 1.0
    numbers: Numbers | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.references < 1:
            raise InputError(f"references={self.references}: give 1 class or more, usually 3")
        if not 0 <= self.strength <= _MOST_STRENGTH:
            accepted = f"0, which takes nothing away, to {_MOST_STRENGTH:g}"
            raise InputError(f"strength={self.strength}: give {accepted}, usually 1")

    def __call__(self, output: object) -> Tensor:
        own, _, theirs = self._logits_of(output)
        finite = theirs.masked_fill(theirs == -torch.inf, 0)  # of a class ruled out the weight is 0
        return own - self.strength * (theirs.softmax(1) * finite).sum(1)

    def alike(self, output: object) -> tuple[Reading, Reading]:
        """For each image the classes nearest to its own (N, R) and their logits, best read with what else is."""
        _, classes, theirs = self._logits_of(output)
        return noted(classes), noted(theirs)

    @staticmethod
    def facts(classes: Reading, logits: Reading) -> list[Facts]:
        """For each image the classes nearest to its own, and their weights."""
        found: list[Facts] = []
        for columns, others in zip(classes.tensor().tolist(), logits.tensor(), strict=True):
            there = others > -torch.inf
            known = [
                column for column, is_there in zip(columns, there.tolist(), strict=True) if is_there
            ]
            found.append({"rather_than": known, "weights": others[there].softmax(0).tolist()})
        return found

    @property
    def images(self) -> int | None:
        """How many images the target holds something for."""
        return one_each(self.score)

    def rows(self, images: Sequence[int]) -> Self:
        """The target of these of the images."""
        score = part_of(self.score, images)
        assert callable(score)  # as the whole is
        return dataclasses.replace(self, score=score)

    def _logits_of(self, output: object) -> tuple[Tensor, Tensor, Tensor]:
        """The logit of each image's class (N,), and the classes nearest to it with theirs, (N, R)."""
        scores = class_scores(output)
        numbers = known_or_seen(self.numbers, output)
        logits, chosen = numbers.logits(scores), slopes_of_score(self.score, scores)
        if not is_a_logit(self.score) and not bool(is_one_class(chosen).all()):
            raise TargetError(
                "Finer-CAM compares one class with those most alike: give a class, "
                "a label or 'top1'; what compares by itself, as 'A rather than B', "
                "goes to grad_cam"
            )
        if (columns := scores.shape[1]) == 1:
            raise TargetError(
                "Finer-CAM compares one class with others, "
                "and the model has one column; use grad_cam"
            )
        own = torch.where(chosen > 0, logits, 0).sum(1)
        distance = (logits - own[:, None]).abs().detach()
        distance = distance.masked_fill(chosen > 0, float("inf"))
        nearest = distance.topk(min(self.references, columns - 1), dim=1, largest=False).indices
        others = logits.masked_fill(chosen > 0, -torch.inf)
        return own, nearest, others.gather(1, nearest)


_MOST_STRENGTH = 1e3


def finer(base: Method, *, name: str | None = None, title: str | None = None) -> Method:
    """Finer-CAM over a class activation map: `base` of a class's logit less those of the classes most alike.

    Options are `references` (how many classes) and `strength` (how much of them is taken away, the paper's gamma).

    Raises:
        InputError: the base knows no class, or is no method over a layer's activation and gradient.

    Example:
        >>> finer = seewhy.methods.finer(seewhy.methods.layer_cam)
        >>> finer.name, finer.title
        ('finer_layer_cam', 'Finer-CAM of Layer-CAM')
    """
    if base.family != "layer" or "gradient" not in base.needs:
        raise InputError(
            f"method 'finer:{base.name}': {base.title} is no class activation map "
            "by gradients; give one that is, such as finer:grad_cam or finer:layer_cam"
        )
    return Method(
        name or f"finer_{base.name}",
        title or f"Finer-CAM of {base.title}",
        "Zhang et al., CVPR 2025",
        base.family,
        run=functools.partial(_finer_cam, base),
        choose=base.choose,
        fuse=base.fuse,
        signed=base.signed,
        options={"references": 3, "strength": 1.0},
    )


def _finer_cam(
    base: Method,
    call: Call,
    x: Tensor,
    scores: Sequence[ScoreFunction],
    *,
    layer: str | None,
    references: int,
    strength: float,
) -> list[Estimate]:
    """Finer-CAM (Zhang et al., CVPR 2025): a CAM of a class's logit less those of the classes most alike.

    z_t - strength sum_k w_k z_k, over the `references` classes whose logits are nearest to the target's, weighted by
    their softmax. What looks the same to the model for all of them cancels: the map has what tells them apart, not
    where the object is. As in the paper the base's ReLU leaves what speaks for the class, and hides what speaks for the
    others; `facts[i]` names them.
    """
    assert layer is not None
    targets = [RatherThanAlike(score, references, strength) for score in scores]
    done = shared_pass(call, x, methods=[base], targets=targets, layers=[layer])
    found = []
    for result in done.results:
        compared = result.target.score
        assert isinstance(compared, RatherThanAlike)
        found.append((result.map, compared.alike(done.output)))
    return [Estimate(map_, facts=tuple(RatherThanAlike.facts(*read))) for map_, read in found]


finer_cam = finer(grad_cam, name="finer_cam", title="Finer-CAM")
