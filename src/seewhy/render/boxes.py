"""Boxes on a photo: those that a map gives, and those that somebody marked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw

from ..data.placement import Placement
from ..data.truth import Truth
from ..maps.attribution import Attribution
from ..maps.boxes import Boxes, box_iou
from ..maps.values import STATUS_MEANINGS
from . import drawing
from .overlay import attribution_picture
from .panels import is_cut, method_title, percent, target_title

FOUND, MARKED, HALO = (0, 214, 255), (120, 255, 60), (0, 0, 0)
Color = tuple[int, int, int]


def boxes_picture(
    attribution: Attribution,
    index: int,
    photo: Image.Image,
    placement: Placement,
    found: Boxes,
    *,
    truth: Truth | None = None,
    style: str | None = None,
) -> Image.Image:
    """Draws a map's boxes over its photo, and below them what they are.

    Found boxes are drawn through in cyan, the largest thicker; marked ones are dashed in green. Where there are
    both, the legend gives the best overlap (IoU).

    Args:
        attribution: as in `attribution_picture`, and so are the four that follow.
        index: which image of the batch.
        photo: of the placement's size.
        placement: where on the photo the model looked.
        found: boxes in the photo's pixels.
        truth: what is marked in the photo, of the explained class.
        style: as in `attribution_picture`.

    Returns:
        RGB, as wide as the photo, and higher by the legend.
    """
    picture = attribution_picture(attribution, index, photo, placement, style=style)
    thick = max(2, round(min(picture.size) / 150))
    marked = truth.boxes if truth is not None else torch.empty(0, 4)
    for box in marked.tolist():
        outline(picture, box, MARKED, thick, dashed=True)
    for i, box in enumerate(found.boxes.tolist()):
        outline(picture, box, FOUND, thick if i == 0 else max(1, thick // 2))
    title = f"{target_title(attribution, index)}, by {method_title(attribution)}"
    lines: list[tuple[Color | None, bool, str]] = [(FOUND, False, _line_about(found, title))]
    if len(marked):
        best = float(box_iou(found.boxes, marked).max()) if len(found) else 0.0
        lines.append((MARKED, True, f"marked by a person; best overlap (IoU) {best:.2f}"))
    if is_cut(placement):
        lines.append(
            (None, False, "What lies outside the thin black and white frame the model did not see.")
        )
    return _with_legend(picture, lines)


def outline(
    picture: Image.Image,
    box: Sequence[float],
    color: Color,
    thick: int,
    *,
    dashed: bool = False,
) -> None:
    """Draws the edge of a half-open box inside it, with a dark line on either side that sets it off any photo."""
    x0, y0, x1, y1 = (round(side) for side in box)
    draw = ImageDraw.Draw(picture)
    ring = (x0, y0, max(x1 - 1, x0), max(y1 - 1, y0))
    draw.rectangle(ring, outline=HALO, width=thick + 2)
    inner = (ring[0] + 1, ring[1] + 1, max(ring[2] - 1, ring[0] + 1), max(ring[3] - 1, ring[1] + 1))
    if not dashed:
        draw.rectangle(inner, outline=color, width=thick)
        return
    dash = 4 * thick
    for x in range(inner[0], inner[2], 2 * dash):
        for y in (inner[1], inner[3] - thick + 1):
            draw.rectangle((x, y, min(x + dash, inner[2]), y + thick - 1), fill=color)
    for y in range(inner[1], inner[3], 2 * dash):
        for x in (inner[0], inner[2] - thick + 1):
            draw.rectangle((x, y, x + thick - 1, min(y + dash, inner[3])), fill=color)


def _line_about(found: Boxes, title: str) -> str:
    if not len(found):
        return f"no box of {title}: {STATUS_MEANINGS[found.status]}"
    share = percent(float(found.areas[0]) / (found.size[0] * found.size[1]))
    which = f"; the largest of {len(found)}" if len(found) > 1 else ""
    return f"found: {title}{which}, whose evidence covers {share} of the photo"


def _with_legend(
    picture: Image.Image, lines: Sequence[tuple[Color | None, bool, str]]
) -> Image.Image:
    """The picture above a white strip, with a sample of each line's colour before its text."""
    face = drawing.font(max(10, min(18, round(picture.width / 32))))
    tall, sample, pad = drawing.line_height(face), 2 * drawing.line_height(face), 6
    starts = [sample + 2 * pad if color else pad for color, _, _ in lines]
    texts = [
        drawing.wrap(text, face, picture.width - x - pad)
        for x, (_, _, text) in zip(starts, lines, strict=True)
    ]
    height = sum(len(text) for text in texts) * tall + 2 * pad
    sheet = Image.new("RGB", (picture.width, picture.height + height), drawing.PAPER)
    sheet.paste(picture, (0, 0))
    draw, y = ImageDraw.Draw(sheet), picture.height + pad
    for x, (color, dashed, _), text in zip(starts, lines, texts, strict=True):
        if color:
            frame = (pad, y + tall // 6, pad + sample, y + tall - tall // 6)
            outline(sheet, frame, color, max(2, tall // 8), dashed=dashed)
        for line in text:
            draw.text((x, y), line, font=face, fill=drawing.INK)
            y += tall
    return sheet
