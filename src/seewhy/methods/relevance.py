"""Relevance: layer-wise relevance propagation to the input or to a layer, and the maps made of it.

LRP is patented in some countries for commercial use; `docs/methods.md` says more.

All of these take the options `composite`, which rule where (a name in `seewhy.engine.rules.composites`, or your own),
`seed`, where relevance starts (`starts.score_at_start`, `rivals`), and `strict`, whether an operation without a rule is
an error or, with a warning, takes its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..engine.flow import Flow
from ..maps import values as maps
from .cam import places
from .formula import Need, Settings
from .gradient import channel_sum
from .method import Method
from .starts import Seed


def _lrp(relevance: Tensor) -> Tensor:
    """Layer-wise relevance propagation to the input (Bach et al., PLoS ONE 2015); signed.

    Adds up to the seed's sum, less what class tokens, position embeddings and, under rules that let them, biases keep:
    an explanation's `facts["relevance"]` has the account of each image.
    """
    return relevance


def _clrp_two_pass(target: Tensor, others: Tensor) -> Tensor:
    """CLRP as its official code (Gu et al., ACCV 2018): relevance of the class less that of all others; >= 0.

    Each of the two maps is divided by its sum first, and what is negative in the difference is dropped.
    """
    shares = [r / r.sum(tuple(range(1, r.ndim)), keepdim=True) for r in (target, others)]
    return torch.relu(torch.nan_to_num(shares[0] - shares[1]))


def _layer_relevance(relevance: Tensor) -> Tensor:
    """Relevance of a layer's places: LRP stopped there and summed over channels; signed.

    Adds up to the score less what is absorbed, by design, by biases.

    Without a layer, the two resolutions before the last are fused: the geometric mean of their positive parts, each
    scaled by its maximum, at the finer one; >= 0. The last resolution is coarse, the first ones are scattered. Of a
    transformer of one resolution the tokens before the first block are read: later ones hold what attention has mixed.
    """
    return relevance.sum(1)


def _before_the_last(flow: Flow, layers: Sequence[str]) -> Sequence[Sequence[str]]:
    if len(layers) > 1:
        return [[layer] for layer in layers]
    return [flow.chosen[-3:-1] or [flow.before_tokens_mix]]


def _geometric_mean(fields: Sequence[Tensor]) -> Tensor:
    """The geometric mean of the positive parts; the mean where they agree nowhere."""
    agreed, either = maps.fuse(fields, how="product"), maps.fuse(fields, how="mean")
    dims = tuple(range(1, agreed.ndim))
    anywhere = agreed.amax(dims, keepdim=True) > 0
    return torch.where(anywhere, agreed, either)


def _relevance_cam(activation: Tensor, relevance: Tensor) -> Tensor:
    """Relevance-CAM (Lee et al., CVPR 2021, eq. 8): the channels, each weighted by its mean relevance; signed.

    The paper shows its map from minimum to maximum, which leaves zero open; here zero is the mean of the places. As in
    the paper, relevance starts contrastively, Z_t and -Z_t / (N - 1); seed="lrp" makes it not contrastive. The official
    code is composite="relevance_cam", seed="unit".

    Without a layer the channels are those of all layers of the last resolution that a 1 x 1 convolution reads: a weight
    for a whole channel says something of its places only where they are read one by one.
    """
    field = torch.einsum("nc,nc...->n...", relevance.mean(places(relevance)), activation)
    return field - field.mean(tuple(range(1, field.ndim)), keepdim=True)


def _read_by_places(flow: Flow, layers: Sequence[str]) -> Sequence[Sequence[str]]:
    return [flow.by_places(layer) for layer in layers]


def _sum_of_layers(fields: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(fields)).sum(0)


def _relevance_method(
    name: str,
    title: str,
    paper: str,
    combine: Callable[..., Tensor],
    needs: tuple[Need, ...],
    composite: str,
    seed: Seed | None,
    **rest: Any,
) -> Method:
    options = {
        "composite": composite,
        **({"seed": seed} if seed else {}),
        "strict": True,
    }
    return Method(
        name, title, paper, "relevance", combine, needs, **{"signed": True, **rest}, options=options
    )


_AT_INPUT: Settings = {"at": "input", "reduce": channel_sum}
_ONCE: tuple[Need, ...] = ("input_relevance",)
lrp = _relevance_method(
    "lrp",
    "LRP",
    "Bach et al., PLoS ONE 2015",
    _lrp,
    _ONCE,
    "epsilon_plus",
    "elsewhere",
    **_AT_INPUT,
)
clrp = _relevance_method(
    "clrp", "CLRP", "Gu et al., ACCV 2018", _lrp, _ONCE, "conserving", "clrp_paper", **_AT_INPUT
)
sglrp = _relevance_method(
    "sglrp",
    "SGLRP",
    "Iwana et al., ICCVW 2019",
    _lrp,
    _ONCE,
    "conserving",
    "sglrp_paper",
    **_AT_INPUT,
)
clrp_two_pass = _relevance_method(
    "clrp_two_pass",
    "CLRP as its official code",
    "Gu et al., ACCV 2018",
    _clrp_two_pass,
    _ONCE * 2,
    "conserving",
    None,
    seeds=("magnitude", "others"),
    signed=False,
    **_AT_INPUT,
)
layer_relevance = _relevance_method(
    "layer_relevance",
    "Layer relevance",
    "after Bach et al., 2015",
    _layer_relevance,
    ("relevance",),
    "epsilon_gamma",
    "elsewhere",
    choose=_before_the_last,
    fuse=_geometric_mean,
)
relevance_cam = _relevance_method(
    "relevance_cam",
    "Relevance-CAM",
    "Lee et al., CVPR 2021",
    _relevance_cam,
    ("activation", "relevance"),
    "z_plus",
    "auto",
    choose=_read_by_places,
    fuse=_sum_of_layers,
)
