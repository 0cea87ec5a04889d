"""What is known of each image's relevance beside its map: its account, rivals, what blew it up, where it was lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data.disk import Json
from ..engine.readings import Reading, noted
from ..engine.rules.relevance import Relevance
from ..engine.targets.classes import ScoreFunction
from ..engine.trace import Trace
from ..maps.attribution import Facts
from ..maps.ledger import Entry
from .account import Account, NotedAccount, settled
from .rivals import Rivals
from .starts import Seed

BLOW_UP = (
    100.0  # times the relevance that was put in: beyond it contributions that cancel were amplified
)


@dataclass(eq=False)
class RelevanceFacts:
    """The facts of one method's relevance, noted on its device; they are read when they are asked for.

    Attributes:
        rules: what the signal obeyed.
        scores: where it started, the method's first seed first.
        accounts: of the first seed, by layer in the order in which relevance reached them.
        layers: those that the method reads.
        rivals: of each image; None where none were asked for.
        with_ledger: opens the same trace anew, with a ledger.
    """

    rules: Relevance
    scores: Mapping[Seed, ScoreFunction]
    accounts: Mapping[str, NotedAccount]
    layers: Sequence[str]
    rivals: Rivals | None
    with_ledger: Callable[[], Trace]
    _peaks: list[tuple[Seed, Reading, Reading]] = field(default_factory=list)
    _rivals: list[Reading] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.rivals is not None:
            self._rivals = [noted(column) for column in self.rivals.columns]

    def note_peaks(self, seed: Seed, start: Tensor, relevance: Sequence[Tensor]) -> None:
        """Notes how loud relevance got that started as (N, K) at the output, at each of the layers (N, C, h, w)."""
        started = start.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny)
        sizes = noted(started)
        for r in relevance:
            self._peaks.append((seed, noted(r.abs().flatten(1).amax(1) / started), sizes))

    def __call__(self) -> tuple[Facts, ...]:
        """For each image where relevance went, up to the last of the layers that it reached, and what blew it up."""
        facts = self._account().facts(promised=self.rules.composite.conserves)
        rivals = Rivals(*(column.tensor() for column in self._rivals)) if self._rivals else None
        first = next(iter(self.scores))
        for image, found in enumerate(facts):
            found["relevance_peak"] = 0.0
            if rivals is not None and rivals.of_a_class[image]:
                found["rivals"] = rivals.facts(image)
            if "unbalanced" in found:
                found["lost_at"] = self._where_it_was_lost(first, image)
        for seed, peaks, started in self._peaks:
            self._add_peaks(facts, seed, peaks.tensor().tolist(), started.tensor().tolist())
        return tuple(facts)

    def _account(self) -> Account:
        """Of the last of the layers that relevance reached."""
        whole = {layer: each.account() for layer, each in self.accounts.items()}
        of_layers = settled(whole, list(whole))
        return [account for layer, account in of_layers.items() if layer in self.layers][-1]

    def _add_peaks(
        self, facts: Sequence[Json], seed: Seed, peaks: Sequence[float], started: Sequence[float]
    ) -> None:
        """Adds to each image's facts how loud its relevance got at a layer, and what blew it up."""
        for image, peak in enumerate(peaks):
            facts[image]["relevance_peak"] = max(facts[image]["relevance_peak"], peak)
            if peak > BLOW_UP and "blown_up_by" not in facts[image]:
                bound = BLOW_UP * started[image]
                facts[image]["blown_up_by"] = self._where_it_blew_up(seed, image, bound)

    def _where_it_blew_up(self, seed: Seed, image: int, bound: float) -> str | None:
        """The operation, met first on the way back, at whose input relevance of this image passes the bound."""
        entries = self._ledger_entries(seed, image)
        return next((entry.operation for entry in entries if entry.peak > bound), None)

    def _where_it_was_lost(self, seed: Seed, image: int) -> str | None:
        """The operation that lost most of this image's relevance without a bias or constant that keeps it."""
        if self.rules.unknown:
            return ", ".join(self.rules.unknown)
        lost = [
            (abs(e.epsilon + e.no_contributor), e.operation)
            for e in self._ledger_entries(seed, image)
        ]
        most, operation = max(lost, default=(0.0, ""))
        return operation if most else None

    def _ledger_entries(self, seed: Seed, image: int) -> Sequence[Entry]:
        """The ledger of one image."""
        with self.with_ledger() as trace:
            trace.signal(score_of_one(self.scores[seed], image))
            return trace.ledger().entries


def score_of_one(score: ScoreFunction, image: int) -> ScoreFunction:
    """The score of one image, zero for the others."""

    def alone(output: object) -> Tensor:
        scores = score(output)
        return scores * (torch.arange(len(scores), device=scores.device) == image)

    return alone
