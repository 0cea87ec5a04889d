"""Methods as the metrics run them: at the layers that were chosen for the model and the image as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor

from ...engine.call import Call
from ...engine.flow import Flow, LayerLike, find_flow
from ...engine.layers import resolve_layer
from ...engine.targets.resolve import TargetLike
from ...errors import ArgumentTypeError, InputError
from ...maps.attribution import Attribution
from ...methods.catalog import find_method
from ...methods.formula import Settings
from ...methods.method import Method
from ...methods.request import ALL_STAGES, Request
from ...methods.shared import shared_pass
from ...models.call import CallableModel, call_of, labels_of
from ..metric import Case, ExplanationMetric

Explainer = Callable[[Any, Tensor, Any], Tensor]  # model, x, target -> (N, h, w)
MethodLike = str | Method | Explainer


@dataclass(frozen=True, eq=False)
class BoundMethod:
    """A method with its layers settled, so that changed copies of model and image are explained at the same place.

    `label` says which of several maps it is (`Attribution.layer`); None takes the first.
    """

    method: Method
    layers: tuple[str, ...]
    flow: Flow | None = None
    options: Settings = field(default_factory=dict)
    label: str | None = None

    def __call__(self, model: CallableModel, x: Tensor, target: TargetLike) -> Tensor:
        """The method's maps, (N, h, w)."""
        done = shared_pass(
            call_of(model),
            x,
            methods=[self.method],
            targets=[target],
            layers=self.layers,
            flow=self.flow,
            labels=labels_of(model),
            options={self.method.name: self.options},
        )
        found = (r.map for r in done.results if self.label is None or r.layer == self.label)
        return next(found).cpu()


def bind(
    method: MethodLike,
    model: CallableModel,
    x: Tensor,
    *,
    layer: LayerLike = None,
    options: Settings | None = None,
) -> Explainer:
    """A method as a function `(model, x, target) -> (N, h, w)` with the layers that it takes for this model.

    Args:
        method: a name, a `Method`, or such a function, which is returned as it is.
        model: what the layers are chosen for.
        x: (N, C, H, W); likewise.
        layer: a dotted name or module; None chooses as `explain` does.
        options: the method's own.

    Example:
        >>> explainer = seewhy.metrics.bind("grad_cam", net, x)
        >>> explainer.layers, explainer(net, x, 0).shape
        (('relu',), torch.Size([1, 16, 16]))
    """
    if not isinstance(method, str | Method):
        if not callable(method):
            raise ArgumentTypeError(
                f"method is a {type(method).__name__}; give a name, a Method or a function"
            )
        return method
    method, call = find_method(method), call_of(model)
    if method.at != "layer":
        return BoundMethod(method, (), options=options or {})
    if layer is not None:
        return BoundMethod(method, (resolve_layer(call.module, layer),), options=options or {})
    flow = find_flow(call, x)
    return BoundMethod(method, (flow.default,), flow, options or {})


def bound_as(request: Request, attribution: Attribution, call: Call, x: Tensor) -> Explainer:
    """The method of an attribution as metrics that run it again have to: at the attribution's layer."""
    method = next(each for each in request.possible_methods if each.name == attribution.method)
    options = request.options.get(method.name, {})
    if method.at != "layer" or isinstance(request.layers, tuple):
        return bind(method, call, x, layer=attribution.layer, options=options)
    flow = find_flow(call, x)
    layers = flow.chosen if request.layers == ALL_STAGES else (flow.default,)
    return BoundMethod(method, layers, flow, options, attribution.layer)


class MethodMetric(ExplanationMetric):
    """A metric that runs the method again: on changed images, or on changed copies of the model.

    Args:
        method: what made the maps: a name, a `Method`, or a function `(model, x, target) -> (N, h, w)`.
        layer: where it is read, a dotted name; None chooses as `explain` does.
        method_options: the method's own.
        options: what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.MaxSensitivity().for_method("saliency")
        >>> metric.method
        'saliency'
    """

    leave_out = ("empty", "non_finite")
    signed = True

    def __init__(
        self,
        method: MethodLike | None = None,
        *,
        layer: str | None = None,
        method_options: Settings | None = None,
        settings: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        named = (
            method
            if isinstance(method, str | None)
            else getattr(method, "name", type(method).__name__)
        )
        super().__init__(settings={"method": named, "layer": layer, **(settings or {})}, **options)
        self.method, self.layer, self.method_options = method, layer, dict(method_options or {})

    def for_method(self, method: MethodLike, *, leave_out: Sequence[str] | None = None) -> Self:
        """A fresh metric with the same settings that runs `method`."""
        fresh = super().for_method(method, leave_out=leave_out)
        fresh.method = method
        return fresh

    def passes(self, pixels: int) -> int:
        return 0

    def _explainer_of(self, case: Case) -> Explainer:
        if self.method is None:
            raise InputError(
                f"{self.name} runs the method again and was not given one: {type(self).__name__}(method)"
            )
        return bind(self.method, case.call, case.x, layer=self.layer, options=self.method_options)
