"""Several attributions as one: fused over layers or methods, or joined over batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..remarks import Remarks, together
from . import values as maps
from .attribution import Attribution


def fused(
    group: Sequence[Attribution], over: str, how: Literal["mean", "max", "product"]
) -> Attribution:
    """Attributions that differ in `over`, "layer" or "method", as one more."""
    both = maps.fuse([a.map for a in group], how=how)
    parts = " + ".join(dict.fromkeys(str(a.layer if over == "layer" else a.title) for a in group))
    return dataclasses.replace(
        group[0],
        method=group[0].method if over == "layer" else "+".join(a.method for a in group),
        title=group[0].title if over == "layer" else parts,
        family=group[0].family if len({a.family for a in group}) == 1 else None,
        style=group[0].style if over == "layer" else None,
        layer=parts if over == "layer" else group[0].layer,
        map=both,
        status=maps.statuses(both),
        signed=False,
        pixels=None,
        interval=None,
        facts=(),
        ledgers=(),
        remarks=_remarks_on_parts(group, both),
        options={"fused_over": over, "how": how},
    )


def _remarks_on_parts(group: Sequence[Attribution], fused: Tensor) -> Remarks:
    """What is to know of a fused map: its own status, and what is said of the maps that it is made of."""
    of_parts: list[Remarks] = []
    for a in group:
        whose = f"{a.title}{'' if a.layer is None else f' at {a.layer}'}"
        of_parts.append(tuple(tuple(f"{whose}: {said}" for said in each) for each in a.remarks))
    return together(of_parts, len(fused))


def joined(parts: Sequence[Attribution]) -> Attribution:
    """The attributions of several batches, which differ in nothing else, as one."""
    pixels = [a.pixels for a in parts if a.pixels is not None]
    intervals = [a.interval for a in parts if a.interval is not None]
    return dataclasses.replace(
        parts[0],
        map=torch.cat([a.map for a in parts]),
        pixels=torch.cat(pixels) if pixels else None,
        status=tuple(status for a in parts for status in a.status),
        labels=tuple(label for a in parts for label in a.labels),
        scores=tuple(score for a in parts for score in a.scores),
        probabilities=tuple(p for a in parts for p in a.probabilities),
        interval=torch.cat(intervals) if intervals else None,
        facts=tuple(fact for a in parts for fact in a.facts),
        ledgers=tuple(ledger for a in parts for ledger in a.ledgers),
        remarks=tuple(said for a in parts for said in a.remarks),
    )
