"""Rivals elsewhere against the closed form on a network that pools its last layer into one linear layer."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.targets.classes import Logit
from seewhy.methods.rivals import LEFT, MOST, rivals_elsewhere
from tiny_models import pictures, randomised

CLASSES = 8


class Pooled(nn.Module):
    """Rectified maps, pooled into one linear layer without biases."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(channels, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.stem(x)).mean((2, 3)))


def net() -> Pooled:
    return randomised(Pooled())


def in_closed_form(model: Pooled, x: Tensor, target: int) -> tuple[Tensor, Tensor, Tensor]:
    """The rivals (N, k), their weights, and the map of the start (N, h, w), in double precision, one by one."""
    model = model.double()
    with torch.no_grad():
        a = model.relu(model.stem(x.double()))
        z = model(x.double())
    maps = torch.einsum("kc,nchw->nkhw", model.fc.weight.detach(), a) / a[0, 0].numel()
    classes, weights, fields = [], [], []
    for image in range(len(x)):
        order = [k for k in z[image].argsort(descending=True).tolist() if k != target][:MOST]
        own = maps[image, target].clamp(min=0)
        elsewhere = []
        for k in order:
            one, other = own**2, maps[image, k].clamp(min=0) ** 2
            lengths = float(one.norm() * other.norm())
            elsewhere.append(1 - float((one * other).sum()) / lengths if lengths else 1.0)
        shares = [e * math.exp(float(z[image, k])) for e, k in zip(elsewhere, order, strict=True)]
        weight = torch.tensor([s / sum(shares) * e for s, e in zip(shares, elsewhere, strict=True)])
        taken = torch.einsum("k,khw->hw", weight.double(), maps[image, order])
        enough = LEFT * float(own.sum())
        parts = [g / 20000 for g in range(20001)]
        part = max(
            g
            for g in parts
            if float((maps[image, target] - g * taken).clamp(min=0).sum()) >= enough
        )
        fields.append(maps[image, target] - part * taken)
        classes.append(order)
        weights.append(part * weight.float())
    return torch.tensor(classes), torch.stack(weights), torch.stack(fields)


@pytest.mark.parametrize("target", [0, 3])
def test_it_is_the_closed_form(target: int) -> None:
    x = pictures(3, 12)
    classes, weights, field = in_closed_form(net(), x, target)
    how = {"composite": "uniform_epsilon", "seed": "elsewhere"}
    ex = seewhy.explain(
        seewhy.wrap(net(), gives="logits"),
        x,
        methods="layer_relevance",
        targets=target,
        layers="relu",
        options={"layer_relevance": how},
    )
    torch.testing.assert_close(
        ex[0].map.double(), field, rtol=1e-3, atol=1e-3 * float(field.abs().max())
    )
    for image in range(3):
        told = ex[0].facts[image]["rivals"]
        assert [one["class"] for one in told] == classes[image].tolist()
        torch.testing.assert_close(
            torch.tensor([one["weight"] for one in told]),
            weights[image],
            rtol=1e-3,
            atol=1e-4,
        )


def one_place(place: int) -> Tensor:
    """A map (1, 2, 2) that is 1 in one place."""
    return torch.eye(4)[place].reshape(1, 2, 2)


def stage(maps: dict[int, Tensor], scale: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Gives the maps of classes (1, k) of one image, (1, k, h, w)."""
    return lambda classes: torch.stack([maps[int(c)] * scale for c in classes[0]], 1)


def test_a_rival_in_the_same_places_counts_for_nothing_and_one_elsewhere_for_all() -> None:
    maps = {0: one_place(0), 1: one_place(0) * 3, 2: one_place(3)}
    z, slopes = torch.tensor([[5.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    found = rivals_elsewhere(z, slopes, stage(maps), multi_label=False)
    weights = dict(zip(found.classes[0].tolist(), found.weights[0].tolist(), strict=True))
    assert weights == pytest.approx({1: 0.0, 2: 1.0}, abs=1e-6)
    torch.testing.assert_close(found.cleared(Logit(0))(z), torch.tensor([5.0 - 2.0]))


def test_a_quarter_of_the_class_is_left() -> None:
    """A rival that is louder in all of the class's places would leave nothing: 1 - 2 w = 0.3 = (1 + 0.2) / 4."""
    maps = {0: torch.tensor([[[1.0, 0.2]]]), 1: torch.tensor([[[2.0, 20.0]]])}
    z, slopes = torch.tensor([[0.1, 9.0]]), torch.tensor([[1.0, 0.0]])
    found = rivals_elsewhere(z, slopes, stage(maps), multi_label=False)
    assert float(found.weights[0, 0]) == pytest.approx(0.35, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_the_scale_of_the_maps_tells_nothing(scale: float) -> None:
    maps = {0: one_place(0) + one_place(1), 1: one_place(1) * 2, 2: one_place(3)}
    z, slopes = torch.tensor([[5.0, 4.0, 3.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    found = rivals_elsewhere(z, slopes, stage(maps, scale), multi_label=False)
    assert found.overlap[0].tolist() == pytest.approx([math.sqrt(0.5), 0.0])


def test_a_class_without_evidence_has_nothing_taken_away() -> None:
    maps = {0: -one_place(0), 1: one_place(1)}
    z, slopes = torch.tensor([[5.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    found = rivals_elsewhere(z, slopes, stage(maps), multi_label=False)
    assert found.weights.tolist() == [[0.0]]


def test_of_several_labels_those_are_rivals_that_are_found() -> None:
    """Of classes beside, those with a probability above a half, all alike; of none found none is taken away."""
    maps = {k: one_place(k) for k in range(4)}
    z, slopes = torch.tensor([[5.0, 4.0, 0.1, -1.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    found = rivals_elsewhere(z, slopes, stage(maps), multi_label=True)
    assert found.classes.tolist() == [[1, 2, 3]]
    assert found.weights[0].tolist() == pytest.approx([0.5, 0.5, 0.0])
    alone = rivals_elsewhere(z - 4.5, slopes, stage(maps), multi_label=True)
    assert alone.weights[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("gives", ["score", "embedding", "sigmoids", "probabilities"])
def test_what_gives_no_logits_has_no_rivals(gives: str) -> None:
    x = pictures(1, 12)
    model = seewhy.wrap(net(), gives=gives)
    target = seewhy.targets.EmbeddingSimilarity(torch.ones(CLASSES)) if gives == "embedding" else 1
    if gives in ("sigmoids", "probabilities"):
        model = seewhy.wrap(nn.Sequential(net(), nn.Sigmoid()), gives="sigmoids")
    ex = seewhy.explain(model, x, methods="layer_relevance", targets=target, layers=None)
    assert "rivals" not in ex[0].facts[0]


def test_targets_that_are_no_one_class_start_at_their_own_score() -> None:
    x = pictures(1, 12)
    model = seewhy.wrap(net(), gives="logits")
    margin = seewhy.targets.Margin(1, 2)
    maps = [
        seewhy.methods.layer_relevance(model, x, margin, layer="relu", seed=seed)
        for seed in ("elsewhere", "lrp")
    ]
    torch.testing.assert_close(maps[0], maps[1])


def test_each_image_has_rivals_of_its_own() -> None:
    x = pictures(4, 12)
    model = seewhy.wrap(net(), gives="logits")
    together = seewhy.methods.layer_relevance(model, x, [0, 1, 2, 3], layer="relu")
    for image in range(4):
        alone = seewhy.methods.layer_relevance(model, x[image : image + 1], image, layer="relu")
        torch.testing.assert_close(together[image : image + 1], alone, rtol=1e-4, atol=1e-7)


class RuledOut(Pooled):
    """Three classes that are possible; the scores of the others are -inf."""

    def forward(self, x: Tensor) -> Tensor:
        possible = torch.arange(CLASSES) < 3
        return super().forward(x).masked_fill(~possible, -torch.inf)


@pytest.mark.parametrize("method", ["lrp", "layer_relevance", "finer_cam"])
def test_classes_that_are_ruled_out_are_no_rivals(method: str) -> None:
    """The maps are those of a head that has the possible classes alone."""
    masked, few = randomised(RuledOut()), randomised(Pooled())
    few.load_state_dict(masked.state_dict())
    weight = masked.fc.weight.detach()[:3].clone()
    few.fc = nn.Linear(weight.shape[1], 3, bias=False)
    few.fc.weight = nn.Parameter(weight)
    x = pictures(2, 12)
    found, expected = (
        seewhy.explain(seewhy.wrap(net, gives="logits"), x, methods=method, targets=1)[0]
        for net in (masked, few)
    )
    torch.testing.assert_close(found.map, expected.map, rtol=1e-4, atol=1e-6)
    assert found.status == expected.status
    for key in {"rivals", "rather_than"} & set(expected.facts[0]):
        assert len(found.facts[0][key]) == len(expected.facts[0][key]) == 2
    named = [str(each["label"]) for each in found.facts[0].get("rivals", [])]
    assert named == [str(each["label"]) for each in expected.facts[0].get("rivals", [])]
