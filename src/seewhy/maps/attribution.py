"""Frozen records of what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from . import values as maps

if TYPE_CHECKING:
    from .ledger import Ledger


Family = Literal["layer", "gradient", "guided", "relevance", "perturbation"]  # what evidence a map is of


@dataclass(frozen=True)
class Prediction:
    """One of a model's answers for one image.

    Attributes:
        index, label: the class, and what it is called.
        probability: in [0, 1]; None where the model gives none, or nothing says whether its numbers are any.
        score: the number that the model gives.
    """

    index: int
    label: str
    probability: float | None
    score: float


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a method found for one target, before it is resized or drawn.

    Attributes:
        map: (N, h, w), as in `Attribution`, or (N, C, H, W) where the method reduces colours afterwards.
        interval: (N, h, w), the half-width of the 95 % interval of each place, where the method has one.
        facts: for each image what else is worth knowing, as JSON values: samples drawn, fit of a surrogate, ...
    """

    map: Tensor
    interval: Tensor | None = None
    facts: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Attribution:
    """One method's maps of a batch of N images, for one layer and one target.

    Attributes:
        map: (N, h, w) float32 on the CPU: the paper's map, signed where the paper's is, not normalised, not resized; of
            volumes (N, d, h, w), and all else likewise.
        status: for each image "ok", or what is wrong with its map (`seewhy.maps.STATUS_MEANINGS`).
        labels: for each image the name of what is explained.
        scores: for each image the target's score.
        probabilities: for each image the class's probability, None where the target is no class.
        image_size: (H, W) of the model's input, or (D, H, W).
        pixels: (N, C, H, W), the attribution of each colour channel where a method gives one; else None.
        interval: (N, h, w), the half-width of the 95 % interval of each place, where the method has one.
        facts: for each image what else the method found, as JSON values; () where there is nothing.
        ledgers: for each image where relevance went, where that was asked for; else ().
        family: what kind of evidence the maps are of, and so what they cannot say; None where that is open.
        style: how pictures of them are drawn in their paper (`seewhy.render.STYLES`), where that is not to be told
            from the map.
    """

    method: str
    title: str
    layer: str | None
    target: str
    map: Tensor
    status: tuple[maps.Status, ...]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    probabilities: tuple[float | None, ...]
    image_size: tuple[int, ...]
    signed: bool = False
    pixels: Tensor | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    interval: Tensor | None = None
    facts: tuple[Mapping[str, Any], ...] = ()
    ledgers: tuple[Ledger, ...] = ()
    family: Family | None = None
    style: str | None = None

    def __len__(self) -> int:
        return len(self.map)

    def heatmap(self) -> Tensor:
        """Returns (N, H, W) in [0, 1] at the input's size: the positive evidence over its maximum.

        Each image is scaled by itself; a map without positive evidence is all zero, and its status says so.
        """
        return maps.normalize(maps.resize(self.map.clamp(min=0), self.image_size))
