"""Targets that know what they hold for each image, and are cut with the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from torch import Tensor, strided

from ...arguments import brief, check_arguments
from ...errors import TargetError


class Target:
    """Base of the targets here, frozen dataclasses whose score of an image reads that image's row of the output alone.

    Attributes:
        one_each: the fields that may hold one value for each image, and how many dimensions they then have.
        rowwise: row i of the score needs row i of the output alone.
    """

    one_each: ClassVar[Mapping[str, int]] = {}
    rowwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        fields: Mapping[str, object] = vars(self)
        others = {
            name: value for name, value in fields.items() if name not in ("index", "other")
        }  # read by their own
        check_arguments(type(self).__init__, (), others)
        for name, value in fields.items():
            if isinstance(value, Tensor):
                _check_tensor(name, value)

    @property
    def images(self) -> int | None:
        """How many images it holds something for; None where all is for every image."""
        return max(map(len, self._held().values()), default=None)

    def rows(self, images: Sequence[int]) -> Self:
        """The target of these of the images, in this order and as often."""
        held = self._held()
        cut = {name: _cut(value, images) for name, value in held.items()}
        return dataclasses.replace(self, **cut) if cut else self  # type: ignore[type-var]

    def check_images(self, n: int) -> None:
        """Says which field is of another number of images."""
        for name, value in self._held().items():
            if len(value) != n:
                raise TargetError(
                    f"target {type(self).__name__} has {name} for {len(value)} images, and {n} are explained; give one "
                    "for each image, or one for all"
                )

    def _held(self) -> dict[str, Any]:
        """What is given for each image; of one alone it is for all."""
        every = {name: getattr(self, name) for name in self.one_each}
        return {
            name: value
            for name, value in every.items()
            if _dimensions(value) == self.one_each[name]
            and (len(value) > 1 or not isinstance(value, Tensor))
        }


def _check_tensor(name: str, value: Tensor) -> None:
    """Says of a field that it holds no numbers to reckon with.

    Raises:
        TargetError: likewise.
    """
    dense = value.layout is strided and not value.is_meta and not value.is_complex()
    if not (dense and value.numel() and value.isfinite().all()):
        raise TargetError(
            f"{name}={brief(value)} cannot be used; give a dense tensor of real, finite numbers, one at least"
        )


def _dimensions(value: object) -> int:
    if isinstance(value, Tensor):
        return value.ndim
    return 1 + _dimensions(value[0]) if isinstance(value, tuple | list) and value else 0


def _cut(value: Any, images: Sequence[int]) -> Any:
    return value[list(images)] if isinstance(value, Tensor) else tuple(value[i] for i in images)
