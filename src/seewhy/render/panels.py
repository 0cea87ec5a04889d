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


def method_title(
    attribution: Attribution, face: drawing.Font | None = None, width: float = 0
) -> str:
    """Such as "Grad-CAM · layer4"; with a font, the layer's first parts give way where `width` pixels are too few."""
    if not attribution.layer:
        return attribution.title
    whole = title = f"{attribution.title} · {attribution.layer}"
    parts = attribution.layer.split(".")
    while face and face.getlength(title) > width and len(parts) > 1:
        parts = parts[1:]
        title = f"{attribution.title} · ….{'.'.join(parts)}"
    return title if not face or face.getlength(title) <= width else whole


def is_cut(placement: Placement) -> bool:
    """Whether the model did not see part of the photo."""
    x0, y0, x1, y1 = placement.box
    return (
        x0 >= 0.5
        or y0 >= 0.5
        or x1 <= placement.photo_size[1] - 0.5
        or y1 <= placement.photo_size[0] - 0.5
    )


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
