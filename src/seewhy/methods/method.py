"""A method that can be called: a plain function `(model, x, target) -> (N, h, w)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..arguments import checked
from ..engine.answers import OutputLike
from ..engine.call import Call
from ..engine.defaults import own_defaults
from ..engine.flow import LayerLike, find_flow
from ..engine.inputs import settled_input, warn_of_range
from ..engine.layers import resolve_layer
from ..engine.readings import reading_together
from ..engine.targets.names import ClassNames
from ..engine.targets.resolve import TargetLike, phrase
from ..errors import InputError
from ..models.call import call_of, labels_of
from ..models.model import Model
from .formula import Formula
from .remarks import tell
from .shared import Result, SharedPass, shared_pass


@dataclass(frozen=True, eq=False, repr=False)
class Method(Formula):
    """An attribution method: a function `(model, x, target) -> (N, h, w)`, and what others need to know of it.

    Its attributes are those of `Formula`.

    Example:
        >>> def evidence(a, g):  # (N, C, h, w) each -> (N, h, w)
        ...     return (a * g).sum(1)
        >>> mine = seewhy.methods.Method(
        ...     "mine", "Mine", "Somebody, 2026", "layer", evidence, ("activation", "gradient")
        ... )
        >>> mine(net, x, target=0).sum()
        tensor(4.)
    """

    @checked
    @own_defaults()
    def __call__(
        self,
        model: Model | nn.Module | Callable[..., Any],
        x: Tensor,
        target: TargetLike = "top1",
        *,
        layer: LayerLike = None,
        channels: bool = False,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        inputs: Mapping[str, object] | None = None,
        output: OutputLike | None = None,
        **options: Any,
    ) -> Tensor:
        """Returns the method's maps, (N, h, w) float32 on x's device: not normalised, not resized.

        Args:
            model: a `Model`, any module that takes (N, C, H, W), or for methods that look from outside (RISE, LIME,
                occlusion) any callable from pictures to scores (N, K).
            x: (N, C, H, W), preprocessed; whole numbers go in as floats where the model takes those.
            target: as in `seewhy.targets`; one for all images, or a list, tuple, array or tensor with one for each.
            layer: a dotted name or module; None finds the last that is a picture. Methods at the input need none.
            channels: keep the colour channels of methods at the input: (N, C, H, W).
            args: further inputs of the model, which go in as they are.
            kwargs: likewise, by name.
            inputs: further inputs by name that have a row for each image of x.
            output: takes what the model returns to (N, K) scores.
            options: the method's own, `options` lists them.

        Example:
            >>> map_ = seewhy.methods.grad_cam(net, x, target=0)
            >>> map_.shape, bool(map_[0, 5, 9] == map_.max())  # on the red square
            (torch.Size([1, 16, 16]), True)
        """
        place = x.device if isinstance(x, Tensor) else None
        call = call_of(model, args=args, kwargs=kwargs, inputs=inputs, output=output)
        with reading_together():
            done = self._shared_pass(call, x, target, layer, labels_of(model), options)
        found = _only_map(self, done, target, channels=channels, names=labels_of(model))
        return found if place is None else found.to(place)

    def _shared_pass(
        self,
        call: Call,
        x: Tensor,
        target: TargetLike,
        layer: LayerLike,
        labels: Sequence[str] | None,
        options: Mapping[str, object],
    ) -> SharedPass:
        call, x = settled_input(call, x)
        warn_of_range(x, call.bounds)
        flow = find_flow(call, x) if layer is None and self.at == "layer" else None
        layers = [flow.default] if flow else []
        if layer is not None:
            layers = [resolve_layer(call.module, layer)]
        return shared_pass(
            call,
            x,
            methods=[self],
            targets=[target],
            layers=layers,
            flow=flow,
            labels=labels,
            options={self.name: options},
        )


def _only_map(
    method: Method,
    done: SharedPass,
    target: TargetLike,
    *,
    channels: bool,
    names: ClassNames | None,
) -> Tensor:
    """The maps of the one target, once what is to know of them was said."""
    if len(done.results) != 1:
        raise InputError(
            f"target {target!r} is {len(done.results)} targets; a method answers for one"
        )
    result = done.results[0]
    _warn_of(result, names or ClassNames(), len(result.map))
    if not channels:
        return result.map
    if result.pixels is None:
        raise InputError(
            f"channels=True: {method.title} has a map over the layer, and no colour channels to keep"
        )
    return result.pixels


def _warn_of(result: Result, names: ClassNames, images: int) -> None:
    """Warns of what is to know of single maps, by the images' places in the batch."""
    words = [phrase(result.target, i, names.label) for i in range(images)]
    tell(result.method.title, [f"image {i}" for i in range(images)], words, result.unsaid)
