"""No tensor of a call outlives it: of any method, on networks of many kinds, on every way out."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy.engine.rules.relevance import Relevance
from seewhy.engine.trace import Trace
from seewhy.errors import LayerError
from seewhy.methods.catalog import METHODS, find_method
from tiny_models import TinyCNN, TinyResNet, pictures, randomised, tiny_vit

pytestmark = pytest.mark.filterwarnings(
    "ignore:LIME of .*not locally linear",  # LIME's, of untrained models
    "ignore:FullGrad leaves out",  # of windows
)

SHORT: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
    "rise": {"samples": 16, "cells": 3},
    "lime": {"samples": 20, "superpixels": "slic"},
}


class Rewritten(nn.Module):
    """Activations in place of tensors, of views and of slices, gates, and a norm without a linear map before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.bn, self.gate, self.fc = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        self.silu, self.hardswish = nn.SiLU(inplace=True), nn.Hardswish(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.silu(self.first(x)))
        x[:, :4].mul_(2.0)
        x = self.hardswish(self.second(x))
        x[:, :4] += x[:, 4:]
        x *= self.gate(x.mean((2, 3), keepdim=True)).sigmoid_()
        return self.fc(x.mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "rewritten": Rewritten,
    "resnet": TinyResNet,
    "vit": tiny_vit,
    "efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=5),
    "mobilenetv3": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    "densenet": lambda: timm.models.DenseNet(growth_rate=4, block_config=(2, 2), num_classes=5),
    "convnext": lambda: timm.models.ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), num_classes=5),
    "swin": lambda: timm.models.SwinTransformer(
        img_size=32,
        patch_size=2,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
        num_classes=5,
    ),
}
HAS_A_HEAD_FOR_CAM = ("resnet", "densenet")


@contextmanager
def kept(*, collecting: bool = True) -> Iterator[Callable[[], int]]:
    """Gives how many tensors have come into the world since, and are still there."""
    gc.collect()
    gc.freeze()  # what was there before is asked no more
    if not collecting:
        gc.disable()
    try:
        yield lambda: _tensors(collecting)
    finally:
        gc.enable()
        gc.unfreeze()


def _tensors(collecting: bool) -> int:
    if collecting:
        gc.collect()
    return sum(issubclass(type(o), Tensor) for o in gc.get_objects())


def run(name: str, net: nn.Module, x: Tensor, target: Any = 1, **options: Any) -> None:
    find_method(name)(net, x, target, **SHORT.get(name, {}), **options)


DEEP = ("efficientnet", "mobilenetv3", "swin")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long if n in DEEP else ()) for n in NETWORKS]
)
def test_no_tensor_of_a_call_outlives_it(name: str) -> None:
    net, x = randomised(NETWORKS[name]()), pictures(2)
    quick = name == "rewritten"  # of many channels, hiding them one by one takes minutes
    methods = [m for m in METHODS if quick or METHODS[m].family != "perturbation"]
    if name not in HAS_A_HEAD_FOR_CAM:
        methods.remove("cam")
    for method in methods:
        run(method, net, x)  # what is remembered of a model is remembered now
    left = {}
    with kept() as tensors:
        for method in methods:
            before = tensors()
            run(method, net, x)
            left[method] = tensors() - before
    assert {method: n for method, n in left.items() if n} == {}


def test_nothing_is_kept_without_the_cycle_collector() -> None:
    net, x = randomised(Rewritten()), pictures(1)
    names = (
        "grad_cam",
        "saliency",
        "guided_grad_cam",
        "deconvnet",
        "eigen_cam",
        "lrp",
        "layer_relevance",
    )
    for name in names:
        run(name, net, x)
    with kept(collecting=False) as tensors:
        for name in names:
            run(name, net, x)
        assert tensors() == 0


def test_what_a_merged_norm_was_given_is_not_kept_for_the_way_back() -> None:
    net, seen = randomised(TinyCNN(inplace=False)), []
    net.conv2.register_forward_hook(lambda part, args, out: seen.append(weakref.ref(out)))
    with Trace(net, pictures(1), layers=["input"], rules=Relevance("conserving")) as trace:
        assert seen[0]() is None
        assert trace.signal(1)["input"].any()


# ---------------------------------------------------------------- other ways out


class Interrupted(nn.Module):
    """Raises on its way forward, or on the way back of a signal."""

    def __init__(self, error: type[BaseException], *, back: bool) -> None:
        super().__init__()
        self.net, self.error, self.back, self.armed = randomised(Rewritten()), error, back, False

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        if self.armed and not self.back:
            raise self.error("on the way forward")
        if self.armed and out.requires_grad:
            out.register_hook(self._raise)
        return out

    def _raise(self, g: Tensor) -> None:
        raise self.error("on the way back")


def refusing(out: Tensor) -> Tensor:
    raise ValueError("no such target")


WAYS = [
    "grad_cam",
    "guided_backprop",
    "deconvnet",
    "fullgrad",
    "lrp",
    "layer_relevance",
    "relevance_cam",
]


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", WAYS)
def test_nothing_is_kept_where_a_model_raises(
    name: str, error: type[BaseException], back: bool
) -> None:
    net, x = Interrupted(error, back=back), pictures(1)
    run(name, net, x)
    net.armed = True
    with kept() as tensors:
        with pytest.raises(error, match="on the way"):
            run(name, net, x)
        assert tensors() == 0
    assert torch.overrides._get_current_function_mode_stack() == []


@pytest.mark.parametrize("name", WAYS)
def test_nothing_is_kept_where_a_target_or_a_layer_is_refused(name: str) -> None:
    net, x = randomised(Rewritten()), pictures(1)
    net.unused = nn.Identity()
    run(name, net, x)
    with kept() as tensors:
        with pytest.raises(ValueError, match="no such target"):
            run(name, net, x, refusing)
        if METHODS[name].at == "layer":
            for layer in ("nothing", "unused"):
                with pytest.raises(LayerError):
                    run(name, net, x, layer=layer)
        assert tensors() == 0


class Cut(nn.Module):
    """Its answer has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.net = randomised(Rewritten())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).detach()


@pytest.mark.parametrize("rules", [None, "conserving"])
@pytest.mark.parametrize(
    ("layers", "match"), [(["net.second"], "no gradient"), (["input", "unused"], "did not run")]
)
def test_a_trace_that_could_not_be_opened_has_let_go_of_its_graph(
    layers: list[str], match: str, rules: str | None
) -> None:
    net = Cut() if match == "no gradient" else randomised(Rewritten())
    net.unused = nn.Identity()
    trace = Trace(net, pictures(1), layers=layers, rules=Relevance(rules) if rules else None)
    with kept() as tensors:
        with pytest.raises(LayerError, match=match):
            trace.__enter__()
        assert tensors() <= 2  # of a closed trace its activations, and its output
    assert not any(t.requires_grad for t in trace._tapped.values())


# ---------------------------------------------------------------- many calls


def growth(call: Callable[[], Any], times: int, warm: int) -> float:
    """How many MB more after so many calls: what C++ alone holds shows here."""
    for _ in range(warm):
        call()
    gc.collect()
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    for _ in range(times):
        call()
    gc.collect()
    return (process.memory_info().rss - before) / 2**20


def test_memory_is_flat() -> None:
    net, x = randomised(TinyCNN()), pictures(2, 64)  # one activation of conv1: 0.26 MB
    assert growth(lambda: seewhy.methods.grad_cam(net, x, 0), 200, warm=20) < 10


@pytest.mark.long
@pytest.mark.parametrize("method", ["lrp", "layer_relevance"])
def test_memory_is_flat_where_relevance_meets_activations_in_place(method: str) -> None:
    net, x = randomised(timm.create_model("test_efficientnet", num_classes=5)), pictures(2, 64)
    assert growth(lambda: run(method, net, x), 60, warm=15) < 15


@pytest.mark.long
def test_memory_is_flat_on_a_resnet_over_every_method() -> None:
    net, x = randomised(torchvision.models.resnet18()), pictures(1, 64)
    names = [
        "grad_cam",
        "guided_backprop",
        "deconvnet",
        "layer_cam",
        "eigen_cam",
        "cam",
        "fullgrad",
        "saliency",
    ]
    turn = iter(range(10**9))
    assert (
        growth(lambda: run(names[next(turn) % len(names)], net, x, 0), 1000, warm=5 * len(names))
        < 30
    )
