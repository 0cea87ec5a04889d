"""What a method is, and the shared pass that answers for many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..engine.call import Call, LayerLike, find_flow
from ..engine.flow import Flow
from ..engine.layers import INPUT, resolve_layer
from ..engine.rules.composites import Composite, find_composite
from ..engine.rules.guided import Rectifiers
from ..engine.rules.relevance import Relevance
from ..engine.targets.classes import ScoreFunction
from ..engine.targets.resolve import ResolvedTarget, TargetLike, resolve
from ..engine.trace import OutputAdapter, Trace, check_scores
from ..errors import InputError, LayerError, did_you_mean
from ..maps.attribution import Estimate
from ..maps.ledger import Ledger
from ..models.call import unpack
from ..models.model import Model
from .passes import GradientPass, RelevancePass, signals
from .seeds import Seed

Need = Literal[
    "activation", "gradient", "input", "input_gradient", "guided", "deconvnet", "relevance", "input_relevance"
]
Combine = Callable[..., Tensor]
Run = Callable[..., Tensor]
Sample = Callable[..., Sequence[Estimate]]

HOW_IT_RUNS = ("running", "state")  # options that change how a map is computed, not which


@dataclass(frozen=True, eq=False)
class Method:
    """An attribution method: a function `(model, x, target) -> (N, h, w)`, and what others need to know of it.

    Attributes:
        name, title, paper: the key in `METHODS`, the name for people, where it comes from.
        combine: the paper's formula over what it `needs`, in that order -> (N, h, w), or (N, C, H, W) with `reduce`.
        needs: "activation", "gradient" and "relevance" at the layer (N, C, h, w); "input", "input_gradient", "guided",
            "deconvnet" and "input_relevance" at the input (N, C, H, W). What several methods need is computed once.
        run: for methods of several passes, instead: (module, x, score, layer, call, **options) -> the same.
        sample: for methods whose one sample of passes answers for all targets, instead:
            (module, x, scores, layer, call, **options) -> an `Estimate` for each of the scores.
        at: where the map lies: over a "layer", over the "input", or over the layer that the "head" pools.
        reduce: takes the colour channels together, (N, C, H, W) -> (N, H, W).
        signed: negative values speak against the target.
        choose: where nobody named a layer, the groups of layers to read instead of those that would be read, (flow,
            layers) -> groups.
        fuse: takes the maps of a group of layers to one.
        seeds: where relevance starts, one for each time it is needed; () has the option "seed".
        options: keyword arguments of `run`, or how relevance is carried, with their defaults.
    """

    name: str
    title: str
    paper: str
    combine: Combine | None = None
    needs: tuple[Need, ...] = ()
    run: Run | None = None
    sample: Sample | None = None
    at: Literal["layer", "input", "head"] = "layer"
    reduce: Callable[[Tensor], Tensor] | None = None
    signed: bool = False
    choose: Callable[[Flow, Sequence[str]], Sequence[Sequence[str]]] | None = None
    fuse: Callable[[Sequence[Tensor]], Tensor] | None = None
    seeds: tuple[Seed, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", (self.combine or self.run or self.sample).__doc__)

    def __repr__(self) -> str:
        return f"<method {self.name}: {self.title}, {self.paper}>"

    def __call__(
        self,
        model: Model | nn.Module | Callable[..., Any],
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
            model: a `Model`, any module that takes (N, C, H, W), or for methods that look from outside (RISE, LIME,
                occlusion) any callable from pictures to scores (N, K).
            x: (N, C, H, W), preprocessed.
            target: as in `seewhy.targets`; one for all images or a list with one for each.
            layer: a dotted name or module; None finds the last that is a picture. Methods at the input need none.
            channels: keep the colour channels of methods at the input: (N, C, H, W).
            args, kwargs: further inputs of the model.
            output: takes what the model returns to (N, K) scores.
            options: the method's own, `options` lists them.
        """
        module, labels, call = unpack(model, Call(args, kwargs or {}, output))
        flow = find_flow(module, x, call) if layer is None and self.at == "layer" else None
        done = shared_pass(
            module,
            x,
            methods=[self],
            targets=[target],
            layers=[resolve_layer(module, layer)] if layer is not None else flow.chosen[-1:] if flow else [],
            flow=flow,
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


@dataclass(frozen=True, eq=False)
class Result:
    """One method's map (N, h, w) for one layer and one target, on the CPU in float32."""

    method: Method
    layer: str | None
    target: ResolvedTarget
    map: Tensor
    pixels: Tensor | None
    scores: Tensor  # (N,)
    interval: Tensor | None = None  # (N, h, w)
    facts: tuple[Mapping[str, Any], ...] = ()  # one for each image, or none
    ledger: Ledger | None = None


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
    flow: Flow | None = None,
    labels: Sequence[str] | None = None,
    call: Call | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    ledger: bool = False,
) -> SharedPass:
    """Computes methods x layers x targets: one forward pass for what shares its rules, one way back for each target.

    `flow` says that nobody named the layers, so that methods with a better choice of their
    own may make it. `ledger` has relevance accounted for.
    """
    call = call or Call()
    plan = _Plan(module, x, layers, flow, call, _all_options(methods, options or {}), ledger)
    done: dict[tuple[str, str | None, int], Result] = {}
    output, resolved = None, None
    for kind, group in _groups(methods, plan).items():
        with plan.opened(kind, group) as have:
            if resolved is None:
                output = have.trace.output
                resolved = [r for t in targets for r in resolve(t, output, labels, multi_label=call.multi_label)]
            _combine_group(have, group, plan, resolved, done)
    for method in methods:
        if not method.combine:
            _run_apart(method, plan, resolved or [], output, done)
    order = [(m.name, label, t) for m in methods for label in plan.places(m) for t in range(len(resolved or []))]
    return SharedPass(output, [done[key] for key in order])


def _all_options(methods: Sequence[Method], given: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """For each method its options, those given before its own."""
    for method in methods:
        for name in given.get(method.name, {}):
            if name not in method.options:
                known = ", ".join(method.options) or "none"
                raise InputError(
                    f"{method.name} has no option {name!r}{did_you_mean(name, method.options)}; its options: {known}"
                )
    return {m.name: {**m.options, **given.get(m.name, {})} for m in methods}


_Kind = tuple[Any, ...]  # the rules; for relevance also which composite and how strict


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is asked of one batch."""

    module: nn.Module
    x: Tensor
    layers: Sequence[str]
    flow: Flow | None
    call: Call
    options: Mapping[str, Mapping[str, Any]]
    ledger: bool

    def places(self, method: Method) -> dict[str | None, list[str]]:
        """For each of the method's maps its name and the layers that it is made of."""
        if method.at != "layer":
            return {None: [INPUT]}
        if INPUT in self.layers:
            raise LayerError(
                f"layer 'input' is the picture itself; {method.title} reads a layer, lrp or saliency the input"
            )
        if method.choose and self.flow:
            return {_label(group): list(group) for group in method.choose(self.flow, self.layers)}
        return {layer: [layer] for layer in self.layers}

    def layers_of(self, method: Method) -> list[str]:
        """All layers that the method reads."""
        return [layer for layers in self.places(method).values() for layer in layers]

    def seeds_of(self, method: Method) -> Sequence[Seed]:
        return method.seeds or (self.options[method.name]["seed"],)

    @contextmanager
    def opened(self, kind: _Kind, group: Sequence[Method]) -> Iterator[GradientPass | RelevancePass]:
        """The trace that answers for a group of methods."""
        if kind[0] == "relevance":
            with self._relevance_trace(group, ledger=self.ledger) as trace:
                yield RelevancePass(
                    trace,
                    self.x,
                    self.layers_of,
                    strict=self.options[group[0].name]["strict"],
                    seeds_of=self.seeds_of,
                    with_ledger=lambda: self._relevance_trace(group, ledger=True),
                )
            return
        ruled = kind[0] if kind[0] == "deconvnet" or any("guided" in m.needs for m in group) else None
        rules = Rectifiers("deconvnet" if ruled == "deconvnet" else "guided") if ruled else None
        at_input = {"input_gradient", "guided", "deconvnet"} & signals(group)
        layers = [name for m in group if m.at == "layer" for name in self.layers_of(m)]
        taps = list(dict.fromkeys([*layers, *([INPUT] if at_input else [])]))
        with self.call.trace(self.module, self.x, taps, rules=rules, grad=bool(signals(group))) as trace:
            yield GradientPass(trace, rules, self.x, self.layers_of)

    def _relevance_trace(self, group: Sequence[Method], *, ledger: bool) -> Trace:
        composite = find_composite(self.options[group[0].name]["composite"], self.call.bounds)
        rules = Relevance(composite, ledger=Ledger() if ledger else None)
        taps = list(dict.fromkeys(name for m in group for name in self.layers_of(m)))
        return self.call.trace(self.module, self.x, taps, rules=rules)


def _label(layers: Sequence[str]) -> str:
    between = f" + {len(layers) - 2} more + " if len(layers) > 2 else " + "
    return layers[0] if len(layers) == 1 else f"{layers[0]}{between}{layers[-1]}"


def _groups(methods: Sequence[Method], plan: _Plan) -> dict[_Kind, list[Method]]:
    """The methods that share a trace; at least one group, since the output is read from the first."""
    groups: dict[_Kind, list[Method]] = {}
    for method in methods:
        if method.combine:
            kind: _Kind = ("deconvnet" if "deconvnet" in method.needs else "gradient",)
            if {"relevance", "input_relevance"} & set(method.needs):
                options = plan.options[method.name]
                composite: str | Composite = options["composite"]
                kind = (
                    "relevance",
                    hash((composite if isinstance(composite, str) else id(composite), options["strict"])),
                )
            groups.setdefault(kind, []).append(method)
    return groups or {("gradient",): []}


def _combine_group(
    have: GradientPass | RelevancePass,
    group: Sequence[Method],
    plan: _Plan,
    targets: Sequence[ResolvedTarget],
    done: dict[tuple[str, str | None, int], Result],
) -> None:
    for t, target in enumerate(targets):
        scores = have.trace.scores(target.score).float().cpu()
        have.point_at(target, group)
        for method in group:
            assert method.combine is not None
            for label, layers in plan.places(method).items():
                if t and not signals([method]):  # the same for every target
                    done[method.name, label, t] = replace(done[method.name, label, 0], target=target, scores=scores)
                    continue
                with torch.inference_mode(False), torch.no_grad():
                    raw = [method.combine(*have.tensors(method, layer)) for layer in layers]
                estimate = Estimate(_one(method, raw), facts=have.facts(method, layers))
                done[method.name, label, t] = _result(method, label, target, estimate, scores, have.ledger(method))


def _run_apart(
    method: Method,
    plan: _Plan,
    targets: Sequence[ResolvedTarget],
    output: Any,
    done: dict[tuple[str, str | None, int], Result],
) -> None:
    """Methods that run the model by themselves, layer by layer."""
    scores = [target.score for target in targets]
    for label, layers in plan.places(method).items():
        made = [_estimates(method, plan, scores, layer if method.at == "layer" else None) for layer in layers]
        for t, target in enumerate(targets):
            with torch.inference_mode(False), torch.no_grad():
                said = check_scores(plan.module, target.score(output), len(plan.x)).float().cpu()
            of_layers = [estimates[t] for estimates in made]
            estimate = replace(of_layers[0], map=_one(method, [e.map for e in of_layers]))
            done[method.name, label, t] = _result(method, label, target, estimate, said)


def _estimates(method: Method, plan: _Plan, scores: Sequence[ScoreFunction], layer: str | None) -> Sequence[Estimate]:
    options = plan.options[method.name]
    if method.sample:
        with torch.inference_mode(False), torch.no_grad():
            return method.sample(plan.module, plan.x, scores, layer=layer, call=plan.call, **options)
    assert method.run is not None
    run = method.run
    return [Estimate(run(plan.module, plan.x, s, layer=layer, call=plan.call, **options)) for s in scores]


def _one(method: Method, raw: Sequence[Tensor]) -> Tensor:
    return raw[0] if len(raw) == 1 or not method.fuse else method.fuse(raw)


def _result(
    method: Method,
    layer: str | None,
    target: ResolvedTarget,
    estimate: Estimate,
    scores: Tensor,
    ledger: Ledger | None = None,
) -> Result:
    raw = estimate.map.detach().float().cpu()
    reduced, pixels = (method.reduce(raw), raw) if method.reduce else (raw, None)
    return Result(method, layer, target, reduced, pixels, scores, estimate.interval, estimate.facts, ledger)
