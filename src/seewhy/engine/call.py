"""How a model is called, and where its pictures lie: what methods ask of a model before they trace it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import LayerError
from .flow import Flow, trace_flow
from .layers import resolve_layer
from .layout import Layout, infer_layout
from .rules.composites import Bounds
from .trace import OutputAdapter, Trace

LayerLike = str | nn.Module | None


@dataclass(frozen=True)
class Call:
    """How a model is called: what goes with the picture, how its answer is read, and the range of its input.

    `multi_label` says that the answer's probabilities are sigmoids.
    """

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    output: OutputAdapter | None = None
    bounds: Bounds | None = None
    multi_label: bool = False

    def trace(
        self,
        module: nn.Module,
        x: Tensor,
        layers: Sequence[str | nn.Module],
        *,
        rules: TorchFunctionMode | None = None,
        grad: bool = True,
    ) -> Trace:
        return Trace(
            module, x, layers=layers, rules=rules, grad=grad, args=self.args, kwargs=self.kwargs, output=self.output
        )


def find_layer(module: nn.Module, x: Tensor, layer: LayerLike, call: Call) -> str:
    """The name of the layer given, or of the one found."""
    return resolve_layer(module, layer) if layer is not None else find_flow(module, x, call).chosen[-1]


def find_flow(module: nn.Module, x: Tensor, call: Call) -> Flow:
    """What is known of the model's layers."""
    return trace_flow(module, x, args=call.args, kwargs=call.kwargs, output=call.output)


def picture_layout(name: str, activation: Tensor, x: Tensor) -> Layout:
    """How a layer's output lies over the image.

    Raises:
        LayerError: it does not.
    """
    layout = infer_layout(tuple(activation.shape), len(x), (x.shape[2], x.shape[3]))
    if layout is None:
        raise LayerError(
            f"layer {name!r} gives {tuple(activation.shape)} for images of {x.shape[2]} x {x.shape[3]}, which is no "
            "picture: it is neither (N, C, h, w), (N, h, w, C) nor tokens over the image; choose an earlier layer"
        )
    return layout
