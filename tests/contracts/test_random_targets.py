"""Targets drawn at random, in every container: right in every function that takes one, or refused in one line."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import seewhy
from seewhy.engine.targets import Logit
from seewhy.errors import ArgumentTypeError, SeewhyError
from tiny_models import TinyCNN, pictures, randomised

LABELS = ["tabby", "tiger cat", "crane", "3, drei", "0"]
N = 2


@cache
def model() -> seewhy.Model:
    return seewhy.wrap(randomised(TinyCNN()), labels=LABELS)


@cache
def expected(column: int, image: int) -> Tensor:
    """Saliency by plain autograd: the largest of the colours' gradients."""
    x = pictures(N, 16)[image : image + 1].requires_grad_()
    (gradient,) = torch.autograd.grad(model().module.eval()(x)[:, column].sum(), x)
    return gradient.abs().amax(1)[0]


def sound(column: int) -> list[Any]:
    """All that means this column."""
    name = LABELS[column].partition(",")[0]
    numbers = [column, np.int64(column), np.uint8(column), np.array(column), torch.tensor(column)]
    names = [name, np.str_(name), name.upper(), f" {name} "]
    return [
        *numbers,
        *names,
        f"logit:{name}",
        Logit(column),
        Logit(np.int32(column)),
        lambda o: o[:, column],
    ]


BAD = [
    2.0,
    1.5,
    math.nan,
    np.float32(1),
    torch.tensor(1.0),
    True,
    np.bool_(False),
    torch.tensor(True),
    None,
    b"tabby",
    1j,
    object(),
    {1},
    frozenset({"crane"}),
    {"crane": 1},
    Logit,
]
CONTAINERS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "deque": collections.deque,
    "array": lambda items: np.array([*items, None], object)[:-1],
}
UNORDERED: dict[str, Callable[[Sequence[Any]], Any]] = {
    "set": lambda items: {0, 1},
    "dict": lambda items: dict(enumerate(items)),
    "bytes": lambda items: bytes(range(N)),
    "iterator": iter,
}


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Any, list[int] | None]:
    """A target with the column that it means of each image, None where it means nothing."""
    columns = draw(st.lists(st.integers(0, len(LABELS) - 1), min_size=N, max_size=N))
    kind = draw(st.sampled_from(["one", "bad", "numbers", *CONTAINERS, *UNORDERED]))
    if kind == "one":
        return draw(st.sampled_from(sound(columns[0]))), [columns[0]] * N
    if kind == "bad":
        return draw(st.sampled_from(BAD)), None
    if kind == "numbers":
        return draw(st.sampled_from([torch.tensor, np.array]))(columns), columns
    items = [draw(st.sampled_from(sound(column))) for column in columns]
    if kind in UNORDERED:
        return UNORDERED[kind](items), None
    if draw(st.integers(0, 3)) == 0:
        items[draw(st.integers(0, N - 1))] = draw(st.sampled_from([*BAD, [1, 2], ("crane",)]))
        return CONTAINERS[kind](items), None
    return CONTAINERS[kind](items), columns


def answers(target: Any) -> dict[str, Callable[[], Tensor]]:
    """The maps of every function that takes the target of a batch."""
    x, named = pictures(N, 16), model()

    def by_metric() -> Tensor:
        maps = seewhy.methods.saliency(named, x, target)
        seewhy.metrics.Deletion(step=128, output="logit").update(maps, named, x, target)
        return maps

    return {
        "method": lambda: seewhy.methods.saliency(named, x, target),
        "explain": lambda: (
            seewhy.explain(named, x, methods="saliency", targets=[target], batch_size=1)[0].map
        ),
        "metric": by_metric,
    }


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(drawn(), st.sampled_from(["method", "explain", "metric"]))
def test_a_target_in_any_container_is_right_or_refused(
    given: tuple[Any, list[int] | None], way: str
) -> None:
    target, columns = given
    if columns is None:
        with pytest.raises(
            ArgumentTypeError, match=r"targets?(\[\d\])*=.* is no target; give|has no order"
        ) as told:
            answers(target)[way]()
        assert "\n" not in str(told.value)
        return
    maps = answers(target)[way]()
    for i, column in enumerate(columns):
        torch.testing.assert_close(maps[i], expected(column, i), rtol=1e-4, atol=1e-6)


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(0, len(LABELS) - 1), min_size=1, max_size=4),
    st.sampled_from([*CONTAINERS, "tensor"]),
)
def test_several_targets_are_several_in_any_container(columns: list[int], kind: str) -> None:
    """What `explain` lists are targets of all images, as many as they are and whatever holds them."""
    targets = torch.tensor(columns) if kind == "tensor" else CONTAINERS[kind](columns)
    found = seewhy.explain(model(), pictures(N, 16), methods="saliency", targets=targets)
    assert len(found) == len(columns)
    for attribution, column in zip(found, columns, strict=True):
        assert attribution.labels == (LABELS[column],) * N
        torch.testing.assert_close(attribution.map[1], expected(column, 1), rtol=1e-4, atol=1e-6)


def test_rows_of_several_targets_are_one_for_each_image() -> None:
    rows = [[0, 1], [4, 2]]
    for targets in (
        rows,
        tuple(map(tuple, rows)),
        np.array(rows),
        torch.tensor(rows),
        map(np.array, rows),
    ):
        found = seewhy.explain(model(), pictures(N, 16), methods="saliency", targets=targets)
        for attribution, row in zip(found, rows, strict=True):
            for i, column in enumerate(row):
                torch.testing.assert_close(
                    attribution.map[i], expected(column, i), rtol=1e-4, atol=1e-6
                )


@pytest.mark.parametrize(
    "targets", [*BAD, {0, 1}, {"a": 1}, b"ab", torch.ones(2), [[1, 2.0]], [[[0, 1]]]]
)
def test_what_are_no_targets(targets: Any) -> None:
    for run in (seewhy.explain, seewhy.evaluate):
        with pytest.raises(
            ArgumentTypeError, match=r"^targets(\[\d\])*=.* is no target; "
        ) as raised:
            run(model(), pictures(N, 16), methods="saliency", targets=targets)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("index", [2.0, True, None, b"x", {1}, [0, 1.0], Logit])
def test_classes_of_a_target_that_are_none(index: Any) -> None:
    for made in (Logit, seewhy.targets.Probability, seewhy.targets.SegmentationRegion):
        with pytest.raises(ArgumentTypeError, match=rf"{made.__name__}\(index=\)"):
            made(index)
    with pytest.raises(ArgumentTypeError, match=r"Margin\(other=\)"):
        seewhy.targets.Margin(0, index)


@pytest.mark.parametrize("number", [np.int64(1), torch.tensor(1), np.array(1)])
def test_numbers_of_numpy_choose_among_the_targets(number: Any) -> None:
    found = seewhy.explain(model(), pictures(1, 16), methods="saliency", targets=["crane", "tabby"])
    assert found.select(target=number) == [found[1]]
    with pytest.raises(SeewhyError, match="target"):
        found.select(target=1.0)  # type: ignore[arg-type]
