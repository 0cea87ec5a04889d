"""What a handler of an operation may ask of the rules that it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Protocol

from torch import Tensor

from .composites import Composite
from .joined import JoinedConstants, JoinedKind
from .linear_map import LinearMap
from .notes import Kind, Notes
from .operations import Function

NONE: Mapping[JoinedKind, Tensor] = MappingProxyType({})


class Mode(Protocol):
    """The rules in force (`Relevance`); inside `with mode` they hold for what a handler calls."""

    composite: Composite

    def __enter__(self) -> object: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> object: ...

    @property
    def notes(self) -> Notes:
        """What is known of the tensors of this forward pass."""

    @property
    def joined(self) -> JoinedConstants:
        """The class token, registers and position embedding of the model."""

    def keep(
        self,
        name: str,
        out: Tensor,
        constant: Tensor | float,
        *,
        bias: bool = False,
        finite: bool = False,
        parts: Mapping[JoinedKind, Tensor] = NONE,
    ) -> None:
        """Accounts for what a constant, or a bias, that is part of an output keeps, and those parts of it."""

    def note(self, func: Function) -> None:
        """Counts an operation without a rule."""

    def ruled(
        self,
        z: Tensor,
        x: Tensor,
        linear: Callable[[], LinearMap],
        kind: Kind,
        depthwise: bool,
        weight: Tensor,
    ) -> Tensor:
        """A linear map's own value under the composite's rule."""
