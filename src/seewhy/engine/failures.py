"""Why a model failed on what it was called with, in the caller's words where the cause is known."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import InputError, ModelError, SeewhyError
from .black_box import BlackBox
from .pictures import has_channels_last, rounded
from .weights import is_without_data


@dataclass(frozen=True, eq=False)
class FailedCall:
    """A call that raised.

    Attributes:
        module: what was called.
        x: (N, C, H, W), as it went in.
        args: what else went in by place.
        kwargs: what else went in by name.
        rows: the names of those that have a row for each image.
    """

    module: nn.Module
    x: Tensor
    args: Sequence[object]
    kwargs: Mapping[str, object]
    rows: Sequence[str]

    def explained(self, error: Exception) -> SeewhyError | None:
        """What is wrong; None where that is not known."""
        reason = str(error).partition("\n")[0]
        if has_channels_last(self.x):
            return InputError(
                f"x has shape {tuple(self.x.shape)}, and its channels seem to come last: give x.permute(0, 3, 1, 2). "
                f"The model says: {reason}"
            )
        if isinstance(error, SeewhyError):
            return None
        if isinstance(error, TypeError):
            found = self._by_arguments(error, reason)
        else:
            found = _by_weights(self.module, reason) or self._by_picture(error, reason)
        return found or self._by_whole_numbers(error, reason)

    def _by_whole_numbers(self, error: Exception, reason: str) -> InputError | None:
        """That the model takes whole numbers where it was given floats, if that is so."""
        of_types = isinstance(error, TypeError) or any(
            word in reason for word in ("type", "Float", "Byte", "Long")
        )
        if not of_types or not self.x.is_floating_point() or isinstance(self.module, BlackBox):
            return None
        try:
            with torch.no_grad():
                self.module(rounded(self.x, torch.uint8), *self.args, **self.kwargs)
        except Exception:  # then that was not why
            return None
        return InputError(
            f"the model takes torch.uint8, and no floats ({reason}); give pixel values: a tensor of whole numbers 0 to "
            "255, or for photos a preprocess whose mean is 0 and whose std is 1/255"
        )

    def _by_picture(self, error: Exception, reason: str) -> SeewhyError | None:
        if "numpy() on Tensor that requires grad" in reason:
            return ModelError(
                "the model hands a tensor to numpy, and no gradient passes that; use rise, lime or occlusion, which "
                "need no gradient"
            )
        if reason.startswith(("Guard failed", "Expected input at *args")):
            return InputError(
                f"x of shape {tuple(self.x.shape)} is not what the model was exported for ({reason}); export it with "
                "dynamic_shapes, which lets images come in any number, or give the nn.Module itself"
            )
        misfit = any(said in reason for said in ("channel", "must match", "mat1 and mat2"))
        if misfit or isinstance(error, AssertionError):
            beside = f" with {', '.join(self.rows)}" if self.rows else ""
            return InputError(
                f"x of shape {tuple(self.x.shape)}{beside} does not fit the model: {reason}"
            )
        return None

    def _by_arguments(self, error: TypeError, reason: str) -> SeewhyError | None:
        if "forward() " not in reason or self._had_begun(error):
            return None
        return InputError(
            f"{type(self.module).__name__} cannot be called so: {reason}; give what it takes beside the picture as "
            "inputs= (a row for each image), args= or kwargs="
        )

    def _had_begun(self, error: Exception) -> bool:
        """Whether the module's own forward had begun: then the error is no matter of how it was called."""
        forward = getattr(self.module.forward, "__func__", self.module.forward)
        frames = traceback.walk_tb(error.__traceback__)
        return any(frame.f_code is getattr(forward, "__code__", None) for frame, _ in frames)


def _by_weights(module: nn.Module, reason: str) -> ModelError | None:
    """What keeps the tensors of a model from being reckoned with."""
    if any(p.is_inference() for p in module.parameters()):
        return ModelError(
            "the model was made under torch.inference_mode, which rules out gradients"
        )
    if "meta" in reason and is_without_data(module):
        return ModelError(
            "weights of the model are on the meta device, which holds no data, and no hook brings them; load them "
            "first, or move the model with to_empty() and load_state_dict()"
        )
    if "nference tensor" in reason:
        return _by_inference_mode(module)
    return None


def _by_inference_mode(module: nn.Module) -> ModelError:
    """What to do where a model keeps a tensor made under inference mode, with its name where it is an attribute."""
    kept = [
        f"{name}.{attribute}".lstrip(".")
        for name, part in module.named_modules()
        for attribute, value in {**part._buffers, **vars(part)}.items()
        if any(isinstance(leaf, Tensor) and leaf.is_inference() for leaf in tree_leaves(value))
    ]
    listed = f" ({', '.join(kept[:3])})" if kept else ""
    return ModelError(
        f"the model keeps a tensor from an earlier call under torch.inference_mode{listed}, which rules out gradients; "
        "clear what it keeps or make the model anew, and predict under torch.no_grad() before it is explained"
    )
