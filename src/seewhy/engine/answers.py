"""Which part of what a model returns is its answer: found where there is one, and asked for where there are several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor

from ..arguments import brief
from ..errors import ArgumentTypeError, ModelError, SeewhyError

Gives = Literal[
    "logits", "probabilities", "sigmoids", "score", "embedding", "records"
]  # what its numbers are
Answer = Any  # what a model returns, or a part of it: whatever its author likes
OutputAdapter = Callable[[Answer], Answer]
OutputLike = OutputAdapter | str | int
_KNOWN = ("logits", "out", "output", "scores")


def main_output(raw: Answer) -> Answer:
    """The tensor that a model's output is about: itself, `.logits`, `["out"]`, or the one that stands out of a tuple.

    That is the only tensor with a row for each image, beside a loss, or the first if it alone is (N, K). What holds
    boxes, several tensors of equal standing, or nothing that is known, is returned as it is, for a callable target to
    read.
    """
    if isinstance(raw, Mapping):
        if has_boxes(raw):
            return raw
        for key in _KNOWN:
            if isinstance(raw.get(key), Tensor):
                return raw[key]
        return _only_table(list(raw.values()), raw)
    if isinstance(getattr(raw, "logits", None), Tensor):
        return raw.logits
    if isinstance(raw, tuple | list):
        return _first_of_equals(list(raw), raw)
    return raw


def has_boxes(raw: object) -> bool:
    """Whether an answer is a detector's: a record with boxes, or a list with one for each image."""
    records = raw if isinstance(raw, tuple | list) and raw else [raw]
    return all(
        isinstance(one, Mapping) and ("boxes" in one or "pred_boxes" in one) for one in records
    )


def _only_table(parts: list[object], raw: object) -> object:
    tensors = _tables(parts)
    return tensors[0] if len(tensors) == 1 else raw


def _first_of_equals(parts: list[object], raw: object) -> object:
    tensors = _tables(parts)
    scores = [part for part in tensors if part.ndim == 2]
    return (
        scores[0]
        if scores and len(scores) == 1 and scores[0] is tensors[0]
        else _only_table(parts, raw)
    )


def _tables(parts: list[object]) -> list[Tensor]:
    """The tensors that may have a row for each image; a loss has none."""
    return [part for part in parts if isinstance(part, Tensor) and part.ndim]


def as_adapter(output: OutputLike) -> OutputAdapter:
    """What takes the answer out of what a model returns: a function, or the name or number of one of its parts.

    Raises:
        ArgumentTypeError: it is nothing of that.
    """
    if isinstance(output, str | int) and not isinstance(output, bool):
        return partial(_part_by_name, output)
    if not callable(output):
        given = f"a {type(output).__name__}" if isinstance(output, Tensor) else repr(output)[:80]
        raise ArgumentTypeError(
            f"output={given} cannot be called; give a function of the model's output, or the name or number of a part"
        )
    return output


def taken_out(output: OutputLike, raw: object) -> Answer:
    """The part of what a model returned that is meant.

    Raises:
        ModelError: there is none, or the user's function fails on it.
    """
    adapter = as_adapter(output)
    try:
        return adapter(raw)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        if isinstance(error, SeewhyError):
            raise
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"output={brief(output)} raised {type(error).__name__}: {reason}; it is called with what the model returns"
        ) from error


def _part_by_name(which: str | int, raw: object) -> object:
    parts = _parts_by_name(raw)
    if isinstance(which, str) and which in parts:
        return parts[which]
    if isinstance(which, int) and -len(parts) <= which < len(parts):
        return list(parts.values())[which]
    raise ModelError(f"output={which!r} is no part of what the model returns: {described(raw)}")


def _parts_by_name(raw: object) -> Mapping[object, object]:
    if isinstance(raw, Mapping):
        return raw
    if isinstance(raw, tuple | list):
        return dict(zip(getattr(raw, "_fields", range(len(raw))), raw, strict=True))
    return dict(getattr(raw, "__dict__", {}))


def described(raw: object) -> str:
    """What a model returns, in words: "(2, 8) as 0, (2, 3) as 1", "a dict"."""
    told = [
        f"{tuple(part.shape)} as {name!r}"
        for name, part in _parts_by_name(raw).items()
        if isinstance(part, Tensor)
    ]
    if told:
        return ", ".join(told[:6])
    return f"a {type(raw).__name__}"
