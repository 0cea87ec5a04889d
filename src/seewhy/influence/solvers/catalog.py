"""The written-out list of all solvers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping

from ...arguments import brief
from ...errors import ArgumentTypeError, InputError, did_you_mean
from ...names import known_name
from .arnoldi import Arnoldi
from .baselines import EmbeddingSimilarity, RandomScores, TrainingLoss
from .conjugate_gradient import ConjugateGradient
from .ekfac import EKFAC
from .exact import ExactHessian
from .gradient_dot import GradientDot, TracIn
from .last_layer import LastLayer, Representer
from .lissa import LiSSA
from .solver import Solver
from .trak import TRAK

DEFAULT_SOLVER = "last_layer"
SOLVERS: dict[str, type] = {
    "last_layer": LastLayer,
    "hessian": ExactHessian,
    "conjugate_gradient": ConjugateGradient,
    "lissa": LiSSA,
    "arnoldi": Arnoldi,
    "ekfac": EKFAC,
    "gradient_dot": GradientDot,
    "tracin": TracIn,
    "trak": TRAK,
    "representer": Representer,
    "embedding": EmbeddingSimilarity,
    "loss": TrainingLoss,
    "random": RandomScores,
}


def find_solver(solver: str | Solver, **settings: object) -> Solver:
    """The solver of a name, as people write it ("EK-FAC"), with its settings; a solver is returned as it is.

    Raises:
        InputError: no such name, no such setting, or a value that it does not take.
        ArgumentTypeError: settings beside a solver that has its own.

    Example:
        >>> from seewhy.influence import find_solver
        >>> find_solver("EK-FAC", damping=0.1).name
        'ekfac'
    """
    if not isinstance(solver, str):
        if settings:
            raise ArgumentTypeError(
                f"solver is a {type(solver).__name__} with its own settings; leave out {sorted(settings)}"
            )
        if not hasattr(solver, "settings"):
            raise ArgumentTypeError(
                f"solver={brief(solver)} is none; give a name, one of {', '.join(SOLVERS)}"
            )
        return solver
    meant = known_name(solver, SOLVERS, what="solver")
    _check(meant, settings)
    found: Solver = SOLVERS[meant](**settings)
    return found


def _check(solver: str, settings: Mapping[str, object]) -> None:
    """Says which setting a solver does not have, or takes no word for."""
    known = {
        name: each.default for name, each in inspect.signature(SOLVERS[solver]).parameters.items()
    }
    for name, value in settings.items():
        if name not in known:
            accepted = f"its settings: {', '.join(known)}" if known else "it has none"
            raise InputError(
                f"solver {solver!r} has no setting {name!r}{did_you_mean(name, known)} ({accepted})"
            )
        if isinstance(value, str) and not isinstance(known[name], str):
            raise InputError(
                f"{name}={value!r} of solver {solver!r} is not a number; its default is {known[name]}"
            )


def own_solver(solver: Solver) -> Solver:
    """A solver for one index alone: what is fitted for it must not change another's."""
    if type(solver) is SOLVERS.get(solver.name):
        return find_solver(solver.name, **solver.settings)
    return copy.deepcopy(solver)
