"""The caller's default device and autocast: whom they reach."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.defaults import (
    as_the_caller,
    casting,
    own_defaults,
    type_that_models_are_cast_to,
)
from tiny_models import TinyCNN, pictures, randomised


def product() -> torch.dtype:
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_autocast_reaches_the_model_alone() -> None:
    assert type_that_models_are_cast_to("cpu") is None
    with torch.autocast("cpu", torch.bfloat16):
        with own_defaults():
            assert product() == torch.float32
            assert type_that_models_are_cast_to("cpu") == torch.bfloat16
            with as_the_caller():
                assert product() == torch.bfloat16
                with own_defaults():  # a model in which seewhy is called
                    assert product() == torch.float32
                    with as_the_caller():
                        assert product() == torch.bfloat16
            assert product() == torch.float32
        assert product() == torch.bfloat16
    assert product() == torch.float32
    assert type_that_models_are_cast_to("cpu") is None


def test_what_a_model_is_cast_to_may_be_set_apart() -> None:
    with torch.autocast("cpu", torch.bfloat16), own_defaults():
        with casting("cpu", None), as_the_caller():
            assert product() == torch.float32
        with casting("cpu", torch.float16), as_the_caller():
            assert product() == torch.float16
        with as_the_caller():
            assert product() == torch.bfloat16


def test_whether_casts_are_kept_stays_the_callers() -> None:
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False), own_defaults():
        assert not torch.is_autocast_cache_enabled()
        with as_the_caller():
            assert not torch.is_autocast_cache_enabled()
    assert torch.is_autocast_cache_enabled()


class Asked(nn.Module):
    """Keeps the type that its products come in."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.seen = TinyCNN(), set[torch.dtype]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add(product())
        return self.net(x)


@pytest.mark.parametrize("name", ["grad_cam", "lrp", "cam", "fullgrad", "integrated_gradients"])
def test_a_method_asks_the_model_as_the_caller_does(name: str) -> None:
    net = randomised(Asked())
    with torch.autocast("cpu", torch.bfloat16):
        seewhy.METHODS[name](net, pictures(1), 1)
    assert net.seen == {torch.bfloat16}
    net.seen.clear()
    seewhy.METHODS[name](net, pictures(1), 1)
    assert net.seen == {torch.float32}
