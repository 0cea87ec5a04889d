"""One map on one photo."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from ..data.placement import Placement
from ..data.rgb import Array as Pixels
from ..errors import InputError, did_you_mean
from ..maps import values as maps
from ..maps.attribution import Attribution
from . import drawing, reading
from .frames import frames_of, number_frames, side_by_side
from .painting import Array, in_gray, paint
from .scale import scaled
from .styles import WORDS, find_style

_TABLES = {
    "heatmap": "inferno",
    "jet": "jet",
    "map": "inferno",
    "signed": "RdBu_r",
    "grey": "gray",
    "mask": "gray",
}
_TABLES |= {"sure": "gray", "superpixels": "RdYlGn"}
_WITHOUT_ZERO = ("grey", "map", "sure", "superpixels")  # styles in which a map of zeros can be read
_IN_TILES = ("map", "sure", "superpixels")  # styles that show the places as they are


def default_style(attribution: Attribution, index: int) -> str:
    """Returns the paper's own, where the record has one, "signed" for negative values, else "heatmap".

    Example:
        >>> a = seewhy.explain(model, photo).attributions[0]
        >>> seewhy.render.default_style(a, 0)
        'heatmap'
    """
    needs_pixels = attribution.style == "grey"  # which fused maps have no more
    if attribution.style and not (needs_pixels and attribution.pixels is None):
        return attribution.style
    return _sided_style(attribution, index)


def _sided_style(attribution: Attribution, index: int) -> str:
    return (
        "signed" if attribution.signed and bool((attribution.map[index] < 0).any()) else "heatmap"
    )


def attribution_picture(
    attribution: Attribution,
    index: int,
    photo: Image.Image,
    placement: Placement,
    *,
    style: str | None = None,
    colormap: str | None = None,
    opacity: float = 0.5,
) -> Image.Image:
    """Paints the map of one image onto its photo.

    Styles, of which `default_style` chooses one:

    - "heatmap": the greyed photo, over it the positive evidence; the more evidence, the more opaque.
    - "jet": (1 - opacity) * photo + opacity * jet(heat), as in the papers.
    - "signed": red speaks for the target, blue against it, both on one scale; clear near zero.
    - "grey": the attribution of each pixel (of each colour where `pixels` is given), without the photo; zero is
      mid-grey, the scale is the 99.5th percentile of the magnitude. Colour pixels take no `colormap`.
    - "mask": the photo where the heat is at least half of the top colour's, the rest darkened.
    - "map": the map alone, one flat tile for each of its places.
    - "sure": white where the 95 % interval lies above zero, else black; for maps with an interval.
    - "superpixels": the five that weigh most, outlined, green for the target and red against it; for LIME's maps.

    A volume's or video's photo is of some of its frames side by side, each with its number, and so is its map.

    In every style heat is the positive part on the scale of `render.scale`: the brightest 1 % of the pixels share the
    top colour. What the model did not see is grey and dim, behind a dashed line. A map as fine as the input in which
    pixel noise dominates (more than a quarter of its variance is gone after a blur of 1.2 % of its longer side) is
    shown blurred by that much in the styles that lay it over the photo; the map itself stays as it is. A map that
    cannot be read (`maps.READABLE`) is not painted: the photo says its status and what that means. What else is said of
    a map (`Attribution.remarks`) stands on it in short, after the word "unsure", at the foot, or at the head where the
    strip covers less of the map.

    Args:
        attribution: The maps of a batch.
        index: Which image of the batch.
        photo: RGB, of the placement's size.
        placement: Where on the photo the model looked.
        style: One of `STYLES`, or None.
        colormap: A name that matplotlib knows, instead of the style's own.
        opacity: 0 (only the photo) to 1; for "heatmap", "jet", "signed" and "mask".

    Returns:
        RGB, of the photo's size.

    Raises:
        InputError: Style, colour map, opacity, index or the photo's size is not as above.

    Example:
        >>> ex = seewhy.explain(model, photo)
        >>> a, placement = ex.attributions[0], ex.placements[0]
        >>> seewhy.render.attribution_picture(a, 0, photo, placement, style="jet").size
        (16, 16)
    """
    _check(attribution, index, photo, placement, opacity)
    chosen = find_style(style) or default_style(attribution, index)
    table = _table(colormap or _table_name(chosen, attribution, index))
    pixels = np.asarray(photo.convert("RGB"), np.float32)  # (H, W, 3)
    status = attribution.status[index]
    head, notice = reading.notice(attribution, index)
    weights: Array | None = None
    if status in maps.READABLE:
        values = _values(attribution, index, placement, chosen)
        weights = np.abs(np.nan_to_num(values)).reshape(*values.shape[:2], -1).sum(2)
        if chosen not in _WITHOUT_ZERO and not np.nan_to_num(values).any():
            status = "empty"
            head = "empty"
            notice = "all of the evidence lies outside the photo"
    readable = status in maps.READABLE
    painted = paint(chosen, pixels, values, table, opacity) if readable else in_gray(pixels) * 0.9
    picture = _finish(painted, pixels, placement)
    if notice:
        lines_high = 24 if readable else 17
        drawing.label_strip(picture, head, notice, lines_high=lines_high, weights=weights)
    return picture


def seen_picture(photo: Image.Image, placement: Placement) -> Image.Image:
    """The photo in colour where the model saw it, grey and dim behind a dashed line where it did not.

    Example:
        >>> _, placement = model.preprocess(photo)
        >>> seewhy.render.seen_picture(photo, placement).size
        (16, 16)
    """
    pixels = np.asarray(photo.convert("RGB"), np.float32)
    return _finish(pixels, pixels, placement)


def color_bar(
    style: str = "heatmap",
    *,
    colormap: str | None = None,
    opacity: float = 0.5,
    length: int = 240,
    thickness: int = 12,
    vertical: bool = False,
    labels: tuple[str, str] | None = None,
) -> Image.Image:
    """The colours of a style from least to most (left to right, or bottom to top), with its ends in words, on white.

    The colours are those that the style gives on a mid-grey photo. `length` is the bar's in pixels; the picture is as
    large as bar and words need.

    Example:
        >>> seewhy.render.color_bar("signed", length=100).mode
        'RGB'
    """
    bar = bar_picture(style, colormap=colormap, opacity=opacity, length=length, thickness=thickness)
    low, high = labels or WORDS[find_style(style)]
    face = drawing.font(12)
    tall = drawing.line_height(face)
    longest = int(max(face.getlength(low), face.getlength(high))) + 1
    if vertical:
        sheet = Image.new("RGB", (thickness + 6 + longest, max(length, 2 * tall)), drawing.PAPER)
        sheet.paste(bar.transpose(Image.Transpose.ROTATE_90), (0, 0))
        places = ((thickness + 6, length - tall), (thickness + 6, 0))
    else:
        both = int(face.getlength(low) + face.getlength(high)) + 14
        sheet = Image.new("RGB", (max(length, both), thickness + 3 + tall), drawing.PAPER)
        sheet.paste(bar, (0, 0))
        places = ((0, thickness + 3), (sheet.width - int(face.getlength(high)) - 1, thickness + 3))
    draw = ImageDraw.Draw(sheet)
    for place, text in zip(places, (low, high), strict=True):
        draw.text(place, text, font=face, fill=drawing.FAINT)
    return sheet


def bar_picture(
    style: str,
    *,
    colormap: str | None = None,
    opacity: float = 0.5,
    length: int = 240,
    thickness: int = 12,
) -> Image.Image:
    """The bar of `color_bar` without words: `length` x `thickness` pixels."""
    style = find_style(style)
    colors = _bar_colors(style, _table(colormap or _TABLES[style]), opacity, length)
    return Image.fromarray(_bytes(colors)).resize((length, thickness))


def _check(
    attribution: Attribution, index: int, photo: Image.Image, placement: Placement, opacity: float
) -> None:
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity is {opacity}; accepted: 0 (only the photo) to 1")
    if not 0 <= index < len(attribution):
        raise InputError(
            f"index is {index}; accepted: 0 to {len(attribution) - 1}, the images of this attribution"
        )
    if photo.size[::-1] != tuple(placement.photo_size):
        raise InputError(
            f"photo is {photo.width} x {photo.height}, and the placement is for one of "
            f"{placement.photo_size[1]} x {placement.photo_size[0]}; give the photo that was explained"
        )


@lru_cache(maxsize=32)
def _table(name: str) -> Array:
    """The (256, 3) colours of a colour map, 0..255."""
    from matplotlib import colormaps

    if name not in colormaps:
        raise InputError(
            f"colormap {name!r} is not known{did_you_mean(name, colormaps)}; accepted: those of matplotlib"
        )
    return np.asarray(colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255, np.float32)


def _table_name(style: str, attribution: Attribution, index: int) -> str:
    return _TABLES[
        "signed" if style == "map" and _sided_style(attribution, index) == "signed" else style
    ]


def _values(attribution: Attribution, index: int, placement: Placement, style: str) -> Array:
    """What a style paints, on the photo: (H, W) in [0, 1], signed in [-1, 1], or (H, W, 3); NaN where unseen."""
    if style == "grey":
        return _pixel_values(attribution, index, placement)
    field = attribution.map[index].detach().float().cpu()
    if style == "sure":
        interval = attribution.interval
        if interval is None:
            raise InputError(
                f"style 'sure' needs a map with an interval, as of rise; {attribution.title} has none"
            )
        field = (field > interval[index]).float()
    frames = frames_of(
        field, attribution.image_size, fine=style not in _IN_TILES
    )  # (n, h, w), of a picture one
    if style in ("superpixels", "sure"):
        return _nearest(side_by_side(frames).numpy(), placement)
    signed = style == "signed" or (style == "map" and _sided_style(attribution, index) == "signed")
    if not signed:
        frames = frames.clamp(min=0)
    if style == "map":
        placed = _nearest(side_by_side(frames).numpy(), placement)
        half = 0.5 * scaled(placed) + 0.5 if signed else scaled(placed)
        return np.asarray(half, np.float32)
    drawn = side_by_side(_readable(frames, attribution.image_size))
    return scaled(placement.place(drawn.numpy()))


def _readable(frames: torch.Tensor, image_size: tuple[int, ...]) -> torch.Tensor:
    """Blurs (n, h, w) for display where it is as fine as the input and pixel noise dominates."""
    plain: Array = np.asarray(frames.numpy(), np.float32)
    (h, w), (height, width) = plain.shape[1:], image_size[-2:]
    if min(h, w) >= 16 and 2 * h >= height and 2 * w >= width:
        smooth = maps.smooth(frames, 0.012 * max(h, w))
        if (plain - smooth.numpy()).var() > 0.25 * plain.var():
            return smooth
    return frames


def _percentile(values: Pixels) -> float:
    """The 99.5th percentile of the magnitude, or the largest where that is zero, or 1."""
    size = np.abs(values).ravel()
    return float(np.percentile(size, 99.5)) or float(size.max()) or 1.0


def _pixel_values(attribution: Attribution, index: int, placement: Placement) -> Array:
    """(H, W) or (H, W, 3) in [-1, 1] on the photo, from `pixels` where they are grey or RGB, else from the map."""
    has_pixels = attribution.pixels is not None and attribution.pixels.shape[1] in (1, 3)
    source = (
        attribution.pixels[index]
        if attribution.pixels is not None and has_pixels
        else attribution.map[index][None]
    )
    each = []
    for one in source:
        frames = frames_of(one, attribution.image_size, fine=True)
        each.append(side_by_side(frames))
    channels = np.nan_to_num(
        torch.stack(each).detach().float().cpu().numpy(), posinf=0.0, neginf=0.0
    )  # (1 or 3, h, w)
    scaled = np.clip(channels / _percentile(channels), -1, 1)
    placed = [placement.place(channel) for channel in scaled]
    return placed[0] if len(placed) == 1 else np.stack(placed, axis=2)


def _nearest(field: Pixels, placement: Placement) -> Array:
    """Lays (h, w) onto the photo as flat tiles: (H, W), NaN where the model did not see."""
    x0, y0, x1, y1 = placement.box
    rows = np.floor(
        (np.arange(placement.photo_size[0]) + 0.5 - y0) * (field.shape[0] / (y1 - y0))
    ).astype(int)
    cols = np.floor(
        (np.arange(placement.photo_size[1]) + 0.5 - x0) * (field.shape[1] / (x1 - x0))
    ).astype(int)
    placed = field[np.clip(rows, 0, field.shape[0] - 1)][
        :, np.clip(cols, 0, field.shape[1] - 1)
    ].astype(np.float32)
    placed[(rows < 0) | (rows >= field.shape[0])] = np.nan
    placed[:, (cols < 0) | (cols >= field.shape[1])] = np.nan
    return np.asarray(placed, np.float32)


def _bar_colors(style: str, table: Array, opacity: float, length: int) -> Array:
    """(1, length, 3): the style's colours from least to most on a mid-grey photo."""
    if style == "superpixels":
        return np.asarray(table[np.linspace(0, 255, length).astype(int)][None], np.float32)
    lowest = -1.0 if style in ("signed", "grey", "sure") else 0.0
    photo = np.full((1, length, 3), 190, np.float32)
    return paint(
        style, photo, np.linspace(lowest, 1, length, dtype=np.float32)[None], table, opacity
    )


def _bytes(pixels: Array) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _finish(painted: Array, pixels: Array, placement: Placement) -> Image.Image:
    """The painted pixels (H, W, 1 or 3) where the model looked, the photo grey and dim elsewhere, and the frame."""
    height, width = placement.photo_size
    x0, y0, x1, y1 = placement.box
    rows = slice(
        *np.clip(np.ceil([y0 - 0.5, y1 - 0.5]), 0, height).astype(int)
    )  # pixels with their centre inside
    cols = slice(*np.clip(np.ceil([x0 - 0.5, x1 - 0.5]), 0, width).astype(int))
    whole = rows == slice(0, height) and cols == slice(0, width)
    if whole:
        done = np.broadcast_to(painted, pixels.shape)
    else:
        done = np.repeat(in_gray(pixels) * 0.55 + 12, 3, axis=2)
        done[rows, cols] = painted[rows, cols]
    picture = Image.fromarray(_bytes(np.asarray(done, np.float32)))
    if not whole:
        drawing.dashed_frame(picture, placement.box)
    if placement.frames:
        number_frames(picture, placement.frames)
    return picture
