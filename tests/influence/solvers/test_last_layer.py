"""The exact last layer against retraining; its three solves against each other; representer points."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_oracles import (
    Newton,
    batches,
    correlation,
    digits,
    problem,
    relative_error,
    slow_influence,
    softmax_regression,
    train,
)
from seewhy.engine.targets.classes import Logit, Margin
from seewhy.errors import InputError, ModelError, SeewhyWarning
from seewhy.influence.answers.trust import leave_one_out
from seewhy.influence.problem import Problem
from seewhy.influence.solvers.catalog import find_solver
from seewhy.influence.solvers.solver import Solver
from tiny_models import ModelState, TinyCNN, randomised

L2 = 0.01


def fitted(n: int = 200, size: int = 4, l2: float = L2) -> tuple[nn.Module, Tensor, Tensor]:
    images, labels = (part[:n] for part in digits(size))
    torch.manual_seed(0)
    return train(softmax_regression(size * size), images, labels, l2), images, labels


def matrix(
    solver: Solver, problem: Problem, data: tuple[Tensor, Tensor], tests: tuple[Tensor, Any]
) -> Tensor:
    return solver.dot(solver.test_rows(problem, *tests), solver.train_rows(problem, *data))


def test_leave_one_out_retraining_on_digits() -> None:
    images, labels = digits()
    n, removed = 1400, list(range(0, 1400, 14))
    features = torch.cat([images[:n].flatten(1), torch.ones(n, 1, dtype=torch.float64)], 1)
    newton = Newton(features, labels[:n], 10, L2)
    net: Any = softmax_regression()
    net[1].weight.data, net[1].bias.data = newton.full[:, :-1], newton.full[:, -1]
    tests = images[n:], labels[n:]

    def retrain(kept: Tensor) -> Tensor:
        outputs = (
            F.pad(tests[0].flatten(1), (0, 1), value=1.0) @ newton.minimum(kept.double() / n).T
        )
        return F.cross_entropy(outputs, tests[1], reduction="none")

    truth = leave_one_out(retrain, n, removed)
    solver = find_solver("last_layer")
    it = problem(net, n, L2)
    solver.fit(it, batches(images[:n], labels[:n]))
    found = matrix(solver, it, (images[removed], labels[removed]), tests)
    assert correlation(found, truth) > 0.999
    assert (
        relative_error(found, truth) < 0.05
    )  # by value too: sign and scale are those of leaving out
    for row in range(0, 397, 40):
        assert correlation(found[row], truth[row]) > 0.99


def test_it_is_the_exact_hessian_of_softmax_regression() -> None:
    net, images, labels = fitted()
    it, tests = problem(net, 200, L2), tuple(part[300:310] for part in digits(4))
    expected = slow_influence(net, (images, labels), tests, L2)  # type: ignore[arg-type]
    before = ModelState(net)
    forms = {
        "auto": 1e-8,
        "cholesky": 1e-8,
        "woodbury": 1e-8,
        "conjugate_gradient": 1e-5,
        "kronecker": None,
    }
    for solve, error in forms.items():
        for size in (200, 64):
            solver = find_solver("last_layer", solve=solve)
            solver.fit(it, batches(images, labels, size))
            again = find_solver("last_layer", **solver.settings)
            again.load(it, solver.state())
            found = matrix(again, it, (images, labels), tests)
            if error:
                torch.testing.assert_close(
                    found, expected, rtol=error, atol=error * float(expected.abs().max())
                )
            else:
                assert correlation(found, expected) > 0.94
            own = again.self_influence(it, images[:7], labels[:7])
            same = matrix(again, it, (images[:7], labels[:7]), (images[:7], labels[:7])).diagonal()
            torch.testing.assert_close(own, same)
            assert (own > 0).all()
    before.assert_unchanged()


def test_targets_are_drops() -> None:
    net, images, labels = fitted()
    it, test = problem(net, 200, L2), digits(4)[0][300:303]
    solver = find_solver("last_layer")
    solver.fit(it, batches(images, labels))
    a, b, both = (
        matrix(solver, it, (images, labels), (test, t)) for t in (Logit(3), Logit(5), Margin(3, 5))
    )
    torch.testing.assert_close(both, a - b)
    threes = labels == 3
    assert (a[:, threes].mean(1) > 0).all()  # without threes the score of a three drops


def test_a_head_on_features() -> None:
    net = randomised(TinyCNN(4))
    x, labels = torch.rand(40, 3, 12, 12), torch.arange(40) % 4
    features = net.relu2(net.bn2(net.conv2(net.stem(x)))).mean((2, 3)).detach().double()
    padded = F.pad(features, (0, 1), value=1.0)
    weights = Newton(padded, labels, 4, L2).full
    net.fc.weight.data, net.fc.bias.data = weights[:, :-1].float(), weights[:, -1].float()
    head = nn.Linear(12, 4).double()
    head.load_state_dict(net.fc.state_dict())
    expected = slow_influence(head, (features, labels), (features[:5], labels[:5]), L2)
    it = problem(net, 40, L2)
    solver = find_solver("last_layer")
    solver.fit(it, batches(x, labels, 16))
    found = matrix(solver, it, (x, labels), (x[:5], labels[:5]))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-5)
    rows = solver.train_rows(it, x, labels)
    assert {key: value.shape for key, value in rows.items()} == {
        "features": (40, 13),
        "residuals": (40, 4),
    }


def test_representer_points_add_up_to_the_output() -> None:
    net, images, labels = fitted()
    it, test = problem(net, 200, L2), digits(4)[0][300:306]
    solver = find_solver("representer")
    solver.fit(it, batches(images, labels, 64))
    again = find_solver("representer")
    again.load(it, solver.state())
    for k in range(10):
        total = matrix(again, it, (images, labels), (test, Logit(k))).sum(1)
        torch.testing.assert_close(total, net(test)[:, k].detach(), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="need l2="):
        find_solver("representer").fit(problem(net, 200), batches(images, labels))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.fc(x.flatten(1))


def test_what_cannot_be_solved() -> None:
    net, images, labels = fitted()
    data = batches(images, labels)
    for solve in ("cholesky", "woodbury", "kronecker"):
        with pytest.raises(InputError, match=r"singular .* damping= such as"):
            find_solver("last_layer", solve=solve).fit(problem(net, 200, 0.0), data)
    with pytest.raises(ModelError, match="head is not linear"):
        find_solver("last_layer").fit(problem(Scaled(), 200, L2), batches(images, labels % 4))
    with pytest.raises(InputError, match="does not curve as the softmax"):
        find_solver("last_layer").fit(
            problem(net, 200, L2, loss=lambda o, y: o[:, 0].square()), data
        )
    with pytest.raises(InputError, match="label 11 of image 0"):
        find_solver("last_layer").fit(problem(net, 200, L2), batches(images, labels + 11))
    with pytest.raises(InputError, match="not fitted"):
        find_solver("last_layer").test_rows(problem(net, 200, L2), images, labels)
    with pytest.raises(InputError, match="are not those of the head"):
        find_solver("last_layer").fit(
            problem(randomised(TinyCNN()), 1, L2, parameters=("conv1.weight",)),
            batches(torch.rand(1, 3, 8, 8), labels[:1]),
        )
    with pytest.raises(InputError, match="training data are empty"):
        find_solver("last_layer").fit(problem(net, 200, L2), list)
    for options in ({"solve": "lu"}, {"damping": -1.0}):
        with pytest.raises(InputError, match=str(next(iter(options)))):
            find_solver("last_layer", **options)


def test_an_untrained_head_is_told() -> None:
    images, labels = (part[:200] for part in digits(4))
    with pytest.warns(
        SeewhyWarning, match="has not converged: the norm of its mean training gradient is 0."
    ):
        find_solver("last_layer").fit(
            problem(softmax_regression(16), 200, L2), batches(images, labels)
        )


def test_smoothed_labels_are_a_cross_entropy() -> None:
    net, images, labels = fitted(50)
    smooth = problem(
        net, 50, L2, loss=lambda o, y: F.cross_entropy(o, y, reduction="none", label_smoothing=0.01)
    )
    solver = find_solver("last_layer")
    solver.fit(smooth, batches(images, labels))
    assert matrix(solver, smooth, (images, labels), (images[:2], labels[:2])).isfinite().all()


@pytest.mark.parametrize("name", ["last_layer", "hessian"])
def test_another_l2_than_that_of_the_training_is_told(name: str) -> None:
    net, images, labels = fitted(l2=0.05)
    it = problem(net, 200, 0.5)
    with pytest.warns(
        SeewhyWarning,
        match=r"has not converged: .* \(it would be .*e-.* with l2=0\.05\), of a single",
    ):
        find_solver(name).fit(it, batches(images, labels))
