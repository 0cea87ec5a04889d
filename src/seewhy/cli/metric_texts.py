"""Metrics as people type them: "deletion", or "deletion:step=1792,output=logit"."""

from __future__ import annotations

import inspect
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
    defaults = {
        key: each.default for key, each in inspect.signature(type(found)).parameters.items()
    }
    named = {key.strip(): value for key, _, value in pairs}
    options = {
        key: parsing.value(value, of=f"{name}:{key}", default=defaults.get(key))
        for key, value in named.items()
    }
    try:
        return type(found)(**options)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"metric {text!r} cannot be made: {str(error).splitlines()[0]}") from error
