"""seewhy shows why an image model gave its answer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import data, influence, maps, methods, metrics, render
    from . import data as images
    from .data.preprocess import IMAGENET, Preprocess
    from .engine import masking, targets
    from .engine.call import Call
    from .engine.trace import Trace
    from .errors import SeewhyError, SeewhyWarning
    from .maps import boxes as localize
    from .maps.attribution import Attribution, Prediction
    from .methods.catalog import METHODS
    from .methods.explain import explain, explain_batches, list_layers
    from .methods.explanation import Explanation, ExplanationWriter
    from .metrics.evaluate import evaluate
    from .metrics.evaluation import Evaluation
    from .metrics.localization.evaluate import evaluate_localization
    from .metrics.localization.evaluate_composed import evaluate_composed
    from .models import training as wsol
    from .models.load import load_model
    from .models.model import Model, wrap
    from .opening import open

# public name -> where it lives; imported when first asked for, so that `import seewhy` costs nothing
_WHERE = {
    "Attribution": "maps.attribution",
    "Call": "engine.call",
    "Evaluation": "metrics.evaluation",
    "Explanation": "methods.explanation",
    "ExplanationWriter": "methods.explanation",
    "IMAGENET": "data.preprocess",
    "METHODS": "methods",
    "Model": "models.model",
    "Prediction": "maps.attribution",
    "Preprocess": "data.preprocess",
    "SeewhyError": "errors",
    "SeewhyWarning": "errors",
    "Trace": "engine.trace",
    "evaluate": "metrics.evaluate",
    "evaluate_composed": "metrics.localization.evaluate_composed",
    "evaluate_localization": "metrics.localization.evaluate",
    "explain": "methods.explain",
    "explain_batches": "methods.explain",
    "list_layers": "methods.explain",
    "load_model": "models.load",
    "open": "opening",
    "wrap": "models.model",
}
_MODULES = {
    "data": "data",
    "images": "data",  # reading pictures is the first thing that the room of data does
    "influence": "influence",
    "localize": "maps.boxes",
    "maps": "maps",
    "masking": "engine.masking",
    "methods": "methods",
    "metrics": "metrics",
    "render": "render",
    "targets": "engine.targets",
    "wsol": "models.training",
}

__all__ = [
    "Attribution",
    "Call",
    "Evaluation",
    "Explanation",
    "ExplanationWriter",
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
    "evaluate_composed",
    "evaluate_localization",
    "explain",
    "explain_batches",
    "images",
    "influence",
    "list_layers",
    "load_model",
    "localize",
    "maps",
    "masking",
    "methods",
    "metrics",
    "open",
    "render",
    "targets",
    "wrap",
    "wsol",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata  # takes longer than all else here

        value: Any = metadata.version(__name__)
    elif name in _WHERE:
        value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
