"""What of each image's relevance stays behind: sums that every pass keeps; the ledger, where asked for, says where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from .joined import JOINED_KINDS, JoinedKind

Reason = Literal["kept", "absorbed"] | JoinedKind


class StayedBehind(NamedTuple):
    """For each image (N,): kept by constants, absorbed by biases and stabilisers; the others are parts of what is kept:
    by the class token, registers and the position embedding, and by what came past the layer.
    """

    kept: Tensor
    absorbed: Tensor
    class_token: Tensor
    registers: Tensor
    position_embedding: Tensor
    past_layer: Tensor


def by_image(relevance: Tensor, images: int) -> Tensor | None:
    """The sum of each image's relevance, (N,); None where a tensor of tokens does not show which axis is the images'.

    Images are the first axis, or the outer part of it (windows, heads); of tokens-first tensors they are the second.
    """
    r = relevance.float()
    if images == 1:
        return r.sum().reshape(1)
    first, second = r.shape[0], r.shape[1] if r.ndim > 2 else 0
    if first == images and (second != images or r.ndim > 3):
        return r.flatten(1).sum(1)
    if second == images:
        if first % images:
            return r.transpose(0, 1).flatten(1).sum(1)
        return None
    if first % images:
        return None
    return r.reshape(images, -1).sum(1)


class Balance:
    """Adds up what stays behind while a signal goes back.

    Attributes:
        images: how many there are.
        is_kept: whether anybody wants to know of this signal.
        divided: False once an amount could not be divided among the images; with one image everything is its own.
        at_layer: what had stayed behind when the signal reached a layer, in the order in which it reached them.
    """

    def __init__(self) -> None:
        self.begin(1)

    def begin(self, images: int, *, is_kept: bool = True) -> None:
        """Forgets the last signal."""
        self.images, self.is_kept, self.divided = images, is_kept, True
        self.at_layer: dict[str, StayedBehind] = {}
        self._amounts: dict[Reason, list[Tensor]] = {}
        self._shares: list[tuple[Tensor, Tensor]] = []  # (N, C) and (C,) of each linear map

    def add(self, reason: Reason, relevance: Tensor) -> None:
        """Notes relevance that stays where it is, place by place."""
        self._add_amount(reason, by_image(relevance, self.images))

    def _add_amount(self, reason: Reason, amount: Tensor | None) -> None:
        if amount is None:
            self.divided = False
        else:
            self._amounts.setdefault(reason, []).append(amount)

    def absorb(self, received: Tensor, handed_on: Tensor) -> None:
        """Notes what a linear map did not hand on of the relevance of its output."""
        self.add("absorbed", received)
        went_on = by_image(handed_on, self.images)
        self._add_amount("absorbed", None if went_on is None else -went_on)

    def absorb_shares(self, share: Tensor, own: Tensor) -> None:
        """Notes that of an output's relevance own contributions, alike at all places, have their share.

        Args:
            share: of relevance for a unit of contribution, (N, C, ...).
            own: (C, 1, ...), or of another shape that is broadcast to it.
        """
        by_channel = 2 < share.ndim == own.ndim + 1 and len(share) == self.images
        if by_channel:
            self._shares.append((share.float().flatten(2).sum(2), own.float().flatten()))
        else:
            self.add("absorbed", share * own)

    def _gather_shares(self) -> None:
        """Adds up what all shares come to, in one product."""
        if self._shares:
            shares, own = zip(*self._shares, strict=True)
            self._add_amount("absorbed", (torch.cat(shares, 1) * torch.cat(own)).sum(1))
            self._shares = []

    def stayed_behind(self, device: torch.device) -> StayedBehind:
        """Up to now, on a device."""
        self._gather_shares()
        none = torch.zeros(self.images, device=device)
        reasons: tuple[Reason, ...] = ("kept", "absorbed", *JOINED_KINDS)
        return StayedBehind(*(self._total(reason, none).to(device) for reason in reasons))

    def _total(self, reason: Reason, none: Tensor) -> Tensor:
        amounts = self._amounts.get(reason, [none])
        if len(amounts) > 1:
            place = amounts[0].device  # a model may lie on several
            amounts[:] = [torch.stack([amount.to(place) for amount in amounts]).sum(0)]
        return amounts[0]

    def reach(self, layer: str, device: torch.device) -> None:
        """The signal is at a layer."""
        if not self.is_kept:
            return
        self.at_layer[layer] = self.stayed_behind(device)


def on_the_way_back(x: Tensor, then: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Has a function called with the whole signal of a tensor; what it returns goes on in its place."""
    register: Callable[..., RemovableHandle] = x.register_hook
    return register(lambda g: None if g is None else then(g))
