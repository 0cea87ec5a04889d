"""Localisation networks against slow formulas in float64, the networks that they were cut from, and CAM on each."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

import seewhy
from seewhy.errors import InputError, ModelError
from seewhy.models.networks.backbones import Stack, make_backbone, stages_for
from seewhy.models.networks.heads import POOLINGS, LocalizationNet, LogSumExpPool2d
from seewhy.models.training import build
from tiny_models import ModelState, pictures, randomised

LAYOUTS = {
    "timm:test_resnet": (2, 96, 3, 4),
    "timm:test_mambaout": (2, 3, 4, 64),
    "timm:test_vit": (2, 25, 64),
}


def net(pooling: str, backbone: str = "timm:test_resnet", **more: Any) -> LocalizationNet:
    made = build(
        {"backbone": backbone, "pooling": pooling, "classes": 4, "size": (96, 128), **more}
    )
    return randomised(made)


def features_of(model: LocalizationNet, x: Tensor) -> Tensor:
    """(N, C, h, w) before the head, whatever the backbone's layout."""
    with torch.no_grad():
        raw = model.backbone(x)
    if raw.ndim == 3:  # a class token before 4 x 6 places
        return raw[:, 1:].mT.reshape(len(x), -1, x.shape[2] // 16, x.shape[3] // 16)
    return raw.permute(0, 3, 1, 2) if raw.shape[3] > raw.shape[1] else raw


def slow_pool(values: list[float], pooling: str, r: float) -> float:
    if pooling == "gap":
        return math.fsum(values) / len(values)
    if pooling == "gmp":
        return max(values)
    return math.log(math.fsum(math.exp(r * v) for v in values) / len(values)) / r


@pytest.mark.parametrize("pooling", ["gap", "gmp", "lse"])
@pytest.mark.parametrize("backbone", LAYOUTS)
def test_scores_are_the_formula(pooling: str, backbone: str) -> None:
    size = (80, 80) if backbone.endswith("vit") else (96, 128)
    model, x = (
        net(pooling, backbone, size=size, **({"sharpness": 2.0} if pooling == "lse" else {})),
        pictures(2, size),
    )
    features = features_of(model, x)
    with torch.no_grad():
        said = model(x)
        weight, bias = model.head.fc.weight.double(), model.head.fc.bias.double()
    for image in range(2):
        pooled = [
            slow_pool(channel.flatten().double().tolist(), pooling, 2.0)
            for channel in features[image]
        ]
        expected = weight @ torch.tensor(pooled, dtype=torch.float64) + bias
        torch.testing.assert_close(said[image].double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", LAYOUTS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_cam_is_the_paper_s_on_every_head(pooling: str, backbone: str) -> None:
    size = (80, 80) if backbone.endswith("vit") else (96, 128)
    model, x = net(pooling, backbone, size=size, adaptation=24), pictures(2, size)
    features = features_of(model, x).double()
    before = ModelState(model)
    found = seewhy.methods.METHODS["cam"](model, x, target=2)
    before.assert_unchanged()
    with torch.no_grad():
        logits = model(x)[:, 2]
    if pooling == "oquab":  # the score map of the class itself
        a = torch.einsum("nchw,kc->nkhw", features, model.head.fca.weight.double()[:, :, 0, 0])
        a = (a + model.head.fca.bias.double()[:, None, None]).clamp(min=0)
        expected = torch.einsum("nchw,c->nhw", a, model.head.fcb.weight.double()[2, :, 0, 0])
        expected = expected + model.head.fcb.bias.double()[2]
        torch.testing.assert_close(found.amax((1, 2)), logits, rtol=1e-5, atol=1e-5)
    else:
        expected = torch.einsum("nchw,c->nhw", features, model.head.fc.weight.double()[2])
    torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-4, atol=1e-4)
    if pooling == "gap":
        bias = model.head.fc.bias[2].detach()
        torch.testing.assert_close(found.mean((1, 2)) + bias, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_other_methods_read_them_too(pooling: str) -> None:
    model, x = net(pooling, stages=3, units=8, adaptation=8), pictures(1, (96, 128))
    before = ModelState(model)
    for name in ("grad_cam", "layer_cam", "lrp", "guided_backprop"):
        found = seewhy.methods.METHODS[name](model, x, target=1)
        assert found.isfinite().all()
        assert name == "grad_cam" or found.any()  # whose ReLU may leave nothing of a random network
    before.assert_unchanged()


def test_log_sum_exp_lies_between_mean_and_maximum() -> None:
    a = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    soft = LogSumExpPool2d(3.0)(a)
    torch.testing.assert_close(
        soft[1, 2, 0, 0], ((3 * a[1, 2]).exp().mean().log() / 3).float().double()
    )
    (gradient,) = torch.autograd.grad(soft.sum(), a)
    torch.testing.assert_close(
        gradient, (3 * a.flatten(2)).softmax(2).view_as(a), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        LogSumExpPool2d(1e-3)(a).flatten(1), a.mean((2, 3)), atol=2e-3, rtol=0
    )
    torch.testing.assert_close(
        LogSumExpPool2d(1e3)(a * 1e3).flatten(1), (a * 1e3).amax((2, 3)), atol=4e-3, rtol=1e-6
    )
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="give a number above 0"):
            LogSumExpPool2d(wrong)


@pytest.mark.parametrize(
    ("name", "kept", "gone", "grid", "channels"),
    [
        ("alexnet", ["features.10", "features.11"], ["features.12", "classifier.1"], (13, 13), 256),
        pytest.param(
            *(
                "vgg16",
                ["features.28", "features.29"],
                ["features.30", "classifier.0"],
                (14, 14),
                512,
            ),
            marks=pytest.mark.long,
        ),
        (
            "googlenet",
            ["inception4e", "maxpool3"],
            ["maxpool4", "inception5a", "fc"],
            (14, 14),
            832,
        ),
    ],
)
def test_the_surgeries_of_zhou_et_al(
    name: str, kept: list[str], gone: list[str], grid: Any, channels: int
) -> None:
    model = build(
        {"backbone": f"torchvision:{name}", "pooling": "gap", "classes": 7, "size": (224, 224)}
    ).eval()
    names = {layer for layer, _ in model.backbone.named_modules()}
    assert names.issuperset(kept)
    assert names.isdisjoint(gone)
    with torch.no_grad():
        assert model.backbone(torch.zeros(1, 3, 224, 224)).shape == (1, channels, *grid)
    conv = model.head.conv
    assert (conv.in_channels, conv.out_channels) == (channels, 1024)
    assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
    layers = ["Conv2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Dropout", "Linear"]
    assert [type(layer).__name__ for layer in model.head] == layers
    source = getattr(models, name)(
        weights=None, **({"init_weights": False} if name == "googlenet" else {})
    ).eval()
    model.backbone.take_weights(source.state_dict())
    reached: list[Tensor] = []
    source.get_submodule(kept[1] if name != "googlenet" else kept[0]).register_forward_hook(
        lambda module, args, value: reached.append(value.clone())
    )
    x = pictures(1, 224)
    with torch.no_grad():
        source(x)
        torch.testing.assert_close(model.backbone(x), reached[0])


def test_dense_layers_become_convolutions() -> None:
    source = models.alexnet(weights=None).eval()
    backbone = make_backbone("torchvision:alexnet", size=(256, 256), whole=True).eval()
    backbone.take_weights(source.state_dict())
    x = pictures(1, 256)
    with torch.no_grad():
        alone, both = backbone(x[:, :, :224, :224]), backbone(x)
        dense = source.classifier[:6](source.features(x[:, :, :224, :224]).flatten(1))
    assert alone.shape == (1, 4096, 1, 1)
    assert both.shape == (1, 4096, 2, 2)
    torch.testing.assert_close(alone[:, :, 0, 0], dense, rtol=1e-4, atol=1e-5)


def test_oquab_over_convolutionised_layers() -> None:
    model = build(
        {"backbone": "torchvision:alexnet", "pooling": "oquab", "classes": 3, "size": (256, 256)}
    ).eval()
    layers = ["Conv2d", "ReLU", "Dropout", "Conv2d", "AdaptiveMaxPool2d", "Flatten"]
    assert [type(layer).__name__ for layer in model.head] == layers
    assert model.head.fca.weight.shape == (2048, 4096, 1, 1)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 256, 256)).shape == (1, 3)
        with pytest.raises(
            ModelError, match=r"gives \(1, 4096, 1, 1\) .* no map; give larger pictures"
        ):
            model(torch.zeros(1, 3, 224, 224))


@pytest.mark.parametrize("stages", [None, 2, 3])
def test_a_timm_backbone_gives_what_the_network_has_there(stages: int | None) -> None:
    source = randomised(timm.create_model("test_efficientnet", num_classes=9))
    backbone = make_backbone("timm:test_efficientnet", size=(64, 64), stages=stages).eval()
    backbone.take_weights(source.state_dict())
    x = pictures(2, 64)
    with torch.no_grad():
        expected = (
            source.forward_features(x)
            if stages is None
            else source.forward_intermediates(x)[1][stages - 1]
        )
        found = backbone(x)
    torch.testing.assert_close(found, expected)
    assert found.shape[1] == backbone.channels
    own, whole = (sum(p.numel() for p in part.parameters()) for part in (backbone, source))
    assert own < whole
    with pytest.raises(ModelError, match=r"do not fit the backbone: its tensor 'net\.\w+"):
        backbone.take_weights({"conv.weight": torch.zeros(3)})


def test_how_fine_the_map_is() -> None:
    fine = build(
        {
            "backbone": "timm:test_byobnet",
            "pooling": "gap",
            "classes": 2,
            "size": (96, 96),
            "stages": 3,
        }
    ).eval()
    with torch.no_grad():
        assert fine.backbone(torch.zeros(1, 3, 96, 128)).shape[2:] == (12, 16)
        dilated = make_backbone("timm:resnet18", size=(64, 64), stride=8).eval()
        assert dilated(torch.zeros(1, 3, 64, 64)).shape[2:] == (8, 8)
    assert stages_for("efficientnet_lite0", (96, 96)) == 3  # 12 x 12
    assert stages_for("efficientnet_lite0", (224, 300)) == 4  # 14 x 18
    assert stages_for("efficientnet_lite0", (448, 448)) is None  # 14 x 14, all of them
    assert stages_for("timm:test_resnet", (20, 20)) is None
    assert stages_for("torchvision:vgg16", (224, 224)) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pooling": "gep"}, "pooling='gep' is not known; did you mean 'gmp' or 'gap'"),
        ({"classes": 0}, "classes=0 is nothing to tell apart"),
        ({"classes": None}, "needs backbone, pooling, classes and size"),
        ({"backbone": "timm:resnet5o"}, "timm has no such model; did you mean 'resnet50'"),
        (
            {"backbone": "torchvision:vgg61"},
            "backbone='torchvision:vgg61' is not known; did you mean 'vgg16'",
        ),
        (
            {"backbone": "torchvision:alexnet", "stride": 8},
            "stride=8: backbone 'torchvision:alexnet' is cut as in the",
        ),
        (
            {"backbone": "timm:test_vit", "stride": 8, "size": (80, 80)},
            "stride=8: 'timm:test_vit' cannot be had at it",
        ),
        ({"stages": 9}, "stages=9 cannot be kept of backbone 'timm:test_resnet', which has 5"),
        ({"layers": 3}, r"architecture has \['layers'\]"),
        ({"sharpness": 0.0, "pooling": "lse"}, "sharpness=0.0 cannot be used"),
    ],
)
def test_what_cannot_be_built(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        build(
            {
                "backbone": "timm:test_resnet",
                "pooling": "gap",
                "classes": 3,
                "size": (64, 64),
                **changed,
            }
        )
    assert "\n" not in str(raised.value)


def test_cam_on_a_backbone_that_ends_in_a_pooling() -> None:
    layers = {"conv": nn.Conv2d(3, 8, 3, 2, 1), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2)}
    model, x = randomised(LocalizationNet(Stack(layers, 8), 3)), pictures(2, (32, 48))
    with torch.no_grad():
        features, logits = model.backbone(x), model(x)[:, 1]
    assert features.shape == (2, 8, 8, 12)
    found = seewhy.methods.METHODS["cam"](model, x, target=1)
    torch.testing.assert_close(
        found, torch.einsum("nchw,c->nhw", features, model.head.fc.weight[1]).detach()
    )
    torch.testing.assert_close(
        found.mean((1, 2)) + model.head.fc.bias[1].detach(), logits, rtol=1e-5, atol=1e-5
    )


def test_cam_takes_what_fits_best() -> None:
    """A class's maps that are pooled by their maximum are no other head, also where a bias drowns the difference."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
    )
    randomised(model)
    with torch.no_grad():
        model[2].weight.mul_(1e-4)
        model[2].bias.fill_(5.0)
    x = pictures(1, 32)
    with torch.no_grad():
        expected = model[:3](x)[:, 1]
    torch.testing.assert_close(seewhy.methods.METHODS["cam"](model, x, target=1), expected)
