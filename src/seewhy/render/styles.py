"""The ways in which maps are drawn, by name."""

from __future__ import annotations

from typing import overload

from ..names import known_name

STYLES = ("heatmap", "jet", "signed", "grey", "mask", "map", "sure", "superpixels")
WORDS = {
    "heatmap": ("no evidence", "most evidence"),
    "jet": ("no evidence", "most evidence"),
    "map": ("no evidence", "most evidence"),
    "signed": ("against", "for"),
    "grey": ("negative", "positive"),
    "mask": ("below half", "above"),
    "sure": ("not sure", "surely for"),
    "superpixels": ("against", "for"),
}


@overload
def find_style(style: str) -> str: ...


@overload
def find_style(style: str | None) -> str | None: ...


def find_style(style: str | None) -> str | None:
    """The one of `STYLES` that is meant; None stays None.

    Raises:
        InputError: there is none of that name.

    Example:
        >>> seewhy.render.find_style("Heatmap")
        'heatmap'
    """
    return None if style is None else known_name(str(style), STYLES, what="style")
