"""Weakly supervised localisation: networks that learn from image labels alone and know where, and their training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...errors import TrainingError
    from ..networks.heads import LocalisationNet, build
    from .run import Trained
    from .training import train

_WHERE = {
    "LocalisationNet": "..networks.heads",
    "Trained": ".run",
    "TrainingError": "...errors",
    "build": "..networks.heads",
    "train": ".training",
}
__all__ = ["LocalisationNet", "Trained", "TrainingError", "build", "train"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name], __package__), name)
