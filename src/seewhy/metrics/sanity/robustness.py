"""How much a map changes with its image."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..metric import Case, Measured, image_generator
from .rerun import MethodLike, MethodMetric


class MaxSensitivity(MethodMetric):
    """Max-sensitivity (Yeh et al., NeurIPS 2019, def. 2): max over |d|_inf <= r of |map(x + d) - map(x)| / |map(x)|.

    The maximum is over `samples` uniform draws of d, and so a lower bound that grows with them. The target stays the
    one of x. At least 0; lower is steadier. `update` takes the maps that the method gives for x, as they are.

    Args:
        method: what made the maps: a name, a `Method`, or a function `(model, x, target) -> (N, h, w)`.
        radius: r, in the model's input space.
        samples: how many changed copies of each image are explained.
        layer: where the method is read; None chooses as `explain` does.
        options: `method_options`, and what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.MaxSensitivity("grad_cam", samples=2)
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().mean < 0.5
        True
    """

    name, title, paper = "max_sensitivity", "Max-sensitivity", "Yeh et al., NeurIPS 2019"
    higher_is_better = False
    limits = (0.0, math.inf)

    def __init__(
        self,
        method: MethodLike | None = None,
        *,
        radius: float = 0.02,
        samples: int = 10,
        layer: str | None = None,
        **options: Any,
    ) -> None:
        if samples < 1 or radius < 0:
            raise InputError(
                f"samples={samples}, radius={radius}: give at least 1 sample and no negative radius"
            )
        super().__init__(
            method, layer=layer, settings={"radius": radius, "samples": samples}, **options
        )
        self.radius, self.samples = radius, samples

    def reruns(self, module: nn.Module) -> int:
        return self.samples

    def _measure(self, case: Case) -> Measured:
        explain = self._explainer_of(case)
        generators = [image_generator(image, self.seed) for image in case.x]
        most = torch.zeros(len(case.x), dtype=torch.float64)
        for _ in range(self.samples):
            drawn = torch.stack(
                [torch.rand(case.x.shape[1:], generator=g, dtype=torch.float32) for g in generators]
            )
            copies = case.x + ((2 * drawn - 1) * self.radius).to(case.x)
            most = torch.maximum(
                most, self._relative_change(case.maps, explain(case.model, copies, case.score))
            )
        return Measured(most)

    def _relative_change(self, maps: Tensor, changed: Tensor) -> Tensor:
        if changed.shape != maps.shape:
            raise InputError(
                f"maps has shape {tuple(maps.shape)}, and the method gives {tuple(changed.shape)} for changed images; "
                "give the maps that the method returns, not resized"
            )
        before, after = (m.detach().cpu().double().flatten(1) for m in (maps, changed))
        relative: Tensor = (after - before).norm(dim=1) / before.norm(dim=1)
        return relative
