"""How a map becomes boxes: the rules of papers and codes, and one that was chosen by measurement."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from ..data.disk import Json
from ..data.rgb import Array
from ..errors import InputError
from ..names import known_name
from . import values as map_tools

RelativeTo = Literal["max", "minmax"]
_FLAT = 0.7  # of the maximum: no map is so even that nothing stands out of it


@dataclass(frozen=True)
class BoxRule:
    """How a map becomes boxes: its pixels above a threshold, their connected components, a tight box around each.

    Attributes:
        threshold: the share of the scale that a pixel has to exceed, at least 0 and below 1; of "mean" any number.
        relative_to: the scale: "max" from zero to the map's maximum, "minmax" from its minimum to its maximum; "mean"
            from zero to the mean of its positive part over all pixels (but .7 of the maximum is always enough).
        components: "largest" by its pixels (of equal ones the first, row by row), or "all", the largest first.
        connectivity: 8 (diagonal neighbours touch) or 4.
        most: of all components at most so many.
        min_share: components smaller than this share of the map's pixels are no objects.

    Raises:
        InputError: a value is not as above.
    """

    threshold: float = 0.2
    relative_to: RelativeTo | Literal["mean"] = "max"
    components: Literal["largest", "all"] = "largest"
    connectivity: Literal[4, 8] = 8
    most: int | None = None
    min_share: float = 0.0

    def __post_init__(self) -> None:
        for name, accepted in (
            ("relative_to", ("max", "minmax", "mean")),
            ("components", ("largest", "all")),
            ("connectivity", (4, 8)),
        ):
            if getattr(self, name) not in accepted:
                known = " or ".join(map(repr, accepted))
                raise InputError(f"{name}={getattr(self, name)!r} is not known; use {known}")
        for name in ("min_share",) if self.relative_to == "mean" else ("threshold", "min_share"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"{name}={getattr(self, name)!r} is no share; give at least 0 and less than 1"
                )
        if not 0 <= self.threshold < float("inf"):
            raise InputError(f"threshold={self.threshold!r} means; give a number of at least 0")
        if self.most is not None and self.most < 1:
            raise InputError(f"most={self.most} boxes; give at least 1, or None for all")

    @property
    def scale(self) -> RelativeTo:
        """The scale on which it is told whether a map has evidence, and thresholds are tried."""
        return "minmax" if self.relative_to == "minmax" else "max"

    def kept(self, field: Tensor) -> Array:
        """The pixels (H, W) bool of a finite map (H, W) that are above the threshold."""
        if self.relative_to != "mean":
            scaled = map_tools.normalize(field[None], how=self.relative_to)[0].double().numpy()
            return np.asarray(scaled > self.threshold)
        positive = field.double().clamp(min=0).numpy()
        least = min(self.threshold * positive.mean(), _FLAT * positive.max())
        return np.asarray(positive > least)


RULES: dict[str, BoxRule] = {
    # Zhou et al., CVPR 2016, section 3.2: above 20 % of the maximum, the largest component
    "cam2016": BoxRule(0.2),
    # the code released with it: above 20 of 255, the two largest components. Left out: its JPEG copy of the map, the
    # distance transform that shrinks a component by 10 pixels, and the merging with the boxes at 100 and 110 of 255
    "cam2016_code": BoxRule(20 / 255, components="all", most=2),
    # Selvaraju et al., ICCV 2017, section 4.1: above 15 % of the maximum, the single largest segment
    "grad_cam": BoxRule(0.15),
    # Choe et al., CVPR 2020: MaxBoxAcc and its second version; they try all thresholds, of which this is a usual one
    "wsol_v1": BoxRule(0.2, "minmax"),
    "wsol_v2": BoxRule(0.2, "minmax", "all"),
    # chosen on 51 composites for maps of every kind, whose peaks are of very different widths (docs/decisions.md)
    "mean": BoxRule(2.0, "mean"),
}
RuleLike = str | BoxRule


def find_rule(rule: RuleLike, **changes: object) -> BoxRule:
    """The rule of that name in `RULES`, or the rule itself, with what is not None changed; InputError for none.

    Example:
        >>> seewhy.localize.find_rule("wsol_v2", threshold=0.4)
        BoxRule(threshold=0.4, relative_to='minmax', components='all', connectivity=8, most=None, min_share=0.0)
    """
    if not isinstance(rule, BoxRule):
        rule = RULES[known_name(str(rule), RULES, what="rule")]
    given: Json = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(rule, **given)
