"""Constants of a device are made once."""

from __future__ import annotations

import torch

from launches import Launches
from seewhy.engine.constants import column_indices, keep_indices, scalar

CPU = torch.device("cpu")


def test_indices_are_made_once() -> None:
    made = column_indices((7, 1234), CPU)
    assert made.tolist() == [7, 1234]
    with Launches() as launches:
        assert column_indices((7, 1234), CPU) is made
    assert not launches.operations


def test_indices_that_the_device_made_are_taken() -> None:
    own = torch.tensor([4321, 5])
    keep_indices((4321, 5), own)
    assert column_indices((4321, 5), CPU) is own
    with torch.inference_mode():
        keep_indices((4321, 6), torch.tensor([4321, 6]))
    assert not column_indices((4321, 6), CPU).is_inference()  # it could not be used for a gradient


def test_only_the_latest_are_kept() -> None:
    first = column_indices((1, 1, 1), CPU)
    for column in range(300):
        column_indices((column, 9, 9, 9), CPU)
    assert column_indices((1, 1, 1), CPU) is not first


def test_a_number_is_a_tensor_of_its_type() -> None:
    assert scalar(0.5, torch.float64, CPU).dtype == torch.float64
    assert scalar(0.5, torch.float64, CPU) is scalar(0.5, torch.float64, CPU)
