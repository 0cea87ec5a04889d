"""Every method under autocast and in half precision, on five families: its map is float32's wherever the scores are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.call import Call
from seewhy.engine.flow import find_flow
from seewhy.engine.inputs import settled_input
from seewhy.methods.catalog import METHODS
from seewhy.methods.shared import shared_pass
from tiny_models import pictures, randomised

FAST: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
    "rise": {"samples": 12, "cells": 3},
    "lime": {"samples": 20, "superpixels": "grid"},
    "occlusion": {"window": 32, "stride": 32},
}
CORRELATION = 0.99
# of the distance from 1 that the float32 map has once the weights and the picture are rounded: what no arithmetic mends
CONDITIONING = 5.0
# these jump: a place counts for FEM from two deviations on, and the weights of Grad-CAM++ have a pole; where few places
# or a sum near the pole decide, no rounding is small; a geometric mean of layers is zero where one of them is negative
# (of each layer by itself the correlation is .9994 or more)
JUMPING = {
    ("fem", "swin"),
    ("fem", "convnext"),
    ("grad_cam_pp", "vit"),
    ("layer_relevance", "resnet"),
}
# many passes, which a processor without bfloat16 makes slowly for convolutions
MASKING = ("rise", "lime", "occlusion", "score_cam", "ablation_cam", "smooth_grad")
pytestmark = pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")


def resnet() -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=5, channels=(8, 12, 16, 24))


def efficientnet() -> nn.Module:
    import timm

    return timm.create_model("test_efficientnet", num_classes=5)


def convnext() -> nn.Module:
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 12, 16, 24), num_classes=5)


def vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 64, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return VisionTransformer(num_classes=5, **sizes)


def swin() -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    sizes = {"embed_dim": 12, "depths": (1, 2, 1), "num_heads": (1, 2, 4), "window_size": 4}
    return SwinTransformer(img_size=64, num_classes=5, **sizes)


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "resnet": resnet,
    "efficientnet": efficientnet,
    "convnext": convnext,
    "vit": vit,
    "swin": swin,
}
WITHOUT_CAM = ("convnext", "vit")  # their head does not follow the pooling at once


class Within(nn.Module):
    """A model that casts by itself."""

    def __init__(self, net: nn.Module, to: torch.dtype) -> None:
        super().__init__()
        self.net, self.to_type = net, to

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", self.to_type):
            return self.net(x)


@cache
def net_of(family: str) -> nn.Module:
    return randomised(FAMILIES[family](), seed=1)


@cache
def rounded_of(family: str, dtype: torch.dtype) -> nn.Module:
    """The same in float32, of weights rounded to a type."""
    return copy.deepcopy(net_of(family)).to(dtype).float()


def some_pictures(family: str) -> Tensor:
    return pictures(1, 64 if family in ("vit", "swin") else 128)


def maps_of(
    family: str,
    net: nn.Module,
    x: Tensor,
    *,
    cast: torch.dtype | None = None,
    masking: bool = True,
) -> dict[str, Tensor]:
    """For each method its maps, of one shared pass."""
    left_out = (*(("cam",) if family in WITHOUT_CAM else ()), *(() if masking else MASKING))
    names = [name for name in METHODS if name not in left_out]
    with torch.autocast("cpu", cast or torch.bfloat16, enabled=cast is not None):
        call, x = settled_input(Call(net), x)
        flow = find_flow(call, x)
        methods = [METHODS[name] for name in names]
        done = shared_pass(
            call, x, methods=methods, targets=[0], layers=[flow.default], flow=flow, options=FAST
        )
    return {result.method.name: result.map for result in done.results}


@cache
def exact_maps(family: str) -> dict[str, Tensor]:
    return maps_of(family, net_of(family), some_pictures(family))


@cache
def rounded_maps(family: str, dtype: torch.dtype) -> dict[str, Tensor]:
    return maps_of(family, rounded_of(family, dtype), some_pictures(family).to(dtype).float())


def correlations(a: Tensor, b: Tensor) -> list[float]:
    """Of each image; 1 where both are empty."""
    found = []
    for one, other in zip(a.flatten(1).double(), b.flatten(1).double(), strict=True):
        one, other = one - one.mean(), other - other.mean()
        sizes = float(one.norm() * other.norm())
        both_flat = max(float(one.norm()), float(other.norm())) < 1e-12
        found.append(1.0 if both_flat else float((one * other).sum()) / sizes if sizes else 0.0)
    return found


def differing(
    family: str, found: dict[str, Tensor], dtype: torch.dtype
) -> dict[str, tuple[float, float]]:
    """The methods whose maps are others, with the correlation, and the one that rounded weights leave in float32."""
    expected, rounded = exact_maps(family), rounded_maps(family, dtype)
    apart = {}
    for name, map_ in found.items():
        assert map_.dtype == torch.float32
        assert map_.isfinite().all(), name
        own = correlations(rounded[name], expected[name])
        for r, bound in zip(correlations(map_, expected[name]), own, strict=True):
            allowed = max(1 - CORRELATION, CONDITIONING * (1 - bound))
            if 1 - r > (0.5 if (name, family) in JUMPING else allowed):
                apart[name] = r, bound
    return apart


def ways_of(family: str, dtype: torch.dtype) -> dict[str, tuple[nn.Module, torch.dtype | None]]:
    net = net_of(family)
    return {
        "around": (net, dtype),
        "within": (Within(net, dtype).eval(), None),
        "module": (copy.deepcopy(net).to(dtype), None),
    }


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["around", "within", "module"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_correlate(family: str, way: str, dtype: torch.dtype) -> None:
    x = some_pictures(family)
    net, cast = ways_of(family, dtype)[way]
    with torch.no_grad():
        expected = net_of(family)(x)
        with torch.autocast("cpu", dtype, enabled=cast is not None):
            found = net(x.to(dtype) if way == "module" else x).float()
    assert expected.std() > 0.5  # lively
    assert min(correlations(found, expected)) > 0.999


@pytest.mark.parametrize("way", ["around", "within", "module"])
def test_facts_say_in_what_precision_the_model_ran(way: str) -> None:
    x = some_pictures("vit")
    net, cast = ways_of("vit", torch.bfloat16)[way]
    methods = ["grad_cam", "layer_relevance", "saliency"]
    with torch.autocast("cpu", torch.bfloat16, enabled=cast is not None):
        half = seewhy.explain(net, x, methods=methods, targets=[0])
    exact = seewhy.explain(net_of("vit"), x, methods=methods, targets=[0])
    for found, as_usual in zip(half, exact, strict=True):
        assert [facts["precision"] for facts in found.facts] == ["bfloat16"]
        assert all("precision" not in facts for facts in as_usual.facts)


@pytest.mark.long
@pytest.mark.parametrize("way", ["around", "within", "module"])
@pytest.mark.parametrize("family", FAMILIES)
def test_maps_in_bfloat16_are_those_of_float32(family: str, way: str) -> None:
    net, cast = ways_of(family, torch.bfloat16)[way]
    masking = way == "around" or family in ("vit", "swin")
    found = maps_of(family, net, some_pictures(family), cast=cast, masking=masking)
    assert differing(family, found, torch.bfloat16) == {}


@pytest.mark.long
@pytest.mark.parametrize("way", ["around", "module"])
@pytest.mark.parametrize("family", ["vit"])
def test_maps_in_float16_are_those_of_float32(family: str, way: str) -> None:
    net, cast = ways_of(family, torch.float16)[way]
    found = maps_of(family, net, some_pictures(family), cast=cast, masking=True)
    assert differing(family, found, torch.float16) == {}
