"""The first step of randomisation alone: the layer that knows the classes is drawn anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from ...errors import InputError
from ...maps import values as map_tools
from ...models.call import call_of
from ..metric import Case, Measured
from ..similarity import spearman
from .rerun import MethodLike, MethodMetric
from .weights import copied, last_layer, redraw


class LastLayerRandomization(MethodMetric):
    """Randomisation of the last layer (Adebayo et al., NeurIPS 2018): does the map change once classes are forgotten?

    Spearman's rank correlation of the map with that of a copy of the model whose last layer's weights are drawn anew
    (normal, with their own mean and standard deviation), with signs, at `side` x `side`. 0 where the map follows what
    the layer knew, 1 where it shows the picture or earlier layers; lower is better, and what goes below 0 is no better
    than 0. `parameter_randomization` goes on to the other layers. `update` takes the maps that the method gives.

    Args:
        method: what made the maps: a name, a `Method`, or a function `(model, x, target) -> (N, h, w)`.
        side: of the maps that are compared, in pixels.
        layer: where the method is read; None chooses as `explain` does.
        options: `method_options`, and what `ExplanationMetric` takes; `seed` draws the weights.

    Example:
        >>> metric = seewhy.metrics.LastLayerRandomization("saliency", side=16)
        >>> metric.update(seewhy.methods.saliency(net, x, 0), net, x, target=0)
        >>> -1 <= metric.compute().mean <= 1
        True
    """

    name, title, paper = (
        "randomization",
        "Randomisation of the last layer",
        "Adebayo et al., NeurIPS 2018",
    )
    higher_is_better = False
    limits = (-1.0, 1.0)
    by_chance = 0.0

    def __init__(
        self,
        method: MethodLike | None = None,
        *,
        side: int = 56,
        layer: str | None = None,
        **options: Any,
    ) -> None:
        if side < 2:
            raise InputError(f"side={side} leaves nothing to rank; give at least 2, such as 56")
        super().__init__(method, layer=layer, settings={"side": side}, **options)
        self.side = side

    def reruns(self, module: nn.Module) -> int:
        return 1

    def _measure(self, case: Case) -> Measured:
        explain = self._explainer_of(case)
        call = call_of(case.model)
        changed = copied(call.module)
        redraw(changed.get_submodule(last_layer(call, case.x)), self.seed)
        now = explain(replace(case.model, module=changed), case.x, case.score)
        size = (self.side, self.side)
        before, after = (map_tools.resize(m.detach().float().cpu(), size) for m in (case.maps, now))
        return Measured(spearman(before, after))
