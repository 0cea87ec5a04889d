"""What is noted in a pass is read in one copy, and what is checked is checked then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from launches import Launches
from seewhy.engine.readings import (
    checked_later,
    checked_now,
    noted,
    on_the_host,
    reading_together,
    readings_of_the_pass,
)
from seewhy.errors import InputError


def refuse(value: Tensor) -> None:
    raise InputError(f"{float(value)} is refused")


def test_all_that_was_noted_is_read_at_once_in_its_own_type_and_shape() -> None:
    values = [torch.tensor([[1.5, 2.0]]), torch.tensor(3), torch.tensor([True, False])]
    values += [torch.tensor([0.1], dtype=torch.float64)]
    with Launches() as launches, reading_together():
        found = [reading.tensor() for reading in [noted(value) for value in values]]
    for one, value in zip(found, values, strict=True):
        torch.testing.assert_close(one, value, rtol=0, atol=0)
    assert launches.read == 1


def test_outside_of_a_pass_each_is_read_by_itself() -> None:
    assert readings_of_the_pass() is None
    assert noted(torch.tensor([1.0])).tensor().tolist() == [1]
    with pytest.raises(InputError, match=r"1\.0 is refused"):
        checked_later([torch.ones(())], refuse)


def test_a_pass_within_another_is_part_of_it() -> None:
    with reading_together() as outer, reading_together() as inner:
        assert inner is outer is readings_of_the_pass()


def pass_over(*steps: Callable[[], object]) -> None:
    with reading_together():
        for step in steps:
            step()


def fails() -> None:
    raise ValueError("by itself")


def check_refused() -> None:
    checked_later([torch.ones(())], refuse)


@pytest.mark.parametrize(
    "steps",
    [(), (checked_now, fails), (lambda: noted(torch.zeros(2)).tensor(), fails)],
)
def test_a_check_is_made_with_the_next_that_is_read_and_at_the_end(
    steps: Sequence[Callable[[], object]],
) -> None:
    with pytest.raises(InputError, match="refused") as raised:
        pass_over(check_refused, *steps)
    assert raised.value.__cause__ is None
    assert readings_of_the_pass() is None


def test_a_check_that_fails_is_why_a_pass_went_wrong() -> None:
    with pytest.raises(InputError, match="refused") as raised:
        pass_over(check_refused, fails)
    assert isinstance(raised.value.__cause__, ValueError)
    assert readings_of_the_pass() is None


def test_what_went_wrong_by_itself_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="by itself"):
        pass_over(lambda: checked_later([torch.ones(())], lambda value: None), fails)


def test_what_comes_afterwards_comes_only_after_a_pass_that_went_well() -> None:
    done: list[int] = []

    def later() -> None:
        readings = readings_of_the_pass()
        assert readings is not None
        readings.afterwards(lambda: done.append(1))

    with pytest.raises(ValueError, match="by itself"):
        pass_over(later, fails)
    assert done == []
    pass_over(later)
    assert done == [1]


def test_what_lies_on_the_cpu_stays_where_it_is() -> None:
    values = [torch.ones(2), torch.zeros(3)]
    assert all(a is b for a, b in zip(on_the_host(values), values, strict=True))
