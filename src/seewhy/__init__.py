"""seewhy shows why an image model gave its answer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import data, images, influence, localize, maps, masking, methods, metrics, render, targets, wsol
    from .errors import SeewhyError, SeewhyWarning
    from .evaluating import evaluate
    from .evaluation import Evaluation
    from .explaining import explain, list_layers
    from .explanation import Explanation
    from .images import IMAGENET, Preprocess
    from .localising import evaluate_localisation
    from .methods import METHODS
    from .models.load import load_model
    from .models.model import Model, wrap
    from .results import Attribution, Prediction
    from .trace import Trace

__version__ = "0.1.0"

# public name -> where it lives; imported when first asked for, so that `import seewhy` costs nothing
_WHERE = {
    "Attribution": "results",
    "Evaluation": "evaluation",
    "Explanation": "explanation",
    "IMAGENET": "images",
    "METHODS": "methods",
    "Model": "models.model",
    "Prediction": "results",
    "Preprocess": "images",
    "SeewhyError": "errors",
    "SeewhyWarning": "errors",
    "Trace": "trace",
    "evaluate": "evaluating",
    "evaluate_localisation": "localising",
    "explain": "explaining",
    "list_layers": "explaining",
    "load_model": "models.load",
    "wrap": "models.model",
}
_MODULES = (
    "data",
    "images",
    "influence",
    "localize",
    "maps",
    "masking",
    "methods",
    "metrics",
    "render",
    "targets",
    "wsol",
)

__all__ = [
    "Attribution",
    "Evaluation",
    "Explanation",
    "IMAGENET",
    "METHODS",
    "Model",
    "Prediction",
    "Preprocess",
    "SeewhyError",
    "SeewhyWarning",
    "Trace",
    "data",
    "evaluate",
    "evaluate_localisation",
    "explain",
    "images",
    "influence",
    "list_layers",
    "load_model",
    "localize",
    "maps",
    "masking",
    "methods",
    "metrics",
    "render",
    "targets",
    "wrap",
    "wsol",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
