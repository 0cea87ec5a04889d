"""From a name to a column and back, whatever says the names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seewhy.engine.targets import ClassNames, Numbers, resolve
from seewhy.errors import ArgumentTypeError, InputError, ModelError, TargetError

LOGITS = Numbers("logits")
SCORES = torch.tensor([[1.0, 3.0, 2.0], [0.5, -2.0, 4.0]])


def names(given: Any) -> ClassNames:
    found = ClassNames.of(given)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["cat", "dog"], ("cat", "dog")),
        (("cat", "dog"), ("cat", "dog")),
        (np.array(["cat", "dog"]), ("cat", "dog")),
        (np.array(["cat", "dog"], object), ("cat", "dog")),
        (np.array([1, 2, 5]), ("1", "2", "5")),
        (np.array([False, True]), ("False", "True")),
        ([np.str_("cat"), np.int64(7)], ("cat", "7")),
        (torch.tensor([3, 4]), ("3", "4")),
        (range(2), ("0", "1")),
        ({0: "cat", 1: "dog"}, ("cat", "dog")),
        ({"1": "dog", "0": "cat"}, ("cat", "dog")),
        ({np.int64(1): "dog", np.int64(0): "cat"}, ("cat", "dog")),
        ({"dog": 1, "cat": 0}, ("cat", "dog")),
        ({str(i): f"thing {i}" for i in range(12)}, tuple(f"thing {i}" for i in range(12))),
        (dict.fromkeys(["cat", "dog"]).keys(), ("cat", "dog")),
        ((name for name in ("cat", "dog")), ("cat", "dog")),
    ],
)
def test_names_in_any_container(given: Any, expected: tuple[str, ...]) -> None:
    found = names(given)
    assert found == expected
    assert all(type(name) is str for name in found)
    assert ClassNames.of(found) is found


@pytest.mark.parametrize("given", [None, [], (), {}, np.array([])])
def test_nothing_is_no_names(given: Any) -> None:
    assert ClassNames.of(given) is None


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"cat", "dog"}, ArgumentTypeError, r"labels is a set, .*give a list"),
        (frozenset({"cat"}), ArgumentTypeError, r"labels is a frozenset"),
        ("cat", ArgumentTypeError, r"labels is a str, 'cat'; give a list"),
        (b"cat", ArgumentTypeError, r"labels is a bytes"),
        (2, ArgumentTypeError, r"labels is a int, 2"),
        (["cat", None], ArgumentTypeError, r"labels\[1\] is None"),
        (["cat", ["dog"]], ArgumentTypeError, r"labels\[1\] is \['dog'\]"),
        ({0: "cat", 2: "dog"}, ModelError, r"names 2 columns, up to 2, and leaves out column 1"),
        ({1: "cat", 2: "dog"}, ModelError, r"leaves out column 0"),
        ({"0": "cat", 0: "dog"}, ModelError, r"column 0 twice, 'cat' and 'dog'"),
        ({"cat": 0, "1": 1}, ModelError, r"the key 'cat', which is no column; .*\{0: 'name'"),
        ({"cat": 0, "dog": 2}, ModelError, "leaves out column 1"),
        ({"cat": 0, "dog": 0}, ModelError, "has column 0 twice, 'cat' and 'dog'"),
        ({True: "cat", False: "dog"}, ModelError, r"the key True"),
        ({0: "cat", -1: "dog"}, ModelError, r"leaves out column 1"),
    ],
)
def test_what_is_no_list_of_names(given: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as raised:
        ClassNames.of(given)
    assert "\n" not in str(raised.value)


def test_a_file_has_a_name_a_line(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffcat\r\n  dog \r\n\r\nbird\n\n".encode())
    found = ClassNames.read(file)
    assert found == ("cat", "dog", "", "bird")  # a class without a name keeps its column
    assert [found.label(i) for i in (0, 2, 3, 4)] == ["cat", "class 2", "bird", "class 4"]
    for bad in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            ClassNames.read(bad)


@pytest.mark.parametrize(
    ("labels", "name", "column"),
    [
        (["1", "2", "3"], "2", 1),  # a name first
        (["1", "2", "3"], " 3", 2),
        (["cat", "2", "dog"], "2", 1),
        (["cat", "2", "dog"], "0", 0),  # no name, and not all names are numbers
        (["cat", "dog", "bird"], "2", 2),
        (["polish", "Polish", "dog"], "Polish", 1),
        (["polish", "POLISH, pole", "dog"], "polish", 0),
        (["tabby, cat", "Cat", "dog"], "CAT", 1),
        (["tabby, cat", "tiger, big cat", "dog"], "big cat", 1),
        (["margin:a", "a", "b"], "margin:a", 0),
        (["probability: b", "a", "b"], "probability: b", 0),
        (["0", "1", "2"], "2", 2),
    ],
)
def test_a_text_is_a_name_first(labels: list[str], name: str, column: int) -> None:
    assert resolve(name, SCORES, labels, numbers=LOGITS)[0].indices == (column, column)
    if not name.startswith(("margin", "prob")):
        for form in ("probability", "counterfactual", "logit"):
            assert resolve(f"{form}:{name}", SCORES, labels, numbers=LOGITS)[0].indices == (
                column,
                column,
            )
        assert resolve([name, 0], SCORES, labels, numbers=LOGITS)[0].indices == (column, 0)


def test_a_whole_number_is_the_column_whatever_the_names() -> None:
    for number in (2, np.int64(2), torch.tensor(2)):
        assert resolve(number, SCORES, ["1", "2", "3"], numbers=LOGITS)[0].indices == (2, 2)


def test_a_slash_in_a_name_is_no_end_of_it() -> None:
    labels = ["TV/monitor", "sofa", "a/b"]
    found = resolve("margin:TV/monitor/sofa", SCORES, labels, numbers=LOGITS)[0].score
    assert found(SCORES).tolist() == (SCORES[:, 0] - SCORES[:, 1]).tolist()
    found = resolve("margin:2/TV/monitor", SCORES, labels, numbers=LOGITS)[0].score
    assert found(SCORES).tolist() == (SCORES[:, 2] - SCORES[:, 0]).tolist()
    with pytest.raises(TargetError, match="can be read in 2 ways"):
        resolve("margin:a/b/a", SCORES, ["a", "a/b", "b/a"], numbers=LOGITS)


@pytest.mark.parametrize(
    ("labels", "name", "says"),
    [
        (
            ["1", "2", "3"],
            "0",
            r"target '0' is not a label of the model, whose classes have numbers for names: 1 to 3",
        ),
        (
            ["crane", "dog", "crane"],
            "crane",
            r"several classes: 0 \(crane\), 2 \(crane\); give the index",
        ),
        (["cat", "dog", "bird"], "brid", r"not a label of the model; did you mean 'bird'"),
        (["cat", "dog", "bird"], "-1", r"target -1 is not a class"),
    ],
)
def test_names_of_no_class_or_of_several(labels: list[str], name: str, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        resolve(name, SCORES, labels, numbers=LOGITS)[0].score(SCORES)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_as_many_names_as_columns(columns: int) -> None:
    with pytest.raises(
        ModelError, match=rf"labels has 3 names, the model gives {columns} columns.*labels=\[\]"
    ):
        resolve("top1", torch.ones(2, columns), ["a", "b", "c"], numbers=LOGITS)
    with pytest.raises(ModelError, match=rf"has 3 names, the model gives {columns} "):
        resolve(
            lambda o: o.mean((1, 2, 3)),
            torch.ones(2, columns, 4, 4),
            ["a", "b", "c"],
            numbers=LOGITS,
        )


def test_one_score_for_each_picture_is_one_column() -> None:
    assert resolve("ill", torch.ones(2), ["ill"], numbers=LOGITS)[0].indices == (0, 0)
    with pytest.raises(
        ModelError, match="has 2 names, the model gives 1 columns; a single column has one name"
    ):
        resolve("top1", torch.ones(2), ["well", "ill"], numbers=LOGITS)
