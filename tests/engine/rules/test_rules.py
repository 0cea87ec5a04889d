"""The rules: every form of a rectifier is met, and obeys the papers; biases give all that the input does not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import captum.attr
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import oracles
from seewhy import Trace
from seewhy.engine.rules.bias import BiasGradients
from seewhy.engine.rules.guided import Rectifiers, is_rectifier
from seewhy.methods import deconvnet, guided_backprop, saliency
from tiny_models import Rectified, TinyCNN, TinyResNet, pictures, randomised, tiny_vit

RULES = ("gradient", "guided", "deconvnet")


def signal(net: nn.Module, x: Tensor, rule: Any, target: int = 1) -> Tensor:
    with Trace(net, x, layers=["input"], rules=Rectifiers(rule)) as trace:
        return trace.signal(target)["input"]


# ---------------------------------------------------------------- rectifiers

SAME_AS_RELU: dict[str, Callable[[Tensor], Tensor] | nn.Module] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu input=": lambda x: F.relu(input=x),
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "clamp(0)": lambda x: x.clamp(0.0),
    "clamp_(0)": lambda x: x.clamp_(0),
    "torch.clamp": lambda x: torch.clamp(x, min=0),
    "torch.clamp input=": lambda x: torch.clamp(input=x, min=0),
    "clamp_min": lambda x: x.clamp_min(0),
    "torch.clamp_min": lambda x: torch.clamp_min(x, 0),
    "clip": lambda x: x.clip(0, None),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "nn.Threshold": nn.Threshold(0, 0),
    "leaky_relu of slope 0": lambda x: F.leaky_relu(x, 0.0),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 1e9),
    "clamp(0, much)": lambda x: x.clamp(0, 1e9),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", SAME_AS_RELU)
def test_every_form_of_relu_obeys_the_paper(form: str, rule: Any) -> None:
    net, x = randomised(Rectified(SAME_AS_RELU[form])).double(), pictures(2, 16).double()
    with torch.no_grad():
        plain = net(x)
    expected = oracles.rectified_back(list(net.convs), net.fc, x, 1, rule)
    rules = Rectifiers(rule)
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        assert torch.equal(trace.output, plain)
        torch.testing.assert_close(trace.signal(1)["input"], expected, rtol=1e-10, atol=1e-13)
    assert rules.met == 3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "form", [F.relu_, torch.relu_, lambda x: x.relu_(), lambda x: x.clamp_(0), nn.ReLU(True)]
)
def test_statement_form(form: Any, rule: Any) -> None:
    """`F.relu_(x)` whose result nobody uses."""
    net, x = randomised(Rectified(form, used=False)).double(), pictures(2, 16).double()
    expected = oracles.rectified_back(list(net.convs), net.fc, x, 1, rule)
    torch.testing.assert_close(signal(net, x, rule), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
def test_in_place_on_a_part_of_a_tensor(rule: Any) -> None:
    def half(x: Tensor) -> Tensor:
        return torch.cat([x[:, :3].relu(), x[:, 3:]], 1)

    def half_in_place(x: Tensor) -> Tensor:
        x[:, :3].relu_()
        return x

    x = pictures(1, 16)
    expected = signal(randomised(Rectified(half)), x, rule)
    torch.testing.assert_close(signal(randomised(Rectified(half_in_place)), x, rule), expected)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "form",
    [
        F.relu6,
        lambda x: F.relu6(x, inplace=True),
        nn.ReLU6(True),
        lambda x: x.clamp(0, 6),
        lambda x: F.hardtanh(x, 0, 6),
    ],
)
def test_forms_of_relu6(form: Any, rule: Any) -> None:
    x = 20 * pictures(2, 16)  # so that both kinks matter
    expected = signal(randomised(Rectified(nn.ReLU6())), x, rule)
    assert (
        not torch.allclose(expected, signal(randomised(Rectified(nn.ReLU())), x, rule))
        or rule == "deconvnet"
    )
    torch.testing.assert_close(signal(randomised(Rectified(form)), x, rule), expected)


@pytest.mark.parametrize(
    "smooth",
    [
        F.gelu,
        F.silu,
        F.elu,
        F.selu,
        F.celu,
        F.mish,
        F.hardswish,
        F.softplus,
        F.leaky_relu,
        nn.PReLU(),
        nn.SiLU(True),
    ],
)
def test_smooth_rectifiers_pass_the_derivative_of_what_is_positive(smooth: Any) -> None:
    net, x = randomised(Rectified(smooth)), pictures(1, 16)

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor) -> Tensor:
            return y.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g * (g > 0)

    leaf = x.clone().requires_grad_()
    y = leaf
    for conv in net.convs:
        y = Guided.apply(smooth(conv(y)))
    (expected,) = torch.autograd.grad(net.fc(y.mean((2, 3)))[:, 1].sum(), leaf)
    torch.testing.assert_close(signal(net, x, "guided"), expected)
    assert not torch.allclose(signal(net, x, "gradient"), expected)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ((F.relu, (1,), {}), True),
        ((torch.clamp, (1,), {"max": 3}), False),
        ((torch.clamp, (1, 1e-6), {}), False),
        ((F.hardtanh, (1,), {}), False),
        ((F.hardtanh, (1,), {"min_val": 0.0}), True),
        ((torch.clamp, (1,), {"min": torch.zeros(1)}), False),
        ((torch.add, (1, 0), {}), False),
        ((torch.sigmoid, (1,), {}), False),
    ],
)
def test_what_is_a_rectifier(call: Any, expected: bool) -> None:
    assert is_rectifier(*call) is expected


def test_a_norm_guard_is_no_rectifier() -> None:
    """clamp(min=1e-12) before a division stays as it is."""
    net = randomised(Rectified(lambda x: x / x.norm(dim=1, keepdim=True).clamp(min=1e-12)))
    x = pictures(1, 16)
    assert torch.equal(signal(net, x, "guided"), signal(net, x, "gradient"))


def test_the_rule_may_change_between_signals() -> None:
    net, x = randomised(TinyResNet()), pictures()
    rules = Rectifiers("gradient")
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        first = trace.signal(1)["input"]
        rules.rule = "guided"
        second = trace.signal(1)["input"]
        rules.rule = "gradient"
        assert torch.equal(trace.signal(1)["input"], first)
    assert torch.equal(second, signal(net, x, "guided"))
    assert not torch.allclose(first, second)
    with Trace(net, x, layers=["input"]) as trace:
        torch.testing.assert_close(trace.signal(1)["input"], first, rtol=1e-6, atol=1e-9)


def test_reused_in_place_relu_equals_captum() -> None:
    net, x = randomised(TinyResNet()), pictures()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = captum.attr.GuidedBackprop(net).attribute(x, target=1)
    torch.testing.assert_close(
        guided_backprop(net, x, 1, channels=True), theirs, rtol=1e-6, atol=1e-9
    )


def test_resnet18_equals_captum() -> None:
    net, x = randomised(torchvision.models.resnet18()), pictures(2, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guided = captum.attr.GuidedBackprop(net).attribute(x, target=7)
        deconvolved = captum.attr.Deconvolution(net).attribute(x, target=7)
    for ours, theirs in ((guided_backprop, guided), (deconvnet, deconvolved)):
        found = ours(net, x, 7, channels=True)
        torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("functional", [F.relu, F.relu6])
def test_functional_rectifiers_equal_captum_on_modules(functional: Any) -> None:
    """Where captum sees nothing it gives the plain gradient; on the same network of modules it agrees with us."""
    x = pictures(2, 16)
    written, of_modules = randomised(Rectified(functional)), randomised(Rectified(functional))
    if functional is F.relu6:  # inputs this small never reach 6: the two are one function
        of_modules.rectify = nn.ReLU()
        assert torch.equal(written(x), of_modules(x))
    of_modules.convs = nn.ModuleList(
        nn.Sequential(conv, nn.ReLU()) for conv in written.convs
    )  # a module for each use
    of_modules.rectify = nn.Identity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = captum.attr.GuidedBackprop(of_modules).attribute(x, target=1)
        unseen = captum.attr.GuidedBackprop(written).attribute(x, target=1)
    ours = guided_backprop(written, x, 1, channels=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)
    assert torch.allclose(unseen, signal(written, x, "gradient"))
    assert not torch.allclose(ours, unseen)


@pytest.mark.parametrize("name", ["mobilenet_v2", "googlenet"])
def test_not_plain_saliency_where_captum_is(name: str) -> None:
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    net, x = randomised(torchvision.models.get_model(name, **options)), pictures(1, 64)
    plain = saliency(net, x, 3, channels=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = captum.attr.GuidedBackprop(net).attribute(x, target=3)
    torch.testing.assert_close(theirs, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
    ours = guided_backprop(net, x, 3, channels=True)
    cosine = F.cosine_similarity(ours.flatten(), plain.flatten(), 0)
    assert cosine < 0.9


def test_densenet_whose_last_relu_is_a_function() -> None:
    net = torchvision.models.DenseNet(4, (2, 2), 8, num_classes=4)
    randomised(net)
    x = pictures(1, 64)

    class Modules(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.relu, self.classifier = net.features, nn.ReLU(), net.classifier

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(self.relu(self.features(x)).mean((2, 3)))

    for rule in ("guided", "deconvnet"):
        torch.testing.assert_close(
            signal(net, x, rule), signal(Modules().eval(), x, rule), rtol=1e-4, atol=1e-7
        )
    assert not torch.allclose(signal(net, x, "guided"), signal(net, x, "gradient"))


def test_transformers_gelu_is_met() -> None:
    net, x = tiny_vit(), pictures(1)
    rules = Rectifiers("guided")
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        trace.signal(0)
    assert rules.met == 3


def test_rules_act_from_the_earliest_tapped_layer_on() -> None:
    rules = Rectifiers("guided")
    with Trace(randomised(TinyCNN()), pictures(), layers=["conv2"], rules=rules) as trace:
        trace.signal(0)
    assert rules.met == 1


def test_encoder_layers_with_a_fast_path() -> None:
    """nn.TransformerEncoderLayer calls a fused kernel where no gradient is asked for: frozen, in evaluation mode."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 8, 8)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.fc = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.block(self.patch(x).flatten(2).transpose(1, 2)).mean(1))

    net, x = randomised(Encoder()).requires_grad_(False), pictures(1)
    rules = Rectifiers("guided")
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        assert trace.signal(0)["input"].any()
    assert rules.met == 1


# ---------------------------------------------------------------- biases


def bias_sum(net: nn.Module, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """What x and all biases give the score, and the score, (N,) each."""
    parts: list[Tensor] = []

    def collect(field: Tensor, weight: Tensor | None = None) -> None:
        parts.append(field.flatten(1).sum(1))

    with Trace(net, x, layers=["input"], rules=BiasGradients(collect)) as trace:
        collect(x * trace.signal(target)["input"])
        return torch.stack(parts).sum(0), trace.scores(target)


class Normed(nn.Module):
    """Grouped, transposed and 1 x 1 convolutions, with and without bias, and BatchNorm of either kind."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 1, 1, groups=4),
            nn.BatchNorm2d(8, affine=False),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(8, 6, 2, 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 6, 1, bias=False),
            nn.BatchNorm2d(6),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(6 * 8 * 8, 9),
            nn.BatchNorm1d(9),
            nn.ReLU(),
            nn.Linear(9, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("make", [TinyCNN, TinyResNet, Normed])
def test_input_and_biases_add_up_to_the_score(make: Callable[[], nn.Module]) -> None:
    net, x = randomised(make()).double(), pictures(3, 16).double()
    total, score = bias_sum(net, x, 2)
    torch.testing.assert_close(total, score, rtol=1e-10, atol=1e-10)
    net.float()
    total, score = bias_sum(net, x.float(), 2)
    torch.testing.assert_close(total, score, rtol=1e-4, atol=1e-4)


def test_completeness_on_resnet18() -> None:
    net, x = randomised(torchvision.models.resnet18()), pictures(1, 64)
    total, score = bias_sum(net, x, 5)
    torch.testing.assert_close(total, score, rtol=1e-4, atol=1e-4)


def test_watching_biases_changes_no_signal() -> None:
    net, x = randomised(TinyResNet()), pictures()
    with Trace(net, x, layers=["input"], rules=BiasGradients(lambda field, weight: None)) as trace:
        watched, output = trace.signal(1)["input"], trace.output
    with Trace(net, x, layers=["input"]) as trace:
        assert torch.equal(trace.signal(1)["input"], watched)
        assert torch.equal(trace.output, output)


@pytest.mark.parametrize(("training", "fields"), [(False, 2), (True, 1)])
def test_a_norm_by_the_statistics_of_the_batch_has_no_bias_of_its_own(
    training: bool, fields: int
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)
            self.register_buffer("mean", torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.batch_norm(x, self.mean, self.mean, training=training, momentum=0.0)
            return self.fc(y.mean((2, 3)))

    found: list[torch.Tensor] = []
    rules = BiasGradients(lambda field, weight: found.append(field))
    with Trace(Net().eval(), pictures(2, 8), layers=["input"], rules=rules) as trace:
        trace.signal(0)
    assert len(found) == fields


def test_bias_fields_of_norms_have_the_shape_of_the_output() -> None:
    net = nn.Sequential(
        nn.GroupNorm(1, 3), nn.Flatten(2), nn.LayerNorm(256), nn.Flatten(), nn.Linear(768, 2)
    )
    randomised(net)
    shapes: list[tuple[int, ...]] = []
    x = pictures(2, 16)
    rules = BiasGradients(lambda field, weight: shapes.append(tuple(field.shape)))
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        trace.signal(0)
    assert shapes == [(2, 2), (2, 3, 256), (2, 3, 16, 16)]
