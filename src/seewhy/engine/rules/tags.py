"""What is known of a tensor on its way forward under relevance rules, kept on the tensor itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor


def tag(
    x: Tensor,
    *,
    depth: int | None = None,
    non_negative: bool = False,
    coefficient: bool = False,
    source: Any = None,
) -> Tensor:
    """Notes of a tensor: linear maps since the tap, that it has no negative values, that it only scales, its maker."""
    if depth is not None:
        x._seewhy_depth = depth  # type: ignore[attr-defined]
    if non_negative:
        x._seewhy_non_negative = True  # type: ignore[attr-defined]
    if coefficient:
        x._seewhy_coefficient = True  # type: ignore[attr-defined]
    if source is not None:
        x._seewhy_source = source  # type: ignore[attr-defined]
    return x


def live(x: Any) -> bool:
    """Whether a value comes from the earliest tap, so that it may carry relevance."""
    return isinstance(x, Tensor) and hasattr(x, "_seewhy_depth")


def carrying(x: Any) -> bool:
    """Whether relevance of the value goes back to the earliest tap."""
    return live(x) and x.requires_grad


def is_non_negative(x: Any) -> bool:
    return hasattr(x, "_seewhy_non_negative")


def is_coefficient(x: Any) -> bool:
    return hasattr(x, "_seewhy_coefficient")


def source(x: Tensor) -> Any:
    """The linear map that made the tensor, if it did."""
    return getattr(x, "_seewhy_source", None)


def tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors among values, those in tuples, lists and mappings too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors(value)
        elif isinstance(value, dict):
            yield from tensors(list(value.values()))
