"""What sheet and report share: sizes, titles and the order of panels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from PIL import Image

from ..data.placement import Placement
from ..errors import InputError
from ..maps.attribution import Attribution, Prediction
from . import drawing

Row = list[Attribution | None]
_SQUASHED = 0.02  # by how much the scales across and down differ; less comes of whole pixels


def panel_size(photo_size: tuple[int, int], side: int, *, longest: int) -> tuple[int, int]:
    """(width, height) of a panel with the area of a square of `side` pixels in the shape of a (height, width) photo."""
    height, width = photo_size
    scale = side / (width * height) ** 0.5
    scale *= min(1.0, longest / (scale * max(width, height)))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resized(
    photo: Image.Image, placement: Placement, size: tuple[int, int]
) -> tuple[Image.Image, Placement]:
    """The photo at (width, height), and where the model looked on it."""
    shown = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=3)
    return shown, placement.scaled(size[::-1])


def arrange(attributions: Sequence[Attribution], index: int) -> list[Row]:
    """Rows of (method, layer), columns of targets, each in order of appearance; None where there is no such map.

    With one target there is a single column. Maps that agree in all three (other options) get rows of their own.
    """
    columns: dict[tuple[str, str], int] = {}
    rows: dict[tuple[str, str | None, int], dict[int, Attribution]] = {}
    seen: Counter[tuple[str, str | None, int]] = Counter()
    for attribution in attributions:
        if not 0 <= index < len(attribution):
            raise InputError(
                f"index is {index}; accepted: 0 to {len(attribution) - 1}, the images of each attribution"
            )
        target = (attribution.target, attribution.labels[index])
        column = columns.setdefault(target, len(columns))
        cell = (attribution.title, attribution.layer, column)
        rows.setdefault((attribution.title, attribution.layer, seen[cell]), {})[column] = (
            attribution
        )
        seen[cell] += 1
    return [[cells.get(i) for i in range(len(columns))] for cells in rows.values()]


def percent(probability: float) -> str:
    """Such as "43 %"; "<1 %" and ">99 %" where rounding would say nothing or certainty."""
    if 0 < probability < 0.005:
        return "<1 %"
    return ">99 %" if 0.995 <= probability < 1 else f"{100 * probability:.0f} %"


def sureness(prediction: Prediction) -> str:
    """Such as "43 %"; "score 3.1" where the model gives no probability."""
    return (
        f"score {prediction.score:.3g}"
        if prediction.probability is None
        else percent(prediction.probability)
    )


def method_title(attribution: Attribution) -> str:
    """Such as "Grad-CAM · last stage, 7 x 7 (layer4)"."""
    layer = layer_words(attribution)
    return f"{attribution.title} · {layer}" if layer else attribution.title


def layer_words(attribution: Attribution) -> str:
    """Such as "last stage, 7 x 7 (layer4)"; "" where a map is over no layer."""
    layer, title = attribution.layer or "", attribution.layer_title
    return f"{title} ({layer})" if title and layer else layer


def layer_lines(attribution: Attribution, face: drawing.Font, width: float) -> list[str]:
    """The words on the layer, in two lines where they are wider than `width` pixels, none where there are none.

    The first parts of a technical name that is too long by itself give way.
    """
    whole = layer_words(attribution)
    if face.getlength(whole) <= width:
        return [whole] if whole else []
    layer = shown = attribution.layer or ""
    parts = layer.split(".")
    while face.getlength(shown) > width and len(parts) > 1 and " + " not in layer:
        parts = parts[1:]
        shown = f"….{'.'.join(parts)}"
    fits = face.getlength(shown) <= width
    return [*filter(None, [attribution.layer_title]), shown if fits else layer]


def is_cut(placement: Placement) -> bool:
    """Whether the model did not see part of the photo."""
    x0, y0, x1, y1 = placement.box
    return (
        x0 >= 0.5
        or y0 >= 0.5
        or x1 <= placement.photo_size[1] - 0.5
        or y1 <= placement.photo_size[0] - 0.5
    )


def seen_words(placement: Placement, input_size: Sequence[int] | None = None) -> str:
    """What the model saw of a photo, such as "The model saw the framed part, at 224 x 224".

    Args:
        placement: where on the photo it looked.
        input_size: (H, W) of its input.
    """
    if placement.frames:
        return "Frames of what the model saw"
    part = "the framed part" if is_cut(placement) else "the whole photo"
    x0, y0, x1, y1 = placement.box
    height, width = placement.photo_size
    beyond = max(-x0, -y0, x1 - width, y1 - height) >= 0.5
    seen = f"The model saw {part}{', with a border around it' if beyond else ''}"
    if input_size is None:
        return seen
    h, w = input_size
    squashed = abs(w * (y1 - y0) / (h * (x1 - x0)) - 1) > _SQUASHED
    return f"{seen}, {'squashed to' if squashed else 'at'} {w} x {h}"


def target_percent(attribution: Attribution, index: int) -> str:
    """The probability of what is explained, "" where it is no class."""
    probability = attribution.probabilities[index]
    return "" if probability is None else percent(probability)


def target_title(attribution: Attribution, index: int) -> str:
    """Such as "tabby cat 43 %"."""
    return f"{attribution.labels[index]} {target_percent(attribution, index)}".strip()


def headline(predictions: Sequence[Prediction]) -> str:
    """The model's first answer in words."""
    if not predictions:
        return "Where the evidence lies"
    return f"The model says: {predictions[0].label} ({sureness(predictions[0])})"
