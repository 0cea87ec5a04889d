"""A linear operation as rules need it: with any weight, forwards and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .kept_weights import Made


def no_memory(*beside: object, **settings: object) -> Made:
    """For weights that come with no version."""
    return {}


class Apply(Protocol):
    """What an operation does with a weight, and with a bias (outputs,) where one is given."""

    def __call__(self, x: Tensor, w: Tensor, b: Tensor | None = None, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LinearMap:
    """What a linear operation does with a weight: `apply(x, w)` forwards, without bias, and `pull(s, w, x)` back."""

    apply: Apply
    pull: Callable[[Tensor, Tensor, Tensor], Tensor]
    weight: Tensor
    bias: Tensor | None  # shaped to broadcast over the output
    along: tuple[int, int] | None = (
        None  # the inputs' dimension in x and in the weight, where all reach all outputs
    )
    made: Callable[..., Made] = no_memory  # what was made of this weight and bias

    @property
    def is_dense(self) -> bool:
        return self.weight.ndim == 2

    @property
    def outputs_at(self) -> int:
        """The dimension of its outputs."""
        return -1 if self.is_dense else 1
