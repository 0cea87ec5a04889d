"""Problems, gradients of each example, projections and draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_oracles import losses, slow_gradients
from seewhy.engine.draws import normals, uniforms
from seewhy.engine.targets.classes import Logit, Probability
from seewhy.errors import ArgumentTypeError, InputError, SeewhyWarning
from seewhy.influence.gradients.per_example import example_gradients, total_gradient
from seewhy.influence.gradients.projection import Projection
from seewhy.influence.gradients.taps import affine_layers
from seewhy.influence.problem import Problem
from seewhy.influence.solvers.catalog import SOLVERS, find_solver
from tiny_models import ModelState, TinyCNN, TinyResNet, pictures, randomised


class Odd(nn.Module):
    """What has no matrix of its own: a grouped convolution, circular padding, tied weights, a layer of other rows."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 6, 3, groups=3, stride=2)
        self.circular = nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular")
        self.same = nn.Conv2d(4, 4, 3, padding="same")
        self.tokens = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.tokens.weight
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(4))
        self.twice = nn.Linear(4, 4)
        self.turned = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.same(self.circular(self.grouped(x).tanh()))
        x = (
            self.norm(self.tied(self.tokens(x.flatten(2).transpose(1, 2)))) * self.scale
        )  # (B, L, 4)
        x = self.turned(x.transpose(0, 1)).transpose(0, 1)  # rows that are no images
        return self.head(self.twice(self.twice(x).tanh()).mean(1))


class Contrary(nn.Module):
    """Control flow that depends on the data: vmap cannot run it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, 2.0]))
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3))
        return self.fc(mean * (self.scale[0] if float(mean.sum()) > 0 else self.scale[1]))


class Attention(nn.Module):
    """Its output projection is a Linear that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(3, 1, batch_first=True)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        return self.fc(self.attend(rows, rows, rows, need_weights=False)[0].mean(1))


NETS = {"cnn": TinyCNN, "resnet": TinyResNet, "odd": Odd, "attention": Attention}


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_each_example(name: str) -> None:
    net = randomised(NETS[name]()).double()
    x, labels = pictures(3, 9).double(), torch.tensor([1, 0, 3])
    before = ModelState(net)
    problem = Problem(modules=(net,), count=3)
    found = example_gradients(problem, x, labels)
    before.assert_unchanged()
    expected = slow_gradients(net, losses(labels), x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(total_gradient(problem, x, labels), expected.sum(0))
    target = slow_gradients(net, lambda output, i: -output.softmax(1)[0, (2, 0, 1)[i]], x)
    torch.testing.assert_close(example_gradients(problem, x, Probability((2, 0, 1))), target)
    assert {p for layer in affine_layers(net, problem.names) for p in layer.parameters} <= set(
        problem.names
    )


def test_gradients_where_vmap_cannot_go() -> None:
    net, x, labels = randomised(Contrary()).double(), pictures(2, 6).double(), torch.tensor([1, 0])
    found = torch.cat(
        [
            example_gradients(Problem(modules=(net,), count=2), x[i : i + 1], labels[i : i + 1])
            for i in (0, 1)
        ]
    )
    torch.testing.assert_close(found, slow_gradients(net, losses(labels), x))


def test_named_parameters_frozen_weights_and_the_callers_modes() -> None:
    net, x, labels = randomised(TinyCNN()), pictures(2, 8), torch.tensor([1, 4])
    named = Problem(modules=(net,), count=2, parameters=("fc.bias", "conv1.weight", "bn2.weight"))
    assert named.names == ("conv1.weight", "bn2.weight", "fc.bias")
    expected = slow_gradients(net, losses(labels), x, named.names)
    for p in net.parameters():
        p.requires_grad_(False)
    net.conv2.weight.requires_grad_(True)
    before = ModelState(net)
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            found = example_gradients(named, x, labels)
        torch.testing.assert_close(found.clone(), expected, rtol=1e-4, atol=1e-6)
    before.assert_unchanged()
    assert Problem(modules=(net,), count=2).names == ("conv2.weight",)
    double = example_gradients(named, x.double(), labels)  # images follow the model's precision
    assert double.dtype == torch.float32


def test_training_mode_is_told_and_put_back() -> None:
    net = randomised(TinyCNN(dropout=0.5), train=True)
    before = ModelState(net)
    with pytest.warns(SeewhyWarning, match="training mode with BatchNorm2d, Dropout"):
        problem = Problem(modules=(net,), count=2)
    x, labels = pictures(2, 8), torch.tensor([1, 4])
    found = example_gradients(problem, x, labels)
    before.assert_unchanged()
    torch.testing.assert_close(found, slow_gradients(net, losses(labels), x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modules": ()}, "no model"),
        ({"count": 0}, "count=0"),
        ({"l2": -1.0}, "l2=-1.0"),
        ({"parameters": ("fc.weigth",)}, "did you mean 'fc.weight'"),
        ({"modules": (TinyCNN(), TinyCNN(4))}, "checkpoints of one architecture"),
        ({"learning_rates": (0.1, 0.1)}, "each of the 1 modules"),
        ({"modules": (nn.Flatten(),)}, "no parameters"),
    ],
)
def test_problems_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Problem(**{"modules": (randomised(TinyCNN()),), "count": 1, **options})


def test_labels_and_scores_that_cannot_be() -> None:
    problem, x = Problem(modules=(randomised(TinyCNN()),), count=2), pictures(2, 8)
    for score, said in (
        (torch.tensor([0, 5]), "label 5 of image 1 is none of the model's classes, 0 to 4"),
        (torch.tensor([0, -1]), "label -1 of image 1"),
        (torch.tensor([0.0, 1.0]), "integers"),
        (torch.tensor([0]), "2 images"),
        (lambda outputs: outputs, "one number for each"),
        (lambda outputs: outputs[:, 0] / 0, "NaN or infinite"),
    ):
        with pytest.raises(InputError, match=said):
            example_gradients(problem, x, score)
    with pytest.raises(ArgumentTypeError, match="score is a int"):
        example_gradients(problem, x, 3)  # type: ignore[arg-type]
    assert example_gradients(problem, x, Logit(0)).shape == (2, problem.flat().numel())


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_projections_keep_inner_products(distribution: Any) -> None:
    rows = torch.randn(4, 9000, dtype=torch.float64)
    projection = Projection(256, seed=3, distribution=distribution)
    found = projection(rows)
    assert torch.equal(found, Projection(256, seed=3, distribution=distribution)(rows))
    torch.testing.assert_close(projection(rows[2:3])[0], found[2])
    for other in (
        Projection(256, seed=4, distribution=distribution),
        Projection(256, seed=3, stream=1),
    ):
        assert (other(rows) - found).abs().max() > 0.1
    exact = rows @ rows.T
    squares = exact.diagonal()
    deviation = ((squares[:, None] * squares[None] + exact.square()) / 256).sqrt()
    many = torch.stack(
        [Projection(256, seed=s, distribution=distribution)(rows) for s in range(20)]
    )
    error = many @ many.transpose(1, 2) - exact
    assert (error.mean(0).abs() < 4 * deviation / 20**0.5).all()
    assert 0.5 < float((error.square().mean(0).sqrt() / deviation).mean()) < 1.2
    with pytest.raises(InputError, match="dim=0"):
        Projection(0)
    with pytest.raises(InputError, match="'rademacher' or 'normal'"):
        Projection(4, distribution="uniform")  # type: ignore[arg-type]


def test_draws_depend_on_content_alone() -> None:
    x = torch.rand(500, 1, 4, 4)
    u = uniforms(x, 0)
    assert torch.equal(uniforms(x.flip(0), 0).flip(0), u)
    assert torch.equal(uniforms(x[7:8].double().float(), 0), u[7:8])
    assert (uniforms(x, 1) - u).abs().mean() > 0.2
    ordered = u.sort().values
    assert (
        ordered - (torch.arange(500) + 0.5) / 500
    ).abs().max() < 1.63 / 500**0.5  # Kolmogorov and Smirnov, 1 %
    z = normals(x, 0, 8)
    assert torch.equal(normals(x.flip(0), 0, 8).flip(0), z)
    assert abs(float(z.mean())) < 4 / 4000**0.5
    assert abs(float(z.var()) - 1) < 4 * (2 / 4000) ** 0.5


def test_solvers_by_name() -> None:
    for name, kind in SOLVERS.items():
        solver = find_solver(name)
        assert isinstance(solver, kind)
        assert solver.name == name
        assert find_solver(name, **solver.settings).settings == solver.settings
        assert find_solver(solver) is solver
    with pytest.raises(InputError, match="did you mean 'ekfac'"):
        find_solver("ekfacc")
    with pytest.raises(InputError, match="has no setting"):
        find_solver("loss", damping=1)
    with pytest.raises(ArgumentTypeError, match="its own settings"):
        find_solver(find_solver("loss"), damping=1)


def test_baselines() -> None:
    net = randomised(TinyCNN())
    x, labels = pictures(6, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    problem = Problem(modules=(net,), count=6)
    solver = find_solver("embedding")
    found = solver.dot(
        solver.test_rows(problem, x[:2], Logit(0)), solver.train_rows(problem, x, labels)
    )
    features = net.relu2(net.bn2(net.conv2(net.stem(x)))).mean((2, 3)).detach()
    torch.testing.assert_close(
        found, F.cosine_similarity(features[:2, None], features[None], dim=2)
    )
    loss = find_solver("loss")
    expected = F.cross_entropy(net(x), labels, reduction="none").detach()
    torch.testing.assert_close(loss.self_influence(problem, x, labels), expected)
    rows = loss.dot(loss.test_rows(problem, x[:2], labels[:2]), loss.train_rows(problem, x, labels))
    torch.testing.assert_close(rows, expected.expand(2, -1))
    chance = [find_solver("random", seed=s) for s in (0, 0, 1)]
    scores = [
        s.dot(s.test_rows(problem, x, labels), s.train_rows(problem, x, labels)) for s in chance
    ]
    assert torch.equal(scores[0], scores[1])
    assert (scores[0] - scores[2]).abs().max() > 0.1
    assert (
        chance[0].self_influence(problem, x, labels) - chance[2].self_influence(problem, x, labels)
    ).abs().max() > 0.01
