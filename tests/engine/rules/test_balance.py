"""What stays behind, of a model that lies on several devices; the meta device stands for another."""

from __future__ import annotations

import torch

from seewhy.engine.rules.balance import Balance


def test_amounts_of_several_devices_are_added_up() -> None:
    balance, meta = Balance(), torch.device("meta")
    balance.begin(2)
    balance.add("kept", torch.ones(2, 3, device=meta))
    balance.add("kept", torch.ones(2, 3))
    balance.absorb(torch.ones(2, 3), torch.zeros(2, 3))
    balance.reach("layer", meta)
    assert {amount.device for amount in balance.at_layer["layer"]} == {meta}
    assert {amount.shape for amount in balance.at_layer["layer"]} == {(2,)}


def test_amounts_of_one_device_are_added_up() -> None:
    balance = Balance()
    balance.begin(2)
    balance.add("kept", torch.ones(2, 3))
    balance.add("kept", torch.ones(2, 3))
    stayed = balance.stayed_behind(torch.device("cpu"))
    assert stayed.kept.tolist() == [6, 6]
    assert stayed.absorbed.tolist() == [0, 0]
