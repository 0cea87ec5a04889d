"""What an answer depends on is told the same for the same, and otherwise for another."""

from __future__ import annotations

import functools
import json
import operator
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from seewhy.methods.told import told_value


def column(k: int) -> Callable[[Any], Any]:
    return lambda scores: scores[:, k]


class Column:
    def __init__(self, k: int) -> None:
        self.k = k

    def __call__(self, scores: Any) -> Any:
        return scores[:, self.k]


def numbers(middle: int) -> Any:
    made = np.arange(3000)
    made[1500] = middle
    return made


@pytest.mark.parametrize(
    "make",
    [
        column,
        Column,
        numbers,
        torch.tensor,
        lambda k: Column(k).__call__,
        lambda k: functools.partial(operator.getitem, k),
        lambda k: [column(k)],
        lambda k: {"a", k},
    ],
)
def test_what_is_held_is_told(make: Callable[[int], Any]) -> None:
    one, same, other = (json.dumps(told_value(make(k))) for k in (1, 1, 2))
    assert one == same
    assert one != other


def test_constants_and_defaults_are_told() -> None:
    made = [lambda s: s[:, (0, 1)], lambda s: s[:, (0, 2)], lambda s, k=(0, 1): s[:, k]]
    assert len({json.dumps(told_value(each)) for each in made}) == 3


def test_what_holds_itself_comes_to_an_end() -> None:
    held: list[Any] = [1]
    held.append(held)
    assert told_value(held) == [1, "itself"]


def test_it_is_the_same_in_every_process() -> None:
    code = "from seewhy.methods.told import told_value as t; print(t({'a', 'b', 'c'}), t(t))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(said) == 1


def test_a_variable_that_is_not_set_yet_is_told() -> None:
    def outer() -> object:
        inner = told_value(lambda: later)
        later = 3
        return inner, told_value(lambda: later)

    before, after = outer()
    assert before != after
