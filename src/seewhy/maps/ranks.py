"""Numbers by their order."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_ranks(rows: Tensor) -> Tensor:
    """The rank of each number in its row, half of those below and those not above: (N, d) -> (N, d) float64.

    The least has 0.5, and equal ones the same.
    """
    values = rows.contiguous()
    ordered = values.sort(1).values
    below, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (below + up_to).double() / 2
