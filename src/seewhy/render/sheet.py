"""All maps of one photo on one sheet, and many pictures on a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from ..data.placement import Placement
from ..errors import InputError
from ..maps import values as maps
from ..maps.attribution import Attribution, Prediction
from . import drawing, panels, reading
from .overlay import attribution_picture, color_bar, default_style, seen_picture
from .styles import find_style

_MARGIN, _GAP, _CELL, _SIDEBAR = 28, 22, 215, 250
_THUMB = 320


def explanation_sheet(
    photo: Image.Image,
    placement: Placement,
    predictions: Sequence[Prediction],
    attributions: Sequence[Attribution],
    index: int,
    *,
    title: str = "",
    style: str | None = None,
) -> Image.Image:
    """Draws what a model saw, what it answered, and every map of one photo.

    At the left are the photo and the predictions; at the right one row for each (method, layer) and one column for
    each target, or a block of panels where there is one target. The sheet is RGB on white, as large as it needs.

    Args:
        photo: RGB, any size and shape; panels are brought to about 250 x 250 pixels' worth.
        placement: Where on the photo the model looked.
        predictions: The model's answers, best first.
        attributions: The maps to show.
        index: Which image of each attribution.
        title: The headline; without it, the first prediction.
        style: One of `STYLES` for all panels; without it, what suits each map.

    Raises:
        InputError: As `attribution_picture`.

    Example:
        >>> ex = seewhy.explain(model, photo)
        >>> sheet = seewhy.render.explanation_sheet(
        ...     photo, ex.placements[0], ex.predictions[0], ex.attributions, 0
        ... )
        >>> sheet.mode
        'RGB'
    """
    style = find_style(style)
    size = panels.panel_size((photo.height, photo.width), 250, longest=560)
    small, placed = panels.resized(photo, placement, size)
    rows = panels.arrange(attributions, index)
    layer_lines = max((len(_layer_lines(a, small)) for a in attributions), default=0)
    cells = [
        [_panel(a, index, small, placed, style, layer_lines=layer_lines) for a in row]
        for row in _wrapped(rows, size)
    ]
    input_size = attributions[0].image_size if attributions else None
    left = _sidebar(small, placed, predictions, panels.seen_words(placement, input_size))
    right = grid(cells) if cells else None
    content = left.width + (_GAP + 14 + right.width if right else 0)
    said = reading.remark_lines(attributions, index)
    legend = _legend(_styles(attributions, index, style), panels.is_cut(placement), content, said)
    head = drawing.font(20, bold=True)
    width = content + 2 * _MARGIN
    top = _MARGIN + drawing.line_height(head) + 18
    body = max(left.height, right.height if right else 0)
    sheet = Image.new("RGB", (width, top + body + 20 + legend.height + _MARGIN), drawing.PAPER)
    draw = ImageDraw.Draw(sheet)
    heading = drawing.shorten(title or panels.headline(predictions), head, content)
    draw.text((_MARGIN, _MARGIN), heading, font=head, fill=drawing.INK)
    sheet.paste(left, (_MARGIN, top))
    if right:
        sheet.paste(right, (_MARGIN + left.width + _GAP + 14, top))
    draw.line((_MARGIN, top + body + 8, width - _MARGIN - 1, top + body + 8), fill=drawing.RULE)
    sheet.paste(legend, (_MARGIN, top + body + 20))
    return sheet


def contact_sheet(pictures: Sequence[tuple[Image.Image, str]], *, columns: int) -> Image.Image:
    """Lays (picture, caption) pairs out row by row, pictures shrunk to 320 x 320 pixels and captions to one line.

    Raises:
        InputError: There are no pictures, or `columns` is below 1.

    Example:
        >>> seewhy.render.contact_sheet([(photo, "one"), (photo, "two")], columns=2).size
        (318, 96)
    """
    if not pictures or columns < 1:
        raise InputError(
            f"contact_sheet() got {len(pictures)} pictures, columns={columns}; accepted: at least 1 of each"
        )
    cells: list[Image.Image] = []
    wide = max(min(_THUMB, max(picture.width for picture, _ in pictures)), 120)
    for picture, caption in pictures:
        small = picture.convert("RGB")
        small.thumbnail((_THUMB, _THUMB), reducing_gap=3)
        cells.append(captioned(small, [(caption, "", False)], wide))
    laid = grid([cells[i : i + columns] for i in range(0, len(cells), columns)])
    sheet = Image.new("RGB", (laid.width + 2 * _MARGIN, laid.height + 2 * _MARGIN), drawing.PAPER)
    sheet.paste(laid, (_MARGIN, _MARGIN))
    return sheet


def stacked(sheets: Sequence[Image.Image], said: str = "") -> Image.Image:
    """Sheets one below the other, and a line of text below them."""
    face = drawing.font(13)
    foot = drawing.line_height(face) + _MARGIN if said else 0
    size = max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets) + foot
    whole = Image.new("RGB", size, drawing.PAPER)
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    ImageDraw.Draw(whole).text((_MARGIN, top), said, font=face, fill=drawing.INK)
    return whole


def _wrapped(rows: list[panels.Row], size: tuple[int, int]) -> list[panels.Row]:
    """Breaks a single column of panels (width, height) into as many as make a block of about 3 : 2."""
    if not rows or len(rows[0]) > 1:
        return rows
    flat = [row[0] for row in rows]
    cell = (max(size[0], _CELL) + _GAP, size[1] + 62)

    def misfit(columns: int) -> float:
        lines = math.ceil(len(flat) / columns)
        empty = columns * lines - len(flat)
        return abs(math.log(columns * cell[0] / (lines * cell[1]) / 1.5)) + 0.1 * empty

    columns = min(range(1, len(flat) + 1), key=misfit)
    return [flat[i : i + columns] for i in range(0, len(flat), columns)]


def _panel(
    attribution: Attribution | None,
    index: int,
    photo: Image.Image,
    placement: Placement,
    style: str | None,
    *,
    layer_lines: int,
) -> Image.Image:
    """A map below what it is of; all of a sheet have as many lines about the layer, so that they are level."""
    if attribution is None:
        return Image.new("RGB", (max(photo.width, _CELL), 1), drawing.PAPER)
    picture = attribution_picture(attribution, index, photo, placement, style=style)
    width = max(photo.width, _CELL)
    lines = [
        (attribution.title, "", True),
        (attribution.labels[index], panels.target_percent(attribution, index), False),
        *((line, "", False) for line in _layer_lines(attribution, photo)),
    ]
    blank = [("", "", False)] * (2 + layer_lines - len(lines))
    return captioned(picture, [*lines, *blank], width)


def _layer_lines(attribution: Attribution, photo: Image.Image) -> list[str]:
    return panels.layer_lines(attribution, drawing.font(13), max(photo.width, _CELL))


def captioned(
    picture: Image.Image, lines: Sequence[tuple[str, str, bool]], width: int
) -> Image.Image:
    """Puts lines of (text, ending that is never cut, bold) above a picture, in a cell of `width` pixels."""
    tall = drawing.line_height(drawing.font(13)) + 2
    cell = Image.new("RGB", (width, tall * len(lines) + 5 + picture.height), drawing.PAPER)
    draw = ImageDraw.Draw(cell)
    for i, (text, ending, bold) in enumerate(lines):
        face = drawing.font(13, bold=bold)
        room = width - (face.getlength(f" {ending}") if ending else 0)
        line = f"{drawing.shorten(text, face, room)} {ending}".strip()
        draw.text(
            (0, i * tall),
            line,
            font=face,
            fill=drawing.INK if bold or len(lines) == 1 else drawing.FAINT,
        )
    cell.paste(picture, (0, cell.height - picture.height))
    return cell


def grid(cells: list[list[Image.Image]]) -> Image.Image:
    """Lays rows of cells out in columns, each as wide and as high as its largest needs."""
    widths = [
        max(row[c].width for row in cells if c < len(row)) for c in range(max(map(len, cells)))
    ]
    heights = [max(cell.height for cell in row) for row in cells]
    laid = Image.new(
        "RGB",
        (sum(widths) + _GAP * (len(widths) - 1), sum(heights) + _GAP * (len(heights) - 1)),
        drawing.PAPER,
    )
    for r, row in enumerate(cells):
        for c, cell in enumerate(row):
            laid.paste(cell, (sum(widths[:c]) + _GAP * c, sum(heights[:r]) + _GAP * r))
    return laid


def _sidebar(
    photo: Image.Image, placement: Placement, predictions: Sequence[Prediction], seen: str
) -> Image.Image:
    """The photo with what the model saw, and below it a bar for each prediction."""
    width, step = max(photo.width, _SIDEBAR), 38
    caption = [(line, "", False) for line in drawing.wrap(seen, drawing.font(13), width)]
    top = captioned(seen_picture(photo, placement), caption, width)
    bars = min(width, 320)
    side = Image.new("RGB", (width, top.height + 18 + step * len(predictions)), drawing.PAPER)
    side.paste(top, (0, 0))
    draw = ImageDraw.Draw(side)
    for i, prediction in enumerate(predictions):
        y = top.height + 18 + step * i
        face = drawing.font(13, bold=i == 0)
        share = panels.sureness(prediction)
        right = bars - face.getlength(share)
        draw.text(
            (0, y), drawing.shorten(prediction.label, face, right - 12), font=face, fill=drawing.INK
        )
        draw.text((right, y), share, font=face, fill=drawing.INK)
        if prediction.probability is not None:
            _bar(draw, y + 20, bars, min(1.0, max(0.0, prediction.probability)))
    return side


def _bar(draw: ImageDraw.ImageDraw, y: int, width: int, share: float) -> None:
    draw.rectangle((0, y, width - 1, y + 6), fill=drawing.RULE)
    filled = round(width * share)
    if filled:
        draw.rectangle((0, y, filled - 1, y + 6), fill=drawing.ACCENT)


def _styles(attributions: Sequence[Attribution], index: int, style: str | None) -> list[str]:
    """The styles on the sheet, in order; maps that are not painted have none."""
    used = [
        style or default_style(a, index) for a in attributions if a.status[index] in maps.READABLE
    ]
    return list(dict.fromkeys(used))


def _legend(styles: Sequence[str], cut: bool, width: int, said: Sequence[str] = ()) -> Image.Image:
    """What is said of the maps, a colour bar for each style beside how to read it, and one line about all of them."""
    blocks = [*_remark_blocks(said, width), *_style_blocks(styles, width)]
    closing = f"{reading.SCALE} {reading.UNSEEN}" if cut else reading.SCALE
    blocks.append(_Block(None, drawing.wrap(closing, drawing.font(12), width)))
    legend = Image.new("RGB", (width, sum(block.height for block in blocks)), drawing.PAPER)
    y = 0
    for block in blocks:
        block.draw(legend, y)
        y += block.height
    return legend


class _Block(NamedTuple):
    """Lines of a legend, beside a colour bar or without one."""

    bar: Image.Image | None
    lines: list[str]
    ink: tuple[int, int, int] = drawing.FAINT

    @property
    def height(self) -> int:
        tall = drawing.line_height(drawing.font(12)) + 3
        return max(tall * len(self.lines), self.bar.height if self.bar else 0) + 10

    def draw(self, legend: Image.Image, y: int) -> None:
        face = drawing.font(12)
        left, tall = 0, drawing.line_height(face) + 3
        if self.bar:
            legend.paste(self.bar, (0, y))
            left = self.bar.width + 18
        for i, line in enumerate(self.lines):
            ImageDraw.Draw(legend).text((left, y + i * tall), line, font=face, fill=self.ink)


def _remark_blocks(said: Sequence[str], width: int) -> list[_Block]:
    return [
        _Block(None, drawing.wrap(line, drawing.font(12), width), drawing.WARN) for line in said
    ]


def _style_blocks(styles: Sequence[str], width: int) -> list[_Block]:
    blocks = []
    for style in styles:
        bar = color_bar(style, length=min(210, width))
        beside = width - bar.width - 18
        room = beside if beside > 150 else width
        blocks.append(_Block(bar, drawing.wrap(reading.HOW_TO_READ[style], drawing.font(12), room)))
    return blocks
