"""What one metric object scores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """What is scored of each photo: maps of a method, or of a chance map, for a target, by a metric."""

    method: str
    layer: str | None
    target: str
    metric: str
    by_chance: bool = False
