"""Attention that arrives as one call: its weights are coefficients, or its parts meet their rules."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .mode import Mode
from .operations import Arguments, Function, Options
from .passing import Valued

_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


def attention(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Tensor:
    """Scaled dot-product attention (CP-LRP, Ali et al., ICML 2022; AttnLRP, Achtibat et al., ICML 2024)."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: Options = {**dict(zip(names, args, strict=False)), **kwargs}
    q, k, v, mask = (given.pop(name, None) for name in names[:4])
    if mode.composite.attention == "cp":
        mask = mask if mask is None else mask.detach()
        return func(q.detach(), k.detach(), v, mask, **given)  # type: ignore[no-any-return]
    with torch.no_grad():
        z = func(q, k, v, mask, **given)
    with mode:  # its parts under their own rules
        if given.get("enable_gqa"):
            k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], -3) for x in (k, v))
        logits = torch.matmul(q, k.transpose(-2, -1)) * (given.get("scale") or q.shape[-1] ** -0.5)
        if given.get("is_causal"):
            mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        if mask is not None:
            logits = (
                logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
            )
        out = torch.matmul(torch.softmax(logits, -1), v)
    return Valued.apply(out, z)  # type: ignore[no-any-return]


def multi_head(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Any:
    """`F.multi_head_attention_forward`."""
    with torch.no_grad():
        z, attended = func(*args, **kwargs)
    with mode:
        out = _multi_head_parts(args, kwargs)
    if out is None:
        mode.note(func)
        return func(*args, **kwargs)
    return Valued.apply(out, z), attended


def _multi_head_parts(args: Arguments, kwargs: Options) -> Tensor | None:
    """The output (L, N, E) from the call's own parts; None where the call uses what is not written out here."""
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    unusual = ("bias_k", "bias_v", "static_k", "static_v", "key_padding_mask")
    if any(given[name] is not None for name in unusual) or given["add_zero_attn"]:
        return None
    query, key, value, heads = (given[name] for name in ("query", "key", "value", "num_heads"))
    weights: Sequence[Tensor]
    if given["use_separate_proj_weight"]:
        weights = [given[f"{n}_proj_weight"] for n in "qkv"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    biases = [None] * 3 if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
    batched = query.ndim == 3
    parts = []
    for x, w, b in zip((query, key, value), weights, biases, strict=True):
        projected = F.linear(x if batched else x.unsqueeze(1), w, b)  # (L, N, E)
        parts.append(
            projected.view(*projected.shape[:2], heads, -1).permute(1, 2, 0, 3)
        )  # (N, heads, L, d)
    mask = given["attn_mask"]
    if mask is not None and mask.ndim == 3:
        mask = mask.view(-1, heads, *mask.shape[1:])
    if mask is not None and mask.dtype == torch.bool:
        mask = ~mask  # here True keeps a token out
    q, k, v = parts
    mixed = F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=given["is_causal"] and mask is None
    )
    out = F.linear(
        mixed.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], given["out_proj_bias"]
    )
    return out if batched else out.squeeze(1)
