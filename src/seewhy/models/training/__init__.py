"""Weakly supervised localisation: networks that learn from image labels alone and know where, and their training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import lazy_names

if TYPE_CHECKING:
    from ...errors import TrainingError
    from ..networks.heads import LocalizationNet, build
    from .run import Trained
    from .training import train

_WHERE = {
    "LocalizationNet": "..networks.heads",
    "Trained": ".run",
    "TrainingError": "...errors",
    "build": "..networks.heads",
    "train": ".training",
}
__all__ = ["LocalizationNet", "Trained", "TrainingError", "build", "train"]

__getattr__ = lazy_names(__name__, _WHERE)
