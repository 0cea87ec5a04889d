"""What one trace has for a target: the tensors that methods combine, each carried back once for all that need it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..engine.causes import NO_DERIVATIVE, REENTRANT, WITHOUT_GRADIENTS, is_a_dead_end, is_reentrant
from ..engine.layers import INPUT, why_unheard
from ..engine.layout import Layout
from ..engine.outputs import tensors_in
from ..engine.rules.balance import StayedBehind, by_image
from ..engine.rules.guided import Rectifiers
from ..engine.rules.hidden import out_of_sight
from ..engine.rules.propagation import safe
from ..engine.rules.relevance import Relevance
from ..engine.targets.classes import ScoreFunction, class_scores
from ..engine.targets.resolve import ResolvedTarget
from ..engine.trace import Trace
from ..errors import LayerError, ModelError
from ..maps.attribution import Facts
from ..maps.ledger import Ledger
from ..remarks import warn
from .account import NotedAccount
from .formula import Formula, Need
from .relevance_facts import RelevanceFacts, score_of_one
from .rivals import LastStage, Rivals, may_have_rivals, rivals_elsewhere
from .starts import (
    Seed,
    is_a_logit,
    is_one_class,
    score_at_start,
    slopes_of_score,
    starting_relevance,
)

NO_RECTIFIER = "{} has no rectifier for the guided and deconvnet rules to act on: their signal is the plain gradient"
OUT_OF_REACH = (
    "the guided and deconvnet rules do not reach {}: rectifiers there pass the plain gradient"
)
NO_RIVALS = "relevance starts at the score alone, and other classes are not taken away: {}"
LayoutOf = Callable[[str, Tensor], Layout]  # how what a layer gave lies over the images
FactsOnceRead = Callable[[], tuple[Facts, ...]]  # of each image, once what they rest on is read
LayersOf = Callable[[Formula], Sequence[str]]  # the layers that a method reads


def signals(group: Iterable[Formula]) -> set[Need]:
    """What has to be carried back for these methods."""
    return {need for m in group for need in m.needs} - {"activation", "input"}


class GradientPass:
    """A trace whose signal is the gradient, or obeys the guided or deconvnet rule."""

    def __init__(
        self, trace: Trace, rules: Rectifiers | None, layout_of: LayoutOf, layers_of: LayersOf
    ) -> None:
        self.trace, self.rules, self.layers_of = trace, rules, layers_of
        self.layouts = {n: layout_of(n, a) for n, a in trace.activations.items() if n != INPUT}
        self.activations = {
            n: self.layouts[n].to_grid(a).float()
            for n, a in trace.activations.items()
            if n != INPUT
        }
        self.gradients: dict[str, Tensor] = {}
        self.ruled: Tensor | None = None
        self.out_of_reach: tuple[str, ...] = ()
        if rules and not is_a_dead_end(rules.hidden):  # of which the signal says why
            self.out_of_reach = _out_of_reach(rules, trace.module)

    def point_at(self, target: ResolvedTarget, group: Sequence[Formula]) -> None:
        """Carries the target back as far as these methods need."""
        needs = signals(group)
        layers = list(self.layouts) if "gradient" in needs else []
        layers += [INPUT] if "input_gradient" in needs else []
        self.gradients, self.ruled = {}, None
        if layers:
            if self.rules:
                self.rules.rule = "gradient"
            carried = self.trace.signal(target.score, layers=layers)
            self.gradients = {
                n: (self.layouts[n].to_grid(g) if n in self.layouts else g).float()
                for n, g in carried.items()
            }
        if self.rules and {"guided", "deconvnet"} & needs:
            self.rules.rule = "guided" if "guided" in needs else "deconvnet"
            self.ruled = self.trace.signal(target.score, layers=[INPUT])[INPUT].float()

    def tensors(self, method: Formula, layer: str) -> list[Tensor]:
        """What the method combines, together where the first of it is."""
        first, *others = (self._tensor_of(need, layer) for need in method.needs)
        return [first, *(other.to(first.device) for other in others)]

    def _tensor_of(self, need: Need, layer: str) -> Tensor:
        if need == "input":
            return self.trace.activations[INPUT].float()
        if need in ("guided", "deconvnet"):
            assert self.ruled is not None
            return self.ruled
        if need == "activation":
            return self.activations[layer]
        return self.gradients[INPUT if need == "input_gradient" else layer]

    def facts(self, method: Formula, layers: Sequence[str]) -> FactsOnceRead:
        return tuple

    def remarks(self, method: Formula) -> tuple[str, ...]:
        """What holds of all of the method's maps, and was warned of."""
        return self.out_of_reach if {"guided", "deconvnet"} & set(method.needs) else ()

    def ledger(self, method: Formula) -> Ledger | None:
        return None


def _out_of_reach(rules: Rectifiers, module: nn.Module) -> tuple[str, ...]:
    """Warns of rectifiers that the rules do not meet; returns what it says."""
    if rules.hidden:
        said = OUT_OF_REACH.format(out_of_sight(rules.hidden, module))
    elif not rules.met:
        said = NO_RECTIFIER.format(type(module).__name__)
    else:
        return ()
    warn(said)
    return (said,)


class RelevancePass:
    """A trace whose signal is relevance, R / a, under one composite.

    Raises:
        ModelError: the model calls operations that no rule is known for; all are named. strict=False warns instead.
    """

    def __init__(
        self,
        trace: Trace,
        layout_of: LayoutOf,
        layers_of: LayersOf,
        *,
        strict: bool,
        seeds_of: Callable[[Formula], Sequence[Seed]],
        with_ledger: Callable[[], Trace],
        last_stage: LastStage,
    ) -> None:
        self.unknown = _tell_unknown(trace, strict)
        assert isinstance(trace.rules, Relevance)
        self.trace, self.rules, self.layers_of, self.seeds_of = (
            trace,
            trace.rules,
            layers_of,
            seeds_of,
        )
        self.with_ledger = with_ledger  # the same trace anew, with a ledger
        self.last_stage = last_stage  # where it is seen how far classes look elsewhere
        self.given = trace.activations
        self.device = next((t.device for t in tensors_in(trace.output)), None)
        self.layouts = {n: layout_of(n, a) for n, a in self.given.items() if n != INPUT}
        self.rivals: Rivals | None = None
        self.without_rivals: tuple[str, ...] = ()
        self.relevance: dict[tuple[Seed, str], Tensor] = {}
        self.started: dict[Seed, Tensor] = {}
        self.accounts: dict[Seed, dict[str, NotedAccount]] = {}
        self.scores: dict[Seed, ScoreFunction] = {}
        self.ledgers: dict[Seed, Ledger] = {}

    def point_at(self, target: ResolvedTarget, group: Sequence[Formula]) -> None:
        """Carries the target back once for each of the seeds, as far as the methods that start there need."""
        wanted: dict[Seed, list[str]] = {}
        for method in group:
            for seed in self.seeds_of(method):
                wanted.setdefault(seed, []).extend(self.layers_of(method))
        self.relevance, self.ledgers = {}, {}
        self.rivals = self._rivals_of(target) if "elsewhere" in wanted else None
        self.scores = {seed: self._score_at_start(target, seed) for seed in wanted}
        for seed, layers in wanted.items():
            names = list(dict.fromkeys(layers))
            self.started[seed] = starting_relevance(self.scores[seed], self.trace.output)
            whole = self._carried_back(self.scores[seed], names, len(self.started[seed]))
            if self.rules.ledger is not None:
                self.ledgers[seed] = self.trace.ledger()
            for layer, r in whole.items():
                self.relevance[seed, layer] = (
                    r if layer == INPUT else self.layouts[layer].to_grid(r)
                )
            self.accounts[seed] = self._accounts_by_layer(seed, whole)
        for (
            said
        ) in self.without_rivals:  # of no use where the way back is closed, which is an error
            warn(said)

    def _score_at_start(self, target: ResolvedTarget, seed: Seed) -> ScoreFunction:
        if seed != "elsewhere":
            return score_at_start(target.score, seed, target.numbers)
        return target.score if self.rivals is None else self.rivals.cleared(target.score)

    def _rivals_of(self, target: ResolvedTarget) -> Rivals | None:
        """The rivals of each image's class; `without_rivals` says why where there are some that cannot be weighed."""
        self.without_rivals = ()
        output = self.trace.output
        if not may_have_rivals(output, target.numbers):
            return None
        with torch.inference_mode(False), torch.no_grad():
            z = class_scores(output).detach().clone()
            slopes = slopes_of_score(target.score, z)
            if not is_a_logit(target.score) and not bool(is_one_class(slopes).any()):
                return None
            try:
                several = target.numbers.multi_label
                return rivals_elsewhere(z, slopes, self._stage_maps, multi_label=several)
            except LayerError as error:
                self.without_rivals = (NO_RIVALS.format(error),)
                return None

    def _stage_maps(self, classes: Tensor) -> Tensor:
        """The relevance of classes of each image (N, k) at the last stage, summed over channels, (N, k, h, w)."""
        layer = self.last_stage.layer
        if layer is None:
            raise LayerError(self.last_stage.why_none)
        starts = torch.zeros_like(class_scores(self.trace.output)).repeat(classes.shape[1], 1, 1)
        starts.scatter_(2, classes.T[:, :, None], 1)  # (k, N, K)
        self.rules.balance.begin(len(classes), is_kept=False)
        signals = self.trace.signals(starts, layer)
        relevance = safe(self.given[layer]).float() * signals.float()
        return torch.stack([self.layouts[layer].to_grid(r).sum(1) for r in relevance], 1)

    def _carried_back(
        self, score: ScoreFunction, layers: Sequence[str], images: int
    ) -> dict[str, Tensor]:
        """Relevance of the layers, as they gave their output; the balance is then that of this signal.

        A model may lie on several devices: all is brought to where its answer is.
        """
        self.rules.balance.begin(images)
        signal = self.trace.signal(score, layers=layers)
        return {
            layer: (safe(self.given[layer]).float() * g.float()).to(self.device)
            for layer, g in signal.items()
        }

    def _accounts_by_layer(
        self, seed: Seed, relevance: Mapping[str, Tensor]
    ) -> dict[str, NotedAccount]:
        """For each layer where relevance went, in the order in which it got there."""
        start, balance = self.started[seed], self.rules.balance
        sums = {layer: by_image(r, len(start)) for layer, r in relevance.items()}
        now = balance.stayed_behind(start.device)
        order = sorted(relevance, key=[*balance.at_layer, *relevance].index)
        at_layer = {layer: balance.at_layer.get(layer, now) for layer in order}
        divided = {n: whole for n, whole in sums.items() if whole is not None}
        if not balance.divided or len(divided) < len(sums):
            divided, at_layer = self._one_by_one(seed, order)
        return {
            n: NotedAccount(start, divided[n], self.relevance[seed, n], stayed)
            for n, stayed in at_layer.items()
        }

    def _one_by_one(
        self, seed: Seed, layers: Sequence[str]
    ) -> tuple[dict[str, Tensor], dict[str, StayedBehind]]:
        """The same from a way back for each image: a tensor does not show which of its axes is the images'."""
        sums: dict[str, list[Tensor]] = {n: [] for n in layers}
        stayed: dict[str, list[StayedBehind]] = {n: [] for n in layers}
        for image in range(len(self.started[seed])):
            alone = score_of_one(self.scores[seed], image)
            for n, r in self._carried_back(alone, layers, 1).items():
                balance = self.rules.balance
                sums[n].append(r.sum())
                stayed[n].append(balance.at_layer.get(n, balance.stayed_behind(r.device)))
        return (
            {n: torch.stack(each) for n, each in sums.items()},
            {
                n: StayedBehind(*map(torch.cat, zip(*each, strict=True)))
                for n, each in stayed.items()
            },
        )

    def tensors(self, method: Formula, layer: str) -> list[Tensor]:
        """What the method combines: activations, and relevance for each of its seeds in turn."""
        seeds = iter(self.seeds_of(method))
        return [
            self.layouts[layer].to_grid(self.given[layer]).float().to(self.device)
            if need == "activation"
            else self.relevance[next(seeds), INPUT if need == "input_relevance" else layer]
            for need in method.needs
        ]

    def facts(self, method: Formula, layers: Sequence[str]) -> FactsOnceRead:
        """For each image where relevance went, up to the last of the layers that it reached, and what blew it up."""
        seeds = self.seeds_of(method)
        found = RelevanceFacts(
            self.rules,
            {seed: self.scores[seed] for seed in seeds},
            self.accounts[seeds[0]],
            layers,
            self.rivals if "elsewhere" in seeds else None,
            self.with_ledger,
        )
        for seed in seeds:
            found.note_peaks(seed, self.started[seed], [self.relevance[seed, n] for n in layers])
        return found

    def remarks(self, method: Formula) -> tuple[str, ...]:
        """What holds of all maps, and was warned of."""
        compares = "elsewhere" in self.seeds_of(method)
        return (*self.unknown, *(self.without_rivals if compares else ()))

    def ledger(self, method: Formula) -> Ledger | None:
        return self.ledgers.get(self.seeds_of(method)[0])


def _why_unknown(module: nn.Module, unknown: Iterable[str]) -> str:
    """What may be known of operations without a rule, by their names in the graph."""
    if is_reentrant(unknown):
        return f": it has {REENTRANT}"
    if any(NO_DERIVATIVE in name for name in unknown):
        return f": quantized parts, and what else has no derivative, have none either; use {WITHOUT_GRADIENTS}"
    return why_unheard(module)


def _tell_unknown(trace: Trace, strict: bool) -> tuple[str, ...]:
    """Warns of operations that no rule knows, or refuses them; returns what it says."""
    unknown = trace.rules.unknown if isinstance(trace.rules, Relevance) else {}
    if not unknown:
        return ()
    listed = ", ".join(f"{operation} ({n})" for operation, n in unknown.items())
    said = f"no relevance rule for {listed} in {type(trace.module).__name__}{_why_unknown(trace.module, unknown)}"
    if strict:
        raise ModelError(f"{said}; strict=False takes the gradient")
    said += ": the gradient stands in for it, and relevance may not add up"
    warn(said)
    return (said,)
