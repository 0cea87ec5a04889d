"""Networks of volumes (N, C, D, H, W): of their own, planted, and those of pictures that look at one slice."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tiny_models import randomised


def volumes(n: int, size: tuple[int, int, int], *, channels: int = 3, seed: int = 0) -> Tensor:
    """(N, C, D, H, W): smooth blobs with some noise, about zero."""
    generator = torch.Generator().manual_seed(2000 + seed)
    coarse = torch.randn(n, channels, 3, 4, 4, generator=generator)
    fine = torch.randn(n, channels, *size, generator=generator)
    return nn.functional.interpolate(coarse, size, mode="trilinear") + 0.3 * fine


class Block(nn.Module):
    """A residual block of 3-D convolutions that thins out time and space by strides."""

    def __init__(self, given: int, width: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv3d(given, width, 3, stride, 1, bias=False),
            nn.BatchNorm3d(width),
        )
        self.conv2, self.bn2 = (
            nn.Conv3d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width),
        )
        self.down = nn.Sequential(
            nn.Conv3d(given, width, 1, stride, bias=False), nn.BatchNorm3d(width)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.down(x))


class TinyResNet3d(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        conv = nn.Conv3d(3, 6, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False)
        self.stem = nn.Sequential(conv, nn.BatchNorm3d(6), nn.ReLU(inplace=True))
        self.layer1, self.layer2 = Block(6, 8, (2, 2, 2)), Block(8, 12, (1, 2, 2))
        self.pool, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.layer2(self.layer1(self.stem(x)))).flatten(1))


class PlantedVideo(nn.Module):
    """A transformer of tubelets of 2 x 4 x 4 whose tokens are put in an order of their own; `at` gives them.

    Args:
        grid: of tubelets.
        order: for each token its cell; slice by slice, row by row unless given.
        before: so many tokens that are learned, such as one of the class.
        dims: of `at`'s output, of (N, L, C): (1, 0, 2) is tokens first, (0, 2, 1) channels before tokens.
        convolved: the tubelets come from a convolution, else from voxels that are folded out.
        depth: of the transformer.
    """

    def __init__(
        self,
        grid: tuple[int, int, int] = (3, 4, 4),
        *,
        order: Sequence[int] | None = None,
        before: int = 1,
        dims: tuple[int, int, int] = (0, 1, 2),
        convolved: bool = True,
        depth: int = 1,
    ) -> None:
        super().__init__()
        width, count = 16, grid[0] * grid[1] * grid[2]
        self.grid, self.before, self.dims = grid, before, dims
        self.order = list(range(count)) if order is None else list(order)
        self.tubelets = (
            nn.Conv3d(3, width, (2, 4, 4), (2, 4, 4)) if convolved else nn.Linear(96, width)
        )
        self.first = nn.Parameter(torch.empty(1, before, width))
        self.position = nn.Parameter(torch.empty(1, before + count, width))
        self.at = nn.Identity()
        blocks = [
            nn.TransformerEncoderLayer(width, 2, 32, 0.0, batch_first=True, norm_first=True)
            for _ in range(depth)
        ]
        self.blocks, self.norm, self.head = (
            nn.Sequential(*blocks),
            nn.LayerNorm(width),
            nn.Linear(width, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.tubelets, nn.Conv3d):
            tokens = self.tubelets(x).flatten(2).mT
        else:
            parts = x.unfold(2, 2, 2).unfold(3, 4, 4).unfold(4, 4, 4)  # (N, C, d, h, w, 2, 4, 4)
            tokens = self.tubelets(parts.flatten(5).flatten(2, 4).permute(0, 2, 1, 3).flatten(2))
        tokens = (
            torch.cat([self.first.expand(len(x), -1, -1), tokens[:, self.order]], 1) + self.position
        )
        seen = self.at(tokens.permute(self.dims) * 1.0).permute(
            self.dims
        )  # each of these orders is its own inverse
        return self.head(self.norm(self.blocks(seen)).mean(1))

    def truth(self, seen: Tensor) -> Tensor:
        """What `at` gave, (N, C, d, h, w)."""
        cells = torch.tensor(self.order).argsort() + self.before
        return seen.permute(self.dims)[:, cells].mT.unflatten(-1, self.grid)


class PlantedChannels(nn.Module):
    """A 3-D convolution whose volumes `at` gives with these dimensions, of (N, C, d, h, w)."""

    def __init__(
        self, dims: tuple[int, ...], channels: int = 6, stride: tuple[int, int, int] = (2, 4, 4)
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, channels, stride, stride), nn.ReLU())
        self.dims, self.at = dims, nn.Identity()
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        back = [self.dims.index(d) for d in range(5)]
        seen = self.at(self.stem(x).permute(self.dims) * 1.0).permute(back)
        return self.head(seen.mean((2, 3, 4)))


class OfSlices(nn.Module):
    """A network of pictures whose convolutions, norms and pools take volumes, and look at one slice at a time."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        for name, part in list(self.net.named_modules()):
            deep = _deepened(part)
            if deep is not None:
                owner, _, child = name.rpartition(".")
                setattr(self.net.get_submodule(owner), child, deep)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _deepened(part: nn.Module) -> nn.Module | None:
    if isinstance(part, nn.Conv2d):
        of_three = {
            "stride": (1, *part.stride),
            "padding": (0, *part.padding),
            "bias": part.bias is not None,
        }
        conv = nn.Conv3d(part.in_channels, part.out_channels, (1, *part.kernel_size), **of_three)
        conv.load_state_dict(
            {name: t[:, :, None] if t.ndim == 4 else t for name, t in part.state_dict().items()}
        )
        return conv
    if isinstance(part, nn.BatchNorm2d):
        norm = nn.BatchNorm3d(part.num_features)
        norm.load_state_dict(part.state_dict())
        return norm
    if isinstance(part, nn.MaxPool2d):
        return nn.MaxPool3d((1, part.kernel_size, part.kernel_size))
    return nn.AdaptiveAvgPool3d(1) if isinstance(part, nn.AdaptiveAvgPool2d) else None


class PictureNet(nn.Module):
    """Residual convolutions of pictures that a volume can be put through once they are `OfSlices`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.conv = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 12, 1), nn.ReLU())
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc(self.pool(self.last(self.conv(x) + x)).flatten(1))


class PatchNet(nn.Module):
    """A transformer of patches 8 x 8; of volumes once it is `OfSlices`."""

    def __init__(self, cells: int = 16) -> None:
        super().__init__()
        self.patches, self.first = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.empty(1, 1, 16))
        self.position = nn.Parameter(torch.empty(1, 1 + cells, 16))
        blocks = [
            nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        ]
        self.blocks, self.norm, self.head = (
            nn.Sequential(*blocks),
            nn.LayerNorm(16),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1) + self.position
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def net_of(name: str) -> nn.Module:
    """The networks of volumes that every method is tried on."""
    return randomised(TinyResNet3d() if name == "resnet" else PlantedVideo((4, 4, 4), depth=2))
