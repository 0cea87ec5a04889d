"""A batch of pictures, (N, C, H, W), or of volumes: what may be one, and how a model takes it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ArgumentTypeError, InputError
from .readings import checked_later
from .weights import place_of_weights


def matching_input(module: nn.Module, x: Tensor) -> Tensor:
    """The input as floats on the model's device and in its precision, free of the caller's graph and inference mode."""
    weights = place_of_weights(module)
    x = x.detach()
    if weights is not None:
        x = x.to(*weights)
    elif not x.is_floating_point():
        x = x.float()
    return x.clone() if x.is_inference() else x


_THREE_DIMENSIONS = (
    "a single image is x[None], and a series (N, C, L) goes as pictures of one row, x[:, :, None], into a module that "
    "takes the row out again"
)


def is_volume(x: Tensor) -> bool:
    """Whether a batch is of volumes or videos, (N, C, D, H, W)."""
    return x.ndim == 5


def check_input(x: Tensor) -> None:
    """Says what is wrong with a batch (N, C, H, W), or (N, C, D, H, W), before a model fails on it less clearly."""
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(f"x is a {type(x).__name__}; give a tensor (N, C, H, W)")
    if x.ndim not in (4, 5):
        hint = f"; {_THREE_DIMENSIONS}" if x.ndim == 3 else ""
        if x.ndim == 3 and has_channels_last(x):
            hint = "; a single image whose channels come last is x.permute(2, 0, 1)[None]"
        raise InputError(
            f"x has shape {tuple(x.shape)}, not (N, C, H, W), or (N, C, D, H, W) of volumes{hint}"
        )
    _check_numbers(x)


def _check_numbers(x: Tensor) -> None:
    if x.layout is not torch.strided:
        raise InputError(f"x is {x.layout}; give a dense tensor, x.to_dense()")
    if x.is_meta:
        raise InputError(
            "x is on the meta device, which holds no data; make it on another, as torch.device('cpu')"
        )
    if x.is_complex() or x.is_quantized:
        raise InputError(f"x is {x.dtype}; give floats, or whole numbers, which go in as floats")
    if 0 in x.shape:
        raise InputError(
            f"x has shape {tuple(x.shape)}: the batch is empty; give at least one image"
        )
    if x.is_floating_point():
        _check_finite(x)


def _check_finite(x: Tensor) -> None:
    def refuse(low: Tensor, high: Tensor) -> None:
        if low.isfinite() and high.isfinite():
            return
        bad = [i for i, image in enumerate(x) if not image.isfinite().all()]
        raise InputError(
            f"x has NaN or infinite values in image {', '.join(map(str, bad))}; look at its preprocessing"
        )

    checked_later(torch.aminmax(x.detach()), refuse)


def has_channels_last(x: Tensor) -> bool:
    """Whether x (..., ?, ?, ?) looks as if its channels came last."""
    return x.shape[-1] in (1, 3, 4) and x.shape[-3] not in (1, 3, 4)


def rounded(x: Tensor, whole: torch.dtype | None) -> Tensor:
    """Pictures as whole numbers of a type, for models that take no floats."""
    if whole is None:
        return x
    limits = torch.iinfo(whole)
    return x.detach().double().round().clamp(limits.min, limits.max).to(whole)
