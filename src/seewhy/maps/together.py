"""Several attributions as one: fused over layers or methods, or joined over batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from ..data.disk import Json
from ..remarks import Remarks, together
from . import values as maps
from .attribution import Attribution

_TENSORS = ("map", "pixels", "interval")
_OF_EACH_IMAGE = (
    "status",
    "labels",
    "scores",
    "probabilities",
    "facts",
    "ledgers",
    "remarks",
)


def fused(
    group: Sequence[Attribution], over: str, how: Literal["mean", "max", "product"]
) -> Attribution:
    """Attributions that differ in `over`, "layer" or "method", as one more."""
    first = group[0]
    both = maps.fuse([a.map for a in group], how=how)
    if over == "layer":
        named = _over_layers(group)
    else:
        named = dataclasses.replace(
            first,
            method="+".join(a.method for a in group),
            title=_once_each(a.title for a in group),
            style=None,
        )
    same_family = all(a.family == first.family for a in group)
    return dataclasses.replace(
        named,
        family=first.family if same_family else None,
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


def _over_layers(group: Sequence[Attribution]) -> Attribution:
    """The first of them, as of the layers of all."""
    titles = [a.layer_title for a in group]
    return dataclasses.replace(
        group[0],
        layer=_once_each(str(a.layer) for a in group),
        layer_title=_once_each(filter(None, titles)) or None,
    )


def _once_each(parts: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(parts))


def _remarks_on_parts(group: Sequence[Attribution], fused: Tensor) -> Remarks:
    """What is to know of a fused map: its own status, and what is said of the maps that it is made of."""
    of_parts: list[Remarks] = []
    for a in group:
        whose = f"{a.title}{'' if a.layer is None else f' at {a.layer}'}"
        of_parts.append(tuple(tuple(f"{whose}: {said}" for said in each) for each in a.remarks))
    return together(of_parts, len(fused))


def joined(parts: Sequence[Attribution]) -> Attribution:
    """The attributions of several batches, which differ in nothing else, as one."""
    found: Json = {name: _in_one_tensor(parts, name) for name in _TENSORS}
    found |= {name: _in_one_tuple(parts, name) for name in _OF_EACH_IMAGE}
    return dataclasses.replace(parts[0], **found)


def _in_one_tensor(parts: Sequence[Attribution], name: str) -> Tensor | None:
    there = [tensor for a in parts if (tensor := getattr(a, name)) is not None]
    return torch.cat(there) if there else None


def _in_one_tuple(parts: Sequence[Attribution], name: str) -> tuple[object, ...]:
    return tuple(chain.from_iterable(getattr(a, name) for a in parts))
