"""One classifier in every form that people have it in: the same probabilities, maps and metrics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import ModelError, SeewhyError, SeewhyWarning, TargetError
from tiny_models import pictures

CLASSES, SIZE = 4, 8
WINDOW = {"occlusion": {"window": 4, "stride": 4}, "rise": {"samples": 64, "cells": 4}}


def weights() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(CLASSES, 3 * SIZE * SIZE, generator=generator) / 4, torch.randn(
        CLASSES, generator=generator
    )


def linear() -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES)).eval()
    with torch.no_grad():
        net[1].weight.copy_(weights()[0])
        net[1].bias.copy_(weights()[1])
    return net


class Ended(nn.Module):
    """What is not to be told from its parts."""

    def __init__(self, end: Any, **said: Any) -> None:
        super().__init__()
        self.net, self.end = linear(), end
        for name, value in said.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Any:
        return self.end(self.net(x))


class Session:
    """An ONNX Runtime session of labels and scores."""

    def __init__(self, end: Any) -> None:
        self.net, self.end = linear(), end

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="x", shape=["n", 3, SIZE, SIZE])]

    def get_outputs(self) -> list[Any]:
        kinds = {"label": "tensor(int64)", "of_each": "tensor(float)"}
        return [SimpleNamespace(name=name, type=kind) for name, kind in kinds.items()]

    def run(self, names: list[str], given: dict[str, Any]) -> list[Any]:
        with torch.no_grad():
            scores = self.end(self.net(torch.as_tensor(given["x"])))
        said = {"label": scores.argmax(1).numpy(), "of_each": scores.numpy()}
        return [said[name] for name in names]


def estimator() -> Any:
    linear_model = pytest.importorskip("sklearn.linear_model")
    made = linear_model.LogisticRegression()
    made.classes_ = np.arange(CLASSES)
    made.coef_, made.intercept_ = (each.double().numpy() for each in weights())
    return made


def softmax(scores: Tensor) -> Tensor:
    return scores.softmax(1)


def as_configured(problem: str) -> Any:
    return SimpleNamespace(problem_type=problem)


ONE_OF_SEVERAL: dict[str, Any] = {
    "softmax at its end": lambda: nn.Sequential(linear(), nn.Softmax(1)),
    "softmax within": lambda: Ended(softmax),
    "log-softmax": lambda: nn.Sequential(linear(), nn.LogSoftmax(1)),
    "in a dictionary": lambda: Ended(lambda scores: {"logits": scores}),
    "as transformers have it": lambda: Ended(
        lambda scores: SimpleNamespace(logits=scores),
        config=as_configured("single_label_classification"),
    ),
    "behind features": lambda: seewhy.wrap(
        Ended(lambda scores: (torch.zeros_like(scores), scores)), output=1
    ),
    "an adapter's softmax": lambda: seewhy.wrap(linear(), output=softmax),
    "a session of logits": lambda: Session(lambda scores: scores),
    "a session of probabilities": lambda: Session(softmax),
    "an estimator": lambda: seewhy.wrap(estimator(), takes="array"),
    "an estimator's method": lambda: seewhy.wrap(estimator().predict_proba, takes="array"),
    "a function of arrays": lambda: (
        lambda x: softmax(linear()(torch.as_tensor(x))).detach().numpy()
    ),
    "a function of lists": lambda: lambda x: softmax(linear()(x)).tolist(),
}
EACH_BY_ITSELF: dict[str, Any] = {
    "sigmoids at its end": lambda: nn.Sequential(linear(), nn.Sigmoid()),
    "sigmoids that are said": lambda: seewhy.wrap(Ended(torch.sigmoid), gives="sigmoids"),
    "as transformers have it": lambda: Ended(
        lambda scores: SimpleNamespace(logits=scores),
        config=as_configured("multi_label_classification"),
    ),
    "a function": lambda: seewhy.wrap(
        lambda x: linear()(x).sigmoid().detach().numpy(), gives="sigmoids"
    ),
}


def said_by(model: Any) -> tuple[list[float], list[Tensor], list[float]]:
    """Probabilities of predictions, of targets and of attributions; maps; metrics."""
    x = pictures(2, SIZE)
    targets = ["probability:top1", "probability:2"]
    ex = seewhy.explain(model, x, methods=["occlusion", "rise"], targets=targets, options=WINDOW)
    chances = [p.probability for of_one in ex.predictions for p in of_one]
    told = [*chances, *(p for a in ex for p in a.probabilities), *(s for a in ex for s in a.scores)]
    metrics = ["deletion", "insertion", "average_drop"]
    asked: dict[str, Any] = {
        "methods": "occlusion",
        "metrics": metrics,
        "chance": (),
        "options": WINDOW,
    }
    judged = seewhy.evaluate(model, x, targets=targets, **asked).rows
    return (
        [float("nan") if value is None else value for value in told],
        [a.map for a in ex],
        [float(row.result.mean) for row in judged],
    )


def check_same(model: Any, reference: Any) -> None:
    for mine, theirs in zip(said_by(model), said_by(reference), strict=True):
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(
                torch.as_tensor(one), torch.as_tensor(other), rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("form", ONE_OF_SEVERAL)
def test_one_of_several_classes(form: str) -> None:
    check_same(ONE_OF_SEVERAL[form](), linear())


@pytest.mark.parametrize("form", EACH_BY_ITSELF)
def test_each_class_by_itself(form: str) -> None:
    check_same(EACH_BY_ITSELF[form](), seewhy.wrap(linear(), multi_label=True))


def test_onnx_runtime_says_the_same() -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    value, bias = (
        numpy_helper.from_array(each.numpy(), name)
        for each, name in zip(weights(), "wb", strict=True)
    )
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1),
        helper.make_node("Softmax", ["y"], ["p"], axis=1),
        helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", CLASSES]),
    ]
    graph = helper.make_graph(nodes, "net", given, outputs, [value, bias])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    check_same(runtime.InferenceSession(made.SerializeToString()), linear())


# ---------------------------------------------------------------- what stays open, and what is no score


def sigmoids(x: Tensor) -> Tensor:
    return linear()(x).sigmoid()


@pytest.mark.filterwarnings("ignore:the model's numbers lie in")
def test_what_may_be_either_is_asked_about() -> None:
    x = pictures(1, SIZE)
    with pytest.warns(
        SeewhyWarning, match=r"lie in \[0, 1\], and may be probabilities or scores; say .*gives="
    ):
        ex = seewhy.explain(sigmoids, x, methods="occlusion", options=WINDOW)
    best = ex.predictions[0][0]
    assert best.probability is None
    assert best.score == pytest.approx(float(sigmoids(x).detach().max()), abs=1e-6)
    assert ex[0].probabilities == (None,)
    with pytest.raises(ModelError, match="gives="):
        seewhy.explain(sigmoids, x, methods="occlusion", options=WINDOW, targets="probability:top1")
    with pytest.raises(ModelError, match="gives="):
        seewhy.evaluate(
            sigmoids, x, methods="occlusion", metrics="deletion", chance=(), options=WINDOW
        )


def test_a_regression_has_scores_and_no_probabilities(tmp_path: Any) -> None:
    model = seewhy.wrap(lambda x: x.mean((1, 2, 3)), gives="score")
    ex = seewhy.explain(model, pictures(1, SIZE), methods="occlusion", targets=0, options=WINDOW)
    assert [p.probability for p in ex.predictions[0]] == [None]
    assert ex.sheet(0).size[0] > 0
    ex.report(tmp_path / "out.html")
    assert f"score {ex.predictions[0][0].score:.3g}" in (tmp_path / "out.html").read_text()


def test_an_embedding_has_no_classes() -> None:
    ex = seewhy.explain(
        seewhy.wrap(linear(), gives="embedding"),
        pictures(2, SIZE),
        methods="occlusion",
        targets=lambda out: out.norm(dim=1),
        options=WINDOW,
    )
    assert ex.predictions == ((), ())
    with pytest.raises(
        TargetError, match="gives an embedding, which has no classes; give a callable"
    ):
        seewhy.explain(
            seewhy.wrap(linear(), gives="embedding"), pictures(1, SIZE), methods="saliency"
        )


def test_names_of_classes_are_refused_as_scores() -> None:
    ensemble, linear_model = (
        pytest.importorskip("sklearn.ensemble"),
        pytest.importorskip("sklearn.linear_model"),
    )
    rows, labels = np.random.default_rng(0).random((30, 192)), np.arange(30) % 3
    vote = ensemble.VotingClassifier(
        [("one", linear_model.LogisticRegression())], voting="hard"
    ).fit(rows, labels)
    with pytest.raises(
        ModelError, match=r"VotingClassifier that has only predict\(\), names of classes"
    ):
        seewhy.wrap(vote)
    with pytest.raises(
        ModelError, match=r"VotingClassifier that has only predict\(\), names of classes"
    ):
        seewhy.wrap(vote.predict, takes="array")

    def predicted(x: Tensor) -> Any:
        return vote.predict(x.flatten(1).numpy())

    with pytest.raises(TargetError, match="int64 numbers, names of classes and no scores"):
        seewhy.explain(predicted, pictures(1, SIZE), methods="occlusion", options=WINDOW)
    ex = seewhy.explain(
        predicted,
        pictures(1, SIZE),
        methods="occlusion",
        targets=lambda said: (said[:, 0] == 1).float(),
        options=WINDOW,
    )
    assert ex.predictions == ((),)


def test_rows_of_colored_pictures_are_asked_about() -> None:
    x = pictures(5, SIZE)
    with pytest.raises(
        SeewhyError,
        match=r"3 channels are flattened in two ways: give takes='rows'.* or takes='array'",
    ):
        seewhy.explain(estimator(), x, methods="occlusion", options=WINDOW)
    said = estimator().predict_proba(x.permute(0, 2, 3, 1).flatten(1).numpy())
    np.testing.assert_allclose(seewhy.wrap(estimator(), takes="rows")(x), said, rtol=1e-5)
