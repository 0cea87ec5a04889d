"""What every method in METHODS keeps to."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import InputError, LayerError, ModelError
from seewhy.methods import Method
from seewhy.methods.catalog import METHODS, find_method
from tiny_models import ModelState, TinyCNN, TinyResNet, pictures, randomised, tiny_vit

pytestmark = pytest.mark.filterwarnings(
    "ignore:LIME of .*not locally linear"
)  # LIME's, of untrained models

FAST: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 3},
    "integrated_gradients": {"steps": 3},
    "smooth:grad_cam": {"samples": 3},
    "rise": {"samples": 32, "cells": 3},
    "lime": {"samples": 40, "superpixels": "slic"},
}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "cnn": TinyCNN,
    "resnet": TinyResNet,
    "vit": lambda: tiny_vit(dynamic_img_size=True),
}
NAMES = [*METHODS, "smooth:grad_cam", "finer:layer_cam"]
PAIRS = [
    (name, model) for name in NAMES for model in MODELS if not (name == "cam" and model == "vit")
]


@cache
def net_of(model: str) -> nn.Module:
    return randomised(MODELS[model]())


def run(name: str, net: Any, x: Tensor, target: Any = 1, **options: Any) -> Tensor:
    return find_method(name)(net, x, target, **FAST.get(name, {}), **options)


def close(found: Tensor, expected: Tensor, device: torch.device | None = None) -> None:
    scale = float(expected.abs().max())
    # an accelerator multiplies one image by other kernels than three, which add in another order; a map that is a small
    # difference of large terms, or is divided by one, shows it: by 3.5e-4 of its scale in grad_cam_pp of the ViT
    share = 1e-3 if device is not None and device.type == "cuda" else 2e-5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=share * scale + 1e-12)


@pytest.mark.parametrize(("name", "model"), PAIRS)
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_maps(name: str, model: str, size: tuple[int, int], device: torch.device) -> None:
    net, method, x = net_of(model).to(device), find_method(name), pictures(3, size)
    before = ModelState(net)
    batch = run(name, net, x, [1, 0, 4])
    before.assert_unchanged()
    assert batch.ndim == 3
    assert len(batch) == 3
    assert batch.dtype == torch.float32
    assert batch.device.type == "cpu"
    assert not batch.requires_grad
    assert not batch.is_inference()
    assert batch.isfinite().all()
    if method.at == "input":
        assert batch.shape == (3, *size)
    else:  # the map has the proportions of the image
        assert batch.shape[2] * size[0] == batch.shape[1] * size[1] or name == "guided_grad_cam"
    if not method.signed:
        assert (batch >= 0).all()
    for i, target in enumerate(
        [1, 0, 4]
    ):  # a batch is its images one by one, a list of targets its targets
        close(run(name, net, x[i : i + 1], target)[0], batch[i], device)
    assert torch.equal(run(name, net, x, [1, 0, 4]), batch)


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_ways_of_saying_the_same(name: str, model: str, device: torch.device) -> None:
    net, x = net_of(model).to(device), pictures(2)
    with torch.no_grad():
        best = net(x.to(device)).argmax(1).tolist()
    expected = run(name, net, x, best)
    assert torch.equal(run(name, net, x, "top1"), expected)
    assert torch.equal(run(name, net, x, np.array(best)), expected)
    assert torch.equal(run(name, net, x, torch.tensor(best)), expected)
    chosen = torch.tensor(best, device=device)
    assert torch.equal(
        run(name, net, x, lambda out: out.gather(1, chosen[:, None])[:, 0]), expected
    )
    labels = [f"label {i}" for i in range(5)]
    model_ = seewhy.wrap(net, labels=labels)
    assert torch.equal(run(name, model_, x, [labels[i] for i in best]), expected)
    with torch.inference_mode():
        assert torch.equal(run(name, net, x, best), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precisions_give_float32(name: str, dtype: torch.dtype, device: torch.device) -> None:
    net = randomised(TinyCNN()).to(device, dtype)
    found = run(name, net, pictures(1))
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    if dtype == torch.float64:
        close(found, run(name, net.float(), pictures(1)), device)


@pytest.mark.parametrize("name", NAMES)
def test_wrapped_models_and_outputs(name: str) -> None:
    net, x = net_of("cnn"), pictures(1)
    expected = run(name, net, x)
    close(run(name, nn.DataParallel(net), x), expected)
    close(run(name, torch.compile(net, backend="eager"), x), expected)

    class Dict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, scale: float = 1.0, *, key: str) -> dict[str, Any]:
            return {"first": x, key: self.net(x) * scale}

    found = run(name, Dict(), x, args=[1.0], kwargs={"key": "mine"}, output=lambda out: out["mine"])
    close(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_blank_images_and_dead_models_do_not_crash(name: str) -> None:
    found = run(name, net_of("cnn"), torch.zeros(1, 3, 32, 32))
    assert found.isfinite().all()
    dead = randomised(TinyCNN())
    with torch.no_grad():
        dead.bn2.weight.zero_()
        dead.bn2.bias.fill_(-1)  # the last ReLU is shut
        dead.fc.weight.zero_()
    layer = {} if find_method(name).at != "layer" else {"layer": "relu2"}
    found = run(name, dead, pictures(1), **layer)
    assert found.isfinite().all()
    statuses = seewhy.maps.statuses(found)
    assert statuses == (("ok",) if name == "fullgrad" and (found > 0).any() else ("empty",))


@pytest.mark.parametrize("name", [n for n in NAMES if find_method(n).reduce])
def test_colour_channels(name: str) -> None:
    net, x, method = net_of("cnn"), pictures(2), find_method(name)
    pixels = run(name, net, x, channels=True)
    assert pixels.shape == x.shape
    assert method.reduce is not None
    assert torch.equal(method.reduce(pixels), run(name, net, x))


@pytest.mark.parametrize("name", [n for n in NAMES if not find_method(n).reduce])
def test_no_colour_channels(name: str) -> None:
    with pytest.raises(InputError, match="channels=True"):
        run(name, net_of("cnn"), pictures(1), channels=True)


@pytest.mark.parametrize("name", METHODS)
def test_options_are_known(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} has no option 'sampels'"):
        METHODS[name](net_of("cnn"), pictures(1), 0, sampels=3)
    with pytest.raises(InputError, match="'top2' is 2 targets"):
        METHODS[name](net_of("cnn"), pictures(1), "top2", **FAST.get(name, {}))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is(name: str) -> None:
    method = METHODS[name]
    assert isinstance(method, Method)
    assert method.name == name
    assert getattr(seewhy.methods, name) is method
    assert find_method(name) is find_method(method) is method
    said = method.__doc__ or ""
    assert len(said) > 40
    shape, sign = (
        "(N, H, W)" if method.at == "input" else "(N, ",
        "is signed" if method.signed else ">= 0",
    )
    assert shape in said
    assert sign in said
    assert ("LayerError" in said) >= (method.at == "layer")
    assert method.paper[-4:].isdigit()
    assert repr(method) == f"<method {name}: {method.title}, {method.paper}>"


def test_layers_are_asked_for_by_name_or_module() -> None:
    net, x = net_of("resnet"), pictures(1)
    found = seewhy.methods.grad_cam(net, x, 0)
    assert torch.equal(found, seewhy.methods.grad_cam(net, x, 0, layer="layer2"))
    assert torch.equal(found, seewhy.methods.grad_cam(net, x, 0, layer=net.layer2))
    with pytest.raises(LayerError, match="layer 'input' is the picture itself"):
        seewhy.methods.grad_cam(net, x, 0, layer="input")
    with pytest.raises(LayerError, match="did you mean 'layer2'"):
        seewhy.methods.grad_cam(net, x, 0, layer="layer22")


def test_the_model_itself_may_be_the_layer() -> None:
    body = nn.Sequential(net_of("cnn").conv1, nn.ReLU())
    for name in ("grad_cam", "smooth:grad_cam"):
        found = run(
            name,
            body,
            pictures(1),
            lambda out: out[:, 1].sum((1, 2)),
            layer=body,
            output=lambda out: out,
        )
        assert found.shape == (1, 32, 32)


def test_unknown_methods() -> None:
    with pytest.raises(InputError, match=r"method 'grad_cma' is unknown; did you mean 'grad_cam'"):
        find_method("grad_cma")
    with pytest.raises(InputError, match=r"method 'nothing' is unknown"):
        find_method("smooth:nothing")


def test_cam_names_grad_cam_where_there_is_no_cam() -> None:
    with pytest.raises(ModelError, match="'grad_cam'"):
        seewhy.methods.cam(net_of("vit"), pictures(1), 0)
