"""Images of a batch that depend on each other are noticed, and each is explained as it is alone; said once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.batches import answers, images_depend, joined
from seewhy.engine.call import Call
from seewhy.engine.masking.baselines import Several, Zeros
from seewhy.engine.masking.masks import PatchMasks
from seewhy.engine.masking.running import Running
from seewhy.engine.masking.scoring import masked_scores, settle
from seewhy.engine.places.places import find_places
from seewhy.engine.targets import EmbeddingSimilarity, Logit
from seewhy.errors import SeewhyWarning
from seewhy.methods.catalog import find_method
from tiny_models import TinyCNN, TinyResNet, pictures, randomised, tiny_vit

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:the images of a batch depend on each other"
    ),  # outside of `told`
    pytest.mark.filterwarnings("ignore:LIME of .*not locally linear"),
]

N, SIZE = 3, 16
WAYS: dict[str, dict[str, Any]] = {
    "grad_cam": {"layer": "relu2"},
    "saliency": {},
    "guided_grad_cam": {"layer": "relu2"},
    "integrated_gradients": {"steps": 2},
    "smooth_grad": {"samples": 2},
    "occlusion": {"window": 8, "stride": 8},
    "rise": {"samples": 8, "cells": 2},
    "score_cam": {"layer": "relu2"},
    "ablation_cam": {"layer": "relu2"},
}


class OverTheBatch(TinyCNN):
    """A network that takes something over the batch, after its stem."""

    def __init__(self, take: Callable[[Tensor], Tensor]) -> None:
        super().__init__(inplace=False)
        self.take = take

    def stem(self, x: Tensor) -> Tensor:
        return self.take(super().stem(x))


def by_rank(a: Tensor) -> Tensor:
    """Images times their place in the order of their means."""
    rank = a.detach().mean((1, 2, 3)).argsort().argsort()
    return a * (1 + rank).view(-1, 1, 1, 1)


def batch_norm() -> nn.Module:
    net = randomised(TinyCNN(inplace=False))
    net.bn2 = nn.BatchNorm2d(12, track_running_stats=False).eval()
    return net


def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao says that it is to go
        return torch.ao.quantization.quantize_dynamic(
            randomised(TinyCNN()), {nn.Linear}, dtype=torch.qint8
        )


DEPENDENT: dict[str, Callable[[], nn.Module]] = {
    "batch norm": batch_norm,
    "scale": lambda: randomised(OverTheBatch(lambda a: a / a.detach().abs().amax())),
    "mean": lambda: randomised(OverTheBatch(lambda a: a - a.detach().mean(0) / 2)),
    "order": lambda: randomised(
        OverTheBatch(
            lambda a: a * (1 + a.detach().mean((1, 2, 3)).argsort().argsort())[:, None, None, None]
        )
    ),
    "quantized": quantized,
}
INDEPENDENT: dict[str, Callable[[], nn.Module]] = {
    "cnn": TinyCNN,
    "resnet": TinyResNet,
    "vit": lambda: tiny_vit(img_size=SIZE),
    "of one image": lambda: OverTheBatch(lambda a: a / a.abs().amax((1, 2, 3), keepdim=True)),
}


def spread_out(n: int = N) -> Tensor:
    """Pictures of other ranges."""
    return pictures(n, SIZE) * torch.linspace(0.2, 3, n).view(n, 1, 1, 1)


@contextmanager
def told(times: int) -> Iterator[None]:
    """What happens within it warns so often that images depend on each other."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said = [
        w
        for w in caught
        if issubclass(w.category, SeewhyWarning) and "depend on each other" in str(w.message)
    ]
    assert len(said) == times


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(
        found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()) + 1e-9
    )


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("kind", DEPENDENT)
def test_each_is_explained_as_it_is_alone(kind: str, name: str) -> None:
    if kind == "quantized" and find_method(name).family not in ("perturbation", "surrogate"):
        pytest.skip("no gradient passes it")
    net, x, method = DEPENDENT[kind](), spread_out(), find_method(name)
    with told(1):
        together = method(net, x, [1, 0, 4], **WAYS[name])
    alone = torch.cat([method(net, x[i : i + 1], k, **WAYS[name]) for i, k in enumerate([1, 0, 4])])
    close(together, alone)
    assert together.count_nonzero()
    with told(1):
        close(method(net, x, [1, 0, 4], **WAYS[name]), alone)  # remembered


@pytest.mark.parametrize("kind", DEPENDENT)
def test_masked_pictures_of_one_image_are_run_alone(kind: str) -> None:
    net, x = DEPENDENT[kind](), spread_out(1)
    boxes = torch.tensor([[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 16, 16]])
    masks = PatchMasks(boxes, (SIZE, SIZE))
    with told(1):
        chunks = list(
            masked_scores(net, x, [masks], [Logit(1), lambda out: out[:, 2]], baseline=Zeros())
        )
    found = torch.cat([chunk.scores for chunk in chunks])
    with torch.no_grad():
        shown = masks.render(0, 3, torch.device("cpu"))[:, None] * x
        expected = torch.cat([net(one) for one in shown.split(1)])[:, [1, 2]]
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-5)


def test_with_further_inputs_and_several_baselines() -> None:
    class Shifted(OverTheBatch):
        def forward(self, x: Tensor, *, shift: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x) + shift[:, None]

    net, x = randomised(Shifted(lambda a: a - a.mean(0) / 2)), spread_out(2)
    call = Call(net, inputs={"shift": torch.tensor([10.0, 20.0])})
    masks = [PatchMasks(torch.tensor([[0, 0, 8, 8], [8, 8, 16, 16]]), (SIZE, SIZE))] * 2
    with told(1):
        chunks = list(
            masked_scores(call, x, masks, [Logit((1, 2))], baseline=Several([Zeros(), Zeros()]))
        )
    for chunk in chunks:
        shown = chunk.masks[:, None] * x[chunk.image]
        single = [
            call.rows([chunk.image]).answer(one)[:, 1 + chunk.image] for one in shown.split(1)
        ]
        torch.testing.assert_close(
            chunk.scores[:, 0], torch.cat(single).double(), rtol=1e-4, atol=1e-4
        )


def test_explanations_and_evaluations_are_those_of_single_images() -> None:
    net, x = DEPENDENT["batch norm"](), spread_out()
    reference = torch.randn(N, 5, generator=torch.Generator().manual_seed(0))
    how: dict[str, Any] = {"methods": ["grad_cam", "saliency"], "targets": ["top2", [1, 0, 4]]}
    with told(1):
        found = seewhy.explain(net, x, layers="relu2", **how)
        similar = seewhy.explain(
            net, x[:1], targets=EmbeddingSimilarity(reference[:1]), layers="relu2"
        )
    single = [
        seewhy.explain(net, x[i : i + 1], layers="relu2", **{**how, "targets": ["top2", k]})
        for i, k in enumerate([1, 0, 4])
    ]
    assert found.predictions == tuple(one.predictions[0] for one in single)
    for a, parts in zip(found, zip(*single, strict=True), strict=True):
        close(a.map, torch.cat([part.map for part in parts]))
        assert a.labels == tuple(part.labels[0] for part in parts)
        assert a.scores == pytest.approx([part.scores[0] for part in parts], rel=1e-4)
    assert similar[0].map.count_nonzero()
    metric = seewhy.metrics.Deletion(step=128)
    rows: dict[str, Any] = {"methods": "saliency", "metrics": {"deletion": metric}, "chance": ()}
    scored = seewhy.evaluate(net, x[1:], **rows).rows[0].result.values
    alone = [seewhy.evaluate(net, x[i : i + 1], **rows).rows[0].result.values[0] for i in (1, 2)]
    assert scored.tolist() == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", INDEPENDENT)
def test_rounding_is_no_dependence(kind: str, dtype: torch.dtype) -> None:
    net, x = randomised(INDEPENDENT[kind]()).to(dtype), spread_out(5)
    with told(0):
        find_method("saliency")(net, x, 1)
        find_method("occlusion")(net, x, 1, window=8, stride=8)


@pytest.mark.parametrize("mode", ["dropout", "noise"])
def test_a_model_of_chance_is_no_dependence(mode: str) -> None:
    chance: dict[str, Callable[[Tensor], Tensor]] = {
        "dropout": nn.functional.dropout,
        "noise": lambda a: a + torch.randn_like(a),
    }
    net = randomised(OverTheBatch(chance[mode]))
    with told(0):
        find_method("saliency")(net, spread_out(), 1)
        find_method("occlusion")(net, spread_out(), 1, window=8, stride=8)


def test_what_it_costs() -> None:
    seen: list[int] = []
    net = randomised(TinyCNN())
    net.conv1.register_forward_hook(lambda part, args, value: seen.append(len(value)))
    saliency, grad_cam = find_method("saliency"), find_method("grad_cam")
    saliency(net, spread_out(1), 1)
    assert seen == [1]
    seen.clear()
    saliency(net, spread_out(4), 1)
    saliency(net, spread_out(3), 1)
    assert seen == [4] * 4 + [3] * 4  # for each size of batch three more, once
    saliency(net, spread_out(4), 1)
    saliency(net, spread_out(3), 1)
    assert seen[8:] == [4, 3]
    find_places(net, spread_out(3))
    seen.clear()
    grad_cam(net, spread_out(3), 1, layer="relu2")
    assert seen == [3]
    saliency(net, pictures(2, 24), 1)
    assert seen[1:] == [2] * 3


def test_the_callers_random_state_is_not_moved() -> None:
    class Noisy(TinyCNN):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0 * torch.rand(1)

    net, x = randomised(Noisy()), spread_out()
    torch.manual_seed(0)
    find_method("saliency")(net, x, 1)
    first = torch.rand(1)
    torch.manual_seed(0)
    find_method("saliency")(net, x, 1)
    assert torch.equal(torch.rand(1), first)


@pytest.mark.parametrize("kind", DEPENDENT)
def test_equal_images_first_hide_nothing(kind: str) -> None:
    net, x = DEPENDENT[kind](), spread_out()
    for batch in (x[:1].expand(N, -1, -1, -1), x[:1] + 1e-4 * x, x):
        assert images_depend(Call(net), batch, Call(net).answer(batch))


def test_each_size_of_batch_is_tried() -> None:
    net = randomised(OverTheBatch(lambda a: a - a.mean(0) if len(a) > 2 else a))
    for n, expected in ((2, False), (3, True), (2, False), (5, True)):
        x = spread_out(n)
        assert images_depend(Call(net), x, Call(net).answer(x)) is expected
    x = spread_out(5)
    masks = [PatchMasks(torch.tensor([[0, 0, 8, 8]]), (SIZE, SIZE))] * 5
    running = Running(batch_size=2, memory_format="contiguous")
    with told(0):
        list(masked_scores(net, x, masks, [Logit(1)], baseline=Zeros(), running=running))
    running = Running(batch_size=3, memory_format="contiguous")
    with told(1):
        chunks = list(masked_scores(net, x, masks, [Logit(1)], baseline=Zeros(), running=running))
    expected = [net(chunk.masks[:, None] * x[chunk.image])[:, 1].double() for chunk in chunks]
    torch.testing.assert_close(
        torch.cat([c.scores[:, 0] for c in chunks]), torch.cat(expected), rtol=1e-4, atol=1e-5
    )


def test_a_last_batch_of_another_size_is_tried_too() -> None:
    net = randomised(OverTheBatch(lambda a: a - a.mean(0) if len(a) == 2 else a))
    masks = [
        PatchMasks(torch.tensor([[0, 0, 8, 8], [8, 8, 16, 16], [0, 8, 8, 16]] * 2), (SIZE, SIZE))
    ]
    running = Running(batch_size=4, memory_format="contiguous")
    with told(1):
        list(
            masked_scores(net, spread_out(1), masks, [Logit(1)], baseline=Zeros(), running=running)
        )


def test_weights_that_change_are_tried_anew() -> None:
    class Mixing(OverTheBatch):
        def __init__(self) -> None:
            super().__init__(lambda a: a - self.share * a.mean(0))
            self.share = nn.Parameter(torch.zeros(()))

    net, x = Mixing().eval(), spread_out()
    for share, expected in ((0.0, False), (0.5, True), (0.0, False)):
        with torch.no_grad():
            net.share.fill_(share)
        with told(int(expected)):
            find_method("saliency")(net, x, 1)


def test_measuring_tries_one_size_alone() -> None:
    seen: list[int] = []
    net = randomised(TinyCNN())
    net.conv1.register_forward_hook(lambda part, args, value: seen.append(len(value)))
    masks = [PatchMasks(torch.tensor([[0, 0, 8, 8]] * 600), (SIZE, SIZE))]
    running = Running(batch_size=50, memory_format="contiguous")
    settle(net, spread_out(1), masks, [Logit(1)], baseline=Zeros(), running=running)
    measured = len(seen)
    list(masked_scores(net, spread_out(1), masks, [Logit(1)], baseline=Zeros(), running=running))
    assert seen[measured:] == [50] * (12 + 3)


def test_answers_are_joined_in_any_packing() -> None:
    net, x = DEPENDENT["mean"](), spread_out()
    single = torch.cat([Call(net).answer(one) for one in x.split(1)])
    packings: list[tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = [
        (lambda out: out, lambda out: out),
        (lambda out: {"a": out, "b": (out, 3)}, lambda out: out["b"][0]),
        (
            lambda out: [{"a": row} for row in out],
            lambda out: torch.stack([record["a"] for record in out]),
        ),
    ]
    for pack, unpack in packings:
        with told(1):
            close(unpack(answers(Call(net, output=pack), x)), single)
    assert joined([torch.tensor(1.0), torch.tensor(2.0)]).tolist() == [1.0, 2.0]  # type: ignore[attr-defined]


def test_a_model_of_a_fixed_batch_size_is_run_as_it_is() -> None:
    class Fixed(TinyCNN):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x.view(N, 3, SIZE, SIZE))

    net, x = randomised(Fixed()), spread_out()
    with told(0):
        close(
            find_method("saliency")(net, x, 1), find_method("saliency")(randomised(TinyCNN()), x, 1)
        )
