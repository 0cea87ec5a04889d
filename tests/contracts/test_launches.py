"""What an accelerator would have to do for a method: operations launched over a forward pass, and numbers read back."""

from __future__ import annotations

import torch

from launches import Launches, counted


def test_kernels_reads_and_uploads_are_counted_and_views_are_not() -> None:
    x = torch.arange(6.0)
    with Launches() as launches:
        y = (x.view(2, 3).T + 1).detach()
        bool(y.any())
        y.tolist()
        y[y > 0]
        x.new_tensor(1.0)
    assert launches.operations.total() - launches.launched == 4  # view, t, detach, lift_fresh
    assert launches.launched == 3  # add, any, gt
    assert dict(launches.reads) == {"_local_scalar_dense": 1, "tolist": 1, "index": 1}
    assert launches.uploaded == 1


def test_the_second_run_is_counted() -> None:
    ran: list[int] = []

    def run() -> None:
        ran.append(1)
        torch.ones(2 * len(ran)).sum()

    assert counted(run).launched == 2
    assert len(ran) == 2
