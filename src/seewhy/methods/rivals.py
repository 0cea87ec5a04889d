"""Rivals elsewhere: which other classes a relevance map is cleared of, and by how much.

What a class's relevance shares with all classes (edges, objects) stays in its map, since the rules carry all scores
back alike. Taking the best other classes away from the start clears it, and would also take away what a look-alike
sees in the same object. So a rival counts as far as its evidence lies in other places than the target's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.answers import Answer
from ..engine.targets.classes import ScoreFunction, class_scores
from ..engine.targets.numbers import Numbers
from .starts import is_one_class

MOST = 5  # rivals; of 3, 5 and 12 the maps score alike
LEFT = 0.25  # of the class's own evidence has to be left at the last stage
NO_PICTURE = "no layer of the model is a picture, on which it would be seen where they look"
_STEPS = 64  # and as many within the one that is found

StageMaps = Callable[
    [Tensor], Tensor
]  # k classes of each image (N, k) -> their relevance (N, k, h, w)


@dataclass(frozen=True)
class LastStage:
    """The layer where it is seen how far classes look elsewhere; None, and why, where none is a picture."""

    layer: str | None = None
    why_none: str = ""


@dataclass(frozen=True, eq=False)
class Rivals:
    """The best other classes of each image, best first.

    Attributes:
        classes: (N, k), their columns.
        weights: (N, k), how much of each one's score is taken away from the target's; they sum to 1 at most.
        overlap: (N, k), how far their evidence lies where the target's does, from 0 (elsewhere) to 1 (the same places).
        of_a_class: (N,), of which images the target is one class; the others' weights are 0.
        found: (N, k), which are rivals: a class ruled out, whose score is -inf, is none.
    """

    classes: Tensor
    weights: Tensor
    overlap: Tensor
    of_a_class: Tensor
    found: Tensor

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """What there is of each image, as it goes into another."""
        return self.classes, self.weights, self.overlap, self.of_a_class, self.found

    def cleared(self, score: ScoreFunction) -> ScoreFunction:
        """The score less the weighted scores of the rivals."""

        def start(output: Answer) -> Tensor:
            rivals = class_scores(output).gather(1, self.classes)
            return score(output) - (rivals * self.weights.to(rivals)).sum(1)

        return start

    def facts(self, image: int) -> list[dict[str, float]]:
        """Of one image the rivals: class, weight, overlap."""
        parts = (self.found, self.classes, self.weights, self.overlap)
        columns = (each[image].tolist() for each in parts)
        return [
            {"class": index, "weight": weight, "overlap": overlap}
            for found, index, weight, overlap in zip(*columns, strict=True)
            if found
        ]


def may_have_rivals(output: object, numbers: Numbers) -> bool:
    """Whether an answer is of logits of several classes.

    Probabilities are contrastive by themselves, since the softmax is a part of the model; regressions, embeddings,
    places and records have no rivals.
    """
    several = isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1
    return several and numbers.gives == "logits"


def rivals_elsewhere(z: Tensor, slopes: Tensor, maps_of: StageMaps, *, multi_label: bool) -> Rivals:
    """Weighs the best other classes by how good they are and by how far they look elsewhere.

    With M_k the relevance of class k at the last stage, over its places, and e_k = 1 - cos(relu(M_t)^2, relu(M_k)^2):
    q_k is proportional to e_k exp(z_k) and sums to 1 over the rivals, and w_k = g q_k e_k, where g is 1, or as much
    less as leaves a quarter of relu(M_t) in relu(M_t - sum_k w_k M_k). Of several labels those are rivals that are
    found in the picture, with probabilities above a half, all alike: q_k is proportional to e_k.

    Args:
        z: (N, K), the scores of the classes.
        slopes: (N, K), of the target's score by z: one-hot where the target is a class.
        maps_of: the maps M of classes of each image.
        multi_label: whether each score has a sigmoid of its own.
    """
    of_a_class = is_one_class(slopes)
    chosen = slopes.argmax(1, keepdim=True)
    others = z.detach().float().scatter(1, chosen, -torch.inf)
    best = others.topk(min(MOST, z.shape[1] - 1), dim=1)
    found = best.values > -torch.inf
    classes = torch.where(found, best.indices, chosen)  # in place of those that have no map
    own, rivals = (
        maps_of(torch.cat([chosen, classes], 1)).flatten(2).split([1, classes.shape[1]], 1)
    )
    own = own[:, 0]
    overlap = torch.einsum("np,nkp->nk", _emphasis(own), _emphasis(rivals)).clamp(0, 1)
    strength = torch.where(best.values > 0, 0, -torch.inf) if multi_label else best.values
    weights = _shares(strength, 1 - overlap)
    part = _most_that_leaves(own, torch.einsum("nk,nkp->np", weights, rivals))
    weights = torch.where(of_a_class[:, None], weights * part, 0)
    return Rivals(classes, weights, overlap, of_a_class, found)


def _shares(strength: Tensor, elsewhere: Tensor) -> Tensor:
    """How much of each rival is taken away (N, k): of none where none is found."""
    tiny = torch.finfo(elsewhere.dtype).tiny
    q = (strength + elsewhere.clamp(min=tiny).log()).softmax(1).nan_to_num()
    return q * elsewhere


def _emphasis(fields: Tensor) -> Tensor:
    """Where maps (..., P) are strongly positive, of length one whatever their scale; zero where they nowhere are."""
    positive = fields.clamp(min=0)
    highest = positive.amax(-1, keepdim=True).clamp(min=torch.finfo(positive.dtype).tiny)
    return F.normalize((positive / highest) ** 2, dim=-1)


def _most_that_leaves(own: Tensor, rivals: Tensor) -> Tensor:
    """The largest part (N, 1) of what rivals take (N, P) that leaves enough of what is positive in own (N, P).

    None of it where nothing is: evidence that is nowhere lies beside no other.
    """
    enough = LEFT * own.clamp(min=0).sum(1, keepdim=True)

    def left_by(parts: Tensor) -> Tensor:  # (N, k) -> whether each leaves enough
        left = torch.addcmul(own[:, None], parts[:, :, None], rivals[:, None], value=-1)
        return left.clamp_(min=0).sum(2) >= enough

    # what is left is convex in the part: where all of it is too much, so is all above the largest that is not
    low = torch.zeros_like(enough)
    steps = torch.arange(_STEPS, dtype=own.dtype, device=own.device)
    for finer in (_STEPS, _STEPS**2):
        parts = low + steps / finer
        low = low + (left_by(parts)[:, 1:].sum(1, keepdim=True)) / finer
    all_of_it = left_by(torch.ones_like(low))
    return torch.where(all_of_it, 1, low) * (enough > 0)
