"""What a method is, and the shared pass that answers for many at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import InputError, LayerError, SeewhyWarning, did_you_mean
from ..flow import trace_flow
from ..models.layers import INPUT, resolve_layer, unwrap
from ..models.model import Model
from ..models.tokens import Layout, infer_layout
from ..rules.guided import Rectifiers
from ..targets import ResolvedTarget, TargetLike, resolve
from ..trace import OutputAdapter, Trace, check_scores

Need = Literal["activation", "gradient", "input", "input_gradient", "guided", "deconvnet"]
Combine = Callable[..., Tensor]
Run = Callable[..., Tensor]
LayerLike = str | nn.Module | None

NO_RECTIFIER = "{} has no rectifier for the guided and deconvnet rules to act on: their signal is the plain gradient"


@dataclass(frozen=True)
class Call:
    """How a model is called: what goes with the picture, and how its answer is read."""

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    output: OutputAdapter | None = None

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


@dataclass(frozen=True, eq=False)
class Method:
    """An attribution method: a function `(model, x, target) -> (N, h, w)`, and what others need to know of it.

    Attributes:
        name, title, paper: the key in `METHODS`, the name for people, where it comes from.
        combine: the paper's formula over what it `needs`, in that order -> (N, h, w), or (N, C, H, W) with `reduce`.
        needs: "activation" and "gradient" at the layer (N, C, h, w); "input", "input_gradient", "guided" and
            "deconvnet" at the input (N, C, H, W). What several methods need is computed once.
        run: for methods of several passes, instead: (module, x, score, layer, call, **options) -> the same.
        at: where the map lies: over a "layer", over the "input", or over the layer that the "head" pools.
        reduce: takes the colour channels together, (N, C, H, W) -> (N, H, W).
        signed: negative values speak against the target.
        finds_layers: without a layer given, `run` chooses (and fuses) layers itself, with layer=None.
        options: keyword arguments of `run` with their defaults.
    """

    name: str
    title: str
    paper: str
    combine: Combine | None = None
    needs: tuple[Need, ...] = ()
    run: Run | None = None
    at: Literal["layer", "input", "head"] = "layer"
    reduce: Callable[[Tensor], Tensor] | None = None
    signed: bool = False
    finds_layers: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", (self.combine or self.run).__doc__)

    def __repr__(self) -> str:
        return f"<method {self.name}: {self.title}, {self.paper}>"

    def __call__(
        self,
        model: Model | nn.Module,
        x: Tensor,
        target: TargetLike = "top1",
        *,
        layer: LayerLike = None,
        channels: bool = False,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        output: OutputAdapter | None = None,
        **options: Any,
    ) -> Tensor:
        """Returns the method's maps, (N, h, w) float32: not normalised, not resized.

        Args:
            model: a `Model` or any module that takes (N, C, H, W).
            x: (N, C, H, W), preprocessed.
            target: as in `seewhy.targets`; one for all images or a list with one for each.
            layer: a dotted name or module; None finds the last that is a picture. Methods at the input need none.
            channels: keep the colour channels of methods at the input: (N, C, H, W).
            args, kwargs: further inputs of the model.
            output: takes what the model returns to (N, K) scores.
            options: the method's own, `options` lists them.
        """
        module, labels, call = unpack(model, Call(args, kwargs or {}, output))
        found = layer is None
        finds = self.at != "layer" or (found and self.finds_layers)
        layers = [] if finds else [find_layer(module, x, layer, call)]
        done = shared_pass(
            module,
            x,
            methods=[self],
            targets=[target],
            layers=layers,
            found=found,
            labels=labels,
            call=call,
            options={self.name: options},
        )
        if len(done.results) != 1:
            raise InputError(f"target {target!r} is {len(done.results)} targets; a method answers for one")
        result = done.results[0]
        if not channels:
            return result.map
        if result.pixels is None:
            raise InputError(f"channels=True: {self.title} has a map over the layer, and no colour channels to keep")
        return result.pixels


def unpack(model: Model | nn.Module, call: Call) -> tuple[nn.Module, tuple[str, ...] | None, Call]:
    """The module, the labels and the call of a model or module."""
    if isinstance(model, Model):
        return unwrap(model.module), model.labels, Call(call.args, call.kwargs, call.output or model.output)
    return unwrap(model), None, call


def find_layer(module: nn.Module, x: Tensor, layer: LayerLike, call: Call) -> str:
    """The name of the layer given, or of the one found."""
    return resolve_layer(module, layer) if layer is not None else find_stages(module, x, call)[-1]


def find_stages(module: nn.Module, x: Tensor, call: Call) -> tuple[str, ...]:
    """One layer for each resolution, finest first."""
    return trace_flow(module, x, args=call.args, kwargs=call.kwargs, output=call.output).chosen


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


@dataclass(frozen=True, eq=False)
class Result:
    """One method's map (N, h, w) for one layer and one target, on the CPU in float32."""

    method: Method
    layer: str | None
    target: ResolvedTarget
    map: Tensor
    pixels: Tensor | None
    scores: Tensor  # (N,)


@dataclass(frozen=True, eq=False)
class SharedPass:
    output: Any
    results: list[Result]


def shared_pass(
    module: nn.Module,
    x: Tensor,
    *,
    methods: Sequence[Method],
    targets: Sequence[TargetLike],
    layers: Sequence[str],
    found: bool = False,
    labels: Sequence[str] | None = None,
    call: Call | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> SharedPass:
    """Computes methods x layers x targets: one forward pass for what shares its rules, one way back for each target.

    `found` says that nobody named the layers, so that methods with a better choice of their own may make it.
    """
    call, options = call or Call(), options or {}
    for method in methods:
        _check_options(method, options.get(method.name, {}))
    shared = [m for m in methods if m.combine and "deconvnet" not in m.needs]
    apart = [m for m in methods if m.combine and "deconvnet" in m.needs]
    done: dict[tuple[str, str | None, int], Result] = {}
    output, resolved = None, None
    for group, rule in ((shared, "guided" if any("guided" in m.needs for m in shared) else None), (apart, "deconvnet")):
        if group or (resolved is None and not apart):
            rules = Rectifiers(rule) if rule and group else None  # type: ignore[arg-type]
            with call.trace(module, x, _taps(group, layers), rules=rules, grad=bool(_signals(group))) as trace:
                if resolved is None:
                    output = trace.output
                    resolved = [r for target in targets for r in resolve(target, output, labels)]
                if rules and not rules.met:
                    warnings.warn(NO_RECTIFIER.format(type(module).__name__), SeewhyWarning, stacklevel=2)
                _combine_group(_Pass(trace, rules, x), group, layers, resolved, done)
    for method in methods:
        if method.run:
            own = _layers_of(method, layers, found)
            _run_apart(method, module, x, own, resolved or [], output, call, options.get(method.name, {}), done)
    order = [
        (m.name, layer, t)
        for m in methods
        for layer in _layers_of(m, layers, found)
        for t in range(len(resolved or []))
    ]
    return SharedPass(output, [done[key] for key in order])


def _layers_of(method: Method, layers: Sequence[str], found: bool = False) -> Sequence[str | None]:
    """The layers that a method has a map of; None for one that is not over a named layer."""
    return [None] if method.at != "layer" or (found and method.finds_layers) else layers


def _check_options(method: Method, options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in method.options:
            known = ", ".join(method.options) or "none"
            raise InputError(
                f"{method.name} has no option {name!r}{did_you_mean(name, method.options)}; its options: {known}"
            )


def _signals(group: Sequence[Method]) -> set[Need]:
    """What has to be carried back for these methods."""
    return {need for m in group for need in m.needs} - {"activation", "input"}


def _taps(group: Sequence[Method], layers: Sequence[str]) -> list[str]:
    taps = list(layers) if any(m.at == "layer" for m in group) else []
    at_input = any({"input_gradient", "guided", "deconvnet"} & set(m.needs) for m in group)
    return [*taps, INPUT] if at_input and INPUT not in taps else taps


class _Pass:
    """What one trace has for a target, each thing computed when first asked for."""

    def __init__(self, trace: Trace, rules: Rectifiers | None, x: Tensor) -> None:
        self.trace, self.rules = trace, rules
        self.layouts = {n: picture_layout(n, a, x) for n, a in trace.activations.items() if n != INPUT}
        self.activations = {n: self.layouts[n].to_grid(a).float() for n, a in trace.activations.items() if n != INPUT}
        self.gradients: dict[str, Tensor] = {}
        self.ruled: Tensor | None = None

    def point_at(self, target: ResolvedTarget, needs: set[Need]) -> None:
        """Carries the target back as far as these needs go."""
        layers = list(self.layouts) if "gradient" in needs else []
        layers += [INPUT] if "input_gradient" in needs else []
        self.gradients, self.ruled = {}, None
        if layers:
            if self.rules:
                self.rules.rule = "gradient"
            signals = self.trace.signal(target.score, layers=layers)
            self.gradients = {
                n: (self.layouts[n].to_grid(g) if n in self.layouts else g).float() for n, g in signals.items()
            }
        if self.rules and {"guided", "deconvnet"} & needs:
            self.rules.rule = "guided" if "guided" in needs else "deconvnet"
            self.ruled = self.trace.signal(target.score, layers=[INPUT])[INPUT].float()

    def get(self, need: Need, layer: str | None) -> Tensor:
        if need == "input":
            return self.trace.activations[INPUT].float()
        if need in ("guided", "deconvnet"):
            assert self.ruled is not None
            return self.ruled
        if need == "activation":
            return self.activations[layer or ""]
        return self.gradients[INPUT if need == "input_gradient" else layer or ""]


def _combine_group(
    have: _Pass,
    group: Sequence[Method],
    layers: Sequence[str],
    targets: Sequence[ResolvedTarget],
    found: dict[tuple[str, str | None, int], Result],
) -> None:
    for t, target in enumerate(targets):
        scores = have.trace.scores(target.score).float().cpu()
        have.point_at(target, _signals(group))
        for method in group:
            assert method.combine is not None
            for layer in _layers_of(method, layers):
                if t and not _signals([method]):  # the same for every target
                    first = found[method.name, layer, 0]
                    found[method.name, layer, t] = Result(method, layer, target, first.map, first.pixels, scores)
                    continue
                with torch.inference_mode(False), torch.no_grad():
                    raw = method.combine(*(have.get(need, layer) for need in method.needs))
                found[method.name, layer, t] = _result(method, layer, target, raw, scores)


def _run_apart(
    method: Method,
    module: nn.Module,
    x: Tensor,
    layers: Sequence[str | None],
    targets: Sequence[ResolvedTarget],
    output: Any,
    call: Call,
    options: Mapping[str, Any],
    found: dict[tuple[str, str | None, int], Result],
) -> None:
    assert method.run is not None
    for t, target in enumerate(targets):
        with torch.inference_mode(False), torch.no_grad():
            scores = check_scores(module, target.score(output), len(x)).float().cpu()
        for layer in layers:
            raw = method.run(module, x, target.score, layer=layer, call=call, **{**method.options, **options})
            found[method.name, layer, t] = _result(method, layer, target, raw, scores)


def _result(method: Method, layer: str | None, target: ResolvedTarget, raw: Tensor, scores: Tensor) -> Result:
    raw = raw.detach().float().cpu()
    pixels = raw if method.reduce else None
    return Result(method, layer, target, method.reduce(raw) if method.reduce else raw, pixels, scores)
