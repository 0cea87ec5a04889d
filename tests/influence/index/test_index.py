"""The index's answers against slow gradients, a dense sort and its solvers; and what it says of bad input."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import seewhy
from influence_cases import (
    NOT_TRAINED,
    K,
    N,
    Photos,
    fit,
    gradient,
    network,
    prepared,
    slow_scores,
)
from seewhy.data.dataset import Example
from seewhy.errors import ArgumentTypeError, ImageError, InputError, ModelError, SeewhyWarning
from seewhy.influence import SOLVERS, Cost, InfluenceIndex, Problem, find_solver
from tiny_models import ModelState, TinyCNN

pytestmark = NOT_TRAINED


def test_scores_are_gradient_products(net: TinyCNN, data: Any, tested: Any) -> None:
    before = ModelState(net)
    index = fit(net, data)
    found = index.scores(*tested)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), slow_scores(net, data, tested), rtol=1e-5, atol=1e-8)
    own = index.self_influence()
    torch.testing.assert_close(own, slow_scores(net, data, data).diagonal(), rtol=1e-9, atol=1e-12)
    before.assert_unchanged()
    assert len(index) == N
    assert torch.equal(index.labels, data[1])
    assert index.names == [str(i) for i in range(N)]
    assert len(index._head["shards"]) == 5


def test_a_query_is_a_dense_sort(net: TinyCNN, data: Any, tested: Any) -> None:
    index = fit(net, data)
    scores = index.scores(*tested)
    for k in (1, 7, 100):
        for row, asked in zip(scores, index.query(tested[0], k, labels=tested[1]), strict=True):
            for ends, sign in ((asked.helpful, 1), (asked.harmful, -1)):
                order = (sign * row).argsort(descending=True, stable=True)
                expected = [i for i in order.tolist() if sign * row[i] > 0][:k]
                assert [end.index for end in ends] == expected
                assert [end.score for end in ends] == pytest.approx(
                    row[expected].tolist(), rel=1e-5
                )
                assert [end.label for end in ends] == data[1][expected].tolist()
    assert index.query(tested[0], 1, labels=tested[1])[1].about == "the loss of class 3"


def test_targets_and_the_models_own_answers(net: TinyCNN, data: Any, tested: Any) -> None:
    index, x = fit(net, data), tested[0]
    answers = net(x).argmax(1)
    torch.testing.assert_close(index.scores(x), index.scores(x, answers))
    trained = torch.stack(
        [gradient(net, F.cross_entropy(net(a[None]), b[None])) for a, b in zip(*data, strict=True)]
    )
    for target, score in (
        ("top1", lambda out, i: out[0, answers[i]]),
        (2, lambda out, i: out[0, 2]),
        ([1, 0, 4, 4], lambda out, i: out[0, [1, 0, 4, 4][i]]),
        ("probability:1", lambda out, i: out.softmax(1)[0, 1]),
        (lambda out: out[:, 1] - out[:, 0], lambda out, i: out[0, 1] - out[0, 0]),
    ):
        slow = torch.stack(
            [-gradient(net, score(net(x[i : i + 1]), i)) @ trained.T / N for i in range(len(x))]
        )
        torch.testing.assert_close(
            index.scores(x, target=target).double(), slow, rtol=1e-4, atol=1e-7
        )
    several = fit(seewhy.wrap(net, multi_label=True), data).scores(x, target="probability:1")
    slow = torch.stack([-gradient(net, net(a[None]).sigmoid()[0, 1]) @ trained.T / N for a in x])
    torch.testing.assert_close(several.double(), slow, rtol=1e-4, atol=1e-7)
    asked = index.query(x, 2, target="top1")[0]
    assert asked.about == asked.predicted == f"class {int(answers[0])}"
    for wrong, said in (
        ({"target": "top2"}, "is 2 targets"),
        ({"target": [1, 2]}, "names 2 classes for 4 images"),
        ({"target": 1, "labels": [0] * 4}, "both given"),
        ({"labels": [0] * 3}, "labels has shape"),
        ({"labels": [0, 0, 0, 5]}, "labels has"),
        ({"labels": [0.0] * 4}, "whole numbers"),
    ):
        with pytest.raises(InputError, match=said):
            index.scores(x, **wrong)


@pytest.mark.parametrize("solver", ["gradient_dot", "last_layer"])
def test_neither_batches_nor_shards_nor_processes_that_read_matter(
    net: TinyCNN, data: Any, tested: Any, solver: str
) -> None:
    first = fit(net, data, solver=solver, l2=0.1)
    other = fit(
        net,
        data,
        solver=solver,
        l2=0.1,
        batch_size=50,
        shard_rows=None,
        workers=2 * (solver == "last_layer"),
    )
    torch.testing.assert_close(first.scores(*tested), other.scores(*tested), rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(
        first.self_influence(), other.self_influence(), rtol=1e-8, atol=1e-12
    )


def test_every_form_of_data_gives_the_same(net: TinyCNN, photos: Photos, tmp_path: Path) -> None:
    model = prepared(net)
    assert model.preprocess
    x, _ = model.preprocess.batch(photos.photos)
    labels = torch.tensor(photos.labels)[:, 0]
    indices = [
        fit(model, photos),
        fit(model, (x, labels)),
        fit(net, TensorDataset(x, labels)),
    ]
    expected = slow_scores(net, (x.double(), labels), (x[:3].double(), labels[:3]))
    for index in indices:
        torch.testing.assert_close(
            index.scores(x[:3], labels[:3]).double(), expected, rtol=1e-4, atol=1e-7
        )
    asked = indices[0].query(photos.photos[:2], 1)[0].helpful[0]
    assert asked.name == f"photo-{asked.index}"
    assert asked.label_name == "abcde"[asked.label]
    assert indices[0].data.photo(4)[0].size == (12, 12)
    assert indices[1].data.photo(4)[0].size == (96, 96)


OPTIONS: dict[str, dict[str, Any]] = {
    "hessian": {"curvature": "gauss_newton", "damping": 0.1},
    "conjugate_gradient": {"curvature": "gauss_newton", "damping": 0.1},
    "lissa": {"curvature": "gauss_newton", "damping": 0.1, "depth": 96, "tolerance": 0.1},
    "arnoldi": {"curvature": "gauss_newton"},
    "trak": {"dim": 32},
}


@pytest.mark.parametrize("name", SOLVERS)
def test_an_index_says_what_its_solver_says(
    name: str, net: TinyCNN, data: Any, tested: Any, tmp_path: Path
) -> None:
    few = (data[0][:15], data[1][:15])
    options: dict[str, Any] = {"l2": 0.1, "parameters": ["fc.weight", "fc.bias"]}
    rates = [0.1] if name == "tracin" else None
    solver = find_solver(name, **OPTIONS.get(name, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeewhyWarning)  # iterations that stop early
        index = fit(net, few, solver=solver, out=tmp_path, learning_rates=rates, **options)
        opened = InfluenceIndex.open(tmp_path, net, data=few)
        alone = find_solver(name, **OPTIONS.get(name, {}))
        problem = Problem(
            modules=(net,),
            count=15,
            l2=0.1,
            parameters=("fc.weight", "fc.bias"),
            learning_rates=None if rates is None else tuple(rates),
        )
        alone.fit(problem, lambda: list(zip(*(part.split(8) for part in few), strict=True)))
        direct = alone.dot(
            alone.test_rows(problem, *tested), alone.train_rows(problem, *few)
        ).float()
        own = alone.self_influence(problem, *few).double()
        error = 0.1 if name == "lissa" else 1e-4  # its tolerance here
        for found in (index, opened):
            torch.testing.assert_close(
                found.scores(*tested), direct, rtol=0, atol=error * float(direct.abs().max())
            )
            torch.testing.assert_close(
                found.self_influence(), own, rtol=0, atol=error * float(own.abs().max())
            )


def test_solvers_that_read_the_training_data_ask_for_it(
    net: TinyCNN, data: Any, tested: Any, tmp_path: Path
) -> None:
    options = {"curvature": "gauss_newton", "damping": 0.1, "tolerance": 1e-8}
    fitted = fit(
        net,
        data,
        solver=find_solver("conjugate_gradient", **options),
        out=tmp_path,
        parameters=["fc.weight"],
    )
    expected = fitted.scores(*tested)
    with pytest.raises(InputError, match="needs the training data of the index"):
        InfluenceIndex.open(tmp_path, net).scores(*tested)
    opened = InfluenceIndex.open(tmp_path, net, data=data)
    torch.testing.assert_close(opened.scores(*tested), expected)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_less_precise_stores_are_close(
    net: TinyCNN, data: Any, tested: Any, dtype: Any, tmp_path: Path
) -> None:
    exact = fit(net, data).scores(*tested)
    found = fit(net, data, dtype=dtype, out=tmp_path).scores(*tested)
    error = {"float16": 2**-10, "float32": 2**-22}[dtype]
    assert (found - exact).abs().max() <= error * exact.abs().max()
    whole = N * 8 * sum(p.numel() for p in net.parameters())
    assert sum(path.stat().st_size for path in tmp_path.glob("rows-*")) < 0.6 * whole


def test_bad_input_is_one_line(net: TinyCNN, data: Any, photos: Photos) -> None:
    x, y = data
    for wrong in (-1, K):
        labels = y.clone()
        labels[12] = wrong
        with pytest.raises(
            InputError, match=f"label {wrong} of example 12 is no class of the model, which has 5"
        ):
            fit(net, TensorDataset(x, labels))
    multi = Photos(photos.photos, [0] * 20)
    multi.labels[3] = (1, 2)
    model = seewhy.wrap(net, preprocess=seewhy.IMAGENET)
    for given, error, said in (
        ((x[:0], y[:0]), InputError, "train_data is empty"),
        ((x, y[:3]), InputError, "train_data has images"),
        ((x, y.float()), InputError, "whole numbers"),
        ([1, 2, 3], ArgumentTypeError, "train_data is a list"),
        (TensorDataset(x), ArgumentTypeError, "gives a tuple for an example"),
        (multi, InputError, "'photo-3' of photos has 2 labels"),
    ):
        with pytest.raises(error, match=said):
            fit(model, given)
    with pytest.raises(InputError, match="the model has no preprocess"):
        fit(net, photos)
    with pytest.raises(
        InputError, match="solver 'last_layr' is unknown; did you mean 'last_layer'"
    ):
        fit(net, data, solver="last_layr")
    with pytest.raises(InputError, match="x has NaN"):
        fit(net, data).scores(x[:1] * float("nan"))


def test_what_a_worker_cannot_read_is_one_line(net: TinyCNN, photos: Photos) -> None:
    class Broken(Photos):
        def __getitem__(self, index: int) -> Example:
            if index == 13:
                raise ImageError("image 'b.jpg' is empty; get it anew")
            return super().__getitem__(index)

    model = prepared(net)
    broken = Broken(photos.photos, [labels[0] for labels in photos.labels])
    for workers in (0, 1):
        with pytest.raises(ImageError) as raised:
            fit(model, broken, workers=workers)
        assert str(raised.value) == "image 'b.jpg' is empty; get it anew"


def test_checkpoints_add_up(net: TinyCNN, data: Any, tested: Any) -> None:
    early = network(1)
    index = fit([early, net], data, solver="tracin", learning_rates=[0.1, 0.02])
    slow = 0.1 * slow_scores(early, data, tested) + 0.02 * slow_scores(net, data, tested)
    torch.testing.assert_close(index.scores(*tested).double(), slow, rtol=1e-5, atol=1e-8)


def test_classes_that_are_empty_or_none_of_the_models_are_told(
    net: TinyCNN, data: Any, photos: Photos
) -> None:
    with pytest.raises(ModelError, match=r"has no class 'c' of .*; give the names of its columns"):
        fit(prepared(net, labels=["a", "b", "x", "d", "e"]), photos)
    with pytest.raises(ModelError, match="labels has 3 names, the model gives 5 columns"):
        fit(prepared(net, labels=["a", "b", "c"]), data)
    few = data[1] % 3
    with pytest.warns(
        SeewhyWarning,
        match="2 of the model's 5 classes have no training example: class 3, class 4;",
    ):
        fit(net, (data[0], few))


def test_classes_are_matched_by_name(net: TinyCNN, photos: Photos) -> None:
    """The labels of an index are the model's, whatever the order in which the data list theirs."""
    turned = fit(prepared(net, labels=["E", "d", "c", "b", "a"]), photos)
    assert turned.labels.tolist() == [4 - label for (label,) in photos.labels]
    assert turned.classes == ("E", "d", "c", "b", "a")
    numbered = Photos(photos.photos, [label for (label,) in photos.labels])
    numbered.classes = ("4", "3", "2", "1", "0")
    assert fit(prepared(net), numbered).labels.tolist() == [4 - label for (label,) in photos.labels]


def test_a_model_that_a_solver_cannot_do_with_is_told_before_any_estimate(data: Any) -> None:
    told: list[Cost] = []
    with pytest.raises(ModelError, match="the model's head is not linear"):
        fit(nn.Sequential(network(), nn.Tanh()), data, solver="last_layer", announce=told.append)
    assert not told


def test_the_estimate_comes_first_and_is_about_right(
    net: TinyCNN, data: Any, tmp_path: Path
) -> None:
    told: list[Any] = []
    fit(
        net,
        data,
        out=tmp_path,
        announce=told.append,
        progress=lambda done, total: told.append((done, total)),
    )
    cost, *steps = told
    assert isinstance(cost, Cost)
    stored = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert 0.8 * stored < cost.disk < 1.2 * stored
    assert cost.seconds is not None
    assert "43 examples: about" in str(cost)
    assert steps[-1] == (N, N)
    assert steps == sorted(steps)


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_the_last_layer_knows_self_influence_without_the_data(
    net: TinyCNN, data: Any, tmp_path: Path, dtype: Any
) -> None:
    index = fit(net, data, solver="last_layer", l2=0.1, out=tmp_path, dtype=dtype)
    expected = index.solver.self_influence(index.problem, *data)
    told: list[tuple[int, int]] = []
    opened = InfluenceIndex.open(tmp_path, net, batch_size=8)
    own = opened.self_influence(progress=lambda done, total: told.append((done, total)))
    torch.testing.assert_close(own, expected, rtol=1e-8 if dtype is None else 1e-4, atol=0.0)
    assert told[-1] == (N, N)


def test_what_its_fit_warned_of_stands_on_every_answer(
    net: TinyCNN, data: Any, tested: Any, tmp_path: Path
) -> None:
    with pytest.warns(SeewhyWarning, match="has not converged"):
        index = fit(net, data, solver="last_layer", l2=0.05, out=tmp_path)
    assert index.remarks[0].startswith("the model has not converged")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = InfluenceIndex.open(tmp_path, net)
        (found,) = again.query(tested[0][:1], 1)
    assert again.remarks == found.remarks == index.remarks
    assert "has not converged" in repr(found)
    assert fit(net, data).remarks == ()
