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
from seewhy.engine.precision import products_are_exact
from seewhy.engine.targets.classes import Logit
from seewhy.errors import InputError, ModelError
from seewhy.influence import InfluenceIndex
from seewhy.influence.gradients import taps as layers
from seewhy.influence.gradients.per_example import unusual
from seewhy.influence.problem import Problem
from seewhy.influence.solvers.catalog import find_solver
from seewhy.influence.solvers.fisher import drawn, sketched
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
    it: Problem,
    data: tuple[Tensor, Tensor],
    tests: tuple[Tensor, Any],
    size: int = 64,
    **options: Any,
) -> Tensor:
    solver = find_solver("ekfac", **options)
    solver.fit(it, batches(*data, size))
    again = find_solver("ekfac", **solver.settings)
    again.load(it, solver.state())
    return again.dot(again.test_rows(it, *tests), again.train_rows(it, *data))


def layer_gradients(net: nn.Module, images: Tensor, labels: Tensor, name: str) -> Tensor:
    """Of one layer, (B, O I), the bias last in each of O rows."""
    flat = slow_gradients(net, losses(labels), images, (f"{name}.weight", f"{name}.bias"))
    o = len(net.get_parameter(f"{name}.bias"))
    return torch.cat([flat[:, :-o].reshape(len(flat), o, -1), flat[:, -o:, None]], 2).flatten(1)


def slow(
    net: nn.Module, data: tuple[Tensor, Tensor], tests: tuple[Tensor, Tensor], damping: float
) -> Tensor:
    """EK-FAC of the empirical Fisher with a loop over layers, each with its inputs and output gradients from hooks."""
    total = torch.zeros(len(tests[0]), len(data[0]), dtype=torch.float64)
    for name, part in net.named_modules():
        if not isinstance(part, nn.Linear | nn.Conv2d):
            continue
        kept: dict[str, Any] = {}
        handles = [
            part.register_forward_hook(
                lambda m, a, o, kept=kept: kept.update(x=a[0].detach(), z=o)
            ),
            part.register_full_backward_hook(
                lambda m, gi, go, kept=kept: kept.update(g=go[0].detach())
            ),
        ]
        activations, signals = 0, 0
        for x, y in zip(*data, strict=True):
            F.cross_entropy(net(x[None]), y[None]).backward()
            if isinstance(part, nn.Conv2d):
                a, g = (
                    F.unfold(kept["x"], part.kernel_size, stride=part.stride)[0].T,
                    kept["g"][0].flatten(1).T,
                )
            else:
                a, g = kept["x"], kept["g"]
            a = F.pad(a, (0, 1), value=1.0)
            activations, signals = activations + a.T @ a, signals + g.T @ g
        for handle in handles:
            handle.remove()
        bases = torch.linalg.eigh(signals).eigenvectors, torch.linalg.eigh(activations).eigenvectors
        matrices = []
        for images, labels in (data, tests):
            joined = layer_gradients(net, images, labels, name).reshape(
                len(images), len(part.weight), -1
            )
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
    p = torch.tensor(
        [[0.7, 0.25, 0.04, 0.01], [0.999, 0.0007, 0.0002, 0.0001]], dtype=torch.float64
    )
    exact = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    images = torch.arange(20_000.0).reshape(-1, 1, 1, 1)
    for i in range(2):
        spread = []
        for draw in (sketched, drawn):
            c = draw(p[i].expand(20_000, -1), images, 5)
            assert c.sum(1).abs().max() < 1e-12
            torch.testing.assert_close(c.T @ c / 20_000, exact[i], rtol=0.1, atol=3e-3)
            spread.append(float(c.square().sum(1).std() / c.square().sum(1).mean()))
        assert spread[0] < spread[1]
    assert (
        spread[1] > 20 * spread[0]
    )  # a sure model: labels other than its own are hardly ever drawn


def test_draws_depend_on_no_batch() -> None:
    net, images, labels, tests = trained()
    it = problem(net, N, L2)
    for fisher in ("sketched", "sampled"):
        one, other = (
            influences(it, (images, labels), tests, size, fisher=fisher, seed=3) for size in (N, 7)
        )
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
        turned = influences(
            it, (images.flip(0), labels.flip(0)), tests, fisher=fisher, seed=3
        ).flip(1)
        torch.testing.assert_close(turned, one, rtol=1e-6, atol=1e-9)
        assert (
            relative_error(influences(it, (images, labels), tests, fisher=fisher, seed=4), one)
            > 1e-3
        )
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
            def compute_train_loss(
                self, batch: Any, model: nn.Module, sample: bool = False
            ) -> Tensor:
                outputs = model(batch[0])
                labels = (
                    torch.multinomial(outputs.detach().softmax(1), 1)[:, 0] if sample else batch[1]
                )
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
    sets: list[Dataset[Any]] = [
        TensorDataset(images.float().repeat(copies, 1, 1, 1), labels.repeat(copies))
    ]
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
    options: dict[str, Any] = (
        {"fisher": "empirical"} if empirical else {"fisher": "sampled", "samples": copies}
    )
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
        assert rows.shape == (
            40,
            dim or sum(p.numel() for n, p in net.named_parameters() if "conv" in n) + 5 + 13,
        )
        found[dim] = solver.dot(solver.test_rows(it, x[:5], Logit(2)), {"rows": rows})
        own = solver.self_influence(it, x[:5], labels[:5])
        same = solver.dot(solver.test_rows(it, x[:5], labels[:5]), {"rows": rows[:5]}).diagonal()
        torch.testing.assert_close(own, same)
    assert correlation(found[20_000], found[None]) > 0.95


@pytest.mark.filterwarnings("ignore:the model has not converged")  # on the few
def test_how_many_examples_are_taken_at_a_time_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, images, labels, tests = trained()
    images, labels = images[:40], labels[:40]
    it = problem(net, 40, L2)
    fitted = {dim: find_solver("ekfac", dim=dim) for dim in (None, 50)}
    for solver in fitted.values():
        solver.fit(it, batches(images, labels, 15))
    found = []
    for numbers in (2**30, 1):
        monkeypatch.setattr(layers, "_CHUNK", numbers)
        parts = [influences(it, (images, labels), tests)]
        for solver in fitted.values():
            train_rows, test_rows = (
                solver.train_rows(it, images, labels),
                solver.test_rows(it, *tests),
            )
            parts += [train_rows["rows"], test_rows["rows"], solver.dot(test_rows, train_rows)]
            parts.append(solver.self_influence(it, images, labels))
        found.append(parts)
    for whole, bits in zip(*found, strict=True):
        torch.testing.assert_close(bits, whole, rtol=1e-7, atol=1e-9 * float(whole.abs().max()))


class Pooled(nn.Module):
    """Its last layer works at one place of images of 4 x 4, and at several of larger ones."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 6, 3), nn.Conv2d(6, classes, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x))).mean((2, 3))


def test_a_layer_of_one_place_is_stored_as_its_factors() -> None:
    torch.manual_seed(0)
    net = Pooled(5).double()
    _, images, labels, tests = trained()
    it = problem(net, N, L2)
    rows = {}
    for single in (True, False):
        solver = find_solver("ekfac", fisher="empirical", damping=0.01)
        with pytest.warns(UserWarning, match="not converged"):
            solver.fit(it, batches(images, labels))
        state = solver.state()
        assert [bool(state[f"{name}.factored"]) for name in ("first", "last")] == [False, True]
        solver.load(it, state | {"last.factored": torch.tensor([single])})
        train_rows, test_rows = solver.train_rows(it, images, labels), solver.test_rows(it, *tests)
        assert train_rows["rows"].shape == (N, 60 + (5 + 25 if single else 5 * 25))
        rows[single] = train_rows["rows"], solver.dot(test_rows, train_rows)
    torch.testing.assert_close(rows[True][1], rows[False][1], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(
        rows[True][1], slow(net, (images, labels), tests, L2 + 0.01), rtol=1e-6, atol=1e-9
    )
    g, a = rows[True][0][:, 60:].split([5, 25], 1)
    torch.testing.assert_close(g.norm(dim=1), a.norm(dim=1))  # so that a narrow type holds both
    torch.testing.assert_close(g.norm(dim=1) * a.norm(dim=1), rows[False][0][:, 60:].norm(dim=1))
    solver = find_solver("ekfac")
    solver.load(it, state)
    large = images.repeat(1, 1, 2, 2)[:3]
    assert solver.test_rows(it, large, labels[:3])["rows"].isfinite().all()
    assert solver.self_influence(it, large, labels[:3]).min() > 0
    with pytest.raises(
        InputError, match="layer 'last' works at 25 places of these images and at one of those"
    ):
        solver.train_rows(it, large, labels[:3])


class Shared(nn.Module):
    """One layer is called twice, and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.never, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.fc(torch.tanh(self.fc(x.flatten(1))))))


def test_a_layer_called_twice_and_one_that_is_never_called() -> None:
    torch.manual_seed(0)
    net = Shared().double()
    _, images, labels, tests = trained()
    it = problem(net, N)
    solver = find_solver("ekfac")
    with pytest.warns(UserWarning, match="not converged"):
        solver.fit(it, batches(images, labels))
    rows, same = (
        solver.train_rows(it, images, labels)["rows"],
        solver.test_rows(it, images[:9], labels[:9]),
    )
    assert rows.shape == (N, 17 * 16 + (17 + 16) + (17 + 5))
    torch.testing.assert_close(rows[:, : 17 * 16], layer_gradients(net, images, labels, "fc"))
    assert rows[:, 17 * 16 : 17 * 16 + 33].abs().max() == 0
    own = solver.dot(same, {"rows": rows[:9]}).diagonal()
    torch.testing.assert_close(own, solver.self_influence(it, images[:9], labels[:9]))
    assert solver.dot(solver.test_rows(it, *tests), {"rows": rows}).isfinite().all()


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
        find_solver("ekfac").fit(
            problem(randomised(TinyCNN()), 4, parameters=("fc.weight", "bn1.weight")), data
        )
    with pytest.raises(
        InputError, match=r"'fc\.bias' is used other than by calling its layer on a row for"
    ):
        find_solver("ekfac").fit(problem(Turned(), 4), data)
    with pytest.raises(InputError, match="not fitted"):
        find_solver("ekfac").train_rows(problem(randomised(TinyCNN()), 4), x, labels)
    with pytest.raises(InputError, match="not fitted"):
        find_solver("ekfac").dot({"rows": torch.ones(1, 5)}, {"rows": torch.ones(2, 5)})
    for option in ({"fisher": "exact"}, {"damping": -1.0}, {"samples": 0}, {"dim": 0}):
        with pytest.raises(InputError, match=next(iter(option))):
            find_solver("ekfac", **option)


# ---------------------------------------------------------------- half precision


def scores_in(net: nn.Module, size: int, name: str, **options: Any) -> Tensor:
    """(4, 24), of training pictures that come in batches of a size."""
    data = pictures(24, 16), torch.arange(24) % 5
    it = Problem(modules=(net,), count=24, l2=0.01)
    solver = find_solver(name, **options)
    solver.fit(it, batches(*data, size))
    each = [solver.train_rows(it, *batch) for batch in batches(*data, size)()]
    rows = {key: torch.cat([part[key] for part in each]) for key in each[0]}
    return solver.dot(solver.test_rows(it, data[0][:4], data[1][:4]), rows)


@pytest.mark.filterwarnings("ignore:the model has not converged")
@pytest.mark.parametrize(
    ("name", "options"),
    [("ekfac", {}), ("ekfac", {"dim": 64}), ("trak", {"dim": 64}), ("gradient_dot", {})],
)
def test_half_precision_does_not_depend_on_batches(name: str, options: dict[str, Any]) -> None:
    net = randomised(TinyCNN())
    exact = scores_in(net, 8, name, **options)
    net = net.to(torch.bfloat16)
    found = scores_in(net, 8, name, **options)
    assert found.dtype == torch.float32
    assert relative_error(scores_in(net, 5, name, **options), found) < 1e-3
    assert correlation(found, exact) > 0.999


@pytest.mark.filterwarnings("ignore:the model has not converged")
def test_an_index_fitted_under_autocast() -> None:
    net, data = randomised(TinyCNN()), (pictures(24, 16), torch.arange(24) % 5)

    def scores() -> Tensor:
        index = InfluenceIndex.fit(net, data, solver="ekfac", l2=0.01)
        return index.scores(data[0][:4], labels=data[1][:4])

    exact = scores()
    with torch.autocast("cpu", torch.bfloat16):
        cast = scores()
    assert cast.dtype == torch.float32
    assert correlation(cast, exact) > 0.999


class Slanted(nn.Module):
    """A linear layer whose weight is used beside its call, too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return self.fc(flat) + flat.sin() @ self.fc.weight.T


@pytest.mark.filterwarnings("ignore:the model has not converged")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_uses_are_seen_in_any_precision(dtype: torch.dtype) -> None:
    data = pictures(6, 4), torch.arange(6) % 5
    net = randomised(Slanted()).to(dtype)
    solver = find_solver("ekfac")
    with pytest.raises(ModelError, match=r"'fc\.weight' is used other than by calling its layer"):
        solver.fit(Problem(modules=(net,), count=6), batches(*data, 6))


def test_the_check_asks_for_exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    was = torch.get_float32_matmul_precision()
    linear = F.linear
    monkeypatch.setattr(
        F, "linear", lambda *a: seen.append(products_are_exact("cpu")) or linear(*a)
    )
    net = randomised(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)))
    it = Problem(modules=(net,), count=6)
    torch.set_float32_matmul_precision("medium")
    try:
        assert unusual(it, it.call, pictures(3, 4)) == frozenset()
        assert not products_are_exact("cpu")
    finally:
        torch.set_float32_matmul_precision(was)
    assert seen
    assert all(seen)
