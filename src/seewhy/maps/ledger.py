"""Where relevance went: operation by operation, what came in, went on, and was kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..names import REPR, at_most


def total(relevance: Tensor) -> float:
    """The sum, in double precision."""
    return float(relevance.detach().cpu().double().sum())


@dataclass(frozen=True)
class Entry:
    """One operation's account, each value summed over the batch.

    Attributes:
        operation: the layer's name, or the function's.
        received: relevance of its output.
        handed_on: relevance of its input.
        bias, epsilon: absorbed by the bias and by the stabiliser.
        no_contributor: lost at outputs to which no input contributes.
        parameter: kept by a parameter or constant that joined here (class token, position embedding).
        peak: the largest magnitude of relevance at its input.
    """

    operation: str
    received: float
    handed_on: float
    bias: float = 0.0
    epsilon: float = 0.0
    no_contributor: float = 0.0
    parameter: float = 0.0
    peak: float = 0.0


@dataclass(repr=False)
class Ledger:
    """The accounts of one signal, in the order in which relevance met the operations, output first."""

    entries: list[Entry] = field(default_factory=list)

    def __repr__(self) -> str:
        loudest = self.loudest()
        peak = (
            f"; the largest, {loudest.peak:.3g}, at the input of {loudest.operation}"
            if loudest
            else ""
        )
        kept = {
            what: self.total(what) for what in ("bias", "epsilon", "no_contributor", "parameter")
        }
        stayed = ", ".join(f"{what} {value:.3g}" for what, value in kept.items() if value)
        text = f"<Ledger of {len(self.entries)} operations{f', kept: {stayed}' if stayed else ''}{peak}"
        return at_most(text, REPR - 1) + ">"

    def clear(self) -> None:
        self.entries.clear()

    def linear(
        self, name: str, received: Tensor, handed_on: Tensor, tally: Mapping[str, float] | None
    ) -> None:
        """Notes a linear map; both tensors are relevance, place by place; the tally says what did not go on."""
        peak = float(handed_on.abs().amax()) if handed_on.numel() else 0.0
        self.entries.append(
            Entry(name, total(received), total(handed_on), **(tally or {}), peak=peak)
        )

    def kept(self, name: str, relevance: Tensor, *, bias: bool = False) -> None:
        """Notes what a parameter, a constant or a bias keeps; padding with zeros keeps nothing."""
        if kept := total(relevance):
            self.entries.append(Entry(name, kept, 0.0, **{"bias" if bias else "parameter": kept}))

    def total(self, what: str) -> float:
        """The sum of a column over all operations."""
        return math.fsum(getattr(entry, what) for entry in self.entries)

    def loudest(self) -> Entry | None:
        """The operation at whose input relevance was largest."""
        return max(self.entries, key=lambda entry: entry.peak, default=None)
