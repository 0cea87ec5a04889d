"""How simple a map is: its entropy and its sparsity. Neither runs the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..engine.targets.resolve import TargetLike
from ..maps import values as map_tools
from ..models.call import CallableModel
from .metric import ExplanationMetric, Measured


class _OfMapsAlone(ExplanationMetric):
    leave_out = ("empty", "non_finite")
    signed = True

    def update(
        self,
        maps: Tensor,
        model: CallableModel | None = None,
        x: Tensor | None = None,
        target: TargetLike = "top1",
    ) -> None:
        """Adds maps (N, h, w): resized to x (N, C, H, W) where that is given, else as they are.

        Resize where methods of several resolutions are compared: a finer map has more places to spread over. The model
        and the target are not asked.
        """
        judged = self._checked_maps(maps)
        sized = judged if x is None else map_tools.resize(judged, (x.shape[2], x.shape[3]))
        self._keep(
            judged, Measured(self._of(sized.nan_to_num(0.0, 0.0, 0.0).abs().double().flatten(1)))
        )

    def passes(self, pixels: int) -> int:
        """None: the model is not asked."""
        return 0

    def _of(self, magnitudes: Tensor) -> Tensor:
        """(N, places), each at least 0 -> (N,)."""
        raise NotImplementedError


class Complexity(_OfMapsAlone):
    """Complexity (Bhatt et al., IJCAI 2020, eq. 6): the entropy of the map's shares, - sum_i p_i ln p_i in nats.

    p_i = |m_i| / sum |m|. From 0 (all in one place) to ln(number of places), of the uniform map; lower is simpler.

    Example:
        >>> metric = seewhy.metrics.Complexity()
        >>> metric.update(torch.ones(1, 2, 2))
        >>> round(metric.compute().mean, 3)  # ln 4
        1.386
    """

    name, title, paper = "complexity", "Complexity", "Bhatt et al., IJCAI 2020"
    higher_is_better = False
    limits = (0.0, math.inf)

    def _of(self, magnitudes: Tensor) -> Tensor:
        shares = magnitudes / magnitudes.sum(1, keepdim=True)
        entropies: Tensor = torch.special.entr(shares).sum(1)
        return entropies


class Sparsity(_OfMapsAlone):
    """Sparsity (Chalasani et al., ICML 2020): the Gini index of |m|, sum_k (2k - d - 1) v_k / (d sum v), v ascending.

    From 0 (uniform) to 1 - 1 / d, all in one of d places; higher is sparser.

    Example:
        >>> metric = seewhy.metrics.Sparsity()
        >>> metric.update(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]))
        >>> metric.compute().mean  # 1 - 1 / 4
        0.75
    """

    name, title, paper = "sparsity", "Sparsity", "Chalasani et al., ICML 2020"
    higher_is_better = True
    limits = (0.0, 1.0)

    def _of(self, magnitudes: Tensor) -> Tensor:
        ordered = magnitudes.sort(1).values
        d = ordered.shape[1]
        weights = 2 * torch.arange(1, d + 1, dtype=ordered.dtype) - d - 1
        return (ordered * weights).sum(1) / (d * ordered.sum(1))
