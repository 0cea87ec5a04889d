"""Every method over a zoo of awkward models: right, or one line that names the cause; nothing raw, nothing silent.

Right is what plain autograd gives where the tests have the formula, else what the method gives for the usual way of
writing the same net.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import oracles
from awkward_models import (
    RECTIFIERS,
    Attending,
    Boxes,
    Checkpointed,
    Detached,
    DetachedBranch,
    Folded,
    OtherFirst,
    Queries,
    Rectifier,
    Repeated,
    Siamese,
    Swish,
    WithLoss,
    WithRows,
    batch_statistics,
    by_units,
    called,
    compiled_part,
    exported,
    laid,
    laid_tokens,
    parallel_part,
    quantized,
    scripted_part,
    stages,
    unequal_strides,
)
from seewhy.engine.answers import main_output
from seewhy.errors import SeewhyError, SeewhyWarning
from seewhy.methods.catalog import METHODS
from tiny_models import pictures, randomised

_UNSURE = (
    "not locally linear",
    "its error is",
)  # LIME's and RISE's, of untrained models and few samples
FAST: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 3},
    "integrated_gradients": {"steps": 4},
    "rise": {"samples": 32, "cells": 3},
    "lime": {"samples": 24, "superpixels": "grid"},
    "occlusion": {"window": 8, "stride": 4},
}
AT_LAYER = [name for name, method in METHODS.items() if method.at == "layer"]
NO_GRADIENT = ("eigen_cam", "fem", "score_cam", "ablation_cam", "rise", "lime", "occlusion")
OUTSIDE = ("rise", "lime", "occlusion")


class NoGradientError(Exception):
    """There is none, so there is no right map."""


@dataclass(frozen=True)
class Awkward:
    """One situation.

    Attributes:
        make: the awkward model.
        usual: the usual one of the same weights; None is the awkward one itself.
        words: what a refusal or a warning has to name; None where there is nothing to refuse.
        layer: what methods at a layer are given; `usual_layer` is the same layer of the usual model, and the default.
        asked, usually_asked: further arguments.
        target: of all.
        alone: right is what each image gives by itself.
        right: methods that may not be refused.
        methods: that are tried.
        found: without a name the layer is `usual_layer`'s.
        nowhere: the layer named has no places; right is a refusal.
        under: the circumstances.
        tolerance: of the largest value.
    """

    make: Callable[[], nn.Module]
    usual: Callable[[], nn.Module] | None = None
    words: str | None = None
    layer: str | None = None
    usual_layer: str = "b"
    x: Callable[[], Tensor] = lambda: pictures(2, (16, 24))
    asked: Mapping[str, Any] = field(default_factory=dict)
    usually_asked: Mapping[str, Any] | None = None
    target: int = 1
    alone: bool = False
    right: tuple[str, ...] = OUTSIDE
    methods: tuple[str, ...] = tuple(METHODS)
    found: bool = True
    nowhere: bool = False
    under: Callable[[], AbstractContextManager[Any]] = nullcontext
    tolerance: float = 1e-4


def tokens(size: tuple[int, int], grid: tuple[int, int], n: int = 2, **options: Any) -> Awkward:
    make, usual = laid_tokens(grid, **options)
    return Awkward(make, usual, usual_layer="read", x=lambda: pictures(n, size))


def laid_so(
    lay: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    **options: Any,
) -> Awkward:
    make, usual = laid(lay, back, (size[0] // 4, size[1] // 4), channels=options.pop("channels", 8))
    return Awkward(make, usual, usual_layer="read", x=lambda: pictures(2, size), **options)


def shuffled(n: int, seed: int) -> list[int]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()


def channels_last(picture: Tensor) -> Tensor:
    return picture.permute(0, 2, 3, 1)


def other_pictures() -> Tensor:
    return pictures(2, (16, 24), seed=5)


def scores_of_boxes(said: tuple[Tensor, list[Tensor]]) -> Tensor:
    return said[0][:, 4:].mean(2)


def autocast() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16)


SCRIPT = "[Ss]cript|jit"
CHECKPOINT = "checkpoint"
QUANTIZED = "quanti[sz]|linear_dynamic"
ROWS = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))

PLACES: dict[str, Awkward] = {
    **{f"tokens first, batch of {n}": tokens((12, 16), (3, 4), n, first=True, prefix=1) for n in (1, 2, 12, 13)},
    "tokens first, as many channels": tokens((16, 16), (4, 4), 8, first=True, channels=16),
    "channels last, as many as rows and columns": laid_so(
        channels_last, lambda t: t.permute(0, 3, 1, 2), (16, 16), channels=4
    ),
    "channels last, wide": laid_so(channels_last, lambda t: t.permute(0, 3, 1, 2), (8, 32)),
    "no multiple of the patch, and registers": tokens((23, 17), (4, 3), prefix=5, patch=5),
    "no multiple of the patch, and a class token": tokens((19, 29), (3, 5), prefix=1, patch=5),
    "tokens in units of a mask": tokens((16, 16), (4, 4), order=by_units((4, 4))),
    "tokens in units of a mask, wide, behind one": tokens((16, 24), (4, 6), prefix=1, order=by_units((4, 6))),
    "tokens by columns": tokens((16, 16), (4, 4), order=torch.arange(16).view(4, 4).T.flatten().tolist()),
    "tokens in any order": tokens((16, 24), (4, 6), order=shuffled(24, 1)),
    "tokens in any order, first, behind two": tokens((16, 24), (4, 6), prefix=2, first=True, order=shuffled(24, 2)),
    "rows are columns, square": laid_so(lambda t: t.mT, lambda t: t.mT, (16, 16), words="picture|rows|columns|places"),
    "rows are columns, wide": laid_so(lambda t: t.mT, lambda t: t.mT, (16, 24), words="picture|rows|columns|places",
        found=False),
    "attention weights beside": Awkward(lambda: randomised(Attending()), usual_layer="read"),
    "attention weights, named": Awkward(
        lambda: randomised(Attending()), words="weights.*(picture|place)", layer="weights", nowhere=True,
        methods=tuple(AT_LAYER),
    ),
    "queries beside": Awkward(
        lambda: randomised(Queries()), lambda: randomised(Queries(usual=True)), usual_layer="read"
    ),
    "queries, named": Awkward(
        lambda: randomised(Queries()), words="dec.*(picture|place)", layer="dec", nowhere=True, methods=tuple(AT_LAYER),
    ),
    "what a detector says before suppression": Awkward(
        lambda: randomised(Boxes()), usual_layer="n.b", asked={"output": scores_of_boxes}
    ),
    "what a detector says, named": Awkward(  # each of its anchors belongs to a place
        lambda: randomised(Boxes()), layer="", usual_layer="head", found=False, asked={"output": scores_of_boxes},
        methods=tuple(AT_LAYER),
    ),
    "strides that differ": Awkward(unequal_strides, usual_layer="0", x=lambda: pictures(2, (16, 20))),
    "views folded into the batch": Awkward(
        lambda: randomised(Folded()), words="batch|view|for each", usual_layer="n.b",
        x=lambda: pictures(2, 16, channels=12),
    ),
}  # fmt: skip

HIDDEN: dict[str, Awkward] = {
    "Swish of one's own": Awkward(lambda: stages(called(Swish.apply)), lambda: stages(nn.SiLU), "Swish"),
    "Swish of one's own after a usual one": Awkward(
        lambda: stages(nn.SiLU, called(Swish.apply)), lambda: stages(nn.SiLU), "Swish"
    ),
    "a rectifier of one's own": Awkward(lambda: stages(called(Rectifier.apply)), stages, "Rectifier"),
    "a rectifier of one's own after a usual one": Awkward(
        lambda: stages(nn.ReLU, called(Rectifier.apply)), stages, "Rectifier"
    ),
    "scripted": Awkward(lambda: torch.jit.script(stages()), stages, SCRIPT),
    "traced": Awkward(lambda: torch.jit.trace(stages(), pictures(2, (16, 24))), stages, SCRIPT),
    "frozen": Awkward(lambda: torch.jit.freeze(torch.jit.script(stages())), stages, SCRIPT),
    "scripted in part": Awkward(scripted_part, stages, SCRIPT, found=False),
    "scripted in part, layer before": Awkward(
        scripted_part, stages, SCRIPT, layer="a", usual_layer="a", found=False, methods=tuple(AT_LAYER)
    ),
    "compiled in part": Awkward(compiled_part, stages, "compile"),
    "exported": Awkward(exported, stages, "export|GraphModule|aten"),
    **{
        f"rectified by {name}": Awkward(
            lambda spelled=spelled: stages(nn.ReLU, called(spelled)), stages, f"{spelled_as}|rectif"
        )
        for name, (spelled, spelled_as) in RECTIFIERS.items()
    },
    "rectified by maximum alone": Awkward(
        lambda: stages(called(RECTIFIERS["maximum"][0])), stages, "maximum|rectif"
    ),
    **{
        f"checkpointed, {'re-entrant' if reentrant else 'not re-entrant'}": Awkward(
            lambda reentrant=reentrant: randomised(Checkpointed(reentrant=reentrant)), stages, CHECKPOINT,
            right=NO_GRADIENT if reentrant else tuple(set(METHODS) - {"fullgrad"}),
        )
        for reentrant in (True, False)
    },
}  # fmt: skip

NO_WAY_BACK: dict[str, Awkward] = {
    "a quantized head": Awkward(
        quantized, words="batch|one by one|" + QUANTIZED, alone=True, right=(),  # masked pictures share a scale
        x=lambda: pictures(3, (16, 24)) * torch.tensor([0.2, 1, 4]).view(3, 1, 1, 1),
    ),
    "detached": Awkward(
        lambda: randomised(Detached()), stages, "detach|no gradient|gradient reaches", right=NO_GRADIENT, found=False
    ),
    "a detached branch": Awkward(
        lambda: randomised(DetachedBranch()), lambda: randomised(DetachedBranch(cut=False)),
        "detach|no gradient|gradient reaches", layer="b", right=("eigen_cam", "fem", "score_cam", "ablation_cam"),
        methods=tuple(AT_LAYER), found=False,
    ),
}  # fmt: skip

CALLS: dict[str, Awkward] = {
    "two pictures through one trunk": Awkward(
        Siamese, lambda: Siamese(usual=True), usual_layer="trunk.b", target=0,
        asked={"inputs": {"other": other_pictures()}},
    ),
    "the other picture goes first": Awkward(
        OtherFirst, lambda: OtherFirst(usual=True), usual_layer="trunk.b", target=0,
        asked={"inputs": {"other": other_pictures()}},
    ),
    "two pictures through one trunk, layer named": Awkward(
        Siamese, lambda: Siamese(usual=True), layer="trunk.b", usual_layer="trunk.b", target=0,
        asked={"inputs": {"other": other_pictures()}}, methods=tuple(AT_LAYER), found=False,
    ),
    **{
        f"call {call} of a trunk": Awkward(
            Siamese, lambda: Siamese(usual=True), layer=f"trunk.b@{call}", usual_layer=layer, target=0,
            asked={"inputs": {"other": other_pictures()}}, methods=tuple(AT_LAYER), found=False,
        )
        for call, layer in enumerate(("trunk.b", "other.b"))
    },
    "a block called again and again": Awkward(
        Repeated, lambda: Repeated(usual=True), layer="block", usual_layer="block2"
    ),
    **{
        f"call {call} of a block": Awkward(
            Repeated, lambda: Repeated(usual=True), layer=f"block@{call}", usual_layer=layer, found=False,
            methods=tuple(name for name in AT_LAYER if name != "eigen_grad_cam"),  # whose vectors are nearly as long
        )
        for call, layer in enumerate(("block", "block1", "block2"))
    },
}  # fmt: skip

AROUND: dict[str, Awkward] = {
    "statistics of the batch": Awkward(
        batch_statistics, words="batch|one by one|BatchNorm", alone=True,
        x=lambda: pictures(3, (16, 24)) * torch.tensor([0.2, 1, 4]).view(3, 1, 1, 1),
    ),
    "rows among what goes in as it is": Awkward(
        lambda: randomised(WithRows()), words="inputs=", asked={"args": (ROWS,)},
        usually_asked={"inputs": {"meta": ROWS}}, right=(),
    ),
    "under autocast": Awkward(  # SmoothGrad: a gradient in bfloat16 has other kinks
        stages, under=autocast, tolerance=0.06, methods=tuple(name for name in METHODS if name != "smooth_grad")
    ),
    "a part in DataParallel": Awkward(parallel_part, stages),
    "DataParallel twice, layer named": Awkward(lambda: nn.DataParallel(nn.DataParallel(stages())), stages, layer="b"),
    "the wrapper's name of a layer": Awkward(
        lambda: nn.DataParallel(stages()), stages, "module", layer="module.b", methods=tuple(AT_LAYER), found=False
    ),
    "a loss before the logits": Awkward(lambda: randomised(WithLoss()), stages, "output|loss", right=()),
    "a loss before the logits, output named": Awkward(
        lambda: randomised(WithLoss()), stages, asked={"output": lambda said: said[1]}, usually_asked={}
    ),
}  # fmt: skip

ZOO = PLACES | HIDDEN | NO_WAY_BACK | CALLS | AROUND


@cache
def models(name: str) -> tuple[nn.Module, nn.Module]:
    case = ZOO[name]
    model = case.make()
    return model, case.usual() if case.usual else model


def usually(case: Awkward) -> dict[str, Any]:
    return dict(case.asked if case.usually_asked is None else case.usually_asked)


def run(name: str, model: Any, x: Tensor, target: int, layer: str | None, **asked: Any) -> Tensor:
    at = {"layer": layer} if layer is not None and METHODS[name].at == "layer" else {}
    return METHODS[name](model, x, target, **at, **asked, **FAST.get(name, {}))


def with_warnings(ask: Callable[[], Tensor]) -> tuple[Tensor, set[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = ask()
    said = {str(w.message) for w in caught if issubclass(w.category, SeewhyWarning)}
    return found, {
        line for line in said if not any(each in line for each in _UNSURE)
    }  # LIME's, of untrained models


def expected(
    case: Awkward, model: nn.Module, name: str, x: Tensor, layer: str | None, asked: dict[str, Any]
) -> tuple[Tensor, set[str]]:
    """The right map, by plain autograd where the tests have the formula, and what is warned of the usual model too."""
    if case.alone and len(x) > 1:
        parts = [expected(case, model, name, x[i : i + 1], layer, asked) for i in range(len(x))]
        return torch.cat([part[0] for part in parts]), set[str]().union(
            *(part[1] for part in parts)
        )
    if name in oracles.CAMS and not isinstance(model, torch.jit.ScriptModule):
        with case.under():
            a, g = plain(
                model,
                model.get_submodule(case.usual_layer),
                x,
                case.target,
                asked,
                needs_gradient=name not in NO_GRADIENT,
            )
        maps = [
            oracles.CAMS[name](a[i].float().numpy(), g[i].float().numpy()) for i in range(len(a))
        ]
        return torch.stack([torch.as_tensor(one) for one in maps]).float(), set()
    if name in ("saliency", "input_x_gradient"):
        with case.under():
            _, g = plain(model, None, x, case.target, asked, needs_gradient=True)
        return g.abs().amax(1) if name == "saliency" else (g * x).sum(1), set()
    return with_warnings(lambda: run(name, model, x, case.target, layer, **asked))


def plain(
    model: nn.Module,
    layer: nn.Module | None,
    x: Tensor,
    target: int,
    asked: dict[str, Any],
    *,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """A layer's (or the input's) values, and the gradient of the target there; zeros where none is needed."""
    kept = [x.clone().requires_grad_()]
    handle = (
        layer.register_forward_hook(lambda _, __, value: kept.append(value))
        if layer is not None
        else None
    )
    with torch.enable_grad():
        said = model(kept[0], *asked.get("args", ()), **asked.get("inputs", {}))
        said = asked.get("output", main_output)(said)
        score = said[:, target]
    if handle is not None:
        handle.remove()
    (g,) = (
        torch.autograd.grad(score.sum(), kept[-1], allow_unused=True)
        if score.requires_grad
        else (None,)
    )
    if g is None and needs_gradient:
        raise NoGradientError
    return kept[-1].detach(), torch.zeros_like(kept[-1]) if g is None else g


def distance(found: Tensor, wanted: Tensor) -> float:
    """Of the largest value; maps of views may come as (N, V, h, w)."""
    if found.numel() != wanted.numel() or not found.isfinite().all():
        return float("inf")
    return float(
        (found.reshape(wanted.shape) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)
    )


def right_or_told(kind: str, name: str, layer: str | None, usual_layer: str | None) -> None:
    case, (model, usual) = ZOO[kind], models(kind)
    x, wanted, ordinary = case.x(), None, set[str]()
    if not case.nowhere:
        try:
            wanted, ordinary = expected(case, usual, name, x, usual_layer, usually(case))
        except (SeewhyError, NoGradientError):
            wanted = None
    try:
        with case.under():
            found, said = with_warnings(
                lambda: run(name, model, x, case.target, layer, **case.asked)
            )
    except SeewhyError as error:
        usual_is_refused = wanted is None and case.usual is not None
        refused(case, name, str(error), usual_is_refused=usual_is_refused)
        return
    told = said - ordinary
    if case.words and name not in case.right and any(re.search(case.words, line) for line in told):
        return
    assert wanted is not None, "a map of what cannot be explained"
    off = distance(found, wanted)
    assert off <= case.tolerance, f"wrong by {off:.2g} of the largest; said {told or 'nothing'}"


def refused(case: Awkward, name: str, said: str, *, usual_is_refused: bool) -> None:
    assert "\n" not in said
    if usual_is_refused or (name == "cam" and "grad_cam" in said):
        return
    assert case.words is not None, f"there is nothing to refuse: {said}"
    assert name not in case.right, f"{name} works there: {said}"
    assert re.search(case.words, said), f"no word of the cause, {case.words}: {said}"


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, case in ZOO.items() for name in case.methods]
)
def test_right_or_told(kind: str, name: str) -> None:
    case = ZOO[kind]
    right_or_told(
        kind, name, case.usual_layer if case.layer is None else case.layer, case.usual_layer
    )


@pytest.mark.parametrize("name", ["grad_cam", "layer_relevance"])
@pytest.mark.parametrize(
    "kind", [kind for kind, case in ZOO.items() if case.found and not case.nowhere]
)
def test_layers_that_nobody_named(kind: str, name: str) -> None:
    right_or_told(kind, name, None, None)
