"""The forms of a head's curvature against the Hessian written out example by example."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from influence_cases import NOT_TRAINED
from influence_oracles import batches, problem, softmax_regression
from seewhy.errors import InputError, SeewhyWarning
from seewhy.influence.head.curvature import Dense, HeadCurvature, Ridge, Woodbury
from seewhy.influence.head.products import Iterative, Kronecker
from seewhy.influence.problem import identity
from seewhy.influence.solvers import last_layer
from seewhy.influence.solvers.catalog import find_solver

K, RIDGE = 4, 0.02
FORMS = [Dense, Woodbury, Kronecker, Iterative, Ridge]


def examples(n: int, f: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + f)
    a = torch.randn(n, f, generator=generator, dtype=torch.float64)
    return a, torch.randn(n, K, generator=generator, dtype=torch.float64).softmax(1)


def fitted(form: type[HeadCurvature], a: Tensor, p: Tensor) -> HeadCurvature:
    curvature = form()
    for _ in range(curvature.passes):
        for i in range(0, len(a), 5):
            curvature.see(a[i : i + 5], p[i : i + 5])
        curvature.conclude(len(a), RIDGE, identity)
    again = form()
    again.load(curvature.state())
    return again


def written_out(a: Tensor, p: Tensor) -> Tensor:
    """(K F, K F)."""
    bends = [
        torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(b, b))
        for b, q in zip(a, p, strict=True)
    ]
    return torch.stack(bends).mean(0) + RIDGE * torch.eye(a.shape[1] * K, dtype=torch.float64)


@pytest.mark.parametrize("n", [12, 90])  # fewer and more than features
@pytest.mark.parametrize("form", [Dense, Woodbury, Iterative])
def test_exact_forms_solve_with_the_hessian(form: type[HeadCurvature], n: int) -> None:
    a, p = examples(n, 30)
    curvature, h = fitted(form, a, p), written_out(a, p)
    rows = torch.randn(7, K, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.linalg.solve(h, rows.flatten(1).T).T.reshape(rows.shape)
    torch.testing.assert_close(curvature.solve(rows), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n", [12, 90])
@pytest.mark.parametrize("form", FORMS)
def test_quadratic_forms_are_those_of_solving(form: type[HeadCurvature], n: int) -> None:
    a, p = examples(n, 30)
    curvature = fitted(form, a, p)
    other, _ = examples(8, 30)
    for features in (a[:8], other):  # of the training data, and others
        residuals = p[:8] - torch.eye(K, dtype=torch.float64)[torch.arange(8) % K]
        rows = residuals[:, :, None] * features[:, None]
        expected = (curvature.solve(rows) * rows).sum((1, 2))
        torch.testing.assert_close(
            curvature.quadratic(residuals, features), expected, rtol=1e-7, atol=0.0
        )
        assert (expected > 0).all()


@pytest.mark.parametrize("form", [Woodbury, Iterative])
def test_many_right_sides_are_solved_a_few_at_a_time(
    form: type[HeadCurvature], monkeypatch: Any
) -> None:
    a, p = examples(90, 30)
    residuals, rows = p[:7] - 0.1, torch.randn(7, K, 30, dtype=torch.float64)
    curvature = fitted(form, a, p)
    together = curvature.solve(rows), curvature.quadratic(residuals, a[:7])
    monkeypatch.setattr(f"{form.__module__}.WORKING", 2 * K * 90)
    found = curvature.solve(rows), curvature.quadratic(residuals, a[:7])
    torch.testing.assert_close(found, together, rtol=1e-6, atol=1e-9)


def form(solver: Any) -> str:
    return type(solver._curvature).__name__


@NOT_TRAINED
def test_the_form_goes_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    n, f, k = 40, 17, 10
    images, labels = torch.rand(n, 1, 4, 4, dtype=torch.float64), torch.arange(n) % k
    it = problem(softmax_regression(16), n, 0.1)

    def fit(solve: str = "auto") -> Any:
        solver: Any = find_solver("last_layer", solve=solve)
        solver.fit(it, batches(images, labels))
        stored = sum(tensor.numel() * tensor.element_size() for tensor in solver.state().values())
        assert abs(solver.state_bytes(n) - stored) <= 8  # the ridge
        again: Any = find_solver("last_layer", solve=solve)
        again.load(it, solver.state())
        assert form(again) == form(solver)
        return form(solver)

    assert fit() == "Woodbury"  # holds fewer numbers
    monkeypatch.setattr(last_layer, "_BLOCKS", (2**27, Woodbury.work(n, f, k) - 1))
    assert fit() == "Dense"
    monkeypatch.setattr(last_layer, "_DENSE", (f * k) ** 2 - 1)
    assert fit() == "Iterative"
    numbers, work = Iterative.numbers(n, f, k), Iterative.work(n, f, k)
    monkeypatch.setattr(last_layer, "_ITERATIVE", (numbers, work))
    assert fit() == "Iterative"
    for limits in ((numbers - 1, work), (numbers, work - 1)):
        monkeypatch.setattr(last_layer, "_ITERATIVE", limits)
        with pytest.warns(
            SeewhyWarning, match="170 weights and 40 examples .* takes Kronecker factors"
        ):
            assert fit() == "Kronecker"
    assert [fit(solve) for solve in ("cholesky", "woodbury", "conjugate_gradient")] == [
        "Dense",
        "Woodbury",
        "Iterative",
    ]


@pytest.mark.parametrize("kind", ["alike", "twice", "sure"])
def test_blocks_stand_a_bad_condition(kind: str) -> None:
    """Up to 1e11, with directions that no feature has; beyond it is an error, never a wrong number."""
    a, p = examples(30, 6)
    if kind == "alike":
        a[:] = a[0].clone()
    elif kind == "twice":
        a[:, -1] = a[:, 0]
    else:
        p = (60 * p.log()).softmax(1)
    a *= 2e4  # H's eigenvalues go up to 1e9 and more
    residuals = p[:5] - torch.eye(K, dtype=torch.float64)[torch.arange(5) % K]
    expected = fitted(Dense, a, p).quadratic(residuals, a[:5])
    found = fitted(Woodbury, a, p)
    torch.testing.assert_close(found.quadratic(residuals, a[:5]), expected, rtol=1e-3, atol=0.0)
    rows = residuals[:, :, None] * a[:5, None]
    torch.testing.assert_close(
        (found.solve(rows) * rows).sum((1, 2)), expected, rtol=1e-3, atol=0.0
    )
    for n in (1, 3):
        with pytest.raises(InputError, match="Hessian of the head is singular"):
            fitted(Woodbury, 1e3 * a[:n], p[:n])
