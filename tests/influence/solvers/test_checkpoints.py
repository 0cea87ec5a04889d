"""TracIn, gradient dot products and TRAK against formulas, captum and dattri."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from influence_oracles import batches, cnn, correlation, digits, losses, slow_gradients
from seewhy.errors import InputError
from seewhy.influence.gradients.projection import Projection
from seewhy.influence.problem import Problem
from seewhy.influence.solvers.catalog import find_solver
from seewhy.influence.solvers.trak import margin
from tiny_models import ModelState

RATES = (0.5, 0.3, 0.1)
N = 150


@cache
def checkpoints() -> tuple[tuple[nn.Module, ...], Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Three moments of a training by gradient descent."""
    images, labels = digits(4)
    few = labels < 5
    images, labels = images[few], labels[few]
    net, kept = cnn(), []
    for rate in RATES:
        for _ in range(60):
            net.zero_grad()
            F.cross_entropy(net(images[:N]), labels[:N]).backward()
            with torch.no_grad():
                for p in net.parameters():
                    p -= rate * p.grad
        net.zero_grad()
        kept.append(copy.deepcopy(net))
    return tuple(kept), images[:N], labels[:N], (images[300:308], labels[300:308])


def influences(
    name: str, it: Problem, data: tuple[Tensor, Tensor], tests: tuple[Tensor, Any], **options: Any
) -> Tensor:
    solver = find_solver(name, **options)
    solver.fit(it, batches(*data, 64))
    again = find_solver(name, **solver.settings)
    again.load(it, solver.state())
    return again.dot(again.test_rows(it, *tests), again.train_rows(it, *data))


def test_tracin() -> None:
    nets, images, labels, tests = checkpoints()
    it = Problem(modules=nets, count=N, learning_rates=RATES)
    before = [ModelState(net) for net in nets]
    found = influences("tracin", it, (images, labels), tests)
    for state in before:
        state.assert_unchanged()
    each = [
        rate
        * slow_gradients(net, losses(tests[1]), tests[0])
        @ slow_gradients(net, losses(labels), images).T
        for rate, net in zip(RATES, nets, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(each).sum(0) / N)
    last = influences("gradient_dot", it, (images, labels), tests)
    torch.testing.assert_close(last, each[-1] / RATES[-1] / N)
    solver = find_solver("tracin")
    own = influences("tracin", it, (images, labels), (images, labels)).diagonal()
    torch.testing.assert_close(solver.self_influence(it, images, labels), own)
    projected = influences("tracin", it, (images, labels), tests, dim=4096)
    assert correlation(projected, found) > 0.97
    with pytest.raises(InputError, match="needs learning_rates="):
        influences("tracin", Problem(modules=nets, count=N), (images, labels), tests)


def test_tracin_predicts_a_step() -> None:
    nets, images, labels, tests = checkpoints()
    net, rate = copy.deepcopy(nets[1]), 1e-3
    it = Problem(modules=(net,), count=N, learning_rates=(rate,))
    found = influences("tracin", it, (images, labels), tests)
    before = F.cross_entropy(net(tests[0]), tests[1], reduction="none").detach()
    net.zero_grad()
    (F.cross_entropy(net(images[:1]), labels[:1]) / N).backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= rate * p.grad
    drop = before - F.cross_entropy(net(tests[0]), tests[1], reduction="none").detach()
    torch.testing.assert_close(
        drop, found[:, 0], rtol=1e-2, atol=1e-9
    )  # positive: the example lowered the loss


def test_tracin_is_captums(tmp_path: Path) -> None:
    influence = pytest.importorskip("captum.influence")
    nets, images, labels, tests = checkpoints()
    paths = []
    for i, net in enumerate(nets):
        torch.save(net.state_dict(), tmp_path / f"{i}.pt")
        paths.append(str(tmp_path / f"{i}.pt"))

    def load(net: nn.Module, path: str) -> float:
        net.load_state_dict(torch.load(path))
        return RATES[int(Path(path).stem)]

    theirs = influence.TracInCP(
        copy.deepcopy(nets[0]),
        TensorDataset(images, labels),
        paths,
        checkpoints_load_func=load,
        loss_fn=nn.CrossEntropyLoss(reduction="none"),
        batch_size=50,
    )
    expected = theirs.influence(tests)
    found = influences(
        "tracin", Problem(modules=nets, count=N, learning_rates=RATES), (images, labels), tests
    )
    torch.testing.assert_close(found * N, expected, rtol=1e-6, atol=1e-8)


def slow_trak(
    it: Problem, data: tuple[Tensor, Tensor], tests: tuple[Tensor, Tensor], damping: float, dim: int
) -> Tensor:
    """Section 3 of the paper: for the margin as the target."""
    kernel, doubts = 0, 0
    for stream, net in enumerate(it.modules):
        count = it.flat().numel()
        matrix = Projection(dim, stream=stream)(torch.eye(count, dtype=torch.float64))
        rows = []
        for images, labels in (data, tests):
            rows.append(
                slow_gradients(
                    net, lambda o, i, labels=labels: margin(o, labels[i : i + 1]), images
                )
                @ matrix
            )
        gram = rows[0].T @ rows[0]
        gram = gram + damping * gram.diagonal().mean() * torch.eye(dim, dtype=torch.float64)
        kernel = kernel + rows[1] @ torch.linalg.solve(gram, rows[0].T) / len(it.modules)
        p = net(data[0]).softmax(1).gather(1, data[1][:, None])[:, 0].detach()
        doubts = doubts + (1 - p) / len(it.modules)
    return kernel * doubts


def test_trak() -> None:
    nets, images, labels, tests = checkpoints()
    it = Problem(modules=nets, count=N)
    outputs = nets[0](images).detach()
    p = outputs.softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(margin(outputs, labels), (p / (1 - p)).log())
    expected = slow_trak(it, (images, labels), tests, 0.01, 64)
    found = influences(
        "trak",
        it,
        (images, labels),
        (tests[0], lambda o: margin(o, tests[1])),
        dim=64,
        damping=0.01,
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    loss = influences("trak", Problem(modules=nets[-1:], count=N), (images, labels), tests, dim=64)
    target = influences(
        "trak",
        Problem(modules=nets[-1:], count=N),
        (images, labels),
        (tests[0], lambda o: margin(o, tests[1])),
        dim=64,
    )
    doubt = 1 - nets[-1](tests[0]).softmax(1).gather(1, tests[1][:, None]).detach()
    torch.testing.assert_close(
        loss, doubt * target, rtol=1e-6, atol=1e-9
    )  # log p falls by 1 - p of the margin's fall
    solver = find_solver("trak", dim=64)
    solver.fit(it, batches(images, labels, 150))
    assert (solver.self_influence(it, images, labels) > 0).all()
    for option in ({"damping": 0.0}, {"dim": 0}, {"distribution": "cauchy"}):
        with pytest.raises(InputError, match=next(iter(option))):
            find_solver("trak", **option)


@pytest.mark.long
def test_trak_is_dattris(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same random signs; dattri's weights and kernels are averaged over the same checkpoints."""
    trak = pytest.importorskip("dattri.algorithm.trak")
    task = pytest.importorskip("dattri.task")
    nets, images, labels, tests = checkpoints()
    net = copy.deepcopy(nets[-1])

    def target(params: Any, data: tuple[Tensor, Tensor]) -> Tensor:
        return margin(functional_call(net, params, (data[0][None],)), data[1][None])[0]

    def probability(params: Any, data: tuple[Tensor, Tensor]) -> Tensor:
        return torch.exp(
            -F.cross_entropy(functional_call(net, params, (data[0][None],)), data[1][None])
        )

    def project(rows: Tensor, *_: Any, **__: Any) -> Any:
        return lambda rows, ensemble_id: Projection(32, stream=ensemble_id)(rows)

    monkeypatch.setattr(trak, "random_project", project)
    states = [module.state_dict() for module in nets]
    theirs = trak.TRAKAttributor(
        task.AttributionTask(loss_func=target, model=net, checkpoints=states), probability
    )
    loaders = [
        DataLoader(TensorDataset(*data), batch_size=50) for data in ((images, labels), tests)
    ]
    theirs.cache(loaders[0])
    expected = theirs.attribute(loaders[1]).T
    it = Problem(modules=nets, count=N)
    found = influences(
        "trak",
        it,
        (images, labels),
        (tests[0], lambda o: margin(o, tests[1])),
        dim=32,
        damping=1e-9,
    )
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-6)
