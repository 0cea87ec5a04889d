"""What seewhy raises: one line that names the argument, its value, what is accepted and the way out.

SeewhyError
├── InputError (ValueError)
│   ├── ImageError       a picture that cannot be read
│   ├── ModelError       a model that cannot be loaded, or that does not answer as a classifier should
│   ├── LayerError       a layer that is not there, did not run, or is no picture
│   └── TargetError      something to explain that the output does not have
├── ArgumentTypeError (TypeError)
└── MissingExtraError (ImportError)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SeewhyError(Exception):
    """Base of every error that seewhy raises on purpose."""


class InputError(SeewhyError, ValueError):
    """An argument has the right type and a value that cannot be used."""


class ImageError(InputError):
    """A picture cannot be read, or has the wrong shape."""


class ModelError(InputError):
    """A model cannot be loaded, or does not answer as a classifier should."""


class LayerError(InputError):
    """A layer is not in the model, did not run, or holds nothing picture-shaped."""


class TargetError(InputError):
    """The output has nothing like the target."""


class TrainingError(SeewhyError):
    """A training cannot go on; what it had saved stays."""


class ArgumentTypeError(SeewhyError, TypeError):
    """An argument has a type that is not accepted."""


class MissingExtraError(SeewhyError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the extra '{extra}': pip install 'seewhy[{extra}]'")


class SeewhyWarning(UserWarning):
    """The result stands, and there is something to know about it."""


def did_you_mean(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """Returns "; did you mean 'a' or 'b'?" for the known names nearest to `name`, or an empty string."""
    lowered = {known_name.lower(): known_name for known_name in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=most, cutoff=0.6)
    if name:
        near += [low for low in lowered if name.lower() in low and low not in near][: most - len(near)]
    if not near:
        return ""
    return "; did you mean " + " or ".join(f"'{lowered[low]}'" for low in near) + "?"
