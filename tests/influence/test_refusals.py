"""What an index and its solvers refuse or stand: losses, modes of the caller, folders, shared objects, odd networks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from influence_cases import NOT_TRAINED, N, fit, gradient, held_back, network, training
from seewhy.errors import InputError, ModelError, SeewhyWarning
from seewhy.influence import (
    SOLVERS,
    InfluenceIndex,
    Problem,
    find_solver,
    match_regions,
    mislabeled,
)
from seewhy.influence.answers.sheets import influence_sheet, mislabeled_sheet
from seewhy.influence.gradients.per_example import example_gradients
from seewhy.influence.solvers import lissa
from seewhy.influence.solvers.baselines import EmbeddingSimilarity
from seewhy.influence.solvers.solver import is_calibrated

pytestmark = NOT_TRAINED


def weighted(by: float, at: int = 4) -> Callable[[Tensor, Tensor], Tensor]:
    """The cross entropy with another weight for one class."""

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        weight = torch.ones(5).to(outputs)
        weight[at] = by
        return F.cross_entropy(outputs, labels, weight=weight, reduction="none")

    return loss


def smoothed(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, label_smoothing=0.1, reduction="none")


def test_losses_that_are_no_cross_entropy() -> None:
    x, y = training(10)  # the odd class is beyond the first examples
    for solver in ("last_layer", "ekfac", "trak"):
        with pytest.raises(InputError, match=f"the softmax cross entropy, which {solver} is for"):
            fit(network(), (x, y), solver=solver, loss=weighted(3.0), l2=0.1)
    fit(
        network(),
        (x, y),
        solver=find_solver("ekfac", fisher="empirical"),
        loss=weighted(3.0),
        l2=0.1,
    )
    fit(network(), (x, y), solver="last_layer", loss=smoothed, l2=0.1)  # curves alike
    with pytest.raises(InputError, match="is not the softmax cross entropy"):
        fit(network(), (x, y), solver="trak", loss=smoothed)
    loss = nn.CrossEntropyLoss(
        torch.arange(5.0), reduction="none"
    )  # float64 does not go with its weights
    with pytest.raises(InputError, match="does not curve"):
        fit(network().float(), (x.float(), y), solver="last_layer", loss=loss)


@pytest.mark.parametrize("solver", ["last_layer", "gradient_dot"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_does_not_matter(mode: Any, solver: str, tmp_path: Path) -> None:
    net, data, tested = network(), training(12), held_back()
    expected = fit(net, data, solver=solver, l2=0.1)
    with mode():
        x, y = (part.clone() for part in data)
        index = fit(net, (x, y), solver=solver, l2=0.1, out=tmp_path)
        opened = InfluenceIndex.open(tmp_path, net, data=(x, y))
        for found in (index, opened):
            torch.testing.assert_close(
                found.scores(*(t.clone() for t in tested)), expected.scores(*tested)
            )
            torch.testing.assert_close(found.self_influence(), expected.self_influence())
            assert len(found.query(tested[0].clone(), 2)) == 4
            matched = match_regions(found, tested[0][:1].clone(), [0, 3])
            assert torch.isfinite(matched.test.map).all()


def test_a_fit_that_failed_leaves_its_folder_free(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="singular"):
        fit(network(), training(12), solver="last_layer", out=tmp_path)
    assert len(fit(network(), training(12), solver="last_layer", l2=0.01, out=tmp_path)) == 12
    for options, said in (
        ({"dtype": "int8"}, "dtype='int8' is not known"),
        ({"batch_size": 0}, "batch_size=0 cannot be used"),
        ({"shard_rows": -1}, "shard_rows=-1 cannot be used"),
    ):
        with pytest.raises(InputError, match=said):
            fit(network(), training(12), **options)


def test_a_solver_is_not_shared(tmp_path: Path) -> None:
    solver, data, tested = find_solver("last_layer"), training(12), held_back()
    first = fit(network(), data, solver=solver, l2=0.1, out=tmp_path)
    expected = first.scores(*tested)
    fit(network(1), data, solver=solver, l2=1.0)
    assert torch.equal(first.scores(*tested), expected)
    opened = InfluenceIndex.open(tmp_path, network(), solver=first.solver)
    opened.remove([0], curvature="keep")
    assert opened.solver is not first.solver
    assert solver.state() == {}


def test_losses_of_one_name_are_told_apart(tmp_path: Path) -> None:
    fit(network(), training(12), loss=weighted(2.0), out=tmp_path)
    InfluenceIndex.open(tmp_path, network(), loss=weighted(2.0))
    for use in (
        lambda: InfluenceIndex.open(tmp_path, network(), loss=weighted(2.5)),
        lambda: fit(network(), training(12), loss=weighted(2.5), out=tmp_path),
    ):
        with pytest.raises(InputError, match="holds an index with another loss="):
            use()


@pytest.mark.parametrize("part", [False, True])
def test_tensor_data_sets_are_compared_whole(part: bool, tmp_path: Path) -> None:
    x, y = training()

    def made(images: Tensor, labels: Tensor) -> Any:
        whole = TensorDataset(images, labels)
        return Subset(whole, range(N)) if part else whole

    fit(network(), made(x, y), out=tmp_path)
    InfluenceIndex.open(tmp_path, network(), data=made(x, y))
    corrected, swapped = y.clone(), torch.arange(N)
    corrected[1], swapped[[1, 6]] = 3, torch.tensor([6, 1])  # no example whose pixels are compared
    for wrong in (made(x, corrected), made(x[swapped], y[swapped])):
        with pytest.raises(InputError, match="data does not fit the index"):
            InfluenceIndex.open(tmp_path, network(), data=wrong)


def test_that_few_examples_were_compared_is_told(tmp_path: Path) -> None:
    class Plain(Dataset[Any]):
        def __len__(self) -> int:
            return N

        def __getitem__(self, index: int) -> Any:
            return training()[0][index], index % 5

    fit(network(), Plain(), out=tmp_path)
    with pytest.warns(SeewhyWarning, match="only 16 of the 43 examples were compared"):
        InfluenceIndex.open(tmp_path, network(), data=Plain())


class Twice(nn.Module):
    """A head that runs twice when it is called; or once, while its weight is used a second time without a call."""

    def __init__(self, called: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.called, self.fc = called, nn.Linear(12, 5).double()

    def forward(self, x: Tensor) -> Tensor:
        a = x.mean((1, 2))
        if self.called:
            return self.fc(a) if bool(self.fc(a.flip(1)).isfinite().all()) else self.fc(a.abs())
        return self.fc(a) + F.linear(a.flip(1).tanh(), self.fc.weight)


class SequenceFirst(nn.Module):
    """Three rows of a picture as a sequence, (3, B, 12)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.fc = nn.Linear(12, 4).double(), nn.Linear(4, 5).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.inner(x[:, 0, :3].transpose(0, 1)).tanh().mean(0))


@pytest.mark.parametrize("net", [Twice(called=False), SequenceFirst()])
def test_layers_used_in_no_usual_way(net: nn.Module) -> None:
    for count in (1, 2, 3, 4):  # as many pictures as the sequence is long, too
        x, y = training(count)
        found = example_gradients(Problem(modules=(net,), count=count), x, y)
        slow = [
            gradient(net, F.cross_entropy(net(a[None]), b[None])) for a, b in zip(x, y, strict=True)
        ]
        torch.testing.assert_close(found, torch.stack(slow))
    x, y = training(6)
    with pytest.raises(
        ModelError, match="is used other than by calling its layer on a row for each image"
    ):
        find_solver("ekfac").fit(Problem(modules=(net,), count=6), lambda: [(x, y)])


def test_networks_that_are_refused() -> None:
    with pytest.raises(ModelError, match="'fc' runs 2 times in one forward pass"):
        fit(Twice(called=True), training(6), solver="last_layer", l2=0.1)
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(InputError, match="'0' has no running statistics"):
        Problem(modules=(nn.Sequential(norm),), count=1)


def test_an_index_that_was_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    net, data, tested = network(), training(12), held_back()
    index = fit(net, data, out=tmp_path, about={"model": "first"})
    assert fit(net, data, out=tmp_path, about={"model": "second"}).about == {"model": "second"}
    assert json.loads((tmp_path / "manifest.json").read_text())["about"] == {"model": "second"}
    net.load_state_dict(network().state_dict())  # the same values
    before = index.scores(*tested)
    with torch.no_grad():
        net.fc.weight += 1
    for use in (lambda: index.scores(*tested), index.self_influence):
        with pytest.raises(InputError, match="model does not fit the index"):
            use()
    net.load_state_dict(network().state_dict())
    assert torch.equal(index.scores(*tested), before)
    InfluenceIndex.open(tmp_path, net).remove([3])
    with pytest.raises(InputError, match="from which 1 examples were removed"):
        fit(net, data, out=tmp_path)


def test_sheets_of_scores_that_are_no_influences(monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy.influence.answers import sheets as drawn

    said: list[str] = []
    page, row = drawn._page, drawn._row
    monkeypatch.setattr(
        drawn, "_page", lambda t, b, notes, *rest: (said.extend(notes), page(t, b, notes, *rest))[1]
    )
    monkeypatch.setattr(
        drawn, "_row", lambda title, *rest: (said.append(title), row(title, *rest))[1]
    )
    x = held_back()[0][:1]
    for solver in ("embedding", "last_layer"):
        said.clear()
        index = fit(network(), training(12), solver=solver, l2=0.1)
        found = index.query(x, 2)[0]
        influence_sheet(index, x, found)
        text = " ".join(said)
        for words in (
            "highest scores by embedding",
            "Only its order counts; it does not say by how much the loss of class",
            "The maps do not divide the scores of embedding, but the product",
        ):
            assert (words in text) == (solver == "embedding")
        assert ("would rise" in text) == (solver == "last_layer")
        said.clear()
        influence_sheet(index, x, dataclasses.replace(found, helpful=(), harmful=()))
        assert not any("number" in note or "Bright" in note for note in said)
    said.clear()
    tracin = fit(network(), training(12), solver="tracin", learning_rates=[0.1])
    mislabeled_sheet(tracin, mislabeled(tracin, 2))
    assert "the score by tracin of each training picture on its own loss" in " ".join(said)
    with pytest.raises(InputError, match="gives every example the same self-influence"):
        mislabeled(fit(network(), training(12), solver="embedding"))


def test_solvers_say_whether_their_numbers_have_a_unit() -> None:
    found = {name: is_calibrated(find_solver(name)) for name in SOLVERS}
    ranks = {"embedding", "loss", "random", "trak", "tracin", "gradient_dot"}
    said = {name for name, calibrated in found.items() if not calibrated}
    assert said == ranks, (
        f"a new solver whose scores only rank goes into `ranks` here: {said ^ ranks}"
    )

    class Own(EmbeddingSimilarity):
        """Stands for a solver that was written before there was such an attribute."""

        def __getattribute__(self, name: str) -> Any:
            if name == "calibrated":
                raise AttributeError(name)
            return super().__getattribute__(name)

    index, x = fit(network(), training(12), solver=Own()), held_back()[0][:1]
    assert is_calibrated(index.solver)
    assert influence_sheet(index, x, index.query(x, 2)[0]).width > 300


def test_lissa_that_does_not_improve_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lissa, "_averaged", lambda curvature, right, scale, passes: -right)

    class Identity:
        def products(self, rows: Tensor) -> Tensor:
            return rows

    right = torch.ones(1, 3, dtype=torch.float64)
    with pytest.raises(InputError, match="LiSSA does not improve on a residual of 1 with"):
        lissa.recursion(Identity(), right, 1.0, tolerance=0.01, depth=1000)  # type: ignore[arg-type]


def test_what_self_influence_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy.influence.solvers import last_layer

    index = fit(network(), training(12), solver="last_layer", l2=0.1)
    building = index._building()
    assert (
        building._working({"features": torch.zeros(8, 50), "residuals": torch.zeros(8, 10)})
        == 3 * 8 * 8 * 500
    )
    assert (
        building._working({"features": torch.zeros(1, 9000), "residuals": torch.zeros(1, 1000)})
        == 3 * 8 * 2**24
    )
    size = (
        index.problem.flat().numel()
    )  # of these eight gradients are held whole before they are projected
    projected = fit(network(), training(12), solver=find_solver("gradient_dot", dim=4))
    assert (
        projected._building()._working({"rows": torch.zeros(8, 4)})
        == int(2.5 * 8 * size * 8) + size * 4
    )
    expected = index.scores(*held_back())
    own = index.solver.self_influence(index.problem, *training(12))
    monkeypatch.setattr(last_layer, "WORKING", 1)  # one by one
    torch.testing.assert_close(index.scores(*held_back()), expected)
    torch.testing.assert_close(index.solver.self_influence(index.problem, *training(12)), own)
