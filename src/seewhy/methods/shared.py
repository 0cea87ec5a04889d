"""The shared pass: many methods, layers and targets from as few passes through the model as their rules allow."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..arguments import check_arguments, check_like
from ..engine.batches import images_depend, joined, once, tell
from ..engine.call import Call
from ..engine.defaults import on_the_cpu
from ..engine.flow import Flow
from ..engine.inputs import settled_input
from ..engine.keys import Identity
from ..engine.layers import INPUT
from ..engine.layout import Layout
from ..engine.places.places import Places, find_places, picture_layout
from ..engine.rules.composites import Composite, find_composite
from ..engine.rules.guided import Rectifiers
from ..engine.rules.relevance import Relevance
from ..engine.targets.classes import ScoreFunction
from ..engine.targets.numbers import numbers_of
from ..engine.targets.resolve import ResolvedTarget, TargetLike, part_of, resolve
from ..engine.targets.rows import asked
from ..engine.trace import Trace, check_scores
from ..errors import LayerError
from ..maps.attribution import Estimate, Facts
from ..maps.ledger import Ledger
from ..names import check_option
from ..remarks import Remarks, heard, together
from .formula import Formula, Options, Settings
from .passes import GradientPass, RelevancePass, signals
from .remarks import remarks_of_facts
from .seeds import Seed


@dataclass(frozen=True, eq=False)
class Result:
    """One method's map (N, h, w) for one layer and one target, on the CPU in float32."""

    method: Formula
    layer: str | None
    target: ResolvedTarget
    map: Tensor
    pixels: Tensor | None
    scores: Tensor  # (N,)
    interval: Tensor | None = None  # (N, h, w)
    facts: tuple[Facts, ...] = ()  # one for each image, or none
    remarks: Remarks = ()  # one for each image, or none
    unsaid: Remarks = ()  # of those, what nobody was warned of yet
    ledger: Ledger | None = None


@dataclass(frozen=True, eq=False)
class SharedPass:
    output: object
    results: list[Result]


@on_the_cpu()
def shared_pass(
    call: Call,
    x: Tensor,
    *,
    methods: Sequence[Formula],
    targets: Sequence[TargetLike],
    layers: Sequence[str],
    flow: Flow | None = None,
    labels: Sequence[str] | None = None,
    options: Options | None = None,
    ledger: bool = False,
) -> SharedPass:
    """Computes methods x layers x targets: one forward pass for what shares its rules, one way back for each target.

    `flow` says that nobody named the layers, so that methods with a better choice of their
    own may make it. `ledger` has relevance accounted for. Where the images of a batch depend on each other, each is run
    by itself, and a warning says so.
    """
    call, x = settled_input(call, x)
    settings = _all_options(methods, options or {})
    asked = _Asked(methods, targets, layers, flow, labels, settings, ledger)
    with once():
        done = _all_at_once(call, x, asked)
        if done is None:
            tell(call.module)
            done = _one_by_one(call, x, asked)
    return done


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is asked of a batch; options are all that each method has."""

    methods: Sequence[Formula]
    targets: Sequence[TargetLike]
    layers: Sequence[str]
    flow: Flow | None
    labels: Sequence[str] | None
    options: Options
    ledger: bool

    def rows(self, images: Sequence[int]) -> _Asked:
        """The same of these of the images."""
        return replace(self, targets=[part_of(target, images) for target in self.targets])

    def resolved(self, call: Call, output: object) -> list[ResolvedTarget]:
        numbers = numbers_of(call, output)
        each = (resolve(t, output, self.labels, numbers=numbers) for t in self.targets)
        return [target for several in each for target in several]


def _all_at_once(call: Call, x: Tensor, asked: _Asked) -> SharedPass | None:
    """All images in one batch; None where what the model says of one depends on the others."""
    plan = _Plan(call, x, asked)
    done: dict[tuple[str, str | None, int], Result] = {}
    output: object = None
    targets: list[ResolvedTarget] = []
    for kind, group in _groups_by_trace(plan).items():
        with plan.opened(kind, group) as have:
            if not targets:
                output = have.trace.output
                if images_depend(call, x, output):
                    return None
                targets = asked.resolved(call, output)
            _combine_group(have, group, plan, targets, done)
    for method in asked.methods:
        if not method.combine:
            _run_apart(method, plan, targets, output, done)
    order = [
        (m.name, label, t)
        for m in asked.methods
        for label in plan.places(m)
        for t in range(len(targets))
    ]
    return SharedPass(output, [done[key] for key in order])


def _one_by_one(call: Call, x: Tensor, asked: _Asked) -> SharedPass:
    each = [_all_at_once(call.rows([i]), x[i : i + 1], asked.rows([i])) for i in range(len(x))]
    found = [done for done in each if done is not None]  # one image depends on no other
    output = joined([done.output for done in found])
    targets = asked.resolved(call, output)
    together = zip(*(done.results for done in found), strict=True)
    return SharedPass(
        output,
        [_result_of_batch(parts, targets[i % len(targets)]) for i, parts in enumerate(together)],
    )


def _result_of_batch(parts: Sequence[Result], target: ResolvedTarget) -> Result:
    """The result for a batch, from those for its images."""
    return replace(
        parts[0],
        target=target,
        map=torch.cat([part.map for part in parts]),
        pixels=_rows_of_all([part.pixels for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        interval=_rows_of_all([part.interval for part in parts]),
        facts=tuple(chain.from_iterable(part.facts for part in parts)),
        remarks=tuple(chain.from_iterable(part.remarks for part in parts)),
        unsaid=tuple(chain.from_iterable(part.unsaid for part in parts)),
    )


def _rows_of_all(parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None


def _all_options(methods: Sequence[Formula], given: Options) -> dict[str, Settings]:
    """For each method its options, those given before its own."""
    for method in methods:
        for name, value in given.get(method.name, {}).items():
            if name not in method.options:
                check_option(method.name, name, method.told_options)
            _check_value(method, name, value)
    return {m.name: {**m.options, **given.get(m.name, {})} for m in methods}


def _check_value(method: Formula, name: str, value: object) -> None:
    """Says that an option is of a type that the method does not take: by its function's annotations, or its default."""
    if method.run is None:
        check_like(f"{method.name}.{name}", value, method.options[name])
    else:
        check_arguments(method.run, (), {name: value})


class _Kind(NamedTuple):
    """What methods have to have in common to share a trace."""

    rules: Literal["gradient", "deconvnet", "relevance"]
    composite: Hashable = None
    strict: bool = True


@dataclass(frozen=True, eq=False)
class _Plan:
    """How what is asked is read off one batch."""

    call: Call
    x: Tensor
    asked: _Asked

    def places(self, method: Formula) -> dict[str | None, list[str]]:
        """For each of the method's maps its name and the layers that it is made of."""
        if method.at != "layer":
            return {None: [INPUT]}
        if INPUT in self.asked.layers:
            raise LayerError(
                f"layer 'input' is the picture itself; {method.title} reads a layer, lrp or saliency the input"
            )
        if method.choose and self.asked.flow:
            chosen = method.choose(self.asked.flow, self.asked.layers)
            return {_label_of_layers(group): list(group) for group in chosen}
        return {layer: [layer] for layer in self.asked.layers}

    def layers_of(self, method: Formula) -> list[str]:
        """All layers that the method reads."""
        return [layer for layers in self.places(method).values() for layer in layers]

    def layout_of(self, layer: str, activation: Tensor) -> Layout:
        """How what a layer gave lies over the images."""
        return picture_layout(self._places, self.x, layer, activation)

    def facts(
        self, method: Formula, layers: Sequence[str], found: tuple[Facts, ...]
    ) -> tuple[Facts, ...]:
        """What was found of each image, and the part of it that the map covers where that is not the whole."""
        if method.at == "input":
            return found
        names = (None if layer == INPUT else layer for layer in layers)
        extents = filter(None, map(self._places.extent_of, names))
        extent = next(extents, None)
        if extent is None:
            return found
        each = found or ({},) * len(self.x)
        return tuple({**of_image, "extent": extent.box} for of_image in each)

    @cached_property
    def _places(self) -> Places:
        flow = self.asked.flow
        return flow.places if flow else find_places(self.call, self.x)

    def seeds_of(self, method: Formula) -> Sequence[Seed]:
        return method.seeds or (self.asked.options[method.name]["seed"],)

    @contextmanager
    def opened(
        self, kind: _Kind, group: Sequence[Formula]
    ) -> Iterator[GradientPass | RelevancePass]:
        """The trace that answers for a group of methods."""
        if kind.rules == "relevance":
            with self._relevance_trace(group, ledger=self.asked.ledger) as trace:
                yield RelevancePass(
                    trace,
                    self.layout_of,
                    self.layers_of,
                    strict=self.asked.options[group[0].name]["strict"],
                    seeds_of=self.seeds_of,
                    with_ledger=lambda: self._relevance_trace(group, ledger=True),
                )
            return
        rules = None
        if kind.rules == "deconvnet":
            rules = Rectifiers("deconvnet")
        elif any("guided" in m.needs for m in group):
            rules = Rectifiers("guided")
        at_input = {"input_gradient", "guided", "deconvnet"} & signals(group)
        layers = [name for m in group if m.at == "layer" for name in self.layers_of(m)]
        taps = list(dict.fromkeys([*layers, *([INPUT] if at_input else [])]))
        with Trace(self.call, self.x, layers=taps, rules=rules, grad=bool(signals(group))) as trace:
            yield GradientPass(trace, rules, self.layout_of, self.layers_of)

    def _relevance_trace(self, group: Sequence[Formula], *, ledger: bool) -> Trace:
        composite = find_composite(self.asked.options[group[0].name]["composite"], self.call.bounds)
        rules = Relevance(composite, ledger=Ledger() if ledger else None)
        taps = list(dict.fromkeys(name for m in group for name in self.layers_of(m)))
        return Trace(self.call, self.x, layers=taps, rules=rules)


def _label_of_layers(layers: Sequence[str]) -> str:
    between = f" + {len(layers) - 2} more + " if len(layers) > 2 else " + "
    return layers[0] if len(layers) == 1 else f"{layers[0]}{between}{layers[-1]}"


def _groups_by_trace(plan: _Plan) -> dict[_Kind, list[Formula]]:
    """The methods that share a trace; at least one group, since the output is read from the first."""
    groups: dict[_Kind, list[Formula]] = {}
    for method in plan.asked.methods:
        if method.combine:
            groups.setdefault(_kind_of_trace(method, plan), []).append(method)
    return groups or {_Kind("gradient"): []}


def _kind_of_trace(method: Formula, plan: _Plan) -> _Kind:
    if {"relevance", "input_relevance"} & set(method.needs):
        options = plan.asked.options[method.name]
        composite: str | Composite = options["composite"]
        return _Kind(
            "relevance",
            composite if isinstance(composite, str) else Identity(composite),
            options["strict"],
        )
    return _Kind("deconvnet" if "deconvnet" in method.needs else "gradient")


def _combine_group(
    have: GradientPass | RelevancePass,
    group: Sequence[Formula],
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
                    done[method.name, label, t] = replace(
                        done[method.name, label, 0], target=target, scores=scores
                    )
                    continue
                with torch.inference_mode(False), torch.no_grad():
                    raw = [method.combine(*have.tensors(method, layer)) for layer in layers]
                facts = plan.facts(method, layers, have.facts(method, layers))
                estimate = Estimate(_fused_or_only(method, raw), facts=facts)
                made = _result_of(method, label, target, estimate, scores, have.remarks(method))
                done[method.name, label, t] = replace(made, ledger=have.ledger(method))


def _run_apart(
    method: Formula,
    plan: _Plan,
    targets: Sequence[ResolvedTarget],
    output: object,
    done: dict[tuple[str, str | None, int], Result],
) -> None:
    """Formulas that run the model by themselves, layer by layer."""
    scores = [target.score for target in targets]
    for label, layers in plan.places(method).items():
        with heard() as said_of_all:
            made = [
                _estimates_of_targets(method, plan, scores, layer if method.at == "layer" else None)
                for layer in layers
            ]
        for t, target in enumerate(targets):
            with torch.inference_mode(False), torch.no_grad():
                said = check_scores(
                    plan.call.module, asked(target.score, output, len(plan.x)), len(plan.x)
                )
            of_layers = [estimates[t] for estimates in made]
            facts = plan.facts(method, layers, of_layers[0].facts)
            estimate = replace(
                of_layers[0], map=_fused_or_only(method, [e.map for e in of_layers]), facts=facts
            )
            done[method.name, label, t] = _result_of(
                method, label, target, estimate, said.float().cpu(), said_of_all
            )


def _estimates_of_targets(
    method: Formula, plan: _Plan, scores: Sequence[ScoreFunction], layer: str | None
) -> Sequence[Estimate]:
    assert method.run is not None
    with torch.inference_mode(False), torch.no_grad():
        return method.run(plan.call, plan.x, scores, layer=layer, **plan.asked.options[method.name])


def _fused_or_only(method: Formula, raw: Sequence[Tensor]) -> Tensor:
    return raw[0] if len(raw) == 1 or not method.fuse else method.fuse(raw)


def _result_of(
    method: Formula,
    layer: str | None,
    target: ResolvedTarget,
    estimate: Estimate,
    scores: Tensor,
    said: Sequence[str] = (),
) -> Result:
    """What an estimate comes to; `said` is what was warned of, which holds of every image."""
    unsaid = tuple(map(remarks_of_facts, estimate.facts)) or ((),) * len(scores)
    remarks = together([(tuple(said),) * len(scores), unsaid], len(scores))
    raw = estimate.map.detach().float().cpu()
    reduced, pixels = (method.reduce(raw), raw) if method.reduce else (raw, None)
    found = (reduced, pixels, scores, estimate.interval, estimate.facts)
    return Result(method, layer, target, *found, remarks, unsaid)
