"""Signals through checkpointed parts are those of the same parts without checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import seewhy
from seewhy.engine.rules.checkpoints import _in_checkpoint
from seewhy.errors import ModelError, SeewhyError
from tiny_models import TinyResNet, pictures, randomised, tiny_vit


class Checkpointed(nn.Module):
    """A residual network whose blocks are checkpointed, one in the other, and whose activations are in place."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.on = randomised(TinyResNet()), False

    def forward(self, x: Tensor) -> Tensor:
        x = self._run(self.net.layer2, self._run(self._first, x))
        return self.net.fc(x.mean((2, 3)))

    def _first(self, x: Tensor) -> Tensor:
        return nn.functional.silu(
            self.net.down(self._run(self.net.layer1, self.net.stem(x))), inplace=True
        )

    def _run(self, part: Any, x: Tensor) -> Any:
        return checkpoint(part, x, use_reentrant=False) if self.on else part(x)


METHODS = [
    "lrp",
    "clrp",
    "layer_relevance",
    "relevance_cam",
    "guided_backprop",
    "deconvnet",
    "fullgrad",
    "grad_cam",
]


@pytest.mark.parametrize("name", METHODS)
def test_checkpoints_change_nothing(name: str) -> None:
    net, x, ask = Checkpointed(), pictures(2), seewhy.METHODS[name]
    layer = {"layer": "net.layer2"} if ask.at == "layer" else {}
    expected = ask(net, x, 1, **layer)
    net.on = True
    torch.testing.assert_close(ask(net, x, 1, **layer), expected)


def test_where_torch_does_not_tell_a_checkpoint_may_save_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch._C._autograd, "_top_saved_tensors_default_hooks", raising=False)
    assert _in_checkpoint()


@pytest.mark.parametrize("name", ["lrp", "guided_backprop"])
def test_checkpoints_of_a_library_change_nothing(name: str) -> None:
    net, x, ask = tiny_vit(), pictures(1), seewhy.METHODS[name]
    expected = ask(net, x, 1)
    net.set_grad_checkpointing(True)  # type: ignore[operator]
    try:
        found = ask(net, x, 1)
    except SeewhyError as error:  # older versions of timm
        if "re-entrant" not in str(error):
            raise
        pytest.skip("checkpoints re-entrantly")
    torch.testing.assert_close(found, expected)


class Overwriting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = checkpoint(lambda x: self.conv(x).sigmoid(), x, use_reentrant=False)
        y.mul_(2)  # which the sigmoid's derivative needs
        return self.fc(y.relu().mean((2, 3)))


def test_what_is_overwritten_after_a_checkpoint_is_no_silent_wrong_answer() -> None:
    with pytest.raises(ModelError, match="changed in place"):
        seewhy.methods.guided_backprop(randomised(Overwriting()), pictures(1), 1)
