"""How a training went, as a picture: the losses, and the score, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError
from ...render.curves import COLORS, DPI, HEIGHT, WIDTH
from ...render.drawing import FAINT, INK, RULE


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scored = "score" in history[-1]
    panels = [("Loss", {"training": "train_loss", "held back": "val_loss"})]
    panels += (
        [(f"{metric[0].upper()}{metric[1:]}, pictures held back", {"": "score"})] if scored else []
    )
    figure: Any = Figure(figsize=(WIDTH * len(panels), HEIGHT), dpi=DPI, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12, wspace=0.04)
    for place, (title, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        place.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=_rgb(INK))
        _draw(
            place, history, {name: key for name, key in lines.items() if key in history[-1]}, best
        )
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _draw(
    place: Any, history: Sequence[Mapping[str, float]], lines: Mapping[str, str], best: float | None
) -> None:
    epochs = [row["epoch"] for row in history]
    for color, (name, key) in zip(COLORS, lines.items(), strict=False):
        values = [row[key] for row in history]
        place.plot(epochs, values, color=color, linewidth=2.0, marker="o", markersize=4, label=name)
        kept = next((row[key] for row in history if row["epoch"] == best), None)
        if kept is not None and key in ("score", "val_loss"):
            place.plot(
                [best],
                [kept],
                "o",
                color=color,
                markersize=9,
                markerfacecolor="none",
                markeredgewidth=1.6,
            )
        if kept is not None and key == "score":
            place.set_xlabel(
                f"epoch (ringed: {best:g}, whose weights were kept, at {kept:.3f})",
                fontsize=9,
                color=_rgb(INK),
            )
    if not place.get_xlabel():
        place.set_xlabel("epoch", fontsize=9, color=_rgb(INK))
    if len(lines) > 1:
        place.legend(frameon=False, fontsize=9, labelcolor=_rgb(INK))
    place.spines[["top", "right"]].set_visible(False)
    place.spines[["left", "bottom"]].set_color(_rgb(FAINT))
    place.tick_params(labelsize=8.5, colors=_rgb(FAINT))
    place.xaxis.get_major_locator().set_params(integer=True)
    place.grid(axis="y", color=_rgb(RULE), linewidth=0.8)
    place.set_axisbelow(True)


def _rgb(color: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(value / 255 for value in color)
