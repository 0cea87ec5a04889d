"""Metrics as people type them: "deletion", or "deletion:step=1792,output=logit"."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from ..errors import InputError
from ..metrics.base import ImageMetric
from ..metrics.catalog import find_metric
from . import parsing

_Kind = TypeVar("_Kind", bound=ImageMetric)


def metric_of(text: str, kind: type[_Kind]) -> _Kind:
    """The metric that "NAME" or "NAME:OPTION=VALUE,..." names, of a kind.

    Raises:
        InputError: no such metric, no such option, or a value that it does not take.
    """
    name, _, settings = text.partition(":")
    found = find_metric(name, kind)
    if not settings:
        return found
    pairs = [setting.partition("=") for setting in settings.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise InputError(
            f"metric {text!r} is not NAME:OPTION=VALUE,...; such as deletion:step=1792,output=logit"
        )
    make: Callable[..., _Kind] = type(found)
    options = _typed_options(name, {key.strip(): value for key, _, value in pairs}, type(found))
    try:
        return make(**options)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"metric {text!r} cannot be made: {str(error).splitlines()[0]}") from error


def _typed_options(
    name: str, texts: Mapping[str, str], kind: type[ImageMetric]
) -> dict[str, object]:
    """The values that texts stand for, by the defaults of a kind of metric."""
    parameters = inspect.signature(kind).parameters
    defaults = {key: each.default for key, each in parameters.items()}
    return {
        key: parsing.value(text, of=f"{name}:{key}", default=defaults.get(key))
        for key, text in texts.items()
    }
