"""Devices by name: those that are here, and one line about those that are not."""

from __future__ import annotations

import pytest
import torch

from seewhy.errors import InputError
from seewhy.models.devices import DEVICES, usable_device


@pytest.mark.parametrize("name", [f"{kind}{number}" for kind in DEVICES for number in ("", ":63")])
def test_each_kind_works_or_says_why_not_in_a_line(name: str) -> None:
    try:
        assert usable_device(name) == name
        assert torch.ones(1, device=name).sum().item() == 1
    except InputError as error:
        said = str(error)
        assert said.startswith(f"device {name!r} cannot be used: ")
        assert said.endswith("; 'cpu' always can")
        assert "\n" not in said
        assert len(said) < 200


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "finds no cuda here"),
        (1, "here is cuda:0 alone"),
        (4, "here are cuda:0 to cuda:3"),
    ],
)
def test_a_number_beyond_those_that_are_here(
    count: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(InputError, match=f"device 'cuda:7' cannot be used: .*{said}"):
        usable_device("cuda:7")


def test_devices_that_torch_finds_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Number:
        def item(self) -> int:
            return 0

    made: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.mps, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "zeros", lambda n, device: made.append(device) or Number())
    for name in ("cuda", "cuda:1", "mps", "mps:0", "cpu"):
        assert usable_device(name) == name
    assert made == ["cuda", "cuda:1", "mps", "mps:0", "cpu"]
