"""A linear model of scores as a control variate: what it explains of a map is known without running anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...engine.masking.masks import GridMasks, along_axes, crops

RIDGES = (
    0.1,
    1.0,
    10.0,
    math.inf,
)  # over the mean variance of a feature; infinite is no model but the mean


@dataclass(frozen=True, eq=False)
class Control:
    """For each block a linear model of the score that the other blocks made.

    Attributes:
        residual: (n, T) float64, each score less what the model of its block says.
        coefficients: (T, blocks, q, r), of the mean of the mask over each of q x r tiles of the picture.
        shared: for each axis (q, L), how the tiles' lines vary together with the pixels', the first
            times the variance of a cell.
    """

    residual: Tensor
    coefficients: Tensor
    shared: Sequence[Tensor]

    def expected(self, target: int) -> Tensor:
        """The covariance of each block's model with the mask at each pixel: (blocks, H W) float64."""
        return along_axes(self.coefficients[target], self.shared).flatten(1)


def fit_control(grids: GridMasks, scores: Tensor, members: Tensor, p: float) -> Control:
    """Fits the models by ridge regression; how strong the ridge is, is what predicts the blocks left out best.

    A block is adjusted by a model that has not seen it, so that its mean is what it would be without.

    Args:
        grids: the masks, at least as many as there are scores.
        scores: (n, T) float64.
        members: (blocks, n), 0 or 1.
        p: the mean of the masks.
    """
    counts = grids.cells.shape[1:]
    edges = list(map(_Edge.of, grids.size, counts))
    tiles = _means_over_tiles(grids, len(scores), edges).sub_(p)
    others = _Others.of(tiles, scores, members)
    fitted = [others.fit(ridge) for ridge in RIDGES]  # (blocks, q r, T) each
    residuals = [
        others.residual(tiles, scores, members.argmax(0), coefficients) for coefficients in fitted
    ]
    best = (
        torch.stack([residual.square().sum(0) for residual in residuals]).argmin(0).tolist()
    )  # one for each target
    chosen = torch.stack([fitted[k][:, :, t] for t, k in enumerate(best)])  # (T, blocks, q r)
    return Control(
        torch.stack([residuals[k][:, t] for t, k in enumerate(best)], 1),
        chosen.view(*chosen.shape[:2], *(len(edge.shared) for edge in edges)),
        [p * (1 - p) * edges[0].shared, *(edge.shared for edge in edges[1:])],
    )


@dataclass(frozen=True, eq=False)
class _Edge:
    """One edge of the masks: (shifts, s, q), how cells count in each of q tiles; (q, length), tiles with pixels."""

    tiles: Tensor
    shared: Tensor

    @classmethod
    def of(cls, length: int, cells: int) -> _Edge:
        pixels = crops(length, cells, torch.device("cpu"))[
            : -(-length // cells)
        ].double()  # (shifts, s, length)
        count = min(cells, length)
        tile = torch.arange(length) * count // length
        mean = (tile[:, None] == torch.arange(count)).double()
        tiles = pixels @ (mean / mean.sum(0))
        return cls(tiles, torch.einsum("zcq,zch->qh", tiles, pixels) / len(pixels))


def _means_over_tiles(grids: GridMasks, n: int, edges: Sequence[_Edge]) -> Tensor:
    """The mean of each of n masks over each tile, (n, q r) float64."""
    found = torch.empty(n, *(edge.tiles.shape[2] for edge in edges), dtype=torch.float64)
    for start in range(0, n, 1024):
        part = slice(start, min(n, start + 1024))
        shifts = grids.shifts[part].long().unbind(1)
        weights = [edge.tiles[shift] for edge, shift in zip(edges, shifts, strict=True)]
        found[part] = along_axes(grids.cells[part].double(), weights)
    return found.flatten(1)


@dataclass(frozen=True, eq=False)
class _Others:
    """For each block the means, and the products about them, of all samples that are not in it."""

    features: Tensor  # (blocks, d)
    scores: Tensor  # (blocks, T)
    gram: Tensor  # (blocks, d, d)
    cross: Tensor  # (blocks, d, T)

    @classmethod
    def of(cls, tiles: Tensor, scores: Tensor, members: Tensor) -> _Others:
        others = (1 - members) / (1 - members).sum(1, keepdim=True).clamp(min=1)
        features, means = others @ tiles, others @ scores
        own = [mine.bool() for mine in members]
        gram = torch.stack([tiles[mine].T @ tiles[mine] for mine in own])
        cross = torch.stack([tiles[mine].T @ scores[mine] for mine in own])
        n = (1 - members).sum(1)[:, None, None]
        return cls(
            features,
            means,
            gram.sum(0) - gram - n * features[:, :, None] * features[:, None],
            cross.sum(0) - cross - n * features[:, :, None] * means[:, None],
        )

    def fit(self, ridge: float) -> Tensor:
        """The coefficients of each block's model, (blocks, d, T)."""
        if math.isinf(ridge):
            return torch.zeros_like(self.cross)
        spread = self.gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        stiff = self.gram + (ridge * spread + 1e-12) * torch.eye(self.gram.shape[1])
        solved: Tensor = torch.linalg.solve(stiff, self.cross)
        return solved

    def residual(
        self, tiles: Tensor, scores: Tensor, block: Tensor, coefficients: Tensor
    ) -> Tensor:
        """What each block's model leaves of its own scores, (n, T)."""
        said = tiles @ coefficients  # (blocks, n, T)
        level = torch.einsum("bd,bdt->bt", self.features, coefficients)
        own: Tensor = said[block, torch.arange(len(tiles))]
        return scores - self.scores[block] - own + level[block]
