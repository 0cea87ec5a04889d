"""Map to map: statuses, normalising, resizing, smoothing, fusing. The only place where any of these is done
(but that `Placement.place` lays a map on the photo).

A map is (N, h, w): one number for each place of each image, of volumes (N, d, h, w). A heatmap is a map in [0, 1] at
the input's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

Status = Literal[
    "ok",
    "empty",
    "constant",
    "non_finite",
    "blown_up",
    "misplaced",
    "unbalanced",
    "withheld",
    "partial",
]
STATUS_MEANINGS: dict[Status, str] = {
    "ok": "the map has positive evidence",
    "empty": "nothing in the map is positive: no place speaks for the target",
    "constant": "every place has the same value: the map does not localise",
    "non_finite": "the map holds NaN or infinity",
    "blown_up": "relevance far beyond the score: contributions that cancel were amplified",
    "misplaced": "the model crops or pads the picture inside, and the map is laid over all of it",
    "unbalanced": "more than a tenth of the relevance was lost or made on its way",
    "withheld": "more than a tenth of the score lies with what is no place",
    "partial": "the model failed in the middle: the map rests on the passes made before",
}
READABLE: tuple[Status, ...] = ("ok", "misplaced", "unbalanced", "withheld", "partial")


def statuses(maps: Tensor) -> tuple[Status, ...]:
    """Says of each of the (N, h, w) maps whether it can be read, as far as its values tell: see `STATUS_MEANINGS`.

    Example:
        >>> seewhy.maps.statuses(torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]], [[2.0, 2.0]]]))
        ('ok', 'empty', 'constant')
    """
    flat = maps.detach().flatten(1).float()
    finite = flat.isfinite().all(1)
    high, low = flat.amax(1), flat.amin(1)
    # a map whose values differ by rounding alone is constant
    constant = (high - low) <= 1e-6 * torch.maximum(high.abs(), low.abs())
    found: list[Status] = []
    for i in range(len(flat)):
        if not finite[i]:
            found.append("non_finite")
        elif high[i] <= 0:
            found.append("empty")
        else:
            found.append("constant" if constant[i] and flat.shape[1] > 1 else "ok")
    return tuple(found)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes (N, h, w) to (N, H, W): bilinear on half-pixel centres, with antialiasing where it shrinks.

    Of volumes (N, d, h, w) to (N, D, H, W): trilinear, slice by slice and then along the depth.

    Example:
        >>> seewhy.maps.resize(torch.tensor([[[0.0, 1.0]]]), (1, 4))
        tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    size = tuple(size)
    if maps.shape[1:] == size:
        return maps
    if len(size) == 2:
        return _bilinear(maps[:, None].float(), size)[:, 0]
    slices = _bilinear(maps.float(), size[1:]).flatten(2)  # (N, d, H W)
    return _bilinear(slices[:, None], (size[0], slices.shape[2])).view(len(maps), *size)


def _bilinear(fields: Tensor, size: tuple[int, ...]) -> Tensor:
    if (
        size[1] == 1 < size[0]
    ):  # torch repeats the first row of what becomes one column; a row is right
        return _bilinear(fields.mT.contiguous(), (1, size[0])).mT.contiguous()
    return F.interpolate(fields, size, mode="bilinear", align_corners=False, antialias=True)


def normalize(maps: Tensor, *, how: Literal["max", "minmax", "absmax", "rank"] = "max") -> Tensor:
    """Scales each of the (N, h, w) maps by itself; maps that cannot be scaled (empty, constant) become zero.

    Args:
        maps: (N, h, w), any sign.
        how: "max" keeps the positive part over its maximum, in [0, 1]; "minmax" maps the range onto [0, 1]; "absmax"
            divides by the largest magnitude, in [-1, 1]; "rank" gives each place the share of places below it.

    Example:
        >>> map_ = torch.tensor([[[-2.0, 0.0, 4.0]]])
        >>> seewhy.maps.normalize(map_), seewhy.maps.normalize(map_, how="absmax")
        (tensor([[[0., 0., 1.]]]), tensor([[[-0.5000,  0.0000,  1.0000]]]))
    """
    flat = torch.nan_to_num(maps.float().flatten(1), nan=0.0, posinf=0.0, neginf=0.0)
    if how == "rank":
        ordered = flat.sort(1).values.contiguous()
        below = torch.searchsorted(ordered, flat.contiguous())  # equal values share a rank
        return (below / max(flat.shape[1] - 1, 1)).reshape(maps.shape)
    if how == "max":
        flat = flat.clamp(min=0)
        scale = flat.amax(1, keepdim=True)
    elif how == "minmax":
        flat = flat - flat.amin(1, keepdim=True)
        scale = flat.amax(1, keepdim=True)
    elif how == "absmax":
        scale = flat.abs().amax(1, keepdim=True)
    else:
        raise InputError(
            f"how={how!r} is not a way to normalise; use 'max', 'minmax', 'absmax' or 'rank'"
        )
    scaled = flat / torch.where(scale > 0, scale, 1)
    return scaled.reshape(maps.shape)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (N, h, w) with `sigma` in places of the map; the border reflects.

    Example:
        >>> point = torch.zeros(1, 5, 5)
        >>> point[0, 2, 2] = 1
        >>> seewhy.maps.smooth(point, 0.5)[0, 2, 1:4]
        tensor([0.0837, 0.6187, 0.0837])
    """
    if sigma <= 0:
        return maps
    radius = min(math.ceil(3 * sigma), min(maps.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(maps[:, None].float(), [radius] * 4, mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1))[:, 0]


def fuse(
    maps: Sequence[Tensor],
    *,
    how: Literal["mean", "max", "product"] = "mean",
    normalize_by: Literal["max", "minmax", "absmax", "rank"] = "max",
) -> Tensor:
    """Brings maps of several layers or methods, (N, h_i, w_i) each, into one (N, h, w) at the finest resolution.

    Each map is normalised by itself first, so that none drowns the others; "product" is the geometric mean, high only
    where all agree.

    Example:
        >>> coarse, fine = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.0, 0.0, 1.0, 4.0]]])
        >>> seewhy.maps.fuse([coarse, fine], how="product")
        tensor([[[0.0000, 0.0000, 0.4330, 1.0000]]])
    """
    if not maps:
        raise InputError("fuse() got no maps; give it at least one")
    finest = max((m.shape[1:] for m in maps), key=math.prod)
    stack = torch.stack(
        [resize(normalize(m, how=normalize_by), finest) for m in maps]
    )  # (maps, N, h, w)
    if how == "mean":
        return stack.mean(0)
    if how == "max":
        return stack.amax(0)
    if how == "product":
        return stack.clamp(min=0).prod(0) ** (1 / len(maps))
    raise InputError(f"how={how!r} is not a way to fuse; use 'mean', 'max' or 'product'")
