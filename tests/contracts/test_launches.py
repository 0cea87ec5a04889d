"""What an accelerator would have to do for a method: operations launched over a forward pass, and numbers read back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import nn

from launches import Launches, counted
from seewhy.engine.call import Call
from seewhy.engine.targets.resolve import TargetLike
from seewhy.methods.catalog import METHODS
from seewhy.methods.shared import shared_pass
from tiny_models import TinyResNet, pictures, randomised, tiny_vit


def test_kernels_reads_and_uploads_are_counted_and_views_are_not() -> None:
    x = torch.arange(6.0)
    with Launches() as launches:
        y = (x.view(2, 3).T + 1).detach()
        bool(y.any())
        y.tolist()
        y[y > 0]
        x.new_tensor(1.0)
    looks = launches.operations.total() - launches.launched
    assert (
        looks - launches.operations["detach"] == 3
    )  # view, t, lift_fresh; older torch detaches once more
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


# ---------------------------------------------------------------- reads

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": TinyResNet,
    "vit": tiny_vit,
    "convnext": lambda: timm.models.ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), num_classes=5),
}
READS_MORE = {
    "eigen_cam": 8,  # every sixth step asks whether the vector is found
    "eigen_grad_cam": 8,
    "smooth_grad": 3,  # noise is drawn by the picture
}
OF_PASSES = [m for m in METHODS if METHODS[m].family != "perturbation"]
FEW = {"smooth_grad": {"samples": 2}, "integrated_gradients": {"steps": 2}}


@pytest.mark.parametrize(
    ("name", "target"), [*((name, 1) for name in NETWORKS), ("resnet", "top1")]
)
def test_a_pass_is_read_twice_whatever_the_method(name: str, target: Any) -> None:
    net, x = randomised(NETWORKS[name]()), pictures(2)
    found = {}
    for method in OF_PASSES:
        if method == "cam" and name != "resnet":
            continue
        launches = counted(partial(METHODS[method], net, x, target, **FEW.get(method, {})))
        if launches.read > READS_MORE.get(method, 2) or launches.uploaded:
            found[method] = dict(launches.reads), launches.uploaded
    assert found == {}


@pytest.mark.parametrize("name", ["grad_cam", "lrp"])
def test_many_methods_targets_and_layers_are_read_no_more_often_than_one(name: str) -> None:
    net, x = randomised(TinyResNet()), pictures(2)

    def reads(methods: list[str], targets: list[TargetLike], layers: list[str]) -> int:
        asked = [METHODS[method] for method in methods]
        call = Call(net)
        return counted(
            lambda: shared_pass(call, x, methods=asked, targets=targets, layers=layers)
        ).read

    many = reads([name, "saliency", "relevance_cam", "fem"], ["top3", 4], ["layer1", "layer2"])
    assert many == reads([name], [1], ["layer2"]) == 2
