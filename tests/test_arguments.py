"""Arguments against annotations: what is taken, what is refused, and in which words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.arguments import brief, checked, checked_class
from seewhy.errors import ArgumentTypeError, InputError, SeewhyError

NAN = float("nan")


class Speaks(Protocol):
    def speak(self) -> str: ...


@checked
def ask(
    count: int = 1,
    share: float = 0.5,
    flag: bool = False,
    tell: Callable[[int], None] | None = None,
    options: Mapping[str, Any] | None = None,
    layer: str | nn.Module | None = None,
    names: Sequence[str] = (),
    layers: Sequence[str | nn.Module] = (),
    shares: Sequence[float] = (),
    size: tuple[int, int] = (1, 1),
    each: str | Iterable[str] = (),
    how: Literal["mean", "max"] = "mean",
    path: str | os.PathLike[str] = "",
    speaker: Speaks | None = None,
    anything: Any = None,
    *,
    target: int = 0,
    output: Literal["logit"] = "logit",
    **others: int,
) -> str:
    return "asked"


@pytest.mark.parametrize(
    "given",
    [
        {"count": 3}, {"count": np.int64(3)}, {"count": -1},
        {"share": 1}, {"share": np.float32(0.1)}, {"share": float("inf")},
        {"flag": True}, {"flag": np.bool_(True)},
        {"tell": print}, {"tell": None}, {"options": {}}, {"options": {1: 2}},
        {"layer": "a"}, {"layer": nn.ReLU()}, {"names": ["a"]}, {"names": ()},
        {"shares": [1, 0.5]}, {"size": (3, 4)}, {"size": [3, 4]}, {"size": np.array([3, 4])},
        {"each": "a"}, {"each": ["a"]}, {"each": {"a"}}, {"each": (c for c in "a")},
        {"how": "max"}, {"path": "a"}, {"path": os.curdir}, {"speaker": object()}, {"anything": NAN},
        {"target": "left to its reader"}, {"others": "not checked"},
    ],
)  # fmt: skip
def test_what_may_be_meant_is_taken(given: dict[str, Any]) -> None:
    assert ask(**given) == "asked"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"count": 1.5}, ArgumentTypeError, "count=1.5 is of type float; give a whole number"),
        ({"count": "8"}, ArgumentTypeError, "count='8' is of type str; give a whole number"),
        ({"count": True}, ArgumentTypeError, "count=True is of type bool; give a whole number"),
        ({"count": None}, ArgumentTypeError, "count=None is of type NoneType; give a whole number"),
        (
            {"count": torch.zeros(2, 3)},
            ArgumentTypeError,
            "count=<Tensor of shape (2, 3)> is of type Tensor; give a who",
        ),
        ({"share": NAN}, InputError, "share=nan is not a number; give a number"),
        ({"share": "half"}, ArgumentTypeError, "share='half' is of type str; give a number"),
        ({"flag": 2}, ArgumentTypeError, "flag=2 is of type int; give True or False"),
        ({"tell": 5}, ArgumentTypeError, "tell=5 is of type int; give a function or None"),
        (
            {"options": [("a", 1)]},
            ArgumentTypeError,
            "options=[('a', 1)] is of type list; give a mapping or None",
        ),
        (
            {"layer": 5},
            ArgumentTypeError,
            "layer=5 is of type int; give a text or a module or None",
        ),
        ({"names": "a"}, ArgumentTypeError, "names='a' is of type str; give a list of texts"),
        ({"names": {"a"}}, ArgumentTypeError, "names={'a'} is of type set; give a list of texts"),
        (
            {"names": torch.zeros(2)},
            ArgumentTypeError,
            "names=<Tensor of shape (2,)> is of type Tensor; give a list",
        ),
        (
            {"shares": [1, NAN]},
            ArgumentTypeError,
            "shares=[1, nan] is of type list; give a list of numbers",
        ),
        (
            {"names": ["a", 1]},
            ArgumentTypeError,
            "names=['a', 1] is of type list; give a list of texts",
        ),
        ({"size": (3,)}, ArgumentTypeError, "size=(3,) is of type tuple; give 2 whole numbers"),
        (
            {"size": (3, 4.5)},
            ArgumentTypeError,
            "size=(3, 4.5) is of type tuple; give 2 whole numbers",
        ),
        ({"size": 3}, ArgumentTypeError, "size=3 is of type int; give 2 whole numbers"),
        (
            {"layers": [3]},
            ArgumentTypeError,
            "layers=[3] is of type list; give a list, each a text or a module",
        ),
        ({"each": 5}, ArgumentTypeError, "each=5 is of type int; give a text or a list of texts"),
        (
            {"each": np.array("a")},
            ArgumentTypeError,
            "of type ndarray; give a text or a list of texts",
        ),
        ({"each": torch.zeros(2).to_sparse()}, ArgumentTypeError, "give a text or a list of texts"),
        (
            {"each": torch.zeros(2, device="meta")},
            ArgumentTypeError,
            "give a text or a list of texts",
        ),
        (
            {"how": "median"},
            InputError,
            "how='median' is not known; did you mean 'mean'?; use 'mean', 'max'",
        ),
        ({"how": 5}, ArgumentTypeError, "how=5 is of type int; give 'mean' or 'max'"),
        ({"path": 5}, ArgumentTypeError, "path=5 is of type int; give a text or a path"),
        ({"output": "probability"}, InputError, "output='probability' is not known; use 'logit'"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(
    given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as raised:
        ask(**given)
    assert isinstance(raised.value, SeewhyError)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_python_says_what_is_missing_or_unknown() -> None:
    @checked
    def needs(this: int) -> None:
        pass

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'this'"):
        needs()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'that'"):
        needs(that=1)  # type: ignore[call-arg]


def test_objects_of_a_class() -> None:
    @checked_class
    @dataclass(frozen=True)
    class Size:
        height: int
        width: int = 1

    assert Size(2) == Size(2, 1)
    with pytest.raises(ArgumentTypeError, match="width='3' is of type str; give a whole number"):
        Size(2, "3")  # type: ignore[arg-type]


def test_a_value_in_brief() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    assert brief("a\nb") == r"'a\nb'"
    assert brief(list(range(100))) == f"{str(list(range(100)))[:77]}..."
    assert brief(Odd()) == "<Odd>"
    assert brief(np.zeros((2, 3))) == "<ndarray of shape (2, 3)>"
    assert brief(Tensor([[1.0]])) == "<Tensor of shape (1, 1)>"
