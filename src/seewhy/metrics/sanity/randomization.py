"""Sanity checks (Adebayo et al., NeurIPS 2018): a map of a model has to change when the model does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...engine.batches import answers
from ...engine.call import Call
from ...engine.flow import LayerLike
from ...engine.targets.classes import ScoreFunction
from ...engine.targets.numbers import numbers_of
from ...engine.targets.resolve import TargetLike, resolve
from ...errors import TargetError
from ...methods.formula import Settings
from ...models.call import CallableModel, call_of, labels_of, wrapped
from ...models.model import Model
from ..metric import Case, Measured
from ..similarity import check_similarity, similarity_of
from .rerun import Explainer, MethodLike, MethodMetric, bind
from .weights import Order, Steps


@dataclass(frozen=True, eq=False)
class Randomization:
    """How alike a method's maps are to the original ones, after each step of randomising the model.

    Attributes:
        order: "cascading" or "independent".
        layers: what each step randomised, the output's side first.
        similarity: for each measure (steps, N) float64; NaN where a map is constant. The original itself, whose
            similarity is 1, is not among the steps.

    Example:
        >>> found = seewhy.metrics.parameter_randomization(net, x, "saliency", 0)
        >>> found.layers, found.mean("spearman_abs").shape
        (('fc', 'conv'), torch.Size([1]))
    """

    order: Order
    layers: tuple[str, ...]
    similarity: Mapping[str, Tensor]

    def mean(self, measure: str) -> Tensor:
        """The mean over the steps, (N,): near 0 where maps follow the model, near 1 where they ignore it."""
        return self.similarity[measure].nanmean(0)


def parameter_randomization(
    model: CallableModel,
    x: Tensor,
    method: MethodLike,
    target: TargetLike = "top1",
    *,
    order: Order = "cascading",
    similarity: str | Sequence[str] = "spearman_abs",
    layers: Sequence[str | nn.Module] | None = None,
    layer: LayerLike = None,
    seed: int = 0,
    reset_statistics: bool = False,
    method_options: Settings | None = None,
) -> Randomization:
    """Re-initialises a copy of the model step by step from the output down, and compares the maps with the original's.

    "cascading" leaves earlier steps randomised, "independent" randomises one at a time. The target is the original
    model's throughout. The model itself is not touched.

    Args:
        model: any model with parameters; a `Call` where it takes further inputs, or another of its outputs is meant.
        x: (N, C, H, W).
        method: a name, a `Method`, or a function `(model, x, target) -> (N, h, w)`.
        target: as in `seewhy.targets`.
        order: "cascading" or "independent".
        similarity: of `seewhy.metrics.similarity.SIMILARITIES`, one or several.
        layers: the steps, dotted names or modules, each with all that is in it; None: every layer with parameters.
        layer: where the method is read; None chooses on the original model.
        seed: each layer has its own, made of this and of its name.
        reset_statistics: also forget BatchNorm's running mean and variance, which are not parameters.
        method_options: the method's own.

    Example:
        >>> found = seewhy.metrics.parameter_randomization(net, x, "grad_cam", 0, similarity="ssim")
        >>> found.layers, found.similarity["ssim"].shape
        (('fc', 'conv'), torch.Size([2, 1]))
    """
    model = wrapped(model)
    score = _score_of_target(model, x, target)
    explain = bind(method, model, x, layer=layer, options=method_options)
    steps = Steps(order, layers, seed, reset_statistics)
    return _compared_step_by_step(
        explain(model, x, score), explain, steps, model, x, score, _checked_measures(similarity)
    )


def label_randomization(
    model: CallableModel,
    shuffled: CallableModel,
    x: Tensor,
    method: MethodLike,
    target: TargetLike = "top1",
    *,
    similarity: str | Sequence[str] = "spearman_abs",
    layer: LayerLike = None,
    method_options: Settings | None = None,
) -> dict[str, Tensor]:
    """Compares the maps of a model with those of one of the same architecture trained on shuffled labels.

    Train the second until it has learned them by heart (over 95 % in the paper). Both explain the same class, which
    "top1" takes from the first. A method whose maps stay alike shows the pictures, not what was learned of them.

    Returns:
        For each measure (N,): 1 is the same map.

    Example:
        >>> import copy
        >>> shuffled = copy.deepcopy(net)  # in earnest, trained on shuffled labels
        >>> seewhy.metrics.label_randomization(net, shuffled, x, "saliency", 0)
        {'spearman_abs': tensor([1.0000], dtype=torch.float64)}
    """
    model, shuffled = wrapped(model), wrapped(shuffled)
    score = _score_of_target(model, x, target)
    explain = bind(method, model, x, layer=layer, options=method_options)
    a, b = explain(model, x, score), explain(shuffled, x, score)
    return {
        measure: similarity_of(measure, a, b, (x.shape[2], x.shape[3]))
        for measure in _checked_measures(similarity)
    }


class ParameterRandomization(MethodMetric):
    """Parameter randomisation as one number (Adebayo et al., NeurIPS 2018): the mean similarity over all steps.

    See `parameter_randomization`. Curves hold each step's similarity, the output's side first; the original's 1 is not
    averaged in. Lower is better: the maps follow the model. `update` takes the maps that the method gives, as they are.

    Args:
        method: what made the maps: a name, a `Method`, or a function `(model, x, target) -> (N, h, w)`.
        order, similarity, layers, reset_statistics: as in `parameter_randomization`; one similarity.
        layer: where the method is read; None chooses as `explain` does.
        options: `method_options`, and what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.ParameterRandomization("saliency")
        >>> metric.update(seewhy.methods.saliency(net, x, 0), net, x, target=0)
        >>> metric.compute().curves[0].shape  # a step for each layer with weights
        (2,)
    """

    name, title, paper = (
        "parameter_randomization",
        "Parameter randomisation",
        "Adebayo et al., NeurIPS 2018",
    )
    higher_is_better = False
    axes = ("share of the layers randomised, output first", "similarity to the original map")
    limits = (-1.0, 1.0)

    def __init__(
        self,
        method: MethodLike | None = None,
        *,
        order: Order = "cascading",
        similarity: str = "spearman_abs",
        layers: Sequence[str] | None = None,
        reset_statistics: bool = False,
        layer: str | None = None,
        **options: Any,
    ) -> None:
        check_similarity(similarity)
        settings = {"order": order, "similarity": similarity, "reset_statistics": reset_statistics}
        named = None if layers is None else list(layers)
        super().__init__(method, layer=layer, settings={**settings, "layers": named}, **options)
        self.steps = Steps(order, layers, self.seed, reset_statistics)
        self.similarity = similarity

    def reruns(self, module: nn.Module) -> int:
        with_weights = [
            part
            for part in module.modules()
            if next(part.parameters(recurse=False), None) is not None
        ]
        return len(with_weights) if self.steps.layers is None else len(self.steps.layers)

    def _positions(self, points: int) -> npt.NDArray[np.float64]:
        return np.arange(1, points + 1) / max(points, 1)

    def _measure(self, case: Case) -> Measured:
        explain = self._explainer_of(case)
        done = _compared_step_by_step(
            case.maps, explain, self.steps, case.model, case.x, case.score, [self.similarity]
        )
        return Measured(done.mean(self.similarity), list(done.similarity[self.similarity].T))


def _compared_step_by_step(
    maps: Tensor,
    explain: Explainer,
    steps: Steps,
    model: Model | Call,
    x: Tensor,
    score: ScoreFunction,
    measures: Sequence[str],
) -> Randomization:
    size = (x.shape[2], x.shape[3])
    names: list[str] = []
    found: dict[str, list[Tensor]] = {measure: [] for measure in measures}
    for name, changed in steps.copies(model, x):
        names.append(name)
        now = explain(changed, x, score)
        for measure in measures:
            found[measure].append(similarity_of(measure, maps, now, size))
    return Randomization(
        steps.order, tuple(names), {m: torch.stack(rows) for m, rows in found.items()}
    )


def _score_of_target(model: Model | Call, x: Tensor, target: TargetLike) -> ScoreFunction:
    """The one target's score, settled on the model as it is."""
    call = call_of(model)
    said = answers(call, x)
    resolved = resolve(target, said, labels_of(model), numbers=numbers_of(call, said))
    if len(resolved) != 1:
        raise TargetError(f"target {target!r} is {len(resolved)} targets; give one")
    return resolved[0].score


def _checked_measures(similarity: str | Sequence[str]) -> list[str]:
    measures = [similarity] if isinstance(similarity, str) else list(similarity)
    for measure in measures:
        check_similarity(measure)
    return measures
