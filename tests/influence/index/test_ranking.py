"""Top-k of blocks against a dense stable sort."""

from __future__ import annotations

import pytest
import torch

from seewhy.engine.spread import World
from seewhy.errors import InputError
from seewhy.influence.index.ranking import TopK, rank_ends


def in_blocks(scores: torch.Tensor, k: int, size: int) -> tuple[TopK, TopK]:
    high, low = TopK(k), TopK(k)
    for start in range(0, scores.shape[1], size):
        block = scores[:, start : start + size]
        rank_ends(high, low, block, torch.arange(start, start + block.shape[1]))
    return high, low


@pytest.mark.parametrize("levels", [3, 40, 10**6])
@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("k", [1, 5, 200])
def test_blocks_give_what_a_dense_sort_gives(levels: int, size: int, k: int) -> None:
    generator = torch.Generator().manual_seed(levels + size + k)
    scores = (
        torch.randint(-levels, levels, (4, 150), generator=generator).float() / 7
    )  # few levels: many ties
    high, low = in_blocks(scores, k, size)
    for ranked, signed in ((high, scores), (low, -scores)):
        values, ids = ranked.merged()
        expected = signed.sort(dim=1, descending=True, stable=True)
        assert torch.equal(ids, expected.indices[:, :k])
        assert torch.equal(values, expected.values[:, :k])


def test_processes_are_merged() -> None:
    scores = torch.randint(-3, 3, (2, 60), generator=torch.Generator().manual_seed(0)).double()
    odd, even = TopK(6), TopK(6)
    odd.update(scores[:, 1::2], torch.arange(1, 60, 2))
    even.update(scores[:, ::2], torch.arange(0, 60, 2))

    class Three(World):
        def gather(self, value: object) -> list[object]:  # type: ignore[override]
            return [(even.scores, even.ids), value, (None, None)]  # the third had no shard

    _, ids = odd.merged(Three())
    assert torch.equal(ids, scores.sort(dim=1, descending=True, stable=True).indices[:, :6])


def test_what_cannot_be_ranked() -> None:
    with pytest.raises(InputError, match="k=0 cannot be ranked"):
        TopK(0)
    with pytest.raises(InputError, match="nothing was ranked"):
        TopK(2).merged()
    scores = torch.zeros(2, 5)
    scores[1, 3] = float("nan")
    with pytest.raises(InputError, match="influence of example 13 is not finite"):
        rank_ends(TopK(2), TopK(2), scores, torch.arange(10, 15))
