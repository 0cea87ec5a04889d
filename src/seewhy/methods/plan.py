"""How what is asked is read off one batch: which layers, which traces, and which methods share them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

from torch import Tensor

from ..engine.call import Call
from ..engine.flow import Flow, find_flow
from ..engine.keys import Identity
from ..engine.layers import INPUT, NoPictureError
from ..engine.layout import Layout
from ..engine.places.places import Places, find_places, picture_layout
from ..engine.readings import readings_of_the_pass
from ..engine.rules.composites import Composite, find_composite
from ..engine.rules.guided import Rectifiers
from ..engine.rules.relevance import Relevance
from ..engine.targets.numbers import Numbers, numbers_of
from ..engine.targets.resolve import (
    ResolvedTarget,
    TargetLike,
    note_best_columns,
    part_of,
    resolve,
)
from ..engine.trace import Trace
from ..errors import LayerError, SeewhyError
from ..maps.attribution import Facts
from ..maps.ledger import Ledger
from .formula import Formula, Options
from .passes import GradientPass, RelevancePass, signals
from .rivals import NO_PICTURE, LastStage
from .starts import Seed


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked of a batch; options are all that each method has."""

    methods: Sequence[Formula]
    targets: Sequence[TargetLike]
    layers: Sequence[str]
    flow: Flow | None
    labels: Sequence[str] | None
    options: Options
    ledger: bool

    def rows(self, images: Sequence[int]) -> Asked:
        """The same of these of the images."""
        return replace(self, targets=[part_of(target, images) for target in self.targets])

    def resolved(self, call: Call, output: object) -> list[ResolvedTarget]:
        note_best_columns(self.targets, output)
        numbers = _numbers_in_pass(call, output)
        each = (resolve(t, output, self.labels, numbers=numbers) for t in self.targets)
        return [target for several in each for target in several]


def _numbers_in_pass(call: Call, output: object) -> Numbers:
    """What an answer's numbers are; of further answers in a pass, as to noisy copies, what those of the first were."""
    readings = readings_of_the_pass()
    if readings is None:
        return numbers_of(call, output)
    kept = readings.kept.get(("numbers", id(call)))
    if not isinstance(kept, tuple):
        kept = call, numbers_of(call, output)
        readings.kept["numbers", id(call)] = kept
    numbers: Numbers = kept[1]
    return numbers


class Kind(NamedTuple):
    """What methods have to have in common to share a trace."""

    rules: Literal["gradient", "deconvnet", "relevance"]
    composite: Hashable = None
    strict: bool = True


@dataclass(frozen=True, eq=False)
class Plan:
    """How what is asked is read off one batch."""

    call: Call
    x: Tensor
    asked: Asked

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
        self, kind: Kind, group: Sequence[Formula]
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
                    last_stage=self._last_stage(group),
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
        taps = [name for m in group for name in self.layers_of(m)]
        taps += filter(None, [self._last_stage(group).layer])
        return Trace(self.call, self.x, layers=list(dict.fromkeys(taps)), rules=rules)

    def _last_stage(self, group: Sequence[Formula]) -> LastStage:
        """The last stage, where a method of the group asks how far classes look elsewhere."""
        if not any("elsewhere" in self.seeds_of(method) for method in group):
            return LastStage()
        if self.asked.flow:
            return LastStage(self.asked.flow.default)
        try:
            return LastStage(find_flow(self.call, self.x).default)
        except NoPictureError:
            return LastStage(None, NO_PICTURE + find_places(self.call, self.x).why_none())
        except SeewhyError as error:
            return LastStage(None, str(error))


def _label_of_layers(layers: Sequence[str]) -> str:
    between = f" + {len(layers) - 2} more + " if len(layers) > 2 else " + "
    return layers[0] if len(layers) == 1 else f"{layers[0]}{between}{layers[-1]}"


def groups_by_trace(plan: Plan) -> dict[Kind, list[Formula]]:
    """The methods that share a trace; at least one group, since the output is read from the first."""
    groups: dict[Kind, list[Formula]] = {}
    for method in plan.asked.methods:
        if method.combine:
            groups.setdefault(_kind_of_trace(method, plan), []).append(method)
    return groups or {Kind("gradient"): []}


def _kind_of_trace(method: Formula, plan: Plan) -> Kind:
    if {"relevance", "input_relevance"} & set(method.needs):
        options = plan.asked.options[method.name]
        composite: str | Composite = options["composite"]
        return Kind(
            "relevance",
            composite if isinstance(composite, str) else Identity(composite),
            options["strict"],
        )
    return Kind("deconvnet" if "deconvnet" in method.needs else "gradient")
