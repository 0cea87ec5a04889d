"""Whether a map of relevance adds up: for each image what started, what arrived, and where the rest stayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.disk import Json
from ..engine.readings import noted
from ..engine.rules.balance import StayedBehind
from ..engine.rules.joined import JOINED_KINDS

TOLERANCE = 0.1  # of what started: beyond it a map does not add up


class NotedAccount:
    """One layer's account, on its device until it is asked for."""

    def __init__(
        self, start: Tensor, whole: Tensor, on_picture: Tensor, stayed: StayedBehind
    ) -> None:
        """From relevance of the output (N, K), of all of the layer (N,) and of its places (N, C, h, w)."""
        arrived = on_picture.float().flatten(1).sum(1)
        columns = (start.sum(1), start.abs().sum(1), arrived, whole, *stayed)
        self._columns = [noted(column) for column in columns]

    def account(self) -> Account:
        started, size, arrived, whole, *stayed = (column.tensor() for column in self._columns)
        return Account(started, size, arrived, whole - arrived, *stayed)


@dataclass(frozen=True, eq=False)
class Account:
    """One layer's account of a signal; each is (N,), relevance of each image.

    Attributes:
        started: shared out at the output.
        size: the sum of its magnitudes; a contrastive start sums to zero.
        arrived: at the map's places.
        off_picture: at the layer's tokens that lie nowhere on the picture, such as a class token.
        kept: by constants that joined on the way (class token, position embedding), or on ways past the layer.
        absorbed: by biases and stabilisers, under rules that let them.
        class_token, registers, position_embedding, past_layer: parts of what was kept.
    """

    started: Tensor
    size: Tensor
    arrived: Tensor
    off_picture: Tensor
    kept: Tensor
    absorbed: Tensor
    class_token: Tensor
    registers: Tensor
    position_embedding: Tensor
    past_layer: Tensor

    @property
    def rest(self) -> Tensor:
        """What is nowhere: lost, or made, by operations that do not hand on what they receive."""
        return self.started - self.arrived - self.off_picture - self.kept - self.absorbed

    @property
    def is_closed(self) -> Tensor:
        """For each image whether at most a tenth is nowhere."""
        return self.rest.abs() <= TOLERANCE * self.size

    @property
    def adds_up(self) -> Tensor:
        """For each image whether at most a tenth is not in the map."""
        return (self.started - self.arrived).abs() <= TOLERANCE * self.size

    def facts(self, *, promised: bool) -> list[Json]:
        """For each image its account; "unbalanced" where that does not close, "withheld" where a promise to the map is
        not kept."""
        columns = ("started", "size", "arrived", "off_picture", "kept", "absorbed", "rest")
        rows, parts = self._rows(columns), self._rows(JOINED_KINDS)
        flags = torch.stack([self.is_closed, self.adds_up], 1).tolist()
        found: list[Json] = []
        for row, kept, (closed, adds_up) in zip(rows, parts, flags, strict=True):
            kept_by = {name: r for name, r in kept.items() if r}
            found.append(
                {
                    "relevance": {**row, "kept_by": kept_by},
                    **_unsettled(closed, adds_up or not promised),
                }
            )
        return found

    def _rows(self, columns: Sequence[str]) -> list[dict[str, float]]:
        """These columns of each image."""
        table = torch.stack([getattr(self, column) for column in columns], 1).tolist()
        return [dict(zip(columns, row, strict=True)) for row in table]


def _unsettled(closed: bool, as_promised: bool) -> dict[str, bool]:
    if not closed:
        return {"unbalanced": True}
    return {} if as_promised else {"withheld": True}


def settled(accounts: Mapping[str, Account], order: Sequence[str]) -> dict[str, Account]:
    """The accounts of one signal, by layer in the order in which it reached them.

    Where all is there at the layer that it reached last, what a layer before lacks went past it.
    """
    last = accounts[order[-1]]
    found: dict[str, Account] = {}
    for layer in order:
        account = accounts[layer]
        past = account.rest.masked_fill(~last.is_closed | account.is_closed, 0)
        found[layer] = replace(
            account,
            kept=account.kept + past,
            past_layer=account.past_layer + past,
        )
    return found
