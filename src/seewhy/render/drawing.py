"""Text, strips and frames on pictures."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ..safe_names import shown

Font = ImageFont.FreeTypeFont

INK = (28, 32, 38)
FAINT = (98, 106, 117)
RULE = (226, 229, 233)
ACCENT = (49, 99, 165)
WARN = (138, 75, 0)
PAPER = (255, 255, 255)


@lru_cache(maxsize=64)
def font(size: int, *, bold: bool = False) -> Font:
    """DejaVu Sans, which matplotlib brings along, at `size` pixels."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def line_height(face: Font) -> int:
    """The distance between two lines of text in pixels."""
    ascent, descent = face.getmetrics()
    return ascent + descent


def shorten(text: str, face: Font, width: float) -> str:
    """Cuts one line of text to `width` pixels, with an ellipsis where something is lost; "" where nothing fits."""
    line = shown(" ".join(text.split()))
    if face.getlength(line) <= width:
        return line
    fits, too_long = -1, len(line)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if face.getlength(line[:middle].rstrip(" ,;:(") + "…") <= width:
            fits = middle
        else:
            too_long = middle
    return "" if fits < 0 else line[:fits].rstrip(" ,;:(") + "…"


def wrap(text: str, face: Font, width: float) -> list[str]:
    """Breaks text into lines of at most `width` pixels; a word that is longer is shortened."""
    lines: list[str] = []
    for word in map(shown, text.split()):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(shorten(word, face, width))
    return lines


def label_strip(
    picture: Image.Image,
    head: str,
    text: str,
    *,
    lines_high: int = 17,
    weights: npt.NDArray[np.float32] | None = None,
) -> None:
    """Writes "head: text" on a dark strip at the picture's foot, as large as fits; only `head` where space is short.

    Args:
        picture: is drawn on.
        head: is said in any case.
        text: is said where there is room.
        lines_high: a line is at most one of so many that would fill the picture.
        weights: (H, W), what is not to be covered: the strip is at the head where it covers less of that.
    """
    width, height = picture.size
    pad = max(1, min(8, width // 30))
    for size in range(max(9, min(18, round((width * height) ** 0.5 / lines_high))), 8, -1):
        lines = wrap(f"{head}: {text}", font(size), width - 2 * pad)
        if len(lines) * line_height(font(size)) + 2 * pad <= 0.6 * height and not any(
            "…" in line for line in lines
        ):
            break
    else:
        size = max(5, min(10, height - 3))
        while size > 6 and font(size).getlength(head) > width - 2 * pad:
            size -= 1
        lines = [shorten(head, font(size), width - 2 * pad)]
    tall = min(height, len(lines) * line_height(font(size)) + 2 * pad)
    strip = Image.new("RGB", (width, tall), (24, 26, 30))
    draw = ImageDraw.Draw(strip)
    for i, line in enumerate(lines):
        draw.text(
            (pad, pad + i * line_height(font(size))), line, font=font(size), fill=(255, 255, 255)
        )
    picture.paste(strip, (0, _top_of_strip(tall, height, weights)))


def _top_of_strip(tall: int, height: int, weights: npt.NDArray[np.float32] | None) -> int:
    """Where a strip begins: at the foot, or at the head where it covers less there."""
    at_foot = weights is None or weights[:tall].sum() >= weights[-tall:].sum()
    return height - tall if at_foot else 0


def dashed_frame(picture: Image.Image, box: tuple[float, float, float, float]) -> None:
    """Draws the sides of `box` (x0, y0, x1, y1) that lie within the picture as thin black and white dashes."""
    wide, high = picture.size
    x0, y0, x1, y1 = (round(side) for side in box)
    left = max(0, x0)
    top = max(0, y0)
    right = min(wide, x1) - 1
    bottom = min(high, y1) - 1
    if right < left or bottom < top:
        return
    thick = max(1, round(min(wide, high) / 300))
    draw = ImageDraw.Draw(picture)
    sides = (
        (y0 > 0, (left, top), (right, top)),
        (y1 < high, (left, bottom), (right, bottom)),
        (x0 > 0, (left, top), (left, bottom)),
        (x1 < wide, (right, top), (right, bottom)),
    )
    for lies_within, start, stop in sides:
        if lies_within:
            _dashed_line(draw, start, stop, thick)


def _dashed_line(
    draw: ImageDraw.ImageDraw, start: tuple[int, int], stop: tuple[int, int], thick: int
) -> None:
    """A line along a row or a column of pixels, white and black in turns."""
    dash = 4 * thick + 1
    along = 0 if start[1] == stop[1] else 1
    for i, a in enumerate(range(start[along], stop[along] + 1, dash)):
        b = min(a + dash - 1, stop[along])
        ends = (a, start[1], b, start[1]) if along == 0 else (start[0], a, start[0], b)
        draw.line(ends, fill=(255, 255, 255) if i % 2 == 0 else (0, 0, 0), width=thick)
