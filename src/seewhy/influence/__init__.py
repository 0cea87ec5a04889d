"""Which training pictures taught a model its answer: influence functions, their relatives, and an index of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asking import InfluenceQuery, Influential, Suspect
    from .building import Cost
    from .evaluation import leave_one_out, linear_datamodelling_score, mislabel_curve, tail_patch
    from .index import InfluenceIndex
    from .matching import Matches, match_regions
    from .problem import Problem, cross_entropy
    from .solvers import SOLVERS, find_solver
    from .suspects import mislabelled

# public name -> where it lives; imported when first asked for
_WHERE = {
    "Cost": "building",
    "InfluenceIndex": "index",
    "InfluenceQuery": "asking",
    "Influential": "asking",
    "Matches": "matching",
    "Problem": "problem",
    "SOLVERS": "solvers",
    "Suspect": "asking",
    "cross_entropy": "problem",
    "find_solver": "solvers",
    "leave_one_out": "evaluation",
    "linear_datamodelling_score": "evaluation",
    "match_regions": "matching",
    "mislabel_curve": "evaluation",
    "mislabelled": "suspects",
    "tail_patch": "evaluation",
}

__all__ = [
    "Cost",
    "InfluenceIndex",
    "InfluenceQuery",
    "Influential",
    "Matches",
    "Problem",
    "SOLVERS",
    "Suspect",
    "cross_entropy",
    "find_solver",
    "leave_one_out",
    "linear_datamodelling_score",
    "match_regions",
    "mislabel_curve",
    "mislabelled",
    "tail_patch",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
