"""Where gradients end, and what is said of it: every method that needs them says so, and none gives zeros."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import seewhy
from seewhy import Trace
from seewhy.errors import InputError, LayerError, ModelError, TargetError
from seewhy.methods.catalog import find_method
from tiny_models import ModelState, TinyCNN, pictures, randomised

# those that go by gradients or relevance, at the layer and at the input
GOING_BACK = (
    "grad_cam",
    "layer_relevance",
    "saliency",
    "guided_backprop",
    "guided_grad_cam",
    "lrp",
    "clrp",
)
OTHERS = {
    "rise": {"samples": 16, "cells": 3},
    "occlusion": {},
    "lime": {"samples": 20, "superpixels": "slic"},
}


class Net(nn.Module):
    """A stem, a body and a head, put together by whoever derives from it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(self.stem(x)))

    def head(self, a: Tensor) -> Tensor:
        return self.fc(a.mean((2, 3)))


class Reentrant(Net):
    def forward(self, x: Tensor) -> Tensor:
        a = checkpoint(self.stem, x, use_reentrant=True)
        return self.head(checkpoint(self.body, a, use_reentrant=True))


class Detached(Net):
    def head(self, a: Tensor) -> Tensor:
        return self.fc(a.mean((2, 3)).detach())


class Numpy(Net):
    def head(self, a: Tensor) -> Tensor:
        return self.fc(torch.from_numpy(a.mean((2, 3)).detach().numpy().copy()))


class NumpyAlone(Net):
    def head(self, a: Tensor) -> Tensor:
        return self.fc(torch.from_numpy(a.mean((2, 3)).numpy()))


class Rounded(nn.Module):
    def forward(self, a: Tensor) -> Tensor:
        return (a > 0).float()


class Stepwise(Net):
    def __init__(self) -> None:
        super().__init__()
        self.step = Rounded()

    def head(self, a: Tensor) -> Tensor:
        return self.fc(self.step(a - 0.1).mean((2, 3)))


def quantized() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(randomised(Net()), {nn.Linear}, dtype=torch.qint8)


NETS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "re-entrant": (
        lambda: randomised(Reentrant()),
        r"re-entrant checkpointing.*use_reentrant=False",
    ),
    "detached": (lambda: randomised(Detached()), r"after 'body'.*detach\(\)"),
    "numpy": (lambda: randomised(Numpy()), "after 'body'.*numpy"),
    "numpy alone": (lambda: randomised(NumpyAlone()), "hands a tensor to numpy"),
    # before torch 2.11 nodes written in Python, as those of rules, may be gone when the cause is looked for
    "stepwise": (
        lambda: randomised(Stepwise()),
        r"lost in 'step' \(Rounded\)|after 'body' nothing",
    ),
    "quantized": (
        quantized,
        r"'fc' \(Linear\) is quantized|no relevance rule for .*: quantized parts",
    ),
}


@cache
def net_of(kind: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.ao
        return NETS[kind][0]()


@pytest.mark.filterwarnings("ignore:the images of a batch depend")  # quantized ones do
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", GOING_BACK)
@pytest.mark.parametrize("kind", NETS)
def test_no_gradient_is_no_zeros(kind: str, name: str, frozen: bool) -> None:
    net = net_of(kind).requires_grad_(not frozen)
    before = ModelState(net) if kind != "quantized" else None
    found = (
        () if kind == "stepwise" else (None,)
    )  # there the step's own output is found, which has a gradient
    layers = ("body", "body.0", *found) if find_method(name).at == "layer" else (None,)
    for layer in layers:
        with pytest.raises(InputError, match=NETS[kind][1]) as raised:
            find_method(name)(net, pictures(), 1, layer=layer)
        assert "rise, lime or occlusion" in str(raised.value) or "strict=False" in str(raised.value)
        assert "\n" not in str(raised.value)
    if before is not None:
        before.assert_unchanged()


@pytest.mark.filterwarnings(
    "ignore:LIME of .*not locally linear", "ignore:the images of a batch depend"
)
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", NETS)
def test_methods_without_gradients_still_answer(kind: str, name: str) -> None:
    found = find_method(name)(net_of(kind), pictures(1), 1, **OTHERS[name])
    assert found.count_nonzero()


def test_checkpointing_without_re_entering_is_plain() -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(
                checkpoint(
                    self.body, checkpoint(self.stem, x, use_reentrant=False), use_reentrant=False
                )
            )

    x, free = pictures(), randomised(Net())
    for name in ("grad_cam", "saliency"):
        expected = find_method(name)(free, x, 1)
        torch.testing.assert_close(find_method(name)(randomised(Checkpointed()), x, 1), expected)


def test_the_input_of_a_backbone_under_its_own_no_grad() -> None:
    class Frozen(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                a = self.body(self.stem(x))
            return self.head(a)

    net = randomised(Frozen())
    with pytest.raises(LayerError, match=r"'stem.0' \(Conv2d\) runs under torch.no_grad\(\)"):
        seewhy.methods.saliency(net, pictures(), 1)
    torch.testing.assert_close(
        seewhy.methods.grad_cam(net, pictures(), 1),
        seewhy.methods.grad_cam(randomised(Net()), pictures(), 1),
    )


class Branches(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.stem(x)
        return self.head(self.body(a)), a.mean((2, 3))


def test_a_layer_off_the_targets_path_is_named() -> None:
    net, x = randomised(Branches()), pictures()
    with Trace(net, x, layers=["stem", "body"], output=lambda answer: answer) as trace:
        assert trace.signal(lambda answer: answer[1][:, 0], layers=["stem"])["stem"].count_nonzero()
        with pytest.raises(TargetError, match="does not depend on layer 'body'"):
            trace.signal(lambda answer: answer[1][:, 0])
        # the trace answers on
        assert trace.signal(lambda answer: answer[0][:, 0])["body"].count_nonzero()


def test_a_layer_whose_output_goes_nowhere() -> None:
    class Aside(Net):
        def forward(self, x: Tensor) -> Tensor:
            a = self.stem(x)
            self.body(a)
            return self.fc(torch.cat([a, a[:, :2]], 1).mean((2, 3)))

    with pytest.raises(LayerError, match="after 'body' nothing"):
        seewhy.methods.grad_cam(randomised(Aside()), pictures(), 1, layer="body")


@pytest.mark.parametrize(
    "name", ["grad_cam", "saliency", "lrp", "clrp", "cam", "fullgrad", "smooth_grad"]
)
def test_targets_without_a_gradient(name: str) -> None:
    with pytest.raises(TargetError, match=r"no gradient by the model's output.*rise"):
        find_method(name)(randomised(TinyCNN()), pictures(1), lambda out: out.argmax(1).float())


def test_a_gradient_of_zero_is_an_empty_map() -> None:
    class Nowhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.conv(x).relu()) - torch.tensor([0.0, 0.0, 1e3]).view(3, 1, 1)

    explained = seewhy.explain(
        randomised(Nowhere()),
        pictures(2),
        targets=[seewhy.targets.SegmentationRegion(2)],
        layers="conv",
    )
    assert explained[0].status == ("empty", "empty")


def test_errors_of_the_way_back_come_through() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            raise RuntimeError("mine")

    class Failing(Net):
        def head(self, a: Tensor) -> Tensor:
            return super().head(Broken.apply(a))

    with pytest.raises(RuntimeError, match="mine") as raised:
        seewhy.methods.saliency(randomised(Failing()), pictures(), 1)
    assert not isinstance(raised.value, ModelError)
