"""Scores of explanations as a picture: one panel for each metric, one line for each method, chance in grey dashes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from ..data.rgb import Array
from ..errors import InputError
from .drawing import FAINT, INK, RULE, WARN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RGB = tuple[float, float, float]  # each in [0, 1]
Dashes = tuple[float, tuple[float, ...]]  # where they begin, and the lengths of dashes and gaps

# told apart by people of every colour vision, also in grey print (Okabe and Ito, 2008)
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
DASHES: tuple[Dashes, ...] = ((0, (4, 2)), (0, (1, 1.6)), (0, (6, 2, 1, 2)), (0, (2, 2)))
WIDTH, HEIGHT, DPI = 5.2, 3.7, 110  # a panel in inches
_LETTERS = 76  # of a line of text below a panel
LONGEST = 26  # letters of a name


class _Style(NamedTuple):
    """How a line is drawn, in matplotlib's words."""

    color: str
    linestyle: str | Dashes


@dataclass(frozen=True, eq=False)
class Scored:
    """One method, or one chance map, in a panel.

    Attributes:
        label: what to call it.
        mean, low, high: its score and the 95 % interval of it; NaN where it has none.
        at, curve: (S,) each, a curve over 0 to 1, or empty.
        chance: drawn grey and dashed, as what methods are compared with.
    """

    label: str
    mean: float
    low: float
    high: float
    at: Array
    curve: Array
    chance: bool = False

    @property
    def name(self) -> str:
        """The label, cut where it is long, and the mean."""
        short = (
            self.label if len(self.label) <= LONGEST else self.label[: LONGEST - 1].rstrip() + "…"
        )
        return f"{short} {self.mean:.3g}" if np.isfinite(self.mean) else short


@dataclass(frozen=True, eq=False)
class Panel:
    """One metric: its title, its direction in words, what its curves are over and of, and what was scored."""

    title: str
    note: str
    axes: tuple[str, str]
    scored: tuple[Scored, ...]


def curves_picture(
    panels: Sequence[Panel], *, title: str = "", remarks: Sequence[str] = ()
) -> Image.Image:
    """Draws the panels side by side, at most three in a row.

    A panel whose methods have curves shows those, labelled on the line; another shows each mean with its interval.
    What is to know of the maps stands below.

    Raises:
        InputError: there is no panel.
    """
    if not panels:
        raise InputError("panels is empty; give at least one")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    said = [line for one in remarks for line in textwrap.wrap(f"unsure: {one}", _LETTERS * columns)]
    height = HEIGHT * rows + 0.4 * bool(title) + 0.2 * len(said)
    figure = new_figure(WIDTH * columns, height, between_rows=0.06)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=rgb(INK))
    if said:  # as a label of the whole figure, for which the layout makes room
        figure.supxlabel("\n".join(said), x=0.01, ha="left", fontsize=9, color=rgb(WARN))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place in axes[len(panels) :]:
        place.set_axis_off()
    drawn = list(zip(axes, panels, strict=False))
    for place, panel in drawn:
        _draw(place, panel)
    figure.canvas.draw()  # settles where things are
    for place, panel in drawn:
        if _lines(panel):
            _label_lines(place, panel)
    return drawn_figure(figure)


def new_figure(width: float, height: float, *, between_rows: float | None = None) -> Figure:
    """An empty figure of so many inches, whose layout keeps things apart; `between_rows` is a share of a panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.04, hspace=between_rows)
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)  # the figure keeps it
    return figure


def drawn_figure(figure: Figure) -> Image.Image:
    """A figure as a picture, RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")


def plain_frame(place: Axes) -> None:
    """Leaves the axes' lines to the left and below, faint."""
    place.spines[["top", "right"]].set_visible(False)
    place.spines[["left", "bottom"]].set_color(rgb(FAINT))
    place.tick_params(labelsize=8.5, colors=rgb(FAINT))


def _lines(panel: Panel) -> list[Scored]:
    return [s for s in panel.scored if len(s.curve) > 1]


def rgb(color: tuple[int, int, int]) -> RGB:
    """A colour as matplotlib takes it."""
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def _styles(panel: Panel) -> dict[int, _Style]:
    """For each scored thing its colour and dashes."""
    methods = [id(s) for s in panel.scored if not s.chance]
    chances = [id(s) for s in panel.scored if s.chance]
    found = {id_: _Style(COLORS[i % len(COLORS)], "-") for i, id_ in enumerate(methods)}
    for i, id_ in enumerate(chances):
        found[id_] = _Style("#8A929C", DASHES[i % len(DASHES)])
    return found


def _draw(place: Axes, panel: Panel) -> None:
    place.set_title(
        panel.title, loc="left", fontsize=10.5, fontweight="bold", color=rgb(INK), pad=18
    )
    place.text(0, 1.03, panel.note, transform=place.transAxes, fontsize=8.5, color=rgb(FAINT))
    plain_frame(place)
    if _lines(panel):
        _draw_lines(place, panel)
    else:
        _draw_dots(place, panel)


def _draw_lines(place: Axes, panel: Panel) -> None:
    styles = _styles(panel)
    for scored in _lines(panel):
        width, order = (1.2, 2) if scored.chance else (2.0, 3)
        place.plot(
            scored.at, scored.curve, linewidth=width, zorder=order, **styles[id(scored)]._asdict()
        )
    place.grid(axis="y", color=rgb(RULE), linewidth=0.8)
    place.set_axisbelow(True)
    place.set_xlabel(panel.axes[0], fontsize=9, color=rgb(INK))
    place.set_ylabel(panel.axes[1], fontsize=9, color=rgb(INK))


def _draw_dots(place: Axes, panel: Panel) -> None:
    """Each mean with its interval, method by method; chance maps as dashed verticals with their names at the foot."""
    styles = _styles(panel)
    methods = [s for s in panel.scored if not s.chance]
    for row, scored in enumerate(methods):
        color = styles[id(scored)].color
        if np.isfinite(scored.low):
            place.plot([scored.low, scored.high], [row, row], color=color, linewidth=2.0, zorder=3)
        place.plot([scored.mean], [row], "o", color=color, markersize=7, zorder=4)
    chances = sorted(
        (s for s in panel.scored if s.chance and np.isfinite(s.mean)), key=lambda s: s.mean
    )
    gap = 0.3 * max(1.0, len(methods) / 3)
    for i, scored in enumerate(chances):
        place.axvline(scored.mean, linewidth=1.2, zorder=2, **styles[id(scored)]._asdict())
        height = (
            len(methods) - 0.55 + gap * i
        )  # one below the other, so that near ones stay legible
        _write(place, scored.name, (scored.mean, height), rgb(FAINT))
    place.set_ylim(len(methods) - 0.3 + gap * len(chances), -0.6)
    place.set_yticks(
        range(len(methods)),
        [s.name.replace(" ", "\n") for s in methods],
        fontsize=9,
        color=rgb(INK),
    )
    place.tick_params(axis="y", length=0)
    place.margins(x=0.08)


def _label_lines(place: Axes, panel: Panel) -> None:
    """Writes each name on its line, where the line is farthest from the others and from names already there."""
    styles, lines = _styles(panel), _lines(panel)
    first = max(s.at[0] for s in lines)
    last = min(s.at[-1] for s in lines)
    grid = np.linspace(first, last, 61)[3:-3]
    heights = np.array([np.interp(grid, s.at, s.curve) for s in lines])
    points = np.stack(
        [place.transData.transform(np.column_stack([grid, h])) for h in heights]
    )  # (lines, places, 2) in pixels
    frame = place.get_window_extent()
    taken: list[tuple[float, float, float]] = []
    for i in sorted(range(len(lines)), key=lambda i: lines[i].chance):
        half = 3.7 * len(lines[i].name) * DPI / 100  # half the width of the text in pixels
        gaps = np.abs(np.delete(points[:, :, 1], i, 0) - points[i, :, 1])
        worth = np.minimum(gaps.min(0), 40.0) if len(gaps) else np.zeros(len(grid))
        for x, y, other in taken:
            near = (np.abs(points[i, :, 0] - x) < half + other) & (np.abs(points[i, :, 1] - y) < 15)
            worth = worth - 1000.0 * near
        beyond = (points[i, :, 0] - half < frame.x0) | (points[i, :, 0] + half > frame.x1)
        best = int((worth - 1000.0 * beyond).argmax())
        x, y = points[i, best]
        taken.append((float(x), float(y), half))
        color = rgb(FAINT) if lines[i].chance else styles[id(lines[i])].color
        weight = "normal" if lines[i].chance else "bold"
        _write(place, lines[i].name, (grid[best], heights[i, best]), color, weight)


def _write(
    place: Axes, text: str, at: tuple[float, float], color: RGB | str, weight: str = "normal"
) -> None:
    """Text on a white edge, legible over lines."""
    from matplotlib.patheffects import withStroke

    written = place.annotate(
        text, at, fontsize=8.5, ha="center", va="center", zorder=6, color=color, fontweight=weight
    )
    written.set_path_effects([withStroke(linewidth=3.5, foreground="white")])
