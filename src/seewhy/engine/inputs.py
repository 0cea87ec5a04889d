"""The numbers of pictures as a model takes them: floats wherever it can, which have gradients and do not round."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..remarks import warn
from .black_box import BlackBox
from .call import Bounds, Call
from .exchange import said_alike
from .keys import Remembered
from .pictures import check_input
from .readings import checked_later, noted, reading_together, readings_of_the_pass
from .weights import place_of_weights

_WHOLE = 0.01  # how far from whole the numbers of a picture may be that was scaled and scaled back
_refusing: Remembered[list[bool]] = Remembered()


def settled_input(call: Call, x: Tensor) -> tuple[Call, Tensor]:
    """The call, and the pictures (N, C, H, W) as floats free of the caller's graph; what is settled stays as it is.

    Whole numbers go in as floats: noise and masks are then not rounded. Where the model takes whole numbers alone, or
    says something else of the floats (it may scale whole numbers by itself), the call rounds what goes in. So it does
    with floats that are pixel values, 0 to 255, where the model takes no floats.

    Raises:
        InputError: x is no batch of pictures.
    """
    if _is_settled(call, x):
        return call, x
    check_input(x)
    floats = x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().float()
    if not (call.whole_numbers or x.dtype == torch.bool or isinstance(call.module, BlackBox)):
        call.check_rows(len(x))
        if x.is_floating_point():
            rounds, whole = _rounds_floats(call, floats), torch.uint8
        else:
            rounds, whole = _tells_whole(call, floats, x.dtype), x.dtype
        call = replace(call, whole_numbers=whole) if rounds else call
    _note_settled(call, floats)
    return call, floats


_SETTLED = "settled input"  # of a pass


def _is_settled(call: Call, x: Tensor) -> bool:
    """Whether this call and these pictures were settled in the pass that is open, and not written to since."""
    readings = readings_of_the_pass()
    if readings is None or not isinstance(x, Tensor) or x.is_inference():
        return False
    kept = readings.kept.get((_SETTLED, id(x)))
    if not isinstance(kept, tuple):
        return False
    return kept[0] is call and kept[1] is x and bool(kept[2] == x._version)


def _note_settled(call: Call, floats: Tensor) -> None:
    readings = readings_of_the_pass()
    if readings is not None and not floats.is_inference():
        readings.kept[_SETTLED, id(floats)] = call, floats, floats._version


def _rounds_floats(call: Call, floats: Tensor) -> bool:
    """Whether floats are pixel values, and the model takes those as whole numbers alone.

    A model that has taken floats in a pass need not be asked again, nor its pictures looked at.
    """
    readings = readings_of_the_pass()
    if readings is None:
        return _are_pixels(floats[0]) and _refuses_floats(call, floats)
    known = _refusing.get(call.module, call.asked, list)
    if known:
        return known[0]
    if _are_pixels(floats[0]):
        return _refuses_floats(call, floats)
    readings.afterwards(partial(_note_taken, known))
    return False


def _note_taken(known: list[bool]) -> None:
    if not known:
        known.append(False)


def _tells_whole(call: Call, floats: Tensor, whole: torch.dtype) -> bool:
    """Whether the model says something else of the most varied picture's whole numbers than of them as floats."""
    image = int(floats.flatten(1).std(1, correction=0).argmax())
    one, picture = call.rows([image]), floats[image : image + 1]
    with _same_draws(call):
        return _answers_differ(one, replace(one, whole_numbers=whole), picture)


def _are_pixels(picture: Tensor) -> bool:
    """Whether floats (C, ...) are pixel values as a file holds them: whole, 0 to 255, some above 1."""
    apart = (picture - picture.round()).abs().max()
    with reading_together():
        readings = [noted(value) for value in (*torch.aminmax(picture), apart)]
        low, high, most = (float(reading.tensor()) for reading in readings)
    return low > -_WHOLE and 1 < high < 255 + _WHOLE and most < _WHOLE


def _refuses_floats(call: Call, floats: Tensor) -> bool:
    """Whether the model takes the first picture's values as whole numbers alone; asked once."""

    known = _refusing.get(call.module, call.asked, list)
    if not known:
        one, picture = call.rows([0]), floats[:1]
        with _same_draws(call):
            known.append(
                not _takes_picture(one, picture)
                and _takes_picture(replace(one, whole_numbers=torch.uint8), picture)
            )
    return known[0]


def _takes_picture(call: Call, picture: Tensor) -> bool:
    try:
        call.answer(picture)
    except Exception:  # what a model is not made for fails with whatever it likes
        return False
    return True


def _same_draws(call: Call) -> AbstractContextManager[None]:
    """Leaves the random states as they are, whatever the model draws."""
    weights = place_of_weights(call.module)
    return torch.random.fork_rng(
        devices=[weights[0]] if weights and weights[0].type == "cuda" else []
    )


def _answers_differ(floats: Call, rounding: Call, picture: Tensor) -> bool:
    """Whether the model takes the picture's whole numbers, and not the same numbers as floats."""
    try:
        said = rounding.answer(picture)
    except Exception:  # what whole numbers are nothing for fails with whatever it likes
        return False
    try:
        return not said_alike(floats.answer(picture), said) and said_alike(
            rounding.answer(picture), said
        )
    except Exception:  # the same
        return True


def warn_of_range(x: Tensor, bounds: Bounds | None) -> None:
    """Warns of pictures whose numbers cannot have come from the preprocessing that the model has.

    That is sure where they reach beyond its range by more than the range, or lie within one of the 256 levels of it.

    Args:
        x: (N, C, H, W).
        bounds: of what the preprocessing gives; None where that is not known.
    """
    if bounds is None or not x.numel() or x.is_complex():
        return
    ranges = *torch.aminmax(x.detach()), bounds[0].min(), bounds[1].max()
    checked_later(ranges, lambda *read: _warn_beyond(*map(float, read)))


def _warn_beyond(low: float, high: float, lowest: float, highest: float) -> None:
    spread = highest - lowest
    beyond = max(lowest - low, high - highest)
    if beyond > spread or 0 < high - low <= spread / 255:
        warn(
            f"x ranges from {low:.3g} to {high:.3g}, and the model's preprocessing gives {lowest:.3g} to "
            f"{highest:.3g}: give pictures or paths to seewhy.explain, which prepares them, or a tensor that is "
            "scaled and normalised as the model's preprocess does"
        )
