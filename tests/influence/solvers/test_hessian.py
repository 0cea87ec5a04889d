"""Exact Hessian, conjugate gradients, LiSSA and Arnoldi on small nets, against the slow formula in float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_oracles import (
    batches,
    cnn,
    correlation,
    digits,
    problem,
    relative_error,
    slow_hessian,
    slow_influence,
    train,
)
from seewhy.errors import InputError, SeewhyWarning
from seewhy.influence.gradients.curvature import Curvature
from seewhy.influence.gradients.linear_solve import conjugate_gradients
from seewhy.influence.problem import Problem
from seewhy.influence.solvers.catalog import find_solver
from seewhy.influence.solvers.solver import Solver
from tiny_models import ModelState

L2, N = 0.05, 120


@cache
def trained() -> tuple[nn.Module, Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    """A small convolutional network at its minimum, its data, tests, and the exact influences."""
    images, labels = digits(4)
    few = labels < 5
    images, labels = images[few], labels[few]
    data, tests = (images[:N], labels[:N]), (images[300:303], labels[300:303])
    net = train(cnn(), *data, L2)
    return net, *data, tests, slow_influence(net, data, tests, L2)


def influences(
    solver: Solver,
    it: Problem,
    images: Tensor,
    labels: Tensor,
    tests: tuple[Tensor, Tensor],
    size: int = N,
) -> Tensor:
    data = batches(images, labels, size)
    solver.fit(it, data)
    again = find_solver(solver.name, **solver.settings)
    again.load(it, solver.state())
    if again.streams:
        again.fit(it, data)
    return again.dot(again.test_rows(it, *tests), again.train_rows(it, images, labels))


def test_exact_hessian() -> None:
    net, images, labels, tests, expected = trained()
    it = problem(net, N, L2)
    before = ModelState(net)
    found = influences(find_solver("hessian"), it, images, labels, tests, 50)
    before.assert_unchanged()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    solver = find_solver("hessian")
    solver.fit(it, batches(images, labels))
    own = solver.self_influence(it, images, labels)
    torch.testing.assert_close(
        own,
        slow_influence(net, (images, labels), (images, labels), L2).diagonal(),
        rtol=1e-6,
        atol=1e-9,
    )


@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
def test_products(kind: Any) -> None:
    net, images, labels, *_ = trained()
    it = problem(net, N, L2)
    eye = torch.eye(it.flat().numel(), dtype=torch.float64)
    found = Curvature(it, batches(images, labels, 50), kind=kind, damping=0.3).products(eye)
    if kind == "hessian":
        expected = slow_hessian(net, images, labels, L2)
    else:
        total = torch.zeros_like(eye)
        for image in images:
            jacobian = _jacobian(net, image[None])  # (K, P)
            p = net(image[None])[0].softmax(0).detach()
            total += jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
        expected = total / N + L2 * eye
    torch.testing.assert_close(found, expected + 0.3 * eye, rtol=1e-8, atol=1e-10)


def _jacobian(net: nn.Module, image: Tensor) -> Tensor:
    output = net(image)[0]
    rows = [torch.autograd.grad(o, list(net.parameters()), retain_graph=True) for o in output]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def test_conjugate_gradients() -> None:
    net, images, labels, tests, expected = trained()
    it = problem(net, N, L2)
    found = influences(find_solver("conjugate_gradient"), it, images, labels, tests)
    assert relative_error(found, expected) < 1e-3
    with pytest.warns(SeewhyWarning, match="stopped after iterations=3 with a residual of"):
        influences(find_solver("conjugate_gradient", iterations=3), it, images, labels, tests)


def test_conjugate_gradients_on_a_matrix() -> None:
    root = torch.randn(30, 30, dtype=torch.float64)
    matrix, right = root @ root.T + 0.1 * torch.eye(30), torch.randn(4, 30, dtype=torch.float64)
    right[2] = 0
    nearly = torch.linalg.inv(matrix + 0.01 * torch.eye(30))
    expected = torch.linalg.solve(matrix, right.T).T
    for precondition, iterations in ((None, 200), (lambda rows: rows @ nearly, 15)):
        found = conjugate_gradients(
            lambda rows: rows @ matrix,
            right,
            tolerance=1e-10,
            iterations=iterations,
            precondition=precondition,
        )
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    with pytest.raises(InputError, match="not above 0"):
        conjugate_gradients(lambda rows: -rows, right, tolerance=1e-10, iterations=5)


def test_lissa() -> None:
    net, images, labels, tests, _ = trained()
    it = problem(net, N, L2)
    expected = slow_influence(net, (images, labels), tests, L2 + 0.1)
    found = influences(find_solver("lissa", damping=0.1), it, images, labels, tests, 40)
    assert relative_error(found, expected) < 0.05
    with pytest.raises(
        InputError, match=r"LiSSA (diverges|does not improve) .*scale=.*; give .*scale="
    ):
        influences(find_solver("lissa", scale=0.01), it, images, labels, tests)
    with pytest.warns(SeewhyWarning, match="stopped after depth=4 passes with a residual"):
        influences(find_solver("lissa", depth=4), it, images, labels, tests)
    with pytest.raises(InputError, match="one process"):
        find_solver("lissa").fit(it, batches(images, labels), reduce=lambda total: total)


def test_arnoldi() -> None:
    net, images, labels, tests, expected = trained()
    it = problem(net, N, L2)
    size = it.flat().numel()
    whole = find_solver("arnoldi", krylov=size, rank=size)
    torch.testing.assert_close(
        influences(whole, it, images, labels, tests), expected, rtol=1e-5, atol=1e-8
    )
    few = find_solver("arnoldi", krylov=60, rank=30)
    found = influences(few, it, images, labels, tests)
    values, vectors = torch.linalg.eigh(slow_hessian(net, images, labels, L2))
    torch.testing.assert_close(
        few.state()["values"][:10], values.flip(0)[:10], rtol=1e-3, atol=1e-4
    )
    top = vectors.flip(1)[:, :10]
    overlap = (few.state()["vectors"][:10] @ top).abs().diagonal()
    assert overlap.min() > 0.999
    rows = few.train_rows(it, images, labels)["rows"]
    assert rows.shape == (N, 30)
    assert correlation(found, expected) > 0.8


def test_projected_gradients_have_the_same_mean() -> None:
    net, images, labels, tests, expected = trained()
    it = problem(net, N, L2)
    found = influences(find_solver("hessian", dim=8192), it, images, labels, tests)
    assert correlation(found, expected) > 0.95
    assert relative_error(found, expected) < 0.4


def test_what_cannot_be_inverted() -> None:
    net, images, labels, tests, _ = trained()
    data = batches(images, labels)
    with (
        pytest.warns(SeewhyWarning, match="converged"),
        pytest.raises(InputError, match=r"not positive definite: its .* damping of"),
    ):
        find_solver("hessian").fit(problem(cnn(), N, 0.0), data)
    with pytest.raises(InputError, match="reads the training data"):
        find_solver("conjugate_gradient").test_rows(problem(net, N, L2), *tests)
    with pytest.raises(InputError, match="not fitted"):
        find_solver("hessian").test_rows(problem(net, N, L2), *tests)
    with pytest.raises(InputError, match=r"the exact Hessian of 20[0-9]* parameters does not fit"):
        find_solver("hessian").fit(
            problem(nn.Sequential(nn.Flatten(), nn.Linear(16, 1200)), N), data
        )
    for name, options in (
        ("hessian", {"curvature": "fisher"}),
        ("hessian", {"damping": -1.0}),
        ("arnoldi", {"rank": 200}),
        ("lissa", {"scale": -1.0}),
    ):
        with pytest.raises(InputError, match=next(iter(options))):
            find_solver(name, **options).fit(problem(net, N, L2), data)


def test_convergence_is_told_from_a_sample_of_the_batches() -> None:
    net, images, labels, *_ = trained()
    for size in (
        2,
        50,
    ):  # at the minimum a few examples' mean gradient is not 0: no warning all the same
        find_solver("conjugate_gradient").fit(problem(net, N, L2), batches(images, labels, size))
    with pytest.warns(SeewhyWarning, match="Train on, check l2"):
        find_solver("conjugate_gradient").fit(problem(net, N, 10 * L2), batches(images, labels, 7))
