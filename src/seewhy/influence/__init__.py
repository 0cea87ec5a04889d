"""Which training pictures taught a model its answer: influence functions, their relatives, and an index of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .answers.matching import Matches, match_regions
    from .answers.mislabeled import mislabeled
    from .answers.trust import leave_one_out, linear_datamodeling_score, mislabel_curve, tail_patch
    from .index.building import Cost
    from .index.index import InfluenceIndex
    from .index.questions import InfluenceQuery, Influential, Suspect
    from .problem import Problem, cross_entropy
    from .solvers.catalog import SOLVERS, find_solver

# public name -> where it lives; imported when first asked for
_WHERE = {
    "Cost": ".index.building",
    "InfluenceIndex": ".index.index",
    "InfluenceQuery": ".index.questions",
    "Influential": ".index.questions",
    "Matches": ".answers.matching",
    "Problem": ".problem",
    "SOLVERS": ".solvers",
    "Suspect": ".index.questions",
    "cross_entropy": ".problem",
    "find_solver": ".solvers",
    "leave_one_out": ".answers.trust",
    "linear_datamodeling_score": ".answers.trust",
    "match_regions": ".answers.matching",
    "mislabel_curve": ".answers.trust",
    "mislabeled": ".answers.mislabeled",
    "tail_patch": ".answers.trust",
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
    "linear_datamodeling_score",
    "match_regions",
    "mislabel_curve",
    "mislabeled",
    "tail_patch",
]


__getattr__ = lazy_names(__name__, _WHERE)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
