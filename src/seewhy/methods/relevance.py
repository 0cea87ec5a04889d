"""Relevance: layer-wise relevance propagation to the input or to a layer, and the maps made of it.

The signal is g = R / a, so relevance at any tensor is the tensor times its signal. LRP is patented in some countries
for commercial use; `docs/methods.md` says more.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import maps
from ..errors import InputError, ModelError, SeewhyWarning, TargetError
from ..models.layers import INPUT
from ..rules.composites import COMPOSITES, Composite
from ..rules.ledger import Ledger
from ..rules.lrp import safe, stabilized
from ..rules.relevance import Relevance
from ..targets import ScoreFunction, class_scores, probabilities
from .gradient import channel_sum
from .method import Call, Method, find_stages, picture_layout

Seed = Literal["lrp", "clrp", "sglrp", "auto"]


def seeded(score: ScoreFunction, seed: Seed) -> ScoreFunction:
    """The score from which relevance starts, as a function of the output.

    - "lrp": the target's score, R_t = Z_t.
    - "clrp" (Gu et al., ACCV 2018): Z_t for the target's class and -Z_t / (N - 1) for each other; sums to zero.
    - "auto": as "clrp" where the target is one class, else as "lrp"; a margin is contrastive by itself.
    - "sglrp" (Iwana et al., ICCVW 2019): y_t (1 - y_t) for the target's class, -y_t y_n for each other; y = softmax.
    """
    if seed == "lrp":
        return score
    if seed not in ("clrp", "sglrp", "auto"):
        raise InputError(f"seed={seed!r} is not known; use 'lrp', 'clrp', 'sglrp' or 'auto'")

    def start(output: Any) -> Tensor:
        z = class_scores(output)
        chosen = _class_weights(score, z)  # (N, K), 1 at the target's class
        if chosen is None and seed == "auto":
            return score(output)
        if chosen is None:
            raise TargetError(f"seed={seed!r} needs one class as the target: a class, a label or 'top1'; or seed='lrp'")
        with torch.no_grad():
            if seed != "sglrp":
                own = (chosen * z).sum(1, keepdim=True)
                r = torch.where(chosen > 0, own, -own / (z.shape[1] - 1))
            else:
                y = probabilities(z).to(z)
                own = (chosen * y).sum(1, keepdim=True)
                r = own * (chosen - y)
            factor = r / stabilized(z, 1e-12)
        return (z * factor).sum(1)

    return start


def _class_weights(score: ScoreFunction, z: Tensor) -> Tensor | None:
    """One-hot (N, K) of the class that a logit target names; None for a target that is no one class."""
    with torch.inference_mode(False), torch.enable_grad():
        logits = z.detach().clone().requires_grad_()
        (weights,) = torch.autograd.grad(score(logits).sum(), logits)
    one_class = bool(((weights == 0) | (weights == 1)).all()) and bool((weights.sum(1) == 1).all())
    return weights if one_class else None


def relevance_rules(
    module: nn.Module, composite: str | Composite, *, at_input: bool, ledger: Ledger | None = None
) -> Relevance:
    """The rules of a composite for a module, which is not touched."""
    if isinstance(composite, str):
        if composite not in COMPOSITES:
            raise InputError(
                f"composite {composite!r} is not known; use one of {', '.join(COMPOSITES)}, or a Composite"
            )
        composite = COMPOSITES[composite]()
    names = {id(p): name.rpartition(".")[0] for name, p in module.named_parameters()}
    return Relevance(composite, at_input=at_input, names=names, ledger=ledger)


def propagate_relevance(
    module: nn.Module,
    x: Tensor,
    score: ScoreFunction,
    layers: Sequence[str],
    *,
    call: Call,
    composite: str | Composite,
    seed: Seed,
    strict: bool,
) -> list[tuple[Tensor, Tensor]]:
    """For each layer its activation and its signal R / a, both as the layer gives them, from one pass.

    Raises:
        ModelError: the model calls operations that no rule is known for; all are named. strict=False warns instead.
    """
    rules = relevance_rules(module, composite, at_input=INPUT in layers)
    with call.trace(module, x, layers, rules=rules) as trace:
        if rules.unknown:
            listed = ", ".join(f"{name} ({n})" for name, n in rules.unknown.items())
            said = f"no relevance rule for {listed} in {type(module).__name__}"
            if strict:
                raise ModelError(f"{said}; strict=False takes the gradient")
            warnings.warn(f"{said}: the gradient stands in for it, and relevance may not add up", SeewhyWarning, 2)
        activations, signals = trace.activations, trace.signal(seeded(score, seed))
        return [(activations[layer], signals[layer]) for layer in layers]


def _lrp(module: nn.Module, x: Tensor, score: ScoreFunction, *, layer: str | None, call: Call, **how: Any) -> Tensor:
    """Layer-wise relevance propagation to the input (Bach et al., PLoS ONE 2015); signed, adds up to the score.

    Args:
        how: `composite`, which rule where (`seewhy.rules.composites`); `seed`, where relevance starts (`seeded`);
            `strict`, whether an operation without a rule is an error or, with a warning, takes its gradient.
    """
    ((a, g),) = propagate_relevance(module, x, score, [INPUT], call=call, **how)
    return safe(a) * g


def _layer_relevance(
    module: nn.Module, x: Tensor, score: ScoreFunction, *, layer: str | None, call: Call, **how: Any
) -> Tensor:
    """Relevance of a layer's places: LRP stopped there and summed over channels; signed, adds up to the score.

    Without a layer, the two resolutions before the last are fused: the geometric mean of their positive parts, each
    scaled by its maximum, at the finer one; >= 0. The last resolution is coarse, the first ones are scattered.
    """
    if layer is not None:
        return _summed(module, x, score, [layer], call=call, **how)[0]
    stages = find_stages(module, x, call)
    chosen = stages[-3:-1] or stages[-1:]
    fields = _summed(module, x, score, chosen, call=call, **how)
    if len(fields) == 1:
        return fields[0]
    agreed, either = maps.fuse(fields, how="product"), maps.fuse(fields, how="mean")
    return torch.where(agreed.amax((1, 2), keepdim=True) > 0, agreed, either)  # they may agree nowhere


def _summed(
    module: nn.Module, x: Tensor, score: ScoreFunction, layers: Sequence[str], *, call: Call, **how: Any
) -> list[Tensor]:
    """Relevance of each layer's places, (N, h, w) each, from one pass."""
    pairs = propagate_relevance(module, x, score, layers, call=call, **how)
    return [
        picture_layout(layer, a, x).to_grid(a.float() * g.float()).sum(1)
        for layer, (a, g) in zip(layers, pairs, strict=True)
    ]


def _relevance_cam(
    module: nn.Module, x: Tensor, score: ScoreFunction, *, layer: str | None, call: Call, **how: Any
) -> Tensor:
    """Relevance-CAM (Lee et al., CVPR 2021, eq. 8): the channels, each weighted by its mean relevance; signed.

    As in the paper, relevance starts contrastively, Z_t and -Z_t / (N - 1), and the map has no ReLU. The official
    code's rules are composite="relevance_cam".
    """
    assert layer is not None
    ((a, g),) = propagate_relevance(module, x, score, [layer], call=call, **how)
    layout = picture_layout(layer, a, x)
    a, r = layout.to_grid(a).float(), layout.to_grid(a.float() * g.float())
    return torch.einsum("nc,nchw->nhw", r.mean((2, 3)), a)


def _method(name: str, title: str, paper: str, run: Any, seed: Seed, composite: str, **at: Any) -> Method:
    options = {"composite": composite, "seed": seed, "strict": True}
    return Method(name, title, paper, run=run, signed=True, options=options, **at)


_AT_INPUT = {"at": "input", "reduce": channel_sum}
lrp = _method("lrp", "LRP", "Bach et al., PLoS ONE 2015", _lrp, "lrp", "conserving", **_AT_INPUT)
clrp = _method("clrp", "CLRP", "Gu et al., ACCV 2018", _lrp, "clrp", "conserving", **_AT_INPUT)
sglrp = _method("sglrp", "SGLRP", "Iwana et al., ICCVW 2019", _lrp, "sglrp", "conserving", **_AT_INPUT)
layer_relevance = _method(
    "layer_relevance",
    "Layer relevance",
    "after Bach et al., 2015",
    _layer_relevance,
    "lrp",
    "epsilon_gamma",
    finds_layers=True,
)
relevance_cam = _method("relevance_cam", "Relevance-CAM", "Lee et al., CVPR 2021", _relevance_cam, "auto", "z_plus")
