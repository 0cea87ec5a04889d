"""Checkpointed parts of a model under rules: run once, with what they need on the way back saved as in any other part.

`torch.utils.checkpoint` runs a part again on the way back, when no rules are in force any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from ...errors import ModelError


class Uncheckpointed(TorchFunctionMode):
    """Hides from checkpoints what operations save, so that there is nothing to run again for.

    Of nested pairs of hooks for saved tensors the innermost holds: ours, around each operation.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if not _in_checkpoint():
            return func(*args, **(kwargs or {}))
        with saved_tensors_hooks(_saved_with_version, _if_unchanged):
            return func(*args, **(kwargs or {}))


def _in_checkpoint() -> bool:
    """Whether a checkpoint saves what is done now; before torch 2.7, which does not tell, it always may."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    if top is None:
        return True
    hooks = top(True)
    return hooks is not None and hooks[0].__qualname__.startswith("_checkpoint_hook.")


def _saved_with_version(x: Tensor) -> tuple[Tensor, int]:
    return (
        x.detach(),
        x._version,
    )  # an output that its own node saved as it is would be a cycle through C++


def _if_unchanged(saved: tuple[Tensor, int]) -> Tensor:
    x, version = saved
    if x._version != version:  # which autograd does not ask where there are hooks
        raise ModelError(
            "a tensor that a checkpointed part needs on the way back was changed in place after it; switch "
            "checkpointing off, with model.set_grad_checkpointing(False) or the like"
        )
    return x
