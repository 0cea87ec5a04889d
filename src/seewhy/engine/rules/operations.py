"""Operations by what relevance does at them; functions as `TorchFunctionMode` sees them called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

from .in_place import LINEAR as REWRITTEN
from .in_place import set_item

Argument = Any  # of an operation of torch: tensors, numbers, names, or containers of those
Function = Callable[..., Any]
Arguments = tuple[Argument, ...]
Options = dict[str, Argument]


def named(*names: str) -> frozenset[Function]:
    """The functions of these names in torch, torch.Tensor and torch.nn.functional, in place or not."""
    places = (torch, Tensor, F, torch._C._nn)
    found = {
        getattr(place, name + tail, None)
        for place in places
        for name in names
        for tail in ("", "_")
    }
    return frozenset(f for f in found if f is not None)


def usual(func: Function) -> Function:
    """The function of torch for an operator called below it (`torch.ops.aten.relu.default`); others as they are."""
    if isinstance(func, OpOverload | OpOverloadPacket):
        return _function_of_operator(func)
    return func


@cache
def _function_of_operator(operator: OpOverload | OpOverloadPacket) -> Function:
    packet = operator.overloadpacket if isinstance(operator, OpOverload) else operator
    places = (
        torch,
        Tensor,
        torch._C._nn,
    )  # these take and return what the operator does, F may not
    return next(
        (getattr(place, packet.__name__) for place in places if hasattr(place, packet.__name__)),
        packet,
    )


def is_foreign(func: Function) -> bool:
    """Whether it is an operator of neither torch nor torchvision, or one that is given functions: it may hold any."""
    if isinstance(func, OpOverload | OpOverloadPacket):
        return str(func).partition(".")[0] not in ("aten", "prim", "prims", "torchvision")
    return isinstance(func, HigherOrderOperator)


CONVOLUTIONS: dict[Function, tuple[int, bool]] = {  # operation -> (dimensions, transposed)
    **{getattr(place, f"conv{n}d"): (n, False) for n in (1, 2, 3) for place in (torch, F)},
    **{getattr(place, f"conv_transpose{n}d"): (n, True) for n in (1, 2, 3) for place in (torch, F)},
}
LINEAR = frozenset({F.linear})
_STATISTICS = ("running_mean", "running_var")
BATCH_NORM: dict[Function, tuple[str, ...]] = {  # operation -> its parameters
    F.batch_norm: ("input", *_STATISTICS, "weight", "bias", "training", "momentum", "eps"),
    torch.batch_norm: ("input", "weight", "bias", *_STATISTICS, "training", "momentum", "eps"),
}
LAYER_NORMS: dict[Function, tuple[str, ...]] = {  # operation -> its parameters
    **dict.fromkeys(
        (F.layer_norm, torch.layer_norm), ("input", "normalized_shape", "weight", "bias", "eps")
    ),
    **dict.fromkeys(
        (F.group_norm, torch.group_norm), ("input", "num_groups", "weight", "bias", "eps")
    ),
    F.instance_norm: (
        "input",
        *_STATISTICS,
        "weight",
        "bias",
        "use_input_stats",
        "momentum",
        "eps",
    ),
    torch.instance_norm: (
        "input",
        "weight",
        "bias",
        *_STATISTICS,
        "use_input_stats",
        "momentum",
        "eps",
    ),
}
RMS_NORMS = frozenset(
    f for place in (F, torch) if (f := getattr(place, "rms_norm", None)) is not None
)

# y = act(x) with act(0) = 0 or so: relevance passes, R_x = R_y
ACTIVATIONS = named(
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish",
    "hardtanh", "clamp", "clip", "clamp_min", "clamp_max", "softplus", "threshold", "tanh", "hardshrink", "softshrink",
    "softsign", "tanhshrink",
)  # fmt: skip
NON_NEGATIVE = named(
    "relu", "relu6", "softplus", "sigmoid", "hardsigmoid", "softmax", "abs", "square"
)
# place by place, for scaling what they multiply: gates and parts of norms written by hand
GATES: frozenset[Function] = named(
    "sigmoid", "hardsigmoid", "softmax", "softmin", "log_softmax", "rsqrt", "sqrt", "reciprocal", "exp", "expm1", "log",
    "log1p", "pow", "square", "abs", "sin", "cos", "erf", "logsigmoid",
) | frozenset({Tensor.__pow__, Tensor.__rpow__, Tensor.__abs__})  # fmt: skip
STATISTICS = named("norm", "var", "std", "logsumexp") | frozenset(
    {torch.linalg.vector_norm, torch.linalg.norm}
)
MOMENTS = named("var_mean", "std_mean")
LISTS, PADS = named("cat", "concat", "concatenate", "stack", "hstack", "vstack"), named("pad")
JOINS = LISTS | PADS | named(
    "where", "masked_fill", "scatter", "index_put", "index_add", "scatter_add", "maximum", "minimum",
) | {set_item}  # fmt: skip
SOFTMAX = named("softmax", "softmin")
RELU = named("relu")
REVERSED = frozenset({Tensor.__rsub__, torch.rsub, Tensor.__rtruediv__, Tensor.__rmatmul__})
ADD: frozenset[Function] = named("add") | {Tensor.__add__, Tensor.__radd__}
SUBTRACT: frozenset[Function] = named("sub", "subtract") | {
    Tensor.__sub__,
    Tensor.__rsub__,
    torch.rsub,
}
DIVIDE = named("div", "divide", "true_divide") | {Tensor.__truediv__, Tensor.__rtruediv__}
# linear in each factor
PRODUCTS = named(
    "mul", "multiply", "matmul", "bmm", "mm", "mv", "einsum", "inner", "outer", "tensordot", "dot"
) | {*(Tensor.__mul__, Tensor.__rmul__, Tensor.__matmul__, Tensor.__rmatmul__)}
ATTENTION = frozenset({F.scaled_dot_product_attention})
MULTI_HEAD = frozenset({F.multi_head_attention_forward})
NORMALIZE = frozenset({F.normalize})
GRID_SAMPLE = named("grid_sample", "grid_sampler")
FLATTEN = named("flatten")
# what a model asks of a tensor without making a new one
QUESTIONS = frozenset({
    *(vars(torch._C.TensorBase)[n].__get__ for n in ("shape", "device", "dtype", "ndim", "requires_grad", "layout")),
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_floating_point, Tensor.__len__),
    *(Tensor.get_device, Tensor.is_contiguous, Tensor.ndimension, Tensor.is_complex),
})  # fmt: skip

# linear in each argument, without a bias: the derivative carries relevance as it is
TRANSPARENT = REWRITTEN | named(
    "cat", "concat", "concatenate", "stack", "hstack", "vstack", "chunk", "split", "unbind", "tensor_split", "narrow",
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "movedim", "squeeze", "unsqueeze",
    "expand", "expand_as", "repeat", "repeat_interleave", "tile", "roll", "flip", "rot90", "contiguous", "clone", "to",
    "float", "half", "double", "type", "type_as", "detach", "index_select", "gather", "select", "take_along_dim",
    "mean", "sum", "cumsum", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "interpolate", "upsample", "pad", "dropout", "dropout2d", "dropout3d", "feature_dropout",
    "alpha_dropout", "feature_alpha_dropout", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "fold", "unfold",
    "neg", "masked_fill", "where", "index_put", "scatter", "scatter_add", "copy", "diagonal", "tril", "triu", "t",
    "maximum", "minimum", "affine_grid", "as_strided", "zero", "amax", "amin", "real", "imag", "max", "min", "topk",
    "sort", "atleast_2d", "view_as", "reshape_as", "index_add", "index_copy", "masked_select",
    "ravel", "moveaxis", "swapdims", "broadcast_to", "cpu", "cuda", "bfloat16", "one_hot", "unsafe_chunk",
    "max_pool2d_with_indices", "_max_pool2d",
) | frozenset({
    Tensor.__getitem__, Tensor.__neg__, Tensor.__setitem__,
    *(vars(torch._C.TensorBase)[n].__get__ for n in ("T", "mT", "data")),
    F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.adaptive_max_pool2d_with_indices, Tensor.requires_grad_,
    *(getattr(F, n) for n in ("_max_pool1d", "_max_pool2d", "_max_pool3d", "boolean_dispatch") if hasattr(F, n)),
})  # fmt: skip
# of non-negative values they make non-negative values
KEEPS_SIGN = named(
    "cat", "concat", "stack", "chunk", "split", "view", "reshape", "flatten", "unflatten", "permute", "transpose",
    "squeeze", "unsqueeze", "expand", "repeat", "roll", "flip", "contiguous", "clone", "mean", "sum", "max_pool2d",
    "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate", "pad", "dropout", "dropout2d",
    "pixel_shuffle", "pixel_unshuffle", "select", "narrow",
) | frozenset({Tensor.__getitem__, F.max_pool2d, vars(F)["_max_pool2d"]})  # fmt: skip


def first_argument(args: Arguments, kwargs: Options) -> Argument:
    """What an operation acts on, given by its place or by its name."""
    return args[0] if args else kwargs.get("input")


def keeps_sign(func: Function, args: Arguments, kwargs: Options) -> bool:
    """Whether a call makes non-negative values of non-negative ones: no bicubic overshoot, no padding below zero."""
    if func not in KEEPS_SIGN:
        return False
    values = (*args, *kwargs.values())
    return "bicubic" not in [v for v in values if isinstance(v, str)] and not any(
        isinstance(v, float) and v < 0 for v in values
    )


def joins_constants(func: Function, values: Sequence[object], *, all_live: bool) -> bool:
    """Whether a call of these arguments may put values that do not come from the image beside those that do."""
    if func in PADS:
        return any(isinstance(v, int | float) and v for v in values)
    return func in JOINS and not (func in LISTS and all_live)


def is_cut_at_zero(func: Function, args: Arguments, kwargs: Options) -> bool:
    """Whether a clamp or hardtanh has a lower bound of at least zero."""
    name = getattr(func, "__name__", "").rstrip("_")
    if name not in ("clamp", "clip", "clamp_min", "hardtanh"):
        return False
    bound = args[1] if len(args) > 1 else kwargs.get("min_val" if name == "hardtanh" else "min")
    return isinstance(bound, int | float) and bound >= 0
