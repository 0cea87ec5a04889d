"""The best and the worst of scores that come block by block: exact, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ...engine.spread import World
from ...errors import InputError


class TopK:
    """The k highest of each row of (T, n) scores that are seen a block (T, B) at a time; of equals, the first.

    Args:
        k: how many; fewer come back where fewer were seen.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise InputError(f"k={k} cannot be ranked; give at least 1")
        self.k = k
        self.scores: Tensor | None = None  # (T, up to k), best first
        self.ids: Tensor | None = None

    def update(self, scores: Tensor, ids: Tensor) -> None:
        """Adds scores (T, B) of the examples ids (B,), or (T, B), in any order."""
        ids = ids.expand_as(scores)
        best = _highest(scores, self.k)
        scores, ids = scores.gather(1, best), ids.gather(1, best)
        if self.scores is not None and self.ids is not None:
            scores = torch.cat([self.scores, scores], 1)
            ids = torch.cat([self.ids, ids], 1)
        by_id = ids.argsort(1)
        scores, ids = scores.gather(1, by_id), ids.gather(1, by_id)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, : self.k]
        self.scores = scores.gather(1, order)
        self.ids = ids.gather(1, order)

    def merged(self, world: World = World()) -> tuple[Tensor, Tensor]:  # noqa: B008  (frozen)
        """Scores and ids of all processes together, (T, up to k) each, best first."""
        whole = TopK(self.k)
        for scores, ids in world.gather((self.scores, self.ids)):
            if scores is not None and ids is not None:
                whole.update(scores, ids)
        if whole.scores is None or whole.ids is None:
            raise InputError("nothing was ranked: give at least one score")
        return whole.scores, whole.ids


def _highest(scores: Tensor, k: int) -> Tensor:
    """Positions (T, k) of the k highest of each row; of equals at the border the first, which topk does not promise."""
    if k >= scores.shape[1]:
        return torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    values, places = scores.topk(k, dim=1)
    tied = ((scores >= values[:, -1:]).sum(1) > k).nonzero()[:, 0]
    if len(tied):
        places[tied] = scores[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
    return places


def rank_ends(high: TopK, low: TopK, scores: Tensor, ids: Tensor) -> None:
    """Adds a block to the highest and, negated, to the lowest.

    Raises:
        InputError: a score is not finite; it names the example.
    """
    finite = scores.isfinite().all(0)
    if not finite.all():
        example = int(ids[int((~finite).nonzero()[0])])
        raise InputError(
            f"the influence of example {example} is not finite; fit again with more damping or l2"
        )
    high.update(scores, ids)
    low.update(-scores, ids)


def both_ends(blocks: Iterable[tuple[Tensor, Tensor]], k: int) -> tuple[TopK, TopK]:
    """The k highest and the k lowest of each row, of (ids, scores) that come in blocks."""
    high, low = TopK(k), TopK(k)
    for ids, scores in blocks:
        rank_ends(high, low, scores, ids)
    return high, low
