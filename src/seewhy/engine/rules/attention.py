"""Attention that arrives as one call: its weights are coefficients, or its parts meet their rules."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .mode import Mode
from .operations import Arguments, Function, Options
from .passing import valued

_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


def attention(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> Tensor:
    """Scaled dot-product attention (CP-LRP, Ali et al., ICML 2022; AttnLRP, Achtibat et al., ICML 2024)."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: Options = {**dict(zip(names, args, strict=False)), **kwargs}
    q, k, v, mask = (given.pop(name, None) for name in names[:4])
    z: Tensor
    if mode.composite.attention == "cp":
        mask = mask if mask is None else mask.detach()
        z = func(q.detach(), k.detach(), v, mask, **given)
        return z
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
    return valued(out, z)


def multi_head(mode: Mode, func: Function, args: Arguments, kwargs: Options) -> object:
    """`F.multi_head_attention_forward`."""
    with torch.no_grad():
        z, attended = func(*args, **kwargs)
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    if not _is_written_out(bound.arguments):
        mode.note(func)
        return func(*args, **kwargs)
    with mode:
        out = _multi_head_parts(bound.arguments)
    return valued(out, z), attended


def _is_written_out(given: Options) -> bool:
    """Whether a call uses no more than `_multi_head_parts` has."""
    unusual = ("bias_k", "bias_v", "static_k", "static_v", "key_padding_mask")
    return not given["add_zero_attn"] and all(given[name] is None for name in unusual)


def _multi_head_parts(given: Options) -> Tensor:
    """The output (L, N, E) from the call's own parts."""
    batched = given["query"].ndim == 3
    q, k, v = (
        _in_heads(x if batched else x.unsqueeze(1), weight, bias, given["num_heads"])
        for x, weight, bias in zip(
            (given["query"], given["key"], given["value"]), *_weights_and_biases(given), strict=True
        )
    )
    mask = _mask_to_keep(given["attn_mask"], given["num_heads"])
    causal = given["is_causal"] and mask is None
    mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    joined = mixed.permute(2, 0, 1, 3).flatten(2)
    out = F.linear(joined, given["out_proj_weight"], given["out_proj_bias"])
    return out if batched else out.squeeze(1)


def _weights_and_biases(given: Options) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
    """Weights and biases of query, key and value."""
    weights: Sequence[Tensor]
    if given["use_separate_proj_weight"]:
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    bias: Tensor | None = given["in_proj_bias"]
    return weights, [None] * 3 if bias is None else bias.chunk(3)


def _in_heads(x: Tensor, weight: Tensor, bias: Tensor | None, heads: int) -> Tensor:
    """Tokens (L, N, E), projected and divided among the heads, (N, heads, L, d)."""
    projected = F.linear(x, weight, bias)
    return projected.view(*projected.shape[:2], heads, -1).permute(1, 2, 0, 3)


def _mask_to_keep(mask: Tensor | None, heads: int) -> Tensor | None:
    """The mask as `scaled_dot_product_attention` takes it: what keeps a token out there keeps it in here."""
    if mask is None:
        return None
    if mask.ndim == 3:
        mask = mask.view(-1, heads, *mask.shape[1:])
    return ~mask if mask.dtype == torch.bool else mask
