"""What most tests of influence start from; those that need another network or other data have their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import Tensor

from influence_cases import Photos, held_back, network, one_thread, some_photos, training
from tiny_models import TinyCNN


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def net() -> TinyCNN:
    return network()


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    return training()


@pytest.fixture(scope="module")
def tested() -> tuple[Tensor, Tensor]:
    return held_back()


@pytest.fixture(scope="module")
def photos() -> Photos:
    return some_photos()
