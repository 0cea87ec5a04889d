"""Networks whose sizes deceive: each layer lies over the picture as hiding its cells one by one says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

from seewhy import Trace
from seewhy.engine.flow import find_flow
from seewhy.engine.layers import LayerRecord
from seewhy.methods import grad_cam
from tiny_models import TinyCNN, TinyResNet, pictures, randomised, tiny_vit

Grid = tuple[int, int]


def hiera(size: Grid) -> nn.Module:
    """Tokens in units of its mask up to the last stage."""
    return timm.models.hiera.Hiera(
        size,
        num_classes=5,
        embed_dim=16,
        num_heads=1,
        stages=(1, 1, 1, 1),
        mask_unit_size=(8, 8),
        q_pool=3,
    )


def swin(size: Grid) -> nn.Module:
    """As many channels as rows and columns in its first stage."""
    return timm.models.SwinTransformer(
        size, num_classes=5, embed_dim=24, depths=(1, 1), num_heads=(2, 2), window_size=4
    )


def tnt(size: Grid) -> nn.Module:
    """Attention weights (N, heads, L, L) that pass for pictures."""
    return timm.models.tnt.TNT(
        size,
        num_classes=5,
        embed_dim=24,
        inner_dim=4,
        depth=2,
        num_heads_inner=1,
        num_heads_outer=2,
    )


def registers(size: Grid) -> nn.Module:
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=56, patch_size=14,
        num_labels=5, num_register_tokens=4,
    )  # fmt: skip
    return transformers.Dinov2WithRegistersForImageClassification(config)


def clip(size: Grid) -> nn.Module:
    """Tokens first, as CLIP's own code has them."""
    return TokensFirst(size)


class TokensFirst(nn.Module):
    def __init__(self, size: Grid) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(1, 1, 16))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).permute(2, 0, 1)
        tokens = torch.cat([self.token.expand(-1, len(x), -1), tokens])
        return self.head(self.block(self.norm(tokens))[0])


MOST_CELLS = 64
IN_PLACE = (
    0.4  # attention mixes places, and patches end beside the borders of cells; else it is 1 / cells
)
# the network, the picture, and the grid of its default layer
NETWORKS: dict[str, tuple[Callable[[Grid], nn.Module], Grid, Grid]] = {
    "Hiera": (hiera, (96, 96), (3, 3)),
    "Hiera wide": (hiera, (96, 128), (3, 4)),
    "Swin of 24 channels at 24 x 24": (swin, (96, 96), (12, 12)),
    "TNT": (tnt, (64, 64), (4, 4)),
    "TNT wide": (tnt, (64, 96), (4, 6)),
    **{
        f"registers, {h} x {w}": (registers, (h, w), (h // 14, w // 14))
        for h, w in ((84, 56), (101, 119), (70, 59), (140, 52), (64, 64))
    },
    "tokens first": (clip, (32, 40), (4, 5)),
}


def hidden_one_by_one(x: Tensor, grid: Grid) -> Tensor:
    """The picture, and with each cell in turn replaced by noise: (1 + cells, C, H, W)."""
    (h, w), (height, width) = grid, x.shape[2:]
    changed = x.repeat(h * w + 1, 1, 1, 1)
    for cell in range(h * w):
        i, j = divmod(cell, w)
        rows = slice(i * height // h, (i + 1) * height // h)
        columns = slice(j * width // w, (j + 1) * width // w)
        changed[cell + 1, :, rows, columns] = 3 * torch.randn_like(
            changed[cell + 1, :, rows, columns]
        )
    return changed


def shares_in_place(
    net: nn.Module, x: Tensor, records: list[LayerRecord], grid: Grid
) -> dict[str, float]:
    """For each layer the share of cells that answer most, against what they usually do, when they are hidden."""
    names = [record.name for record in records]
    laid: dict[str, list[Tensor]] = {name: [] for name in names}
    for some in hidden_one_by_one(x, grid).split(15):  # never as many images as tokens
        with Trace(net, some, layers=names, grad=False) as trace:
            for record in records:
                assert record.layout
                laid[record.name].append(record.layout.to_grid(trace.activations[record.name]))
    shares = {}
    for name, parts in laid.items():
        whole = torch.cat(parts)
        change = (whole[1:] - whole[:1]).abs().mean(1).flatten(1)  # (cells hidden, places)
        answer = change / change.mean(0).clamp(min=1e-12)
        shares[name] = float((answer.argmax(1) == torch.arange(len(answer))).double().mean())
    return shares


@pytest.mark.parametrize("network", NETWORKS)
def test_every_layer_lies_as_hidden_cells_say(network: str) -> None:
    make, size, grid = NETWORKS[network]
    net, x = randomised(make(size)).double(), pictures(1, size).double()
    flow = find_flow(net, x)
    by_grid: dict[Grid, list[LayerRecord]] = {}
    for record in flow.records:
        if record.layout and math.prod(record.layout.grid) <= MOST_CELLS:
            by_grid.setdefault(record.layout.grid, []).append(record)
    found: dict[str, float] = {}
    for cells, records in by_grid.items():
        found |= shares_in_place(net, x, records, cells)
    assert not {name: share for name, share in found.items() if share < IN_PLACE}
    default = next(record for record in flow.records if record.name == flow.default)
    assert default.layout
    assert default.layout.grid == grid
    assert grad_cam(net, x, 1).shape[1:] == grid


@pytest.mark.parametrize("n", [2, 20, 21, 22])
def test_tokens_first_of_as_many_images(n: int) -> None:
    x = pictures(n, (32, 40))
    for layer in (None, "norm"):
        net = randomised(TokensFirst((32, 40)))  # anew: nothing is remembered of one image
        found = grad_cam(net, x, 1, layer=layer)
        alone = torch.cat([grad_cam(net, x[i : i + 1], 1, layer=layer) for i in range(n)])
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5 * float(alone.abs().max()))


# ---------------------------------------------------------------- what it costs


COSTS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    # the first pass, that of grids, and four rims beside the picture as far as the first layer
    "convolutions": (TinyCNN, 1 + 4 + 5),
    "a residual net": (TinyResNet, 1 + 4 + 5),
    # and of 4 x 4 tokens each bit of their number and its opposite, and none
    "tokens": (tiny_vit, 1 + 4 + 5 + 2 * 4 + 1),
}


@pytest.mark.parametrize("network", COSTS)
def test_places_are_found_once_and_cost_nothing_afterwards(network: str) -> None:
    make, most = COSTS[network]
    net, x = randomised(make()), pictures(1)
    runs: list[int] = []
    net.register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))

    def run(ask: Callable[[], Any]) -> int:
        runs.clear()
        ask()
        return sum(runs)

    assert run(lambda: find_flow(net, x)) <= most
    assert run(lambda: find_flow(net, x)) == 0
    assert run(lambda: find_flow(net, pictures(3, seed=4))) == 0
    assert run(lambda: grad_cam(net, x, 1)) == len(x)
    layer = find_flow(net, x).chosen[-1]
    assert run(lambda: grad_cam(net, x, 1, layer=layer)) == len(x)
