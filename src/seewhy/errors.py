"""What seewhy raises: one line that names the argument, its value, what is accepted and the way out.

SeewhyError
├── InputError (ValueError)
│   ├── ImageError       a picture that cannot be read
│   ├── ModelError       a model that cannot be loaded, or that does not answer as a classifier should
│   ├── LayerError       a layer that is not there, did not run, or is no picture
│   └── TargetError      something to explain that the output does not have
├── ArgumentTypeError (TypeError)
├── MissingPackageError (ImportError)
└── MissingExtraError (ImportError)
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class SeewhyError(Exception):
    """Base of every error that seewhy raises on purpose.

    Example:
        >>> try:
        ...     seewhy.load_model("efficientnet_lite")
        ... except seewhy.SeewhyError as error:
        ...     print(error)
        model 'efficientnet_lite' is not known; did you mean 'efficientnet_lite0'? ...
    """


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
    """A training cannot go on; what it had saved stays.

    Example:
        >>> issubclass(seewhy.wsol.TrainingError, seewhy.SeewhyError)
        True
    """


class ArgumentTypeError(SeewhyError, TypeError):
    """An argument has a type that is not accepted."""


class MissingPackageError(SeewhyError, ImportError):
    """A package that only this needs is not installed."""

    def __init__(self, feature: str, package: str) -> None:
        super().__init__(
            f"{feature} needs {package}, which is not installed: pip install {package}"
        )


class MissingExtraError(SeewhyError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the extra '{extra}': pip install 'seewhy[{extra}]'")


class SeewhyWarning(UserWarning):
    """The result stands, and there is something to know about it.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always", seewhy.SeewhyWarning)
        ...     a = seewhy.explain(model, photo, methods="rise", options={"rise": {"samples": 8}})
        >>> print(told[-1].message)
        RISE of ...: its error is ... % of its signal after 8 samples; take more
    """


def did_you_mean(name: str, known: Iterable[str], *, most: int = 5) -> str:
    """Returns "; did you mean 'a' or 'b'?" for the known names nearest to `name`, or an empty string.

    Nearest are those of which it is a word ("cat": "tiger cat"), then those with words that begin so, then those that
    are written alike.
    """
    lowered = {known_name.lower(): known_name for known_name in known}
    near = _nearest(name.lower(), list(lowered))[:most] if _words(name) else []
    return (
        "; did you mean " + " or ".join(f"'{lowered[low]}'" for low in near) + "?" if near else ""
    )


def _nearest(name: str, known: list[str]) -> list[str]:
    """Those with all words of the name, else with words that begin so, else those that are written alike."""
    asked = _words(name)
    whole = [each for each in known if asked <= _words(each)]
    if whole:
        return whole
    begun = [each for each in known if all(_begins(a, each) for a in asked)]
    alike = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    within = [each for each in known if name in each]
    return begun or list(dict.fromkeys([*alike, *within]))[:3]


def _begins(word: str, name: str) -> bool:
    return any(each.startswith(word) for each in _words(name))


def _words(name: str) -> set[str]:
    return set(re.findall(r"(?:[^\W_]|\.)+", name.lower()))  # a layer's dotted name is one
