"""Relevance through whole networks: against zennit and gradients, conserved, accounted for, forward as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision.models as tv
import zennit.attribution
import zennit.canonizers
import zennit.composites
import zennit.torchvision
from timm.layers.grn import GlobalResponseNorm
from timm.models.efficientnet import EfficientNet
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

import seewhy
from seewhy import Trace
from seewhy.data.preprocess import Preprocess
from seewhy.engine.rules.composites import (
    BOXED,
    COMPOSITES,
    Composite,
    conserving,
    epsilon_plus,
    uniform_epsilon,
)
from seewhy.engine.rules.propagation import safe
from seewhy.engine.rules.relevance import Relevance
from seewhy.engine.targets.classes import Logit, Margin, Probability
from seewhy.engine.targets.numbers import Numbers
from seewhy.errors import InputError, ModelError, SeewhyError, SeewhyWarning, TargetError
from seewhy.maps.ledger import Ledger
from seewhy.methods.relevance import clrp, clrp_two_pass, layer_relevance, lrp, relevance_cam, sglrp
from seewhy.methods.starts import score_at_start, starting_relevance
from seewhy.render.reading import status_words
from tiny_models import ModelState, TinyCNN, TinyResNet, pictures, randomised, tiny_vit

LOGITS = Numbers("logits")
D = torch.float64
METHODS = (lrp, clrp, clrp_two_pass, sglrp, layer_relevance, relevance_cam)
TEN = {"num_classes": 10}


def relevance(
    net: nn.Module,
    x: Tensor,
    composite: str | Composite,
    target: object = 1,
    *,
    ledger: Ledger | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Relevance of the input, the target's scores and the output."""
    rules = Relevance(composite, ledger=ledger)
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        assert not rules.unknown
        return (
            safe(trace.activations["input"]) * trace.signal(target)["input"],
            trace.scores(target),
            trace.output,
        )


Makers = dict[str, Callable[[], nn.Module]]


def slow(makers: Makers) -> list[object]:
    """The names, those of large networks marked as long."""
    return [
        pytest.param(n, marks=pytest.mark.long) if n.startswith(("vgg", "resnet50")) else n
        for n in makers
    ]


def named(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **TEN, **options)


# ---------------------------------------------------------------- another library

CANONIZERS = {
    "resnet": zennit.torchvision.ResNetCanonizer,
    "googlenet": zennit.torchvision.SequentialMergeBatchNorm,
    "vgg": zennit.torchvision.VGGCanonizer,
}
PEERS = {
    "resnet18": lambda: tv.resnet18(**TEN),
    "resnet50": lambda: tv.resnet50(**TEN),
    "vgg11_bn": lambda: tv.vgg11_bn(**TEN),
    "googlenet": lambda: tv.googlenet(
        aux_logits=False, transform_input=False, init_weights=False, **TEN
    ),
}


@pytest.mark.parametrize("name", slow(PEERS))
def test_epsilon_plus_is_zennits(name: str) -> None:
    net = randomised(PEERS[name]()).double()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 1e-30  # zennit 0.5.1 leaves it out when it merges
    x = pictures(1, 64).double()
    ours, _, _ = relevance(net, x, epsilon_plus(), 3)
    canonizer = next(made for key, made in CANONIZERS.items() if name.startswith(key))()
    unstabilised = zennit.composites.layer_map_base(
        stabilizer=1e-12
    )  # sums and pooling; ours need no stabiliser
    made = zennit.composites.EpsilonPlus(layer_map=unstabilised, canonizers=[canonizer])
    with zennit.attribution.Gradient(model=net, composite=made) as attributor:
        _, theirs = attributor(x, lambda out: out * torch.eye(10, dtype=D)[[3]])
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-6


# ---------------------------------------------------------------- gradients

RECTIFIED: Makers = {
    "tiny": TinyCNN,
    "residual": TinyResNet,
    "resnet18": lambda: tv.resnet18(**TEN),
    "vgg11_bn": lambda: tv.vgg11_bn(**TEN),
    "densenet": lambda: tv.DenseNet(8, (2, 2), 16, **TEN),
}


@pytest.mark.parametrize("name", slow(RECTIFIED))
def test_lrp_0_is_input_times_gradient(name: str) -> None:
    net, x = randomised(RECTIFIED[name]()).double(), pictures(2).double()
    ours, _, _ = relevance(net, x, uniform_epsilon(0))
    with Trace(net, x, layers=["input"]) as trace:
        expected = x * trace.signal(1)["input"]
    assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-9


# ---------------------------------------------------------------- seeds


@pytest.mark.parametrize("seed", ["clrp_paper", "sglrp_paper"])
def test_a_signed_pass_is_the_difference_of_two(seed: str) -> None:
    net, x = randomised(TinyResNet()).double(), pictures(3).double()
    rules = Relevance(conserving())
    with Trace(net, x, layers=["input"], rules=rules) as trace:
        z = trace.output
        y = z.softmax(1)
        own = (z if seed == "clrp_paper" else y * (1 - y))[:, 1]
        others = (
            z[:, [1]].expand_as(z) / (z.shape[1] - 1) if seed == "clrp_paper" else y[:, [1]] * y
        )
        others = others * (torch.arange(5) != 1)
        signed = trace.signal(score_at_start(Logit(1), seed, LOGITS))["input"]  # type: ignore[arg-type]
        target = trace.signal(lambda out: out[:, 1] * (own / z[:, 1]))["input"]
        dual = trace.signal(lambda out: (out * (others / z)).sum(1))["input"]
    # probabilities are float32
    scale = float(target.abs().max())
    torch.testing.assert_close(
        signed, target - dual, rtol=0, atol=scale * (1e-9 if seed == "clrp_paper" else 1e-6)
    )
    torch.testing.assert_close(
        (x * signed).flatten(1).sum(1), own - others.sum(1), rtol=1e-3, atol=1e-4
    )
    method = clrp if seed == "clrp_paper" else sglrp
    torch.testing.assert_close(
        method(net, x, target=1).double(), (x * signed).sum(1), rtol=1e-4, atol=1e-5
    )


def test_a_contrastive_seed_needs_a_class() -> None:
    with pytest.raises(TargetError, match="needs one class as the target"):
        score_at_start(Probability(1), "clrp", LOGITS)(torch.randn(2, 4))
    with pytest.raises(
        InputError,
        match="'dual' is not known; use 'lrp', 'elsewhere', 'clrp', 'sglrp', 'magnitude'",
    ):
        score_at_start(Logit(1), "dual", LOGITS)  # type: ignore[arg-type]


def test_the_seeds_of_the_official_codes() -> None:
    """Relevance-CAM: 1 and -1 / N; CLRP: |Z_t|, and |Z_n| of the others."""
    z = torch.randn(2, 4, dtype=D)
    expected = {
        "unit": torch.tensor([-0.25, 1.0, -0.25, -0.25]).expand(2, 4),
        "magnitude": z.abs() * torch.tensor([0, 1, 0, 0]),
        "others": z.abs() * torch.tensor([1, 0, 1, 1]),
    }
    for seed, relevance_of_output in expected.items():
        leaf = z.clone().requires_grad_()
        (slope,) = torch.autograd.grad(score_at_start(Logit(1), seed, LOGITS)(leaf).sum(), leaf)  # type: ignore[arg-type]
        torch.testing.assert_close(slope * z, relevance_of_output.to(D))
        found = starting_relevance(score_at_start(Logit(1), seed, LOGITS), z)  # type: ignore[arg-type]
        torch.testing.assert_close(found, relevance_of_output.float())


def test_clrp_as_its_official_code() -> None:
    """Each pass divided by its sum, the second subtracted, what is negative dropped."""
    net, x = randomised(TinyCNN()).double(), pictures(2).double()
    found = clrp_two_pass(net, x, target=1, channels=True)
    passes = []
    for start in (
        lambda z: z[:, 1].abs(),
        lambda z: (z.abs() * torch.tensor([1, 0, 1, 1, 1])).sum(1),
    ):
        with Trace(net, x, layers=["input"], rules=Relevance("conserving")) as trace:
            r = safe(trace.activations["input"]) * trace.signal(start)["input"]
            passes.append(r / r.sum((1, 2, 3), keepdim=True))
    torch.testing.assert_close(
        found, (passes[0] - passes[1]).clamp(min=0).float(), rtol=1e-4, atol=1e-6
    )
    assert found.max() > 0


def test_the_automatic_seed_is_contrastive_for_a_class_alone() -> None:
    z = torch.randn(2, 4)
    torch.testing.assert_close(
        score_at_start(Logit(1), "auto", LOGITS)(z),
        score_at_start(Logit(1), "clrp_paper", LOGITS)(z),
    )
    torch.testing.assert_close(score_at_start(Margin(1, 2), "auto", LOGITS)(z), z[:, 1] - z[:, 2])


# ---------------------------------------------------------------- conservation


@pytest.mark.parametrize(
    "make", [lambda: tv.resnet18(**TEN), lambda: tv.DenseNet(8, (2, 2), 16, **TEN)]
)
def test_layers_have_the_same_sum(make: Callable[[], nn.Module]) -> None:
    net, x = randomised(make()).double(), pictures(2, 64).double()
    names = dict(net.named_modules())
    layers = [
        "input",
        *(n for n in ("layer1", "layer2", "layer3", "layer4", "features.norm5") if n in names),
    ]
    with Trace(net, x, layers=layers, rules=Relevance(conserving())) as trace:
        signals = trace.signal(1)
        for name in layers:
            found = (trace.activations[name] * signals[name]).flatten(1).sum(1)
            torch.testing.assert_close(found, trace.scores(1), rtol=1e-6, atol=1e-6, msg=name)


CONSERVED: Makers = {
    "tiny": TinyCNN,
    "residual": TinyResNet,
    "vgg": lambda: tv.vgg11_bn(**TEN),
    "resnet": lambda: tv.resnet18(**TEN),
    "googlenet": PEERS["googlenet"],
    "densenet": lambda: tv.DenseNet(8, (2, 2, 2), 16, **TEN),
    "regnet_x": named("regnetx_002"),
    "regnet_y": named("regnety_002"),
    "squeeze_excitation": named("seresnet18"),
    "convnext": named("convnext_atto"),
    "mobilenet_v2": named("mobilenetv2_035"),
    "mobilenet_v3": named("mobilenetv3_small_050"),
    "efficientnet": named("efficientnet_b0"),
    "shufflenet": lambda: tv.shufflenet_v2_x0_5(**TEN),
}
LOOSE = ("mobilenet_v2", "mobilenet_v3", "efficientnet", "shufflenet")


@pytest.mark.parametrize("name", slow(CONSERVED))
def test_conserving_gives_the_score_to_the_input(name: str) -> None:
    net, x = randomised(CONSERVED[name]()), pictures(2, 64)
    with torch.no_grad():
        plain = net(x)
    r, scores, output = relevance(net, x, conserving())
    error = (r.double().flatten(1).sum(1) / scores - 1).abs().max()
    assert float(error) < (0.02 if name in LOOSE else 1e-3)
    if name == "convnext":
        torch.testing.assert_close(output, plain, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(output, plain)


TRANSFORMERS: Makers = {
    "vit": tiny_vit,
    "deit": lambda: timm.models.deit.VisionTransformerDistilled(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2, num_classes=5
    ),
    "torchvision": lambda: tv.VisionTransformer(32, 8, 3, 2, 24, 48, num_classes=5),
    "swin": lambda: SwinTransformer(
        img_size=32,
        patch_size=2,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
        num_classes=5,
    ),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_what_a_transformers_input_does_not_get_its_parameters_keep(name: str) -> None:
    net, x = randomised(TRANSFORMERS[name]()).double(), pictures(1).double()
    ledger = Ledger()
    r, scores, _ = relevance(net, x, conserving(), ledger=ledger)
    kept = ledger.total("parameter") + ledger.total("epsilon")
    assert (float(r.sum()) + kept) / float(scores.sum()) == pytest.approx(1, abs=0.02)


# ---------------------------------------------------------------- the ledger


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize(
    "make", [TinyCNN, TinyResNet, named("mobilenetv2_035")], ids=["tiny", "residual", "mobile"]
)
def test_the_ledger_adds_up(make: Callable[[], nn.Module], composite: str) -> None:
    net, x = randomised(make()).double(), pictures(2).double()
    ledger = Ledger()
    r, scores, _ = relevance(net, x, composite, ledger=ledger)
    size = max(entry.peak for entry in ledger.entries)
    for entry in ledger.entries:
        gone = entry.bias + entry.epsilon + entry.no_contributor + entry.parameter
        assert entry.received == pytest.approx(
            entry.handed_on + gone, rel=1e-6, abs=1e-9 * max(size, entry.peak)
        )
    kept = sum(map(ledger.total, ("bias", "epsilon", "no_contributor", "parameter")))
    # ReLU passes all on, the other activations all but a billionth of what they divide by
    tolerance = 1e-5 if isinstance(net, EfficientNet) else 1e-9
    assert float(scores.sum()) == pytest.approx(
        float(r.sum()) + kept, rel=1e-6, abs=tolerance * size
    )
    if composite == "conserving":
        assert ledger.total("bias") == ledger.total("no_contributor") == 0
    loudest = ledger.loudest()
    assert loudest is not None
    assert loudest.peak == size


@pytest.mark.parametrize("composite", ["epsilon_plus", "z_plus", "conserving"])
def test_what_stayed_behind_is_the_same_beside_a_ledger(composite: str) -> None:
    net, x = randomised(TinyResNet()).double(), pictures(2).double()
    stayed = []
    for ledger in (None, Ledger()):
        rules = Relevance(composite, ledger=ledger)
        with Trace(net, x, layers=["input"], rules=rules) as trace:
            rules.balance.begin(2)
            r = safe(x) * trace.signal(1)["input"]
            stayed.append(rules.balance.stayed_behind(x.device))
            missing = trace.scores(1) - r.flatten(1).sum(1)
        torch.testing.assert_close(
            stayed[-1].absorbed.double(), missing, rtol=1e-4, atol=1e-4 * float(r.abs().max())
        )
    torch.testing.assert_close(stayed[0].absorbed, stayed[1].absorbed)


def test_an_empty_ledger() -> None:
    ledger = Ledger()
    assert ledger.loudest() is None
    assert ledger.total("bias") == 0
    ledger.kept("cls_token", torch.ones(2, 3))
    assert (ledger.entries[0].received, ledger.entries[0].handed_on, ledger.total("parameter")) == (
        6,
        0,
        6,
    )
    ledger.clear()
    assert ledger.entries == []


# ---------------------------------------------------------------- forward values


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", ["tiny", "residual", "resnet", "densenet", "mobilenet_v2"])
def test_forward_values_are_the_models_own(name: str, composite: str) -> None:
    net, x = randomised(CONSERVED[name]()), pictures(2)
    with torch.no_grad():
        plain = net(x)
    assert torch.equal(relevance(net, x, composite)[2], plain)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_forward_values_of_transformers_are_near(name: str, composite: str) -> None:
    net, x = randomised(TRANSFORMERS[name]()), pictures(1)
    with torch.no_grad():
        plain = net(x)
    torch.testing.assert_close(relevance(net, x, composite)[2], plain, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- what was found, said


class Cancelling(nn.Module):
    """A layer whose contributions, 1,000 and -999.999, cancel to a millionth of their size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.squash, self.last = (
            nn.Conv2d(a, b, 1, bias=False) for a, b in ((3, 2), (2, 1), (1, 4))
        )
        with torch.no_grad():
            self.first.weight.fill_(0.5)
            self.squash.weight.copy_(torch.tensor([1000.0, -999.999]).view(1, 2, 1, 1))
            self.last.weight.copy_(torch.arange(1.0, 5.0).view(4, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.squash(self.first(x))).mean((2, 3))


def test_a_blow_up_is_a_status_that_names_the_operation() -> None:
    net, x = seewhy.wrap(Cancelling().double(), gives="score"), pictures(2).double().abs() + 0.1
    options = {
        "lrp": {"composite": uniform_epsilon(1e-12)},
        "layer_relevance": {"composite": uniform_epsilon(1e-12)},
    }
    ex = seewhy.explain(
        seewhy.wrap(net, gives="score"),
        x,
        methods=["lrp", "layer_relevance"],
        layers=["squash", "first"],
        targets=[1, 2],
        options=options,
    )
    assert [a.status for a in ex.select(layer="squash")] == [("ok", "ok")] * 2
    assert [a.status for a in ex.select(method="lrp")] == [
        ("ok", "ok")
    ] * 2  # the parts cancel again on their way
    blown = ex.select(layer="first")
    assert len(blown) == 2
    for a in blown:
        assert a.status == ("blown_up", "blown_up")
        for facts in a.facts:
            assert facts["blown_up_by"] == "squash"
            assert facts["relevance_peak"] > 100
        assert status_words(a, 0).endswith("at squash")


def test_relevance_that_stays_in_bounds_says_its_peak() -> None:
    net, x = randomised(TinyCNN()), pictures(2)
    at_the_score = {"layer_relevance": {"seed": "lrp"}}
    asked = {"methods": "layer_relevance", "layers": "conv2", "options": at_the_score}
    found = seewhy.explain(net, x, targets=1, **asked)[0]  # type: ignore[arg-type]
    with Trace(net, x, layers=["conv2"], rules=Relevance("epsilon_gamma")) as trace:
        r = trace.activations["conv2"] * trace.signal(1)["conv2"]
        peaks = r.abs().flatten(1).amax(1) / trace.scores(1).abs()
    assert [f["relevance_peak"] for f in found.facts] == pytest.approx(peaks.tolist(), rel=1e-5)
    assert all("blown_up_by" not in f for f in found.facts)


def test_a_trace_gives_the_ledger_of_its_last_signal() -> None:
    net, x = randomised(TinyCNN()).double(), pictures(1).double()
    with Trace(net, x, layers=["input"], rules=Relevance("epsilon_plus", ledger=Ledger())) as trace:
        trace.signal(0)
        first = trace.ledger()
        trace.signal(1)
        assert first.entries
        assert len(trace.ledger().entries) == len(first.entries)  # not added up
        assert trace.ledger().entries[0].received == pytest.approx(float(trace.scores(1)))
        assert first.entries[0].received == pytest.approx(float(trace.scores(0)))
    with (
        Trace(net, x, layers=["input"], rules=Relevance("epsilon_plus")) as trace,
        pytest.raises(SeewhyError, match="keeps no ledger"),
    ):
        trace.ledger()


def test_an_explanation_keeps_a_ledger_for_each_photo() -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    ex = seewhy.explain(net, x, methods=["lrp", "grad_cam"], targets=[0, 1], ledger=True)
    for a in ex.select(method="lrp"):
        started = [facts["relevance"]["started"] for facts in a.facts]
        assert [led.entries[0].received for led in a.ledgers] == pytest.approx(started, rel=1e-5)
    assert all(a.ledgers == () for a in ex.select(method="grad_cam"))
    assert all(a.ledgers == () for a in seewhy.explain(net, x, methods="lrp"))


# ---------------------------------------------------------------- the box of the input


@pytest.mark.parametrize("name", ["epsilon_plus_box", "epsilon_gamma_box"])
def test_a_box_by_name_takes_the_bounds_of_the_preprocessing(name: str) -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    model = seewhy.wrap(
        net, preprocess=Preprocess((32, 32), None, (0.4, 0.5, 0.6), (0.2, 0.3, 0.1), "bilinear")
    )
    low, high = (torch.tensor(v).view(3, 1, 1) for v in ((-2.0, -5 / 3, -6.0), (3.0, 5 / 3, 4.0)))
    made = BOXED[name](low, high)
    torch.testing.assert_close(
        lrp(model, x, 1, composite=name), lrp(net, x, 1, composite=made), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(InputError, match=f"'{name}' needs the input's bounds.*wrap"):
        lrp(net, x, 1, composite=name)


# ---------------------------------------------------------------- the methods

SMALL: Makers = {
    "resnet18": lambda: tv.resnet18(**TEN),
    "mobilenet": named("mobilenetv3_small_050"),
    "vit": tiny_vit,
}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", SMALL)
def test_a_batch_is_its_images_and_the_model_is_as_it_was(
    name: str, method: Callable[..., Tensor]
) -> None:
    net, x = (
        randomised(SMALL[name](), train=True).double(),
        pictures(2),
    )  # contrasts cancel to 1e-4 of their parts
    before = ModelState(net)
    with torch.no_grad():
        maps = method(net, x, target=2)
    before.assert_unchanged()
    assert maps.isfinite().all()
    assert maps.abs().max() > 0
    singles = torch.cat([method(net, x[n : n + 1], target=2) for n in range(2)])
    scale = singles.abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(maps / scale, singles / scale, rtol=0, atol=1e-4)


class ReadByPlaces(nn.Module):
    """Two rectified layers that 1 x 1 convolutions read, and one that a 3 x 3 convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act1 = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()
        self.one, self.act2 = nn.Conv2d(6, 8, 1), nn.ReLU()
        self.two, self.act3 = nn.Conv2d(8, 6, 1), nn.ReLU()
        self.wide, self.act4 = nn.Conv2d(6, 5, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.one(self.act1(self.stem(x))))
        return self.head(self.act4(self.wide(self.act3(self.two(x)))).mean((2, 3)))


def test_relevance_cam_is_equation_8_with_zero_at_the_mean() -> None:
    net, x = randomised(ReadByPlaces()).double(), pictures(2).double()
    expected = {}
    for layer in ("act1", "act2"):
        with Trace(net, x, layers=[layer], rules=Relevance("z_plus")) as trace:
            a = trace.activations[layer]
            r = a * trace.signal(score_at_start(Logit(1), "clrp_paper", LOGITS))[layer]
            field = torch.stack(
                [sum(r[n, k].mean() * a[n, k] for k in range(a.shape[1])) for n in range(2)]
            )
            expected[layer] = (field - field.mean((1, 2), keepdim=True)).float()
        torch.testing.assert_close(
            relevance_cam(net, x, 1, layer=layer), expected[layer], rtol=1e-4, atol=1e-7
        )
    found = seewhy.explain(net, x, methods="relevance_cam", targets=1)[0]
    assert found.layer == "act1 + act2"
    torch.testing.assert_close(found.map, expected["act1"] + expected["act2"], rtol=1e-4, atol=1e-7)
    official = relevance_cam(net, x, 1, layer="act2", composite="relevance_cam", seed="unit")
    assert not torch.allclose(official, expected["act2"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("make", [TinyResNet, SMALL["mobilenet"]], ids=["residual", "mobilenet"])
def test_half_precision_gives_finite_maps(
    make: Callable[[], nn.Module], method: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    net, x = randomised(make()), pictures(2, 64)
    full = method(net, x, target=2).flatten()
    half = method(net.to(dtype), x, target=2)
    assert half.dtype == torch.float32
    assert half.isfinite().all()
    if (
        isinstance(net, TinyResNet) or method is lrp
    ):  # the contrasts of the other cancel to what halves do not resolve
        assert float(torch.corrcoef(torch.stack([full, half.flatten()]))[0, 1]) > 0.9


class Strange(nn.Module):
    """With operations that no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fft.fft2(self.conv(x)).real
        return self.fc(torch.special.i0(x).mean((2, 3)).cumprod(1))


def test_operations_without_a_rule_are_listed_all_at_once() -> None:
    net, x = randomised(Strange()), pictures(1)
    with pytest.raises(ModelError, match=r"no relevance rule for .*fft2.*cumprod.*strict=False"):
        lrp(net, x, target=1)


class Unbatched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.conv(image).mean((1, 2)) for image in x])


def test_a_convolution_of_one_image_without_a_batch_is_listed_too() -> None:
    with pytest.raises(ModelError, match=r"no relevance rule for conv2d \(2\) in Unbatched"):
        lrp(Unbatched(), pictures(2), target=1)


def test_strict_false_takes_the_gradient_of_what_is_not_known() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Powered(), nn.Flatten(), nn.LazyLinear(3))
    net(pictures(1))
    net = randomised(net).double()
    x = pictures(1).double()
    with pytest.warns(SeewhyWarning, match="the gradient stands in for it"):
        found = lrp(net, x, 1, strict=False, composite=uniform_epsilon(0), seed="lrp")
    with Trace(net, x, layers=["input"]) as trace:
        expected = (x * trace.signal(1)["input"]).sum(1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


class Powered(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumprod(1 + 0.01 * x, 3)


@pytest.mark.parametrize("make", [TinyResNet, tiny_vit])
@pytest.mark.parametrize("name", ["lrp", "clrp", "layer_relevance", "relevance_cam"])
def test_relevance_under_autocast_is_that_of_float32(
    name: str, make: Callable[[], nn.Module]
) -> None:
    net, x = randomised(make()), pictures(2)
    options = (
        {"composite": "epsilon_plus"} if name in ("lrp", "clrp") else {}
    )  # where little cancels
    expected = seewhy.METHODS[name](net, x, 1, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = seewhy.METHODS[name](net, x, 1, **options)
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 0.1 * float(expected.abs().max())


# ---------------------------------------------------------------- biases by hand


class ScaledByHand(nn.Module):
    """BatchNorm in evaluation mode, written out, after what is no linear map."""

    def __init__(self, norm: nn.BatchNorm2d, *, subtracts: bool) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
        bias = norm.bias.detach() - norm.running_mean * scale
        self.scale, self.bias, self.subtracts = (
            scale.view(1, -1, 1, 1),
            bias.view(1, -1, 1, 1),
            subtracts,
        )

    def forward(self, x: Tensor) -> Tensor:
        return (
            -(-self.bias - x * self.scale)
            if self.subtracts
            else torch.addcmul(self.bias, self.scale, x)
        )


@pytest.mark.parametrize("subtracts", [False, True])
@pytest.mark.parametrize("composite", ["conserving", "epsilon_gamma"])
def test_a_bias_written_by_hand_is_a_bias(composite: str, subtracts: bool) -> None:
    norm, x = nn.BatchNorm2d(3), pictures(2).double()
    rest = (nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    net = nn.Sequential(norm, *rest).double()
    net(x)
    net = randomised(net)
    assert norm.running_var is not None
    norm.weight.data = torch.sqrt(
        norm.running_var + norm.eps
    )  # the share of a bias goes by what it is added to
    found = []
    for one in (net, nn.Sequential(ScaledByHand(norm, subtracts=subtracts), *rest)):
        ledger = Ledger()
        found.append(
            (
                relevance(one, x, composite, ledger=ledger)[0],
                ledger.total("bias"),
                ledger.total("parameter"),
            )
        )
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)
    assert found[0][2] == 0


class ClassTokenAlone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.fc = nn.Parameter(torch.randn(1, 1, 3)), nn.Linear(3, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.token + x.mean((2, 3))[:, None])[:, 0]


@pytest.mark.parametrize("images", [1, 2])
def test_a_token_by_itself_is_not_its_own_bias(images: int) -> None:
    net, x, ledger = ClassTokenAlone().double(), pictures(images).double(), Ledger()
    relevance(net, x, conserving(), ledger=ledger)
    with torch.no_grad():
        kept = images * float(net.fc(net.token)[0, 0, 1])
    assert ledger.total("parameter") == pytest.approx(kept, rel=1e-6)


def test_normalising_global_responses_conserves() -> None:
    """ConvNeXt V2: x + (weight * x * norm / mean norm + bias); the norm is a statistic, the bias keeps nothing."""
    grn = GlobalResponseNorm(4, channels_last=False)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), grn, nn.Flatten(), nn.LazyLinear(3)).double()
    x = pictures(2).double()
    net(x)
    grn.weight.data.normal_()
    grn.bias.data.normal_()
    r, scores, _ = relevance(net, x, conserving())
    torch.testing.assert_close(r.flatten(1).sum(1), scores, rtol=1e-5, atol=1e-6)
