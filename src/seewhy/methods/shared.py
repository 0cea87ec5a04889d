"""The shared pass: many methods, layers and targets from as few passes through the model as their rules allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from ..arguments import check_arguments, check_like
from ..engine.batches import images_depend, joined, once, tell
from ..engine.call import Call
from ..engine.defaults import own_defaults
from ..engine.flow import Flow
from ..engine.inputs import settled_input
from ..engine.outputs import tensors_in
from ..engine.precision import half_precision_of
from ..engine.readings import Reading, noted, reading_together
from ..engine.targets.classes import ScoreFunction
from ..engine.targets.resolve import ResolvedTarget, TargetLike
from ..engine.targets.rows import asked
from ..engine.trace import check_scores
from ..maps.attribution import Estimate, Facts
from ..maps.ledger import Ledger
from ..names import check_option
from ..remarks import Remarks, heard, together
from .formula import Formula, Options, Settings
from .passes import GradientPass, RelevancePass, signals
from .plan import Asked, Plan, groups_by_trace
from .remarks import remarks_of_facts


@dataclass(frozen=True, eq=False)
class Result:
    """One method's map (N, h, w) for one layer and one target, in float32 and where the method left it."""

    method: Formula
    layer: str | None
    target: ResolvedTarget
    map: Tensor
    pixels: Tensor | None
    read_scores: Reading  # (N,)
    interval: Tensor | None = None  # (N, h, w)
    facts: tuple[Facts, ...] = ()  # one for each image, or none
    remarks: Remarks = ()  # one for each image, or none
    unsaid: Remarks = ()  # of those, what nobody was warned of yet
    ledger: Ledger | None = None

    @property
    def scores(self) -> Tensor:
        """The target's score of each image, (N,) on the CPU."""
        return self.read_scores.tensor()


_Done = dict[tuple[str, str | None, int], Callable[[], Result]]


@dataclass(frozen=True, eq=False)
class SharedPass:
    output: object
    results: list[Result]


@own_defaults()
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
    with once(), reading_together():
        call, x = settled_input(call, x)
        settings = _all_options(methods, options or {})
        asked = Asked(methods, targets, layers, flow, labels, settings, ledger)
        done = _all_at_once(call, x, asked)
        if done is None:
            tell(call.module)
            done = _one_by_one(call, x, asked)
    return done


def _all_at_once(call: Call, x: Tensor, asked: Asked) -> SharedPass | None:
    """All images in one batch; None where what the model says of one depends on the others."""
    plan = Plan(call, x, asked)
    done: _Done = {}
    output: object = None
    targets: list[ResolvedTarget] = []
    for kind, group in groups_by_trace(plan).items():
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
    return SharedPass(output, [done[key]() for key in order])


def _one_by_one(call: Call, x: Tensor, asked: Asked) -> SharedPass:
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
        read_scores=noted(torch.cat([part.scores for part in parts])),
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


def _combine_group(
    have: GradientPass | RelevancePass,
    group: Sequence[Formula],
    plan: Plan,
    targets: Sequence[ResolvedTarget],
    done: _Done,
) -> None:
    ran_in = half_precision_of((*have.trace.activations.values(), *tensors_in(have.trace.output)))
    for t, target in enumerate(targets):
        scores = noted(have.trace.scores(target.score).float())
        have.point_at(target, group)
        for method in group:
            assert method.combine is not None
            for label, layers in plan.places(method).items():
                if t and not signals([method]):  # the same for every target
                    first = done[method.name, label, 0]
                    done[method.name, label, t] = partial(_of_other_target, first, target, scores)
                    continue
                with torch.inference_mode(False), torch.no_grad():
                    raw = [method.combine(*have.tensors(method, layer)) for layer in layers]
                done[method.name, label, t] = _Combined(
                    method,
                    label,
                    target,
                    _fused_or_only(method, raw),
                    scores,
                    partial(plan.facts, method, layers),
                    partial(_with_precision, have.facts(method, layers), ran_in, len(plan.x)),
                    have.remarks(method),
                    have.ledger(method),
                )


@dataclass(frozen=True, eq=False)
class _Combined:
    """A result of which what is known of each image is on its device still."""

    method: Formula
    layer: str | None
    target: ResolvedTarget
    map: Tensor
    scores: Reading
    with_extent: Callable[[tuple[Facts, ...]], tuple[Facts, ...]]
    facts: Callable[[], tuple[Facts, ...]]
    said: Sequence[str]
    ledger: Ledger | None

    def __call__(self) -> Result:
        estimate = Estimate(self.map, facts=self.with_extent(self.facts()))
        made = _result_of(self.method, self.layer, self.target, estimate, self.scores, self.said)
        return replace(made, ledger=self.ledger)


def _of_other_target(
    first: Callable[[], Result], target: ResolvedTarget, scores: Reading
) -> Result:
    return replace(first(), target=target, read_scores=scores)


def _with_precision(
    facts: Callable[[], tuple[Facts, ...]], ran_in: str | None, images: int
) -> tuple[Facts, ...]:
    """What was found of each image, and in which precision the model ran where that is half."""
    found = facts()
    if ran_in is None:
        return found
    return tuple({**of_image, "precision": ran_in} for of_image in found or ({},) * images)


def _run_apart(
    method: Formula,
    plan: Plan,
    targets: Sequence[ResolvedTarget],
    output: object,
    done: _Done,
) -> None:
    """Formulas that run the model by themselves, layer by layer."""
    scores = [target.score for target in targets]
    said = [noted(_scores_of(target, output, plan)) for target in targets]
    for label, layers in plan.places(method).items():
        with heard() as said_of_all:
            made = [
                _estimates_of_targets(method, plan, scores, layer if method.at == "layer" else None)
                for layer in layers
            ]
        for t, target in enumerate(targets):
            of_layers = [estimates[t] for estimates in made]
            facts = plan.facts(method, layers, of_layers[0].facts)
            estimate = replace(
                of_layers[0], map=_fused_or_only(method, [e.map for e in of_layers]), facts=facts
            )
            done[method.name, label, t] = partial(
                _result_of, method, label, target, estimate, said[t], said_of_all
            )


def _scores_of(target: ResolvedTarget, output: object, plan: Plan) -> Tensor:
    images = len(plan.x)
    with torch.inference_mode(False), torch.no_grad():
        return check_scores(plan.call.module, asked(target.score, output, images), images).float()


def _estimates_of_targets(
    method: Formula, plan: Plan, scores: Sequence[ScoreFunction], layer: str | None
) -> Sequence[Estimate]:
    assert method.run is not None
    with torch.inference_mode(False), torch.no_grad():
        return method.run(plan.call, plan.x, scores, layer=layer, **plan.asked.options[method.name])


def _fused_or_only(method: Formula, raw: Sequence[Tensor]) -> Tensor:
    if len(raw) == 1 or not method.fuse:
        return raw[0]
    return method.fuse([one.to(raw[0].device) for one in raw])  # layers may lie on several devices


def _result_of(
    method: Formula,
    layer: str | None,
    target: ResolvedTarget,
    estimate: Estimate,
    scores: Reading,
    said: Sequence[str] = (),
) -> Result:
    """What an estimate comes to; `said` is what was warned of, which holds of every image."""
    raw = estimate.map.detach().float()
    unsaid = tuple(map(remarks_of_facts, estimate.facts)) or ((),) * len(raw)
    remarks = together([(tuple(said),) * len(raw), unsaid], len(raw))
    reduced, pixels = (method.reduce(raw), raw) if method.reduce else (raw, None)
    found = (reduced, pixels, scores, estimate.interval, estimate.facts)
    return Result(method, layer, target, *found, remarks, unsaid)
