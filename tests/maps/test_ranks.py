"""Ranks against SciPy's."""

from __future__ import annotations

import torch
from scipy.stats import rankdata

from seewhy.maps.ranks import mean_ranks


def test_equal_numbers_share_a_rank() -> None:
    rows = torch.randint(0, 5, (3, 40), generator=torch.Generator().manual_seed(0))
    for values in (rows, rows.float(), rows.T.contiguous().T):
        found = mean_ranks(values)
        assert found.dtype == torch.float64
        assert torch.equal(found + 0.5, torch.from_numpy(rankdata(rows.numpy(), axis=1)))
