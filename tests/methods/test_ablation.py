"""Ablation-CAM and Score-CAM against pytorch-grad-cam's raw maps and slow loops, and the network after a layer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from oracles import bilinear
from seewhy.engine.call import Call
from seewhy.engine.masking import Running, ScorerError
from seewhy.engine.targets.classes import Logit, Probability
from seewhy.errors import InputError, LayerError, ModelError, TargetError
from seewhy.methods.ablation import ablation_cam, score_cam
from tiny_models import ModelState, TinyCNN, TinyResNet, pictures, randomised, tiny_vit

METHODS = [ablation_cam, score_cam]


class TinyVGG(nn.Module):
    """Convolutions and pools in one sequence, then flattened into two linear maps."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 6), (6, 8)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(8 * 64, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def close(found: Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected).float()
    assert expected.abs().max() > 0
    torch.testing.assert_close(
        found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
    )


def peer(kind: Any, net: nn.Module, layer: str, x: Tensor, targets: list[int]) -> Tensor:
    """pytorch-grad-cam's map before it is scaled."""
    kept: list[Any] = []
    with kind(net, [net.get_submodule(layer)]) as cam:
        whole = cam.get_cam_image
        cam.get_cam_image = lambda *args: kept.append(whole(*args)) or kept[-1]
        cam(x, [ClassifierOutputTarget(t) for t in targets])
    return torch.as_tensor(np.maximum(kept[0], 0))


def keeping(net: nn.Module, layer: str) -> tuple[list[Tensor], Any]:
    kept: list[Tensor] = []
    return kept, net.get_submodule(layer).register_forward_hook(
        lambda m, args, value: kept.append(value.clone())
    )


def slow_ablation_cam(
    net: nn.Module, layer: str, x: Tensor, target: int, axis: int, grid: Any
) -> Any:
    """Desai and Ramaswamy 2020 for one image, in float64: the whole network for every channel."""
    net, x, part = net.double(), x.double(), net.get_submodule(layer)
    with torch.no_grad():
        kept, handle = keeping(net, layer)
        y = float(net(x)[0, target])
        handle.remove()
        a = kept[-1]
        total = np.zeros(grid(a)[0].shape)
        for k in range(a.shape[axis]):
            gone = a.clone()
            gone.select(axis, k).fill_(0)
            handle = part.register_forward_hook(lambda m, args, value, gone=gone: gone.clone())
            total += (y - float(net(x)[0, target])) / y * grid(a)[k].numpy()
            handle.remove()
    net.float()
    return np.maximum(total, 0)


def slow_score_cam(net: nn.Module, layer: str, x: Tensor, target: int, grid: Any) -> Any:
    """Wang et al. 2020 for one image, in float64, with zeros as the baseline."""
    net, x = net.double(), x.double()
    with torch.no_grad():
        kept, handle = keeping(net, layer)
        net(x)
        handle.remove()
        base = float(net(torch.zeros_like(x))[0, target])
        a = grid(kept[-1]).numpy()
        increases = []
        for channel in a:
            mask = bilinear(channel, x.shape[2:])
            spread = mask.max() - mask.min()
            mask = (mask - mask.min()) / spread if spread else np.zeros_like(mask)
            increases.append(float(net(x * torch.tensor(mask))[0, target]) - base)
    net.float()
    weights = np.exp(increases) / np.exp(increases).sum()
    return np.maximum(sum(w * channel for w, channel in zip(weights, a, strict=True)), 0)


def first(a: Tensor) -> Tensor:
    return a[0]


def tokens(a: Tensor) -> Tensor:
    return a[0, 1:].T.reshape(-1, 4, 4)  # a class token before 4 x 4


def last(a: Tensor) -> Tensor:
    return a[0].permute(2, 0, 1)


def tokens_first(a: Tensor) -> Tensor:
    return a[:, 0].T.reshape(-1, 4, 4)


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: TinyCNN(inplace=False), "relu1"),
        (lambda: TinyCNN(inplace=False), "relu2"),
        (TinyResNet, "layer1"),
        (TinyResNet, "layer2"),
        (TinyVGG, "features.1"),
        (TinyVGG, "features.4"),
        (TinyVGG, "features.5"),
    ],
)
def test_maps_are_those_of_pytorch_grad_cam(
    make: Callable[[], nn.Module], layer: str, capfd: Any
) -> None:
    net, x, targets = randomised(make()), pictures(2), [1, 3]
    close(
        ablation_cam(net, x, targets, layer=layer),
        peer(pytorch_grad_cam.AblationCAM, net, layer, x, targets),
    )
    found = score_cam(net, x, targets, layer=layer, align_corners=True)
    close(found, peer(pytorch_grad_cam.ScoreCAM, net, layer, x, targets))


class ChannelsLast(nn.Module):
    """A Swin-like block on (N, h, w, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.mix, self.fc = (
            nn.Conv2d(3, 10, 4, 4),
            nn.LayerNorm(10),
            *_two_linear(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        x = x + F.gelu(self.mix(self.norm(x)))
        return self.fc(x.mean((1, 2)))


def _two_linear() -> tuple[nn.Linear, nn.Linear]:
    return nn.Linear(10, 10), nn.Linear(10, 5)


class TokensFirst(nn.Module):
    """Attention over (L, N, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Conv2d(3, 10, 8, 8), nn.MultiheadAttention(10, 2)
        self.norm, self.fc = nn.LayerNorm(10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x).flatten(2).permute(2, 0, 1))
        return self.fc((x + self.attention(x, x, x)[0]).mean(0))


SIGNED: list[tuple[Callable[[], nn.Module], str, int, Callable[[Tensor], Tensor]]] = [
    (TinyCNN, "conv1", 1, first),
    (TinyCNN, "bn2", 1, first),
    (TinyResNet, "layer1.bn2", 1, first),
    (TinyResNet, "down", 1, first),
    (tiny_vit, "blocks.1", 2, tokens),
    (tiny_vit, "blocks.2.norm1", 2, tokens),
    (tiny_vit, "blocks.1.norm1", 2, tokens),
    (ChannelsLast, "norm", 3, last),
    (TokensFirst, "norm", 2, tokens_first),
]


@pytest.mark.parametrize(("make", "layer", "axis", "grid"), SIGNED)
@pytest.mark.parametrize("target", [0, 1])
def test_maps_are_the_papers(make: Any, layer: str, axis: int, grid: Any, target: int) -> None:
    """Of activations of either sign in every layout, and for a score of either sign."""
    net, x = randomised(make()), pictures(1)
    found = ablation_cam(net, x, target, layer=layer)
    close(found[0], slow_ablation_cam(net, layer, x, target, axis, grid), 2e-5)
    close(
        score_cam(net, x, target, layer=layer)[0], slow_score_cam(net, layer, x, target, grid), 2e-5
    )


def test_a_linear_head_has_a_closed_form() -> None:
    """y_k = y - W_tk mean(A_k) for pooling and one linear map."""
    net, x = randomised(TinyCNN()), pictures(3)
    with torch.no_grad():
        kept, handle = keeping(net, "relu2")
        y = net(x)[:, 2]
        handle.remove()
        weights = net.fc.weight[2] * kept[0].mean((2, 3)) / y[:, None]
        close(
            ablation_cam(net, x, 2, layer="relu2"),
            torch.einsum("nc,nchw->nhw", weights, kept[0]).clamp(min=0),
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [TinyCNN, TinyResNet, tiny_vit])
def test_neither_batch_nor_company_matters(method: Any, make: Callable[[], nn.Module]) -> None:
    net, x = randomised(make()), pictures(3)
    layer = {"TinyCNN": "relu1", "TinyResNet": "layer1"}.get(type(net).__name__, "blocks.1")
    options = {**method.options, "layer": layer}
    before = ModelState(net)
    scores = [
        Logit((1, 0, 4)),
        Probability(2),
        lambda out: out[torch.arange(3), torch.tensor([1, 0, 4])],
    ]
    together = method.run(Call(net), x, scores, **options)
    before.assert_unchanged()
    close(together[2].map, together[0].map)
    for i, index in enumerate([1, 0, 4]):
        for size in (1, 3, 100):
            alone = method.run(
                Call(net),
                x[i : i + 1],
                [Logit(index)],
                **{**options, "running": Running(batch_size=size)},
            )
            close(alone[0].map[0], together[0].map[i])
            assert alone[0].facts[0] == together[0].facts[i]
    close(method(net, x, lambda out: out.softmax(1)[:, 2], layer=layer), together[1].map)
    with torch.inference_mode():
        close(method(net, x, [1, 0, 4], layer=layer).clone(), together[0].map)


@pytest.mark.parametrize("method", METHODS)
def test_further_inputs_of_the_model(method: Any) -> None:
    net, x = randomised(TinyCNN()), pictures(3)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, each: Tensor, *, key: str) -> dict[str, Tensor]:
            return {key: self.net(x * each.view(-1, 1, 1, 1)), "other": x}

    each = torch.tensor([0.5, 1.0, 2.0])
    found = method(
        Scaled(),
        x,
        1,
        layer="net.relu1",
        inputs={"each": each},
        kwargs={"key": "mine"},
        output=lambda o: o["mine"],
    )
    for i in range(3):
        scaled = Scaled()
        alone = method(
            scaled,
            x[i : i + 1],
            1,
            layer=net.relu1,
            inputs={"each": each[i : i + 1]},
            kwargs={"key": "logits"},
        )
        close(found[i], alone[0])


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_see(method: Any) -> None:
    dead = randomised(TinyCNN())
    with torch.no_grad():
        dead.bn2.weight.zero_()
        dead.bn2.bias.fill_(-1)  # the last ReLU is shut
        dead.fc.weight.zero_()
    for dtype in (torch.float32, torch.bfloat16):
        net = dead.to(dtype)
        (found,) = method.run(Call(net), pictures(2), [Logit(1)], layer="relu2", **method.options)
        assert torch.equal(found.map, torch.zeros(2, 8, 8))
        expected = {"channels": 12, "samples": int(method is score_cam), "partial": False}
        assert found.facts == (expected, expected)
    dead.float().fc.bias.data.zero_()  # y = 0
    assert ablation_cam(dead, pictures(1), 1, layer="relu1").isfinite().all()


def test_channels_that_show_the_same_share_a_pass() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    with torch.no_grad():
        net.conv2.weight[1], net.conv2.bias[1] = net.conv2.weight[0], net.conv2.bias[0]
        for values in (net.bn2.weight, net.bn2.bias, net.bn2.running_mean, net.bn2.running_var):
            values[1] = values[0]  # the same
        net.bn2.weight[2:4].zero_()
        net.bn2.bias[2:4] = torch.tensor([0.5, 2.0])  # constant
        kept, handle = keeping(net, "relu2")
        net(x)
        handle.remove()
    constant = int((kept[0].flatten(2).amax(2) == kept[0].flatten(2).amin(2)).sum())
    assert constant >= 2
    (found,) = score_cam.run(Call(net), x, [Logit(1)], layer="relu2", **score_cam.options)
    assert found.facts[0]["samples"] == 12 - 1 - (constant - 1)
    close(found.map[0], slow_score_cam(net, "relu2", x, 1, first), 2e-5)


def test_only_the_most_varied_channels() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    options = {**score_cam.options, "layer": "relu2", "top_channels": 4}
    (few,) = score_cam.run(Call(net), x, [Logit(1)], **options)
    assert [facts["samples"] for facts in few.facts] == [4, 4]

    def most_varied(a: Tensor) -> Tensor:
        return a[0][a[0].flatten(1).var(1).argsort()[-4:]]

    for i in range(2):
        close(few.map[i], slow_score_cam(net, "relu2", x[i : i + 1], 1, most_varied), 2e-5)
    assert torch.equal(
        score_cam(net, x, 1, layer="relu2", top_channels=99), score_cam(net, x, 1, layer="relu2")
    )
    with pytest.raises(
        InputError, match="top_channels=0 is too few; give 1 or more, or None for all"
    ):
        score_cam(net, x, 1, layer="relu2", top_channels=0)


class Failing:
    """A target that fails after so many calls."""

    rowwise = True

    def __init__(self, after: int, how: str) -> None:
        self.left, self.how = after, how

    def __call__(self, output: Tensor) -> Tensor:
        self.left -= 1
        if self.left >= 0:
            return output[:, 1]
        if self.how == "raises":
            raise RuntimeError("the line is dead")
        return output[:, 1] * torch.nan if self.how == "nan" else output


@pytest.mark.parametrize("how", ["raises", "nan", "shape"])
def test_what_was_scored_before_a_failure_stands(how: str) -> None:
    net, x, running = randomised(TinyCNN()), pictures(1), Running(batch_size=2)
    for method, score in ((ablation_cam, Failing(5, how)), (score_cam, Failing(2, how))):
        options = {**method.options, "layer": "relu1", "running": running}
        (found,) = method.run(Call(net), x, [score], **options)
        assert found.facts[0]["partial"]
        assert found.facts[0]["failed"]
        assert 0 < found.facts[0]["samples"] < 8
        assert found.map.isfinite().all()
        assert found.map.max() > 0
        state = ModelState(net)
        with pytest.raises((ScorerError, RuntimeError, ModelError, TargetError)):
            method.run(Call(net), x, [Failing(0, how)], **options)
        state.assert_unchanged()


@pytest.mark.parametrize(("method", "after"), [(ablation_cam, 6), (score_cam, 2)])
def test_an_image_that_was_not_reached_is_empty(method: Any, after: int) -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    options = {**method.options, "layer": "conv1", "running": Running(batch_size=4)}
    (found,) = method.run(Call(net), x, [Failing(after, "raises")], **options)
    assert [facts["samples"] for facts in found.facts] == [8, 0]
    assert [facts["partial"] for facts in found.facts] == [False, True]
    assert torch.equal(found.map[1], torch.zeros(32, 32))
    close(found.map[0], method(net, x[:1], 1, layer="conv1")[0])


@pytest.mark.parametrize("method", METHODS)
def test_progress(method: Any) -> None:
    seen: list[tuple[int, int]] = []
    running = Running(batch_size=3, progress=lambda done, of: seen.append((done, of)))
    method(randomised(TinyCNN()), pictures(2), 1, layer="conv1", running=running)
    assert seen == sorted(seen)
    assert seen[0] == (3, 16)
    assert seen[-1] == (16, 16)


@pytest.mark.parametrize("method", METHODS)
def test_layers_that_will_not_do(method: Any) -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    with pytest.raises(
        LayerError, match=r"layer 'fc' gives \(\d, 5\) for images of 32 x 32, which is no picture"
    ):
        method(net, x, 1, layer="fc")
    net.unused = nn.ReLU()
    with pytest.raises(LayerError, match=r"layer '?unused'? did not run in the forward pass"):
        method(net, x, 1, layer="unused")


def test_the_input_is_no_layer_to_ablate() -> None:
    with pytest.raises(LayerError, match="layer 'input' is the picture itself"):
        ablation_cam(randomised(TinyCNN()), pictures(1), 1, layer="input")


def test_threads_share_a_model() -> None:
    net, x = randomised(TinyResNet()), pictures(4)
    expected = [ablation_cam(net, x[i : i + 1], 1, layer="layer1") for i in range(4)]
    found: dict[int, Tensor] = {}

    def work(i: int) -> None:
        for _ in range(3):
            found[i] = ablation_cam(
                net, x[i : i + 1], 1, layer="layer1", running=Running(batch_size=2)
            )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    before = ModelState(net)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before.assert_unchanged()
    for i in range(4):
        close(found[i], expected[i])
