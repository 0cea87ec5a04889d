"""What a training sees, and in which order: all of it a function of the seed, the epoch and the picture alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...data.dataset import LabeledImages
from ...data.preprocess import Preprocess
from ...errors import InputError, did_you_mean

CACHE_BYTES = 2**31
_ORDER, _CHANGE = 0, 1  # streams of random numbers


@dataclass(frozen=True)
class Augmentation:
    """How far a picture may be changed in training.

    Attributes:
        zoom: least and largest factor on its size.
        shift: of its edges, either way; what comes in at the border is mirrored.
        turn: in radians, either way.
        light: factors on brightness, and on the contrast of each colour, up to 1 + light.
        mirror: left and right are exchanged in half of the cases.
    """

    zoom: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    turn: float = 0.0
    light: float = 0.0
    mirror: bool = False


AUGMENTATIONS = {
    "none": Augmentation(),
    "move": Augmentation((0.8, 1.25), 0.08, 0.12, 0.3),
    "mirror": Augmentation((0.8, 1.25), 0.08, 0.12, 0.3, mirror=True),
}


def find_augmentation(name: str) -> Augmentation:
    """The augmentation of a name; InputError where there is none."""
    if name not in AUGMENTATIONS:
        known = ", ".join(map(repr, AUGMENTATIONS))
        raise InputError(
            f"augment={name!r} is not known{did_you_mean(name, AUGMENTATIONS)}; use {known}"
        )
    return AUGMENTATIONS[name]


class Pictures(Dataset[Tensor]):
    """Pictures at the model's size, uint8 (3, H, W); kept in memory once read, up to CACHE_BYTES in all."""

    def __init__(self, data: LabeledImages, preprocess: Preprocess, *, keep: bool = True) -> None:
        self.data = data
        self.plain = replace(preprocess, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)
        kept = keep and len(data) * 3 * preprocess.size[0] * preprocess.size[1] <= CACHE_BYTES
        self.kept: dict[int, Tensor] | None = {} if kept else None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        if self.kept is not None and index in self.kept:
            return self.kept[index]
        pixels = self.plain(self.data[index].photo)[0].round().to(torch.uint8)
        if self.kept is not None:
            self.kept[index] = pixels
        return pixels


class Feed:
    """Batches of a data set.

    Args:
        data: the pictures and their labels.
        preprocess: of the model.
        batch_size: on each device.
        augmentation: how pictures are changed in training.
        seed: of order and changes.
        workers: processes that read pictures; with any, none are kept in memory.
        rank, world: which device this is, and of how many.
    """

    def __init__(
        self,
        data: LabeledImages,
        preprocess: Preprocess,
        *,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pictures = Pictures(data, preprocess, keep=workers == 0)
        self.batch_size, self.augmentation, self.seed, self.workers = (
            batch_size,
            augmentation,
            seed,
            workers,
        )
        self.rank, self.world = rank, world
        self.labels = torch.zeros(len(data), len(data.classes))
        for row, labels in zip(self.labels, data.labels, strict=True):
            row[list(labels)] = 1
        low, high = preprocess.bounds
        self.scale, self.offset = (high - low) / 255, low

    def order(self, epoch: int | None) -> list[list[int]]:
        """The pictures of each batch of an epoch; with None in their own order, each once."""
        if epoch is None:
            mine = list(range(self.rank, len(self.labels), self.world))
        else:
            shuffled = (
                np.random.default_rng((self.seed, _ORDER, epoch))
                .permutation(len(self.labels))
                .tolist()
            )
            shuffled += shuffled[: -len(shuffled) % self.world]  # every device makes as many steps
            mine = shuffled[self.rank :: self.world]
        cut = [mine[i : i + self.batch_size] for i in range(0, len(mine), self.batch_size)]
        # BatchNorm cannot learn from a single picture
        return cut[:-1] if epoch is not None and len(cut) > 1 and len(cut[-1]) == 1 else cut

    def batches(self, epoch: int | None, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (n, 3, H, W) and labels (n, classes), 0 or 1, of each batch; those of an epoch are changed."""
        order = self.order(epoch)
        own = torch.Generator()  # a loader draws a number that it would else take from the caller's
        loader = DataLoader(
            self.pictures, batch_sampler=order, num_workers=self.workers, generator=own
        )
        for indices, pixels in zip(order, loader, strict=True):
            x = pixels.to(device, non_blocking=True).float()
            if epoch is not None:
                x = augmented(x, self.augmentation, seed=self.seed, epoch=epoch, indices=indices)
            x = x * self.scale.to(device) + self.offset.to(device)
            yield x.contiguous(memory_format=torch.channels_last), self.labels[indices].to(device)


def augmented(
    x: Tensor, augmentation: Augmentation, *, seed: int, epoch: int, indices: Sequence[int]
) -> Tensor:
    """Changes pictures (n, 3, H, W) of 0 to 255, each by random numbers of its own."""
    if augmentation == Augmentation():
        return x
    drawn = np.stack([np.random.default_rng((seed, _CHANGE, epoch, i)).random(9) for i in indices])
    u = torch.from_numpy(drawn).to(x)  # (n, 9) in [0, 1)
    low, high = augmentation.zoom
    shrunk = 1 / (low * (high / low) ** u[:, 0])
    flipped = torch.where((u[:, 1] < 0.5) & augmentation.mirror, -1.0, 1.0)
    angle = (2 * u[:, 2] - 1) * augmentation.turn
    aspect = x.shape[2] / x.shape[3]  # a grid's coordinates go from -1 to 1 along either edge
    affine = torch.zeros(len(x), 2, 3, device=x.device)
    affine[:, 0, 0], affine[:, 0, 1] = (
        flipped * angle.cos() * shrunk,
        -angle.sin() * shrunk * aspect,
    )
    affine[:, 1, 0] = flipped * angle.sin() * shrunk / aspect
    affine[:, 1, 1] = angle.cos() * shrunk
    affine[:, :, 2] = (2 * u[:, 3:5] - 1) * 2 * augmentation.shift
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    factors = (1 + augmentation.light) ** (2 * u[:, 5:, None, None] - 1)  # (n, 4, 1, 1)
    mean = moved.mean((2, 3), keepdim=True)
    return ((moved - mean) * factors[:, :3] + mean * factors[:, 3:]).clamp(0, 255)
