"""Which of a model's classes stand for those of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy.data.dataset import LabeledImages
from seewhy.errors import InputError, ModelError, SeewhyError
from seewhy.models.classes import class_indices, in_classes_of


class Named(LabeledImages):
    """A data set of these classes, without pictures."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.title, self.classes, self.multi_label = "things", tuple(classes), False
        self.names, self.labels, self.skipped = [], [], {}


def found(labels: Any, classes: Sequence[str], given: Any = None) -> tuple[int, ...]:
    return class_indices(seewhy.wrap(nn.Identity(), labels=labels), Named(classes), given)


TEXTS = sorted(map(str, range(12)))  # 0, 1, 10, 11, 2, ...


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (["red", "green", "blue"], ["red", "green", "blue"], (0, 1, 2)),
        (["blue", "Red", "green, lime"], ["red", "green", "blue"], (1, 2, 0)),
        (["red", "green", "blue"], ["blue"], (2,)),
        (None, TEXTS, tuple(map(int, TEXTS))),
        (None, ["07", "2"], (7, 2)),
        (list(map(str, range(12))), TEXTS, tuple(map(int, TEXTS))),
        (TEXTS, TEXTS, tuple(range(12))),
        (list(map(str, range(1, 13))), ["12", "1"], (11, 0)),
        # the same list, in which some are written otherwise, and two of one name
        (
            ["a", "b", "crane bird", "crane", "maillot", "maillot tank suit", "c"],
            ["a", "b", "crane", "crane", "maillot", "maillot, tank suit", "c"],
            tuple(range(7)),
        ),
        (
            ["thing 1", "thing 2", "thing 3", "x", "y"],
            ["thing 1", "thing 3", "thing 2", "x", "y"],
            (0, 2, 1, 3, 4),
        ),
    ],
)
def test_by_name_and_by_number(labels: Any, classes: list[str], expected: tuple[int, ...]) -> None:
    assert found(labels, classes) == expected


@pytest.mark.parametrize(
    ("labels", "classes", "says"),
    [
        (
            ["red", "green", "azure"],
            ["red", "green", "blue"],
            "has no class 'blue' of things; .*classes=",
        ),
        (
            ["a", "green", "c"],
            ["red", "green", "blue"],
            r"has no class 'red' of things \(nor 1 others\)",
        ),
        (None, ["red", "green"], "has no names, and so no class 'red'"),
        (None, ["1", "2", "3"], "has no names, and so no class '1'"),  # from 0 or from 1
        (None, ["1", "01"], "no class '1'"),
        (None, ["0", "red"], "no class '0'"),
        (["0", "1"], ["2"], "no class '2'"),
        (["crane", "dog", "crane"], ["dog", "crane"], "no class 'crane'"),
        (["red", "green"], ["red", "green, 1", "green, 2"], "no class 'green, 1'"),
    ],
)
def test_what_is_asked_for(labels: Any, classes: list[str], says: str) -> None:
    with pytest.raises(ModelError, match=says) as raised:
        found(labels, classes)
    assert "\n" not in str(raised.value)


def test_given_by_number_or_by_name() -> None:
    assert found(
        ["a", "b", "c"], ["red", "green", "blue"], {"red": 2, "Green": "A", "blue": 1}
    ) == (2, 0, 1)
    assert found(None, ["1", "2"], {"1": 0, "2": 1}) == (0, 1)
    assert found(["cat", "dog"], ["poodle", "dachshund", "cat"], {"poodle": 1, "dachshund": 1}) == (
        1,
        1,
        0,
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rde": 0}, "classes has 'rde', which is no class of things; did you mean 'red'"),
        ({"red": 2}, r"classes\['red'\]=2 is no class of Identity"),
        ({"red": -1}, r"classes\['red'\]=-1"),
        ({"red": "c"}, "class 'c' is not a label|'c' is not a label"),
        ({"red": 1.0}, r"classes\['red'\]=1.0 is no target"),
    ],
)
def test_given_what_is_not_there(given: Any, says: str) -> None:
    with pytest.raises((InputError, SeewhyError), match=says):
        found(["a", "b"], ["red"], given)


# whose names a model has of its own


class Estimator:
    """What scikit-learn's classifiers have."""

    def __init__(self, classes: Any) -> None:
        self.classes_ = classes

    def predict_proba(self, rows: Any) -> Any:
        return np.full((len(rows), len(self.classes_)), 1 / len(self.classes_))


class Deciding:
    """One of two classes: its one score speaks for the second."""

    classes_ = np.array(["well", "ill"])

    def decision_function(self, rows: Any) -> Any:
        return rows.mean(1)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (np.array([1, 2, 3]), ("1", "2", "3")),
        (np.array(["b", "c"]), ("b", "c")),
        (np.array([7, "x", "y"], object), ("7", "x", "y")),
        ([np.array([0, 1]), np.array([0, 1])], None),  # several answers at once
    ],
)
def test_an_estimator_says_its_classes(classes: Any, expected: tuple[str, ...] | None) -> None:
    assert seewhy.wrap(Estimator(classes)).labels == expected
    given = ["u", "v", "w"]
    assert seewhy.wrap(Estimator(classes), labels=given).labels == tuple(given)
    assert seewhy.wrap(Estimator(classes), labels=[]).labels is None


def test_a_class_of_an_estimator_is_the_column_of_its_name() -> None:
    model, x = seewhy.wrap(Estimator(np.array([1, 2, 3])), takes="array"), torch.rand(1, 3, 4, 4)
    how: dict[str, Any] = {
        "methods": "occlusion",
        "options": {"occlusion": {"window": 2, "stride": 2}},
    }
    assert [a.labels[0] for a in seewhy.explain(model, x, targets=["2", 2, "top1"], **how)] == [
        "2",
        "3",
        "1",
    ]
    one = seewhy.wrap(Deciding(), takes="array")
    assert one.labels == ("ill",)
    assert seewhy.explain(one, x, targets="ill", **how)[0].scores[0] == pytest.approx(
        float(x.mean())
    )


def configured(id2label: Any) -> nn.Module:
    module = nn.Identity()
    module.config = SimpleNamespace(id2label=id2label)  # type: ignore[assignment]
    return module


def test_names_by_column_of_a_config() -> None:
    texts = {str(i): f"thing {i}" for i in sorted(range(12), key=str)}
    assert seewhy.wrap(configured(texts)).labels == tuple(f"thing {i}" for i in range(12))
    assert seewhy.wrap(configured({1: "b", 0: "a"})).labels == ("a", "b")
    assert seewhy.wrap(configured(None)).labels is None
    with pytest.raises(ModelError, match="leaves out column 1"):
        seewhy.wrap(configured({0: "a", 2: "b"}))
    assert seewhy.wrap(configured({0: "a", 2: "b"}), labels={"0": "x", "1": "y"}).labels == (
        "x",
        "y",
    )


def test_a_module_that_says_how_many_classes_it_has() -> None:
    module = nn.Identity()
    module.num_classes = 3  # type: ignore[assignment]
    with pytest.raises(ModelError, match="labels has 2 names, the model gives 3 columns"):
        seewhy.wrap(module, labels=["a", "b"])
    with pytest.raises(SeewhyError, match="labels is a set"):
        seewhy.wrap(module, labels={"a", "b", "c"})
    with pytest.raises(SeewhyError, match="labels file 'abc' cannot be read"):
        seewhy.wrap(module, labels="abc")
    model = seewhy.wrap(module, labels=["a", "b", "c"])
    assert [model.label(i) for i in (0, 2, 3, -1)] == ["a", "c", "class 3", "class -1"]


def test_data_in_the_classes_of_a_model() -> None:
    model, nameless = (
        seewhy.wrap(nn.Identity(), labels=labels) for labels in (["blue", "red"], None)
    )
    data = Named(["red", "blue"])
    data.names, data.labels = ["a", "b", "c"], [(0,), (1,), (0,)]
    found = in_classes_of(model, data)
    assert (found.classes, found.labels) == (("blue", "red"), [(1,), (0,), (1,)])
    assert in_classes_of(seewhy.wrap(nn.Identity(), labels=["red", "blue"]), data) is data
    texts = Named(["0", "10", "2"])
    texts.names, texts.labels = ["a", "b", "c"], [(0,), (1,), (2,)]
    found = in_classes_of(nameless, texts)
    assert found.labels == [(0,), (10,), (2,)]
    assert [found.classes[i] for i in (0, 1, 2, 10)] == ["0", "class 1", "2", "10"]
