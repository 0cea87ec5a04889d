"""EK-FAC against the slow formula, against the exact Hessian, and against kronfluence."""

from __future__ import annotations

import copy
import tempfile
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from influence_oracles import (
    batches,
    cnn,
    correlation,
    digits,
    losses,
    mlp,
    problem,
    relative_error,
    slow_gradients,
    slow_influence,
    train,
)
from seewhy.errors import InputError, ModelError
from seewhy.influence.problem import Problem
from seewhy.influence.solvers import find_solver
from seewhy.influence.solvers.ekfac import _drawn, _sketched
from seewhy.targets import Logit
from tiny_models import ModelState, TinyCNN, pictures, randomised

L2, N = 0.02, 200


@cache
def trained() -> tuple[nn.Module, Tensor, Tensor, tuple[Tensor, Tensor]]:
    images, labels = digits(4)
    few = labels < 5
    images, labels = images[few], labels[few]
    data = images[:N], labels[:N]
    return train(cnn(), *data, L2), *data, (images[300:310], labels[300:310])


def influences(
    it: Problem, data: tuple[Tensor, Tensor], tests: tuple[Tensor, Any], size: int = 64, **options: Any
) -> Tensor:
    solver = find_solver("ekfac", **options)
    solver.fit(it, batches(*data, size))
    again = find_solver("ekfac", **solver.settings)
    again.load(it, solver.state())
    return again.dot(again.test_rows(it, *tests), again.train_rows(it, *data))


def slow(net: nn.Module, data: tuple[Tensor, Tensor], tests: tuple[Tensor, Tensor], damping: float) -> Tensor:
    """EK-FAC of the empirical Fisher with a loop over layers, each with its inputs and output gradients from hooks."""
    total = torch.zeros(len(tests[0]), len(data[0]), dtype=torch.float64)
    for name, part in net.named_modules():
        if not isinstance(part, nn.Linear | nn.Conv2d):
            continue
        kept: dict[str, Any] = {}
        handles = [
            part.register_forward_hook(lambda m, a, o, kept=kept: kept.update(x=a[0].detach(), z=o)),
            part.register_full_backward_hook(lambda m, gi, go, kept=kept: kept.update(g=go[0].detach())),
        ]
        activations, signals = 0, 0
        for x, y in zip(*data, strict=True):
            F.cross_entropy(net(x[None]), y[None]).backward()
            if isinstance(part, nn.Conv2d):
                a, g = F.unfold(kept["x"], part.kernel_size, stride=part.stride)[0].T, kept["g"][0].flatten(1).T
            else:
                a, g = kept["x"], kept["g"]
            a = F.pad(a, (0, 1), value=1.0)
            activations, signals = activations + a.T @ a, signals + g.T @ g
        for handle in handles:
            handle.remove()
        bases = torch.linalg.eigh(signals).eigenvectors, torch.linalg.eigh(activations).eigenvectors
        names = (f"{name}.weight", f"{name}.bias")
        matrices = []
        for images, labels in (data, tests):
            flat = slow_gradients(net, losses(labels), images, names)
            o = len(part.weight)
            joined = torch.cat([flat[:, :-o].reshape(len(flat), o, -1), flat[:, -o:, None]], 2)
            matrices.append(bases[0].T @ joined @ bases[1])
        values = matrices[0].square().mean(0) + damping
        total += torch.einsum("tij,bij->tb", matrices[1] / values, matrices[0])
    net.zero_grad()
    return total / len(data[0])


def test_the_formula() -> None:
    net, images, labels, tests = trained()
    it = problem(net, N, L2)
    before = ModelState(net)
    expected = slow(copy.deepcopy(net), (images, labels), tests, L2 + 0.01)
    for size in (N, 33):
        found = influences(it, (images, labels), tests, size, fisher="empirical", damping=0.01)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    before.assert_unchanged()


def test_what_is_drawn_has_the_fishers_moment() -> None:
    p = torch.tensor([[0.7, 0.25, 0.04, 0.01], [0.999, 0.0007, 0.0002, 0.0001]], dtype=torch.float64)
    exact = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    images = torch.arange(20_000.0).reshape(-1, 1, 1, 1)
    for i in range(2):
        spread = []
        for draw in (_sketched, _drawn):
            c = draw(p[i].expand(20_000, -1), images, 5)
            assert c.sum(1).abs().max() < 1e-12
            torch.testing.assert_close(c.T @ c / 20_000, exact[i], rtol=0.1, atol=3e-3)
            spread.append(float(c.square().sum(1).std() / c.square().sum(1).mean()))
        assert spread[0] < spread[1]
    assert spread[1] > 20 * spread[0]  # a sure model: labels other than its own are hardly ever drawn


def test_draws_depend_on_no_batch() -> None:
    net, images, labels, tests = trained()
    it = problem(net, N, L2)
    for fisher in ("sketched", "sampled"):
        one, other = (influences(it, (images, labels), tests, size, fisher=fisher, seed=3) for size in (N, 7))
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
        turned = influences(it, (images.flip(0), labels.flip(0)), tests, fisher=fisher, seed=3).flip(1)
        torch.testing.assert_close(turned, one, rtol=1e-6, atol=1e-9)
        assert relative_error(influences(it, (images, labels), tests, fisher=fisher, seed=4), one) > 1e-3
    many = influences(it, (images, labels), tests, samples=30)
    assert relative_error(influences(it, (images, labels), tests, samples=30, seed=1), many) < 0.1


@pytest.mark.long
def test_it_is_near_the_exact_hessian() -> None:
    images, labels = digits(4)
    data, tests = (images[:500], labels[:500]), (images[1000:1020], labels[1000:1020])
    net = train(mlp(), *data, 0.01)
    expected = slow_influence(net, data, tests, 0.01 + 0.1)
    it = problem(net, 500, 0.01)
    assert correlation(influences(it, data, tests, damping=0.1), expected) > 0.95
    plain = find_solver("gradient_dot")
    dots = plain.dot(plain.test_rows(it, *tests), plain.train_rows(it, *data))
    assert correlation(dots, expected) < 0.9  # so it is not the damping that makes them alike


class KronfluenceTask:
    """Built where kronfluence is there."""

    @staticmethod
    def make() -> Any:
        from kronfluence.task import Task

        class Classification(Task):  # type: ignore[misc]
            def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
                outputs = model(batch[0])
                labels = torch.multinomial(outputs.detach().softmax(1), 1)[:, 0] if sample else batch[1]
                return F.cross_entropy(outputs, labels, reduction="sum")

            def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
                return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

        return Classification()


@pytest.mark.long
@pytest.mark.parametrize(("empirical", "least"), [(True, 0.9999), (False, 0.99)])
def test_kronfluence(empirical: bool, least: float) -> None:
    pytest.importorskip("kronfluence")
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments

    net, images, labels, tests = trained()
    theirs = copy.deepcopy(net).float()
    task = KronfluenceTask.make()
    theirs = prepare_model(theirs, task)
    copies = 1 if empirical else 20  # more labels for each example: the same Fisher with less noise
    sets: list[Dataset[Any]] = [TensorDataset(images.float().repeat(copies, 1, 1, 1), labels.repeat(copies))]
    sets += [TensorDataset(images.float(), labels), TensorDataset(tests[0].float(), tests[1])]
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("net", theirs, task, cpu=True, output_dir=folder, disable_tqdm=True)
        factors = FactorArguments(strategy="ekfac", use_empirical_fisher=empirical)
        analyzer.fit_all_factors("factors", sets[0], per_device_batch_size=100, factor_args=factors)
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            query_dataset=sets[2],
            train_dataset=sets[1],
            per_device_query_batch_size=10,
            per_device_train_batch_size=100,
            score_args=ScoreArguments(damping_factor=0.02),
        )
        expected = analyzer.load_pairwise_scores("scores")["all_modules"]
    it = problem(net, N)
    options: dict[str, Any] = {"fisher": "empirical"} if empirical else {"fisher": "sampled", "samples": copies}
    found = influences(it, (images, labels), tests, damping=0.02, **options) * N
    assert correlation(found, expected) > least
    assert relative_error(found, expected.double()) < (0.01 if empirical else 0.15)


def test_other_nets_and_projected_rows() -> None:
    net = randomised(TinyCNN())
    x, labels = pictures(40, 8), torch.arange(40) % 5
    it = problem(net, 40, 0.1)
    found = {}
    for dim in (None, 20_000):
        solver = find_solver("ekfac", dim=dim)
        with pytest.warns(UserWarning, match="not converged"):
            solver.fit(it, batches(x, labels, 16))
        rows = solver.train_rows(it, x, labels)["rows"]
        assert rows.shape == (40, dim or sum(p.numel() for n, p in net.named_parameters() if "bn" not in n))
        found[dim] = solver.dot(solver.test_rows(it, x[:5], Logit(2)), {"rows": rows})
        own = solver.self_influence(it, x[:5], labels[:5])
        same = solver.dot(solver.test_rows(it, x[:5], labels[:5]), {"rows": rows[:5]}).diagonal()
        torch.testing.assert_close(own, same)
    assert correlation(found[20_000], found[None]) > 0.95


class Turned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(2).permute(2, 0, 1)).mean(0)


def test_what_ekfac_cannot_do() -> None:
    x, labels = pictures(4, 8), torch.arange(4)
    data = batches(x, labels)
    with pytest.raises(ModelError, match=r"no nn\.Linear or nn\.Conv2d"):
        find_solver("ekfac").fit(problem(nn.Sequential(nn.Flatten(), nn.LayerNorm(192)), 4), data)
    with pytest.raises(InputError, match=r"'bn1\.weight' is of no linear layer"):
        find_solver("ekfac").fit(problem(randomised(TinyCNN()), 4, parameters=("fc.weight", "bn1.weight")), data)
    with pytest.raises(InputError, match=r"'fc\.bias' is used other than by calling its layer on a row for"):
        find_solver("ekfac").fit(problem(Turned(), 4), data)
    with pytest.raises(InputError, match="not fitted"):
        find_solver("ekfac").train_rows(problem(randomised(TinyCNN()), 4), x, labels)
    for option in ({"fisher": "exact"}, {"damping": -1.0}, {"samples": 0}, {"dim": 0}):
        with pytest.raises(InputError, match=next(iter(option))):
            find_solver("ekfac", **option)
