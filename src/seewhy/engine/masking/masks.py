"""Masks, described small and rendered a few at a time: (B, H, W), or (B, D, H, W), float32 in [0, 1], 1 keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError


class Masks(Protocol):
    """Masks for one image, described small and made a few at a time.

    Example:
        >>> class Left:
        ...     def __len__(self):
        ...         return 1
        ...     def render(self, start, stop, device):
        ...         return (torch.arange(4) < 2).float().expand(stop - start, 2, 4)
        >>> Left().render(0, 1, torch.device("cpu"))
        tensor([[[1., 1., 0., 0.],
                 [1., 1., 0., 0.]]])
    """

    def __len__(self) -> int: ...

    def render(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Returns masks `start` to `stop` - 1: (B, H, W) float32 in [0, 1]; 1 keeps, 0 hides."""
        ...


@dataclass(frozen=True, eq=False)
class GridMasks:
    """RISE's masks: coarse grids, upsampled bilinearly to one cell more than the image and cropped at a shift.

    As the authors' code does it (scikit-image's `resize`, order 1, mode "reflect"): s x s cells become
    (s + 1) ceil(H / s) x (s + 1) ceil(W / s) pixels, on half-pixel centres, mirrored about the outermost centres. In a
    volume the same is done along its depth.

    Args:
        cells: (n, s, s), 1 keeps; bool takes least memory. Of volumes (n, t, s, s).
        shifts: (n, 2) integers, down and right, from 0 to ceil(H / s) - 1 and ceil(W / s) - 1; of volumes (n, 3).
        size: (H, W), or (D, H, W).

    Example:
        >>> cells, shifts = torch.tensor([[[True, False], [True, False]]]), torch.tensor([[0, 0]])
        >>> masks = seewhy.masking.GridMasks(cells, shifts, (1, 4))
        >>> masks.render(0, 1, torch.device("cpu"))
        tensor([[[0.6667, 1.0000, 0.6667, 0.3333]]])
    """

    cells: Tensor
    shifts: Tensor
    size: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.cells)

    def render(self, start: int, stop: int, device: torch.device) -> Tensor:
        cells = self.cells[start:stop].to(device, torch.float32)  # (B, s, s)
        shifts = self.shifts[start:stop].to(device, torch.long).unbind(1)
        weights = []
        for length, count, shift in zip(self.size, cells.shape[1:], shifts, strict=True):
            weights.append(crops(length, count, device)[shift])
        return along_axes(cells, weights)


def along_axes(cells: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Sums of cells (B, s, ...) by weights of each axis, (B, s, L) or (s, L): (B, L, ...)."""
    *depth, rows, columns = weights
    for slices in depth:
        cells = (slices.mT @ cells.flatten(2)).view(len(cells), -1, *cells.shape[2:])
        rows, columns = rows.unsqueeze(-3), columns.unsqueeze(-3)
    return rows.mT @ cells @ columns


@lru_cache(maxsize=16)
def crops(length: int, cells: int, device: torch.device) -> Tensor:
    """How much each of s cells counts at each pixel of an edge, for every shift: (shifts, s, length), one storage."""
    pitch = -(-length // cells)
    place = (torch.arange((cells + 1) * pitch, dtype=torch.float64) + 0.5) * cells / (
        (cells + 1) * pitch
    ) - 0.5
    last = cells - 1
    place = (last - (last - place.abs()).abs()).clamp(0, last)  # mirrored
    weights = (1 - (place[:, None] - torch.arange(cells)).abs()).clamp(min=0)
    return weights.to(device, torch.float32).unfold(0, length, 1)


@dataclass(frozen=True, eq=False)
class SuperpixelMasks:
    """Superpixels shown or hidden.

    Args:
        coefficients: (n, d) in [0, 1], how much each mask keeps of each superpixel.
        labels: (H, W) integers from 0 to d - 1.

    Example:
        >>> masks = seewhy.masking.SuperpixelMasks(torch.tensor([[1.0, 0.0]]), torch.tensor([[0, 0, 1]]))
        >>> masks.render(0, 1, torch.device("cpu"))
        tensor([[[1., 1., 0.]]])
    """

    coefficients: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.coefficients)

    def render(self, start: int, stop: int, device: torch.device) -> Tensor:
        kept = self.coefficients[start:stop].to(device, torch.float32)
        places = self.labels.to(device).flatten()
        return kept.index_select(1, places).view(-1, *self.labels.shape)


@dataclass(frozen=True, eq=False)
class PatchMasks:
    """Each mask hides one box and keeps the rest.

    Args:
        boxes: (n, 4) integers (x0, y0, x1, y1), half-open; what lies outside the image hides nothing. Of volumes
            (n, 6), (x0, y0, z0, x1, y1, z1).
        size: (H, W), or (D, H, W).

    Example:
        >>> masks = seewhy.masking.PatchMasks(torch.tensor([[1, 0, 3, 1]]), (1, 4))
        >>> masks.render(0, 1, torch.device("cpu"))
        tensor([[[1., 0., 0., 1.]]])
    """

    boxes: Tensor
    size: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def render(self, start: int, stop: int, device: torch.device) -> Tensor:
        boxes = self.boxes[start:stop].to(device)
        last, first = (
            boxes[:, :, None].flip(1).chunk(2, 1)
        )  # of each axis, in the order of the size
        hidden = torch.ones(len(first), dtype=torch.bool, device=device)
        for axis, length in enumerate(self.size):
            place = torch.arange(length, device=device)
            within = (place >= first[:, axis]) & (place < last[:, axis])  # (B, L)
            hidden = hidden[..., None] & within.view(len(first), *[1] * axis, length)
        return (~hidden).to(torch.float32)


@dataclass(frozen=True, eq=False)
class FieldMasks:
    """Low-resolution masks, upsampled bilinearly; Score-CAM's are activations.

    Args:
        fields: (n, h, w), or (n, d, h, w).
        size: (H, W), or (D, H, W): upsampled trilinearly.
        align_corners: as in `torch.nn.functional.interpolate`.
        normalize: each upsampled mask is brought to [0, 1] by its minimum and maximum; a constant one hides all.
            Without, the fields lie in [0, 1].

    Example:
        >>> masks = seewhy.masking.FieldMasks(torch.tensor([[[0.0, 1.0]]]), (1, 4))
        >>> masks.render(0, 1, torch.device("cpu"))
        tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """

    fields: Tensor
    size: tuple[int, ...]
    align_corners: bool = False
    normalize: bool = False

    def __len__(self) -> int:
        return len(self.fields)

    def render(self, start: int, stop: int, device: torch.device) -> Tensor:
        fields = self.fields[start:stop, None].to(device, torch.float32)
        masks = linear(fields, self.size, align_corners=self.align_corners)[:, 0]
        if not self.normalize:
            return masks
        places = tuple(range(1, masks.ndim))
        low, high = masks.amin(places, keepdim=True), masks.amax(places, keepdim=True)
        return (masks - low) / torch.where(high > low, high - low, 1)


def linear(fields: Tensor, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """(N, C, h, w) bilinearly to (N, C, H, W), or of volumes trilinearly, without antialiasing."""
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(fields, tuple(size), mode=mode, align_corners=align_corners)


@dataclass(frozen=True, eq=False)
class StepMasks:
    """Pixels go, or come, in an order: insertion, deletion and ROAD.

    Args:
        ranks: (H, W) integers, each from 0 to H W - 1 once: when a pixel's turn comes.
        steps: for each mask of how many pixels the turn has come.
        inserting: these pixels are shown and the rest is hidden, not the other way round.

    Example:
        >>> masks = seewhy.masking.StepMasks(torch.tensor([[2, 0, 1]]), steps=[1, 2])
        >>> masks.render(0, 1, torch.device("cpu"))
        tensor([[[1., 0., 1.]]])
    """

    ranks: Tensor
    steps: Sequence[int] | Tensor
    inserting: bool = False

    def __len__(self) -> int:
        return len(self.steps)

    def render(self, start: int, stop: int, device: torch.device) -> Tensor:
        steps = torch.as_tensor(self.steps[start:stop], device=device)[:, None, None]
        turned = self.ranks.to(device) < steps
        return (turned if self.inserting else ~turned).to(torch.float32)


def check_masks(masks: Sequence[Masks], x: Tensor) -> None:
    """Says what is wrong with the masks of a batch (N, C, H, W)."""
    if len(masks) != len(x):
        raise InputError(
            f"masks has {len(masks)} sources for {len(x)} images; give one for each image"
        )
    size = tuple(x.shape[2:])
    for i, source in enumerate(masks):
        if len(source) and (found := tuple(source.render(0, 1, torch.device("cpu")).shape)) != (
            1,
            *size,
        ):
            raise InputError(
                f"masks[{i}] renders {found} for one mask, the image needs {(1, *size)}"
            )
