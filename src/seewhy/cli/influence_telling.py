"""What the commands of influence share: which process tells, how far it is, what an index is."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from ..data.disk import Json
from ..engine.spread import world
from ..influence import InfluenceIndex
from ..influence.solvers.solver import is_calibrated
from .saving import forecasting
from .show import Shown, console


def first_of_all() -> bool:
    """Whether this is the first process, or the only one: under torchrun it alone writes, and the others are silent."""
    first = world().rank == 0
    if not first:
        console.quiet = True
        warnings.simplefilter("ignore")
    return first


def telling(show: Shown) -> Callable[[int, int], None]:
    """Progress of several stages, each of its own length."""
    return lambda done, total: show.bar.update(show.photos, completed=done, total=total)


def forecasting_self_influence(show: Shown) -> Callable[[int, int], None]:
    """The same, which says once what self-influence takes if that is much."""
    return forecasting(
        telling(show),
        lambda total, left: (
            f"Self-influence of {total:,} examples takes about {left} more; interrupted, it goes on with the file of "
            "the index that it was at"
        ),
    )


def told_of(index: InfluenceIndex) -> Json:
    """What the answers are of."""
    solver = index.solver
    told = {"index": str(index.folder), "solver": solver.name, "calibrated": is_calibrated(solver)}
    return {**told, "remarks": list(index.remarks)}
