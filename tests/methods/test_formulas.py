"""The methods against the papers' formulas, against closed forms, and against the libraries where those are right."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import oracles
from seewhy import methods
from seewhy.engine.call import Call
from seewhy.engine.flow import find_flow
from seewhy.engine.targets.classes import Margin, Probability
from seewhy.errors import InputError, ModelError, SeewhyWarning
from seewhy.methods import shared_pass
from seewhy.methods.cam import _first_component
from seewhy.methods.catalog import METHODS, find_method
from seewhy.methods.gradient import noisy_copies
from tiny_models import Smooth, TinyCNN, TinyResNet, pictures, randomised, tiny_vit

tv = torchvision.models


def close(found: Tensor, expected: Any, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    expected = torch.as_tensor(np.asarray(expected), dtype=torch.float32)
    torch.testing.assert_close(
        found.float(), expected, rtol=rtol, atol=atol * float(expected.abs().max()) + 1e-12
    )


def quietly(call: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


# ---------------------------------------------------------------- class activation maps


@pytest.mark.parametrize("layer", ["bn2", "relu2", "conv1"])
@pytest.mark.parametrize("name", oracles.CAMS)
def test_cams_equal_the_papers_formulas(name: str, layer: str) -> None:
    net, x = randomised(TinyCNN()).double(), pictures(2, 16).double()
    a, g = oracles.activation_and_gradient(net, net.get_submodule(layer), x, 3)
    expected = [
        oracles.CAMS[name](one, grad) for one, grad in zip(a.numpy(), g.numpy(), strict=True)
    ]
    # alpha of Grad-CAM++ has a pole where 2 + g sum A = 0, which activations of both signs come near
    atol = 1e-3 if (name, layer) == ("grad_cam_pp", "conv1") else 1e-6
    close(METHODS[name](net, x, 3, layer=layer), np.stack(expected), atol=atol)


@pytest.mark.parametrize("name", oracles.CAMS)
def test_cams_of_tokens_equal_the_formulas_on_the_grid(name: str) -> None:
    net, x = tiny_vit().double(), pictures(2).double()
    a, g = oracles.activation_and_gradient(net, net.blocks[2].norm1, x, 3)
    a, g = (t[:, 1:].reshape(2, 4, 4, 24).permute(0, 3, 1, 2).numpy() for t in (a, g))
    expected = [oracles.CAMS[name](one, grad) for one, grad in zip(a, g, strict=True)]
    close(METHODS[name](net, x, 3), np.stack(expected))


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1.0])
def test_grad_cam_pp_at_small_gradients(scale: float) -> None:
    """Where the peers' epsilon swamps 2 g^2 the weights are a tenth of what they should be."""
    a, g = torch.rand(2, 4, 3, 5), torch.randn(2, 4, 3, 5) * scale
    assert methods.grad_cam_pp.combine is not None
    expected = [
        oracles.grad_cam_pp(p.numpy(), q.numpy())
        for p, q in zip(a.double(), g.double(), strict=True)
    ]
    close(methods.grad_cam_pp.combine(a, g), np.stack(expected))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("grad_cam", pytorch_grad_cam.GradCAM),
        ("hires_cam", pytorch_grad_cam.HiResCAM),
        ("layer_cam", pytorch_grad_cam.LayerCAM),
        ("xgrad_cam", pytorch_grad_cam.XGradCAM),
        ("elementwise_grad_cam", pytorch_grad_cam.GradCAMElementWise),
    ],
)
@pytest.mark.parametrize("make", [TinyCNN, tv.resnet18, tv.mobilenet_v2])
def test_cams_equal_pytorch_grad_cam(name: str, theirs: Any, make: Callable[[], nn.Module]) -> None:
    net, x = randomised(make()), pictures(2, 64)
    layer = (
        net.relu2
        if isinstance(net, TinyCNN)
        else net.layer4
        if hasattr(net, "layer4")
        else net.features
    )
    raw: list[np.ndarray] = []

    class Raw(theirs):  # type: ignore[misc]
        def get_cam_image(self, *args: Any, **kwargs: Any) -> Any:
            raw.append(super().get_cam_image(*args, **kwargs))
            return raw[-1]

    Raw(net, [layer])(x, [ClassifierOutputTarget(2), ClassifierOutputTarget(4)])
    expected = raw[0] if name == "hires_cam" else np.maximum(raw[0], 0)
    close(METHODS[name](net, x, [2, 4], layer=layer), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", ["relu2", "bn2", "bn1"])
def test_cams_equal_captum(layer: str) -> None:
    net, x = randomised(TinyCNN(inplace=False)), pictures(2)
    part = net.get_submodule(layer)
    theirs = captum.attr.LayerGradCam(net, part)
    close(
        methods.grad_cam(net, x, 1, layer=layer),
        theirs.attribute(x, 1, relu_attributions=True)[:, 0].detach(),
    )
    product = captum.attr.LayerGradientXActivation(net, part).attribute(x, 1).detach()
    close(methods.hires_cam(net, x, 1, layer=layer), product.sum(1))
    close(methods.elementwise_grad_cam(net, x, 1, layer=layer), product.clamp(min=0).sum(1))
    signed = theirs.attribute(x, 1, relu_attributions=False)[:, 0].detach()
    assert (signed < 0).any()
    close(methods.grad_cam(net, x, 1, layer=layer), signed.clamp(min=0))


HEADS: dict[str, Callable[[], nn.Module]] = {
    "tiny": TinyCNN,
    "tiny resnet": TinyResNet,
    "resnet18": tv.resnet18,
    "mobilenet_v2": lambda: tv.mobilenet_v2(width_mult=0.25),
    "densenet, whose last ReLU is a function": lambda: tv.DenseNet(8, (2, 2, 2), 16, num_classes=6),
    "squeezenet, which has no dense layer": tv.squeezenet1_1,
}


@pytest.mark.parametrize("model", HEADS)
@pytest.mark.parametrize("target", [1, Margin(1, 2), Margin(0, (3, 4))])
def test_cam_is_grad_cam_up_to_a_constant(model: str, target: Any) -> None:
    net, x = randomised(HEADS[model]()), pictures(2, 64)
    signed = methods.cam(net, x, target)
    n_places = signed.shape[1] * signed.shape[2]
    if model.startswith(
        "densenet"
    ):  # Grad-CAM reads the layer before the ReLU: hand it the layer after

        class Rectified(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.features, self.relu, self.classifier = net.features, nn.ReLU(), net.classifier

            def forward(self, x: Tensor) -> Tensor:
                return self.classifier(self.relu(self.features(x)).mean((2, 3)))

        coarse = methods.grad_cam(Rectified().eval(), x, target, layer="relu")
    elif model.startswith(
        "squeezenet"
    ):  # after its ReLU Grad-CAM's weights are those of the class channel alone
        coarse = methods.grad_cam(net, x, target, layer="classifier.2")
    else:
        coarse = methods.grad_cam(net, x, target)
    close(coarse, signed.clamp(min=0) / n_places, rtol=1e-4)


def test_cam_by_hand() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    a = net.relu2(net.bn2(net.conv2(net.stem(x)))).detach()
    by_hand = torch.zeros(2, 8, 8)
    for n, target in enumerate((4, 0)):
        for k in range(12):
            by_hand[n] += net.fc.weight[target, k].item() * a[n, k]
    found = methods.cam(net, x, [4, 0])
    close(found, by_hand)
    scores = net(x).detach()[[0, 1], [4, 0]]
    torch.testing.assert_close(
        found.mean((1, 2)) + net.fc.bias.detach()[[4, 0]], scores
    )  # CAM's own identity


@pytest.mark.parametrize("pool", ["amax", "sum"])
def test_cam_of_other_pools(pool: str) -> None:
    class Pooled(TinyCNN):
        def forward(self, x: Tensor) -> Tensor:
            a = self.relu2(self.bn2(self.conv2(self.stem(x))))
            return self.fc(getattr(a, pool)((2, 3)))

    plain, pooled = randomised(TinyCNN()), randomised(Pooled())
    assert torch.equal(methods.cam(plain, pictures(), 1), methods.cam(pooled, pictures(), 1))


class AtEveryPlace(nn.Module):
    """A classifier that is applied at every place, and whose answers are pooled."""

    def __init__(
        self, head: nn.Module, pool: Callable[[Tensor], Tensor], *, rectified: bool, tokens: bool
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1))
        self.last = nn.ReLU() if rectified else nn.Identity()
        self.norm, self.head, self.pool, self.tokens = nn.LayerNorm(12), head, pool, tokens

    def logits(self, x: Tensor) -> Tensor:
        """(N, K, h, w)."""
        a = self.last(self.stem(x))
        if isinstance(self.head, nn.Conv2d):
            return self.head(a)
        if not self.tokens:
            return self.head(self.norm(a.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        said = self.head(self.norm(a.flatten(2).mT))  # (N, h w, K)
        return said.mT.unflatten(2, a.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.logits(x))


@pytest.mark.parametrize(
    "pool", [lambda a: a.mean((2, 3)), lambda a: a.sum((2, 3)), lambda a: a.amax((2, 3))]
)
@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("classes", [5, 12, 1])
def test_cam_of_a_classifier_at_every_place_is_its_own_map(
    pool: Callable[[Tensor], Tensor], rectified: bool, classes: int
) -> None:
    for head, tokens in (
        (nn.Linear(12, classes), False),
        (nn.Linear(12, classes), True),
        (nn.Conv2d(12, classes, 1), False),
    ):
        net = randomised(AtEveryPlace(head, pool, rectified=rectified, tokens=tokens))
        close(
            methods.cam(net, pictures(), 0),
            net.logits(pictures())[:, 0].detach(),
            rtol=1e-4,
            atol=1e-5,
        )


def test_cam_of_a_probability_weighs_the_classes() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    p = net(x).softmax(1).detach()[0]
    per_class = torch.cat([methods.cam(net, x, k) for k in range(5)])
    weights = p[1] * (F.one_hot(torch.tensor(1), 5) - p)
    close(
        methods.cam(net, x, Probability(1))[0],
        torch.einsum("k,khw->hw", weights, per_class),
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 5)
        ),
        tiny_vit,
        lambda: nn.Sequential(TinyCNN(), nn.Tanh()),
        lambda: nn.Sequential(TinyCNN(), nn.Linear(5, 5)),
    ],
)
def test_cam_is_exact_or_an_error(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ModelError, match=r"use Grad-CAM \('grad_cam'\)"):
        methods.cam(randomised(make()), pictures(1), 1)


@pytest.mark.long
def test_vgg_has_no_cam() -> None:
    with pytest.raises(ModelError, match=r"and VGG does not; use Grad-CAM"):
        methods.cam(tv.vgg11(init_weights=False).eval(), pictures(1, 64), 1)


# ---------------------------------------------------------------- eigenvectors


def test_eigen_cam_on_a_real_layer() -> None:
    net, x = randomised(tv.resnet18()).double(), pictures(3, 96).double()
    for layer in ("layer2", "layer3.0.bn2", "layer4"):
        a, _ = oracles.activation_and_gradient(net, net.get_submodule(layer), x, 3)
        expected = np.stack([oracles.eigen_cam(one) for one in a.numpy()])
        close(methods.eigen_cam(net, x, 3, layer=layer), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "shape", [(2, 1, 1, 1), (1, 3, 1, 2), (2, 5, 7, 3), (2, 40, 2, 3), (1, 3, 20, 20)]
)
def test_eigen_cam_of_any_shape(shape: tuple[int, ...]) -> None:
    a = torch.rand(shape) + torch.rand(1, shape[1], 1, 1)
    close(
        _first_component(a),
        np.stack([oracles.eigen_cam(one) for one in a.double().numpy()]),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("places", [1, 2, 3])
def test_eigen_cam_where_few_places_speak(places: int) -> None:
    """The search ends where the space it can reach does, and takes no rounding for a direction."""
    generator = torch.Generator().manual_seed(0)
    a = torch.zeros(4, 8, 4, 4)
    alike = torch.randn(4, 8, 1, generator=generator)
    a[:, :, 0, :places] = alike * (1 + torch.arange(places)) + 0.1 * torch.randn(
        4, 8, places, generator=generator
    )
    close(
        _first_component(a),
        np.stack([oracles.eigen_cam(one) for one in a.double().numpy()]),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_sign_shows_the_object() -> None:
    """A bright blob is bright in every sample, where an arbitrary sign and a ReLU blank it."""
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        a = 0.1 * torch.rand(1, 16, 7, 7, generator=generator)
        a[0, :, 2:4, 4:6] += torch.rand(16, 1, 1, generator=generator)
        found = _first_component(a)[0]
        assert found[2:4, 4:6].min() > found[:, :3].max() > 0
        assert torch.equal(_first_component(torch.cat([-a, a]))[1], found) or torch.allclose(
            _first_component(torch.cat([-a, a]))[1], found
        )


@pytest.mark.parametrize(
    "a",
    [
        torch.zeros(1, 3, 4, 4),
        torch.ones(1, 3, 4, 4),
        torch.full((1, 3, 4, 4), -2.0),
        torch.eye(4).view(1, 4, 2, 2),  # all singular values alike
        torch.ones(1, 3, 4, 4) * 1e-20,
        torch.ones(1, 3, 4, 4) * 1e20,
    ],
)
def test_degenerate_activations(a: Tensor) -> None:
    found = _first_component(a)
    assert found.shape == (1, *a.shape[2:])
    assert found.isfinite().all()
    assert bool(found.any()) == bool(a.any())


def test_channels_that_cancel_still_have_a_component() -> None:
    v = torch.randn(3, 5)
    found = _first_component(torch.stack([v, -v])[None])[0].float()
    torch.testing.assert_close(found.abs(), v.abs() * 2**0.5, rtol=1e-5, atol=1e-6)
    weak = torch.randn(3, 5)  # the sum sees the weak channel alone
    weak -= (weak * v).sum() / (v * v).sum() * v
    weak *= 0.1
    found = _first_component(torch.stack([v, -v, weak])[None])[0].float()
    torch.testing.assert_close(found.abs(), v.abs() * 2**0.5, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- at the input


def test_gradients_equal_captum() -> None:
    net, x = randomised(TinyResNet()), pictures(2).requires_grad_()  # captum wants it
    close(
        methods.saliency(net, x, 2, channels=True),
        captum.attr.Saliency(net).attribute(x, 2, abs=False),
    )
    close(methods.saliency(net, x, 2), captum.attr.Saliency(net).attribute(x, 2).amax(1))
    theirs = captum.attr.InputXGradient(net).attribute(x, 2).detach()
    close(methods.input_x_gradient(net, x, 2, channels=True), theirs)
    close(methods.input_x_gradient(net, x, 2), theirs.sum(1), atol=1e-5)


@pytest.mark.parametrize("steps", [1, 7, 32])
def test_integrated_gradients_equal_captum(steps: int) -> None:
    net, x = randomised(TinyResNet()), pictures(2)
    base = pictures(1, seed=9)
    for baseline in (0.0, 0.5, base):
        theirs = captum.attr.IntegratedGradients(net).attribute(
            x, baseline, target=2, n_steps=steps, method="gausslegendre"
        )
        found = methods.integrated_gradients(
            net, x, 2, steps=steps, baseline=baseline, channels=True
        )
        close(found, theirs.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [Smooth, lambda: tiny_vit(3)])
def test_integrated_gradients_add_up(make: Callable[[], nn.Module]) -> None:
    net, x, base = randomised(make()), pictures(2), pictures(2, seed=3)
    with torch.no_grad():
        difference = (net(x) - net(base))[:, 1]
    total = methods.integrated_gradients(net, x, 1, steps=48, baseline=base).sum((1, 2))
    torch.testing.assert_close(
        total, difference, rtol=1e-3, atol=1e-3 * float(difference.abs().max())
    )


def test_integrated_gradients_of_a_linear_model_is_exact() -> None:
    net, x = randomised(nn.Sequential(nn.Flatten(), nn.Linear(48, 2))), pictures(1, 4)
    expected = ((x - 0.25) * net[1].weight[1].view(3, 4, 4)).detach()
    close(methods.integrated_gradients(net, x, 1, steps=1, baseline=0.25, channels=True), expected)
    with pytest.raises(InputError, match="steps=0"):
        methods.integrated_gradients(net, x, 1, steps=0)


def test_fullgrad_equals_the_paper_step_by_step() -> None:
    net, x = randomised(TinyCNN()).double(), pictures(2).double()
    expected, parts = oracles.fullgrad_of_tiny_cnn(net, x, 2)
    torch.testing.assert_close(parts, net(x)[:, 2].detach(), rtol=1e-10, atol=1e-10)
    close(methods.fullgrad(net, x, 2), expected, rtol=1e-5)


def test_smooth_grad_is_the_mean_over_noisy_copies() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    copies = list(noisy_copies(x, 4, 0.2, 7))
    for base in ("grad_cam", "input_x_gradient", "cam", "guided_backprop", "eigen_cam"):
        expected = torch.stack([METHODS[base](net, copy, 1) for copy in copies]).mean(0)
        close(
            find_method(f"smooth:{base}")(net, x, 1, samples=4, noise=0.2, seed=7),
            expected,
            atol=1e-5,
        )
    gradient = torch.stack([methods.saliency(net, copy, 1, channels=True) for copy in copies]).mean(
        0
    )
    found = methods.smooth_grad(net, x, 1, samples=4, noise=0.2, seed=7)
    close(found, gradient.abs().amax(1))  # the mean gradient, then its magnitude
    close(methods.smooth_grad(net, x, 1, samples=2, noise=0.0), methods.saliency(net, x, 1))


def test_smooth_explains_the_class_of_the_clean_image() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    best = net(x).argmax(1).tolist()
    loud = {"samples": 3, "noise": 3.0}
    assert torch.equal(
        methods.smooth_grad(net, x, "top1", **loud), methods.smooth_grad(net, x, best, **loud)
    )


def test_noise_depends_on_the_seed_and_the_image_alone() -> None:
    x = pictures(3)
    first = list(noisy_copies(x, 2, 0.1, 0))
    assert all(torch.equal(a, b) for a, b in zip(first, noisy_copies(x, 2, 0.1, 0), strict=True))
    assert torch.equal(next(noisy_copies(x.flip(0), 1, 0.1, 0)).flip(0), first[0])
    assert torch.equal(next(noisy_copies(x[1:2], 1, 0.1, 0))[0], first[0][1])
    assert not torch.equal(next(noisy_copies(x, 1, 0.1, 1)), first[0])
    assert not torch.equal(first[0] - x, first[1] - x)
    twins = next(noisy_copies(torch.cat([x[:1], 2 * x[:1]]), 1, 0.1, 0))
    assert not torch.allclose(2 * twins[0], twins[1])
    spread = next(noisy_copies(pictures(1, 128), 1, 0.15, 0)) - pictures(1, 128)
    extent = pictures(1, 128).max() - pictures(1, 128).min()
    assert float(spread.std() / extent) == pytest.approx(0.15, rel=0.02)
    state = torch.get_rng_state()
    list(noisy_copies(x, 2, 0.1, 0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{"samples": 0}, {"noise": -0.1}])
def test_smooth_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="SmoothGrad needs"):
        methods.smooth_grad(randomised(TinyCNN()), pictures(1), 0, **options)


def test_guided_grad_cam_is_the_product() -> None:
    net, x = randomised(TinyResNet()), pictures(2, (32, 48))
    coarse = methods.grad_cam(net, x, 1, layer="layer2").double().numpy()
    fine = np.stack([oracles.bilinear(one, (32, 48)) for one in coarse])[:, None]
    expected = fine * methods.guided_backprop(net, x, 1, channels=True).double().numpy()
    close(methods.guided_grad_cam(net, x, 1, layer="layer2", channels=True), expected)
    theirs = quietly(
        lambda: (
            captum.attr.GuidedGradCam(net, net.layer2)
            .attribute(x, 1, interpolate_mode="bilinear")
            .detach()
        )
    )
    close(methods.guided_grad_cam(net, x, 1, layer="layer2", channels=True), theirs)


# ---------------------------------------------------------------- the shared pass


class Counted(nn.Module):
    """Counts forward passes, and ways back to its input, since the last was made; not as a setting of its own."""

    forwards, backwards = 0, 0

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.start()

    @classmethod
    def start(cls) -> None:
        cls.forwards = cls.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).forwards += 1
        output = self.net(x)
        if output.requires_grad:
            output.register_hook(lambda g: self.count())
        return output

    def count(self) -> None:
        type(self).backwards += 1


def test_a_shared_pass_equals_separate_calls_exactly() -> None:
    net, x = randomised(TinyResNet()), pictures(2)
    layers, targets = ["layer1", "layer2"], [1, "top2", Margin(0, 3)]
    need_a_class = {"clrp", "clrp_two_pass", "sglrp"}
    asked = [m for m in METHODS.values() if m.combine and m.name not in need_a_class] + [
        methods.cam
    ]
    done = shared_pass(Call(net), x, methods=asked, targets=targets, layers=layers)
    output = net(x).detach()
    assert torch.equal(done.output, output)
    best = output.topk(2).indices.T.tolist()
    flat = [1, best[0], best[1], Margin(0, 3)]
    assert len(done.results) == sum(
        len(flat) * (len(layers) if m.at == "layer" else 1) for m in asked
    )
    results = iter(done.results)
    for method in asked:
        for layer in layers if method.at == "layer" else [None]:
            for target in flat:
                result = next(results)
                assert (result.method, result.layer) == (method, layer)
                alone = method(net, x, target, layer=layer)
                assert torch.equal(result.map, alone), f"{method.name} {layer} {target}"
                score = (
                    shared_pass(Call(net), x, methods=[method], targets=[target], layers=layers)
                    .results[0]
                    .scores
                )
                assert torch.equal(result.scores, score)


@pytest.mark.parametrize(
    ("names", "n_targets", "forwards", "backwards"),
    [
        (["grad_cam"], 1, 1, 1),
        (["grad_cam"], 3, 1, 3),
        (
            ["grad_cam", "layer_cam", "hires_cam", "saliency", "input_x_gradient", "eigen_cam"],
            3,
            1,
            3,
        ),
        (["grad_cam", "guided_backprop"], 3, 1, 6),
        (["grad_cam", "guided_backprop", "guided_grad_cam", "saliency", "grad_cam_pp"], 3, 1, 6),
        (["guided_backprop"], 3, 1, 3),
        (["deconvnet"], 3, 1, 3),
        (["grad_cam", "deconvnet"], 2, 2, 4),
        (["eigen_cam", "fem"], 3, 1, 0),
        (["clrp", "sglrp"], 2, 1, 4),
        # the classes of each target have a short way back together, to the last stage
        (["layer_relevance"], 2, 1, 2 + 2),
        (["lrp", "layer_relevance", "relevance_cam"], 2, 3, 6 + 2 * 2),
        (["grad_cam", "lrp"], 2, 2, 4 + 2),
    ],
)
def test_passes_are_shared(names: list[str], n_targets: int, forwards: int, backwards: int) -> None:
    net = Counted(randomised(TinyResNet())).eval()
    find_flow(net, pictures(1))
    net.start()
    shared_pass(
        Call(net),
        pictures(1),
        methods=[METHODS[name] for name in names],
        targets=list(range(n_targets)),
        layers=["net.layer1", "net.layer2"],
    )
    assert (net.forwards, net.backwards) == (forwards, backwards)


def test_a_method_alone_is_one_pass_once_the_layer_is_known() -> None:
    net, x = Counted(randomised(TinyResNet())).eval(), pictures()
    methods.grad_cam(net, x, 0)
    net.start()
    methods.grad_cam(net, x, 0)
    assert (net.forwards, net.backwards) == (1, 1)


def test_guided_rules_without_a_rectifier_warn() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    with pytest.warns(SeewhyWarning, match="has no rectifier for the guided and deconvnet rules"):
        methods.guided_backprop(net, torch.rand(1, 3, 8, 8), 0)
