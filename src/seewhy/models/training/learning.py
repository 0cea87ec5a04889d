"""How a training went, as a picture: the losses, and the score, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from ...errors import InputError
from ...render.curves import COLORS, HEIGHT, WIDTH, drawn_figure, new_figure, plain_frame, rgb
from ...render.drawing import INK, RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEPS = [1, 2, 2.5, 5, 10]  # between ticks, as matplotlib has them


def learning_picture(
    history: Sequence[Mapping[str, float]], *, metric: str = "score", best: float | None = None
) -> Image.Image:
    """Draws the losses of each epoch and, where there are scores, those beside them.

    Args:
        history: for each epoch "epoch" and "train_loss", and maybe "val_loss" and "score".
        metric: what the score is.
        best: the epoch whose weights were kept, marked.

    Raises:
        InputError: there is no epoch.
    """
    if not history:
        raise InputError("history is empty; give at least one epoch")
    scored = "score" in history[-1]
    panels = [("Loss", {"training": "train_loss", "held back": "val_loss"})]
    panels += (
        [(f"{metric[0].upper()}{metric[1:]}, pictures held back", {"": "score"})] if scored else []
    )
    figure = new_figure(WIDTH * len(panels), HEIGHT)
    for place, (title, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        place.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=rgb(INK))
        _draw(
            place, history, {name: key for name, key in lines.items() if key in history[-1]}, best
        )
    return drawn_figure(figure)


def _draw(
    place: Axes,
    history: Sequence[Mapping[str, float]],
    lines: Mapping[str, str],
    best: float | None,
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    below = "epoch"
    kept = next((row for row in history if row["epoch"] == best), None)
    for color, (name, key) in zip(COLORS, lines.items(), strict=False):
        values = [row[key] for row in history]
        place.plot(epochs, values, color=color, linewidth=2.0, marker="o", markersize=4, label=name)
        if kept is None:
            continue
        if key in ("score", "val_loss"):
            _ring(place, kept["epoch"], kept[key], color)
        if key == "score":
            below = f"epoch (ringed: {best:g}, whose weights were kept, at {kept[key]:.3f})"
    place.set_xlabel(below, fontsize=9, color=rgb(INK))
    if len(lines) > 1:
        place.legend(frameon=False, fontsize=9, labelcolor=rgb(INK))
    plain_frame(place)
    place.xaxis.set_major_locator(MaxNLocator("auto", steps=_STEPS, integer=True))
    place.grid(axis="y", color=rgb(RULE), linewidth=0.8)
    place.set_axisbelow(True)


def _ring(place: Axes, epoch: float, value: float, color: str) -> None:
    place.plot(
        [epoch],
        [value],
        "o",
        color=color,
        markersize=9,
        markerfacecolor="none",
        markeredgewidth=1.6,
    )
