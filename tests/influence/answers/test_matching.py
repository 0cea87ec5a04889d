"""Where pairs match: maps against slow closed forms, their sums against the score, and planted patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_cases import NOT_TRAINED
from seewhy.errors import InputError, LayerError, ModelError
from seewhy.influence import InfluenceIndex, Matches, match_regions
from tiny_models import ModelState, TinyCNN, pictures, randomised

N, K, L2 = 30, 3, 0.05
pytestmark = NOT_TRAINED


@pytest.fixture(scope="module")
def net() -> TinyCNN:
    return randomised(TinyCNN(K)).double()


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    return pictures(N, 16).double(), torch.arange(N) % K


def parts(net: TinyCNN, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Feature maps (B, C, h, w), features with a 1 (B, C + 1), and probabilities."""
    with torch.no_grad():
        maps = net.relu2(net.bn2(net.conv2(net.stem(x))))
        features = torch.cat([maps.mean((2, 3)), torch.ones(len(x), 1, dtype=x.dtype)], 1)
        return maps, features, net.fc(features[:, :-1]).softmax(1)


def slow_inverse(net: TinyCNN, data: tuple[Tensor, Tensor]) -> Tensor:
    """H^-1 of the head with its bias, (K F, K F), example by example."""
    _, features, p = parts(net, data[0])
    total = L2 * torch.eye(K * features.shape[1], dtype=torch.float64)
    for a, q in zip(features, p, strict=True):
        total += torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(a, a)) / N
    return torch.linalg.inv(total)


@pytest.mark.parametrize("target", [None, 2])
def test_maps_divide_the_score(net: TinyCNN, data: Any, target: int | None) -> None:
    index = InfluenceIndex.fit(net, data, solver="last_layer", l2=L2)
    x, ids = pictures(1, 16, seed=1).double(), [0, 4, 17]
    before = ModelState(net)
    found = match_regions(index, x, ids, target=target, label=1 if target is None else None)
    before.assert_unchanged()
    assert found.exact
    score = index.scores(x, target=target) if target is not None else index.scores(x, [1])
    torch.testing.assert_close(found.scores, score[0, ids], rtol=1e-5, atol=1e-9)
    inverse = slow_inverse(net, data)
    test_maps, test, p = parts(net, x)
    train_maps, train, q = parts(net, data[0][ids])
    r_test = (
        p[0] - F.one_hot(torch.tensor(1), K)
        if target is None
        else -F.one_hot(torch.tensor(target), K).double()
    )
    r_train = q - F.one_hot(data[1][ids], K)
    for b in range(len(ids)):
        towards = (inverse @ torch.kron(r_test, test[0])).reshape(K, -1) / N
        back = (inverse @ torch.kron(r_train[b], train[b])).reshape(K, -1) / N
        for maps, slope, mean, shown in (
            (train_maps[b], r_train[b] @ towards, train[b], found.train),
            (test_maps[0], r_test @ back, test[0], found.test),
        ):
            expected = torch.einsum("chw,c->hw", maps, slope[:-1]) / maps[0].numel()
            torch.testing.assert_close(shown.map[b].double(), expected, rtol=1e-4, atol=1e-8)
            # complete: all but what goes through the bias
            assert float(shown.map[b].sum()) + float(slope[-1]) == pytest.approx(
                float(found.scores[b]), rel=1e-4
            )
            assert float(slope @ mean) == pytest.approx(float(found.scores[b]), rel=1e-4)
    assert found.test.layer == found.train.layer == "relu2"
    assert found.test.image_size == (16, 16)
    assert found.test.labels[0] == ("class 2" if target is not None else "the loss of class 1")


def test_without_a_bias_nothing_is_left_over(data: Any) -> None:
    net = randomised(TinyCNN(K)).double()
    net.fc = nn.Linear(12, K, bias=False).double()
    index = InfluenceIndex.fit(net, data, solver="last_layer", l2=L2)
    found = match_regions(index, pictures(1, 16, seed=1).double(), list(range(10)))
    for side in (found.test, found.train):
        torch.testing.assert_close(side.map.sum((1, 2)), found.scores, rtol=1e-4, atol=1e-9)


def test_other_solvers_are_answered_with_the_heads_gradient_product(
    net: TinyCNN, data: Any
) -> None:
    index = InfluenceIndex.fit(net, data, solver="gradient_dot")
    head = InfluenceIndex.fit(net, data, solver="gradient_dot", parameters=["fc.weight", "fc.bias"])
    x, ids = pictures(1, 16, seed=1).double(), [3, 8]
    found = match_regions(index, x, ids, label=0)
    assert not found.exact
    torch.testing.assert_close(found.scores, head.scores(x, [0])[0, ids], rtol=1e-5, atol=1e-9)


def test_the_sign_can_be_taken_out(net: TinyCNN, data: Any) -> None:
    index = InfluenceIndex.fit(net, data, solver="last_layer", l2=L2)
    x = pictures(1, 16, seed=1).double()
    asked = index.query(x, 3)[0]
    found = match_regions(index, x, [e.index for e in (*asked.helpful, *asked.harmful)])
    assert (found.scores[:3] > 0).all()
    assert (found.scores[3:] < 0).all()
    for before, after in zip((found.test, found.train), found.carrying(), strict=True):
        assert torch.equal(after.map[:3], before.map[:3])
        assert torch.equal(after.map[3:], -before.map[3:])


class Patches(nn.Module):
    """Sees bright red and bright green patches; two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[:2].reshape(2, 3, 1, 1))
            self.fc.weight.copy_(torch.tensor([[4.0, -4.0], [-4.0, 4.0]]))
            self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


def test_a_planted_patch_is_where_they_match() -> None:
    generator = torch.Generator().manual_seed(0)
    n = 24
    x, y = torch.zeros(n, 3, 16, 16), torch.arange(n) % 2
    corners = torch.randint(0, 13, (n, 2), generator=generator).tolist()
    for image, label, (top, left) in zip(x, y.tolist(), corners, strict=True):
        image[label, top : top + 4, left : left + 4] = 1
        image[2] = torch.rand(16, 16, generator=generator)  # blue, which the model does not see
    index = InfluenceIndex.fit(Patches(), (x[1:], y[1:]), solver="last_layer", l2=0.01)
    asked = index.query(x[:1], 3, labels=y[:1])[0]
    assert all(e.label == 0 for e in asked.helpful)
    found = match_regions(index, x[:1], [e.index for e in asked.helpful], label=0, layer="conv")
    for b, e in enumerate(asked.helpful):
        for shown, (top, left) in ((found.test, corners[0]), (found.train, corners[1 + e.index])):
            inside = torch.zeros(16, 16, dtype=torch.bool)
            inside[top : top + 4, left : left + 4] = True
            assert (shown.map[b][inside] > 0).all()
            assert not shown.map[b][~inside].any()
            assert shown.status[b] == "ok"


def test_bad_input(net: TinyCNN, data: Any) -> None:
    index = InfluenceIndex.fit(net, data, solver="last_layer", l2=L2)
    x = pictures(2, 16, seed=1).double()

    def tried(**options: Any) -> Matches:
        return match_regions(index, **{"image": x[:1], "ids": [0], **options})

    for options, error, said in (
        ({"image": x}, InputError, "image holds 2 pictures"),
        ({"ids": []}, InputError, "ids is empty"),
        ({"layer": "fc"}, LayerError, "which is no picture"),
        ({"label": 7}, InputError, "labels has"),
        ({"label": 1, "target": 1}, InputError, "both given"),
    ):
        with pytest.raises(error, match=said):
            tried(**options)
    bias = InfluenceIndex.fit(net, data, solver="last_layer", l2=L2, parameters=["fc.bias"])
    with pytest.raises(InputError, match="the head's bias alone"):
        match_regions(bias, x[:1], [0])
    nonlinear = nn.Sequential(net, nn.Tanh())
    dot = InfluenceIndex.fit(nonlinear, data, solver="gradient_dot", parameters=["0.fc.weight"])
    with pytest.raises(ModelError, match="the model's head is not linear"):
        match_regions(dot, x[:1], [0])
