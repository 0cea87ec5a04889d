"""What a solver is: an object with settings that fits the curvature once and then gives influences as dot products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from ..problem import Batches, Problem, Progress, Reduce, Rows, ScoreOrLoss, identity

Holds = Literal["none", "few", "all"]
Settings: TypeAlias = Mapping[str, Any]  # JSON values, of which each solver knows its own


class Solver(Protocol):
    """One way to estimate influences; sign and scale are those of `seewhy.influence.problem`.

    Attributes:
        name: its key in `SOLVERS`.
        settings: its options, as JSON values; `find_solver(name, **settings)` makes it again.
        passes: over the training data that `fit` takes, in the usual case; 0 for none.
        streams: whether `test_rows` reads the training data. Then `fit` must be called also after `load`: it keeps the
            batches, and computes nothing that `load` has brought.
        calibrated: whether scores estimate by how much leaving the example out would change the quantity asked about,
            in its units; else only their order counts. A solver that does not say is taken for calibrated.
        whitens: whether `train_rows` depends on what `fit` found, so that rows are made anew where that was lost. A
            solver that does not say is taken for one.
        holds: of how many examples of a batch it has whole gradients in memory at a time. A solver that does not say is
            taken to have none.
    """

    name: str
    settings: Settings
    passes: int
    streams: bool
    calibrated: bool
    whitens: bool
    holds: Holds

    def fit(
        self,
        problem: Problem,
        batches: Batches,
        *,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        """Finds the curvature from the training data.

        Args:
            problem: what was trained.
            batches: a pass over the training data, or over this process's share of it.
            reduce: sums a tensor over the processes; every sum over examples goes through it.
            progress: told how many more examples a pass has seen.
        """

    def state(self) -> dict[str, Tensor]:
        """What fit found, to be stored."""

    def load(self, problem: Problem, state: Mapping[str, Tensor]) -> None:
        """Takes back what `state` gave."""

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        """What an index stores of training examples; each tensor (B, ...), on the CPU."""

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        """The other side of the product, with the inverse curvature and 1/n; each tensor (T, ...), on the CPU."""

    def dot(self, test: Rows, train: Rows) -> Tensor:
        """The influence (T, B) of each training example on each test quantity; linear in both, and cheap."""

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        """The influence (B,) of each training example on its own loss: large for the odd and the mislabelled."""


class WithoutFit:
    """The part of a solver that needs no pass over the training data, unless it has one of its own."""

    passes = 0
    streams = False
    whitens = False

    def fit(
        self,
        problem: Problem,
        batches: Batches,
        *,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        """Needs nothing of the training data."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, problem: Problem, state: Mapping[str, Tensor]) -> None:
        """There is nothing to take."""


def is_calibrated(solver: Solver) -> bool:
    """Whether its scores have a unit; see `Solver`."""
    return bool(getattr(solver, "calibrated", True))


def is_whitening(solver: Solver) -> bool:
    """Whether its training rows depend on what it found; see `Solver`."""
    return bool(getattr(solver, "whitens", True))


def held_gradients(solver: Solver) -> Holds:
    """Of how many examples of a batch it has whole gradients in memory; see `Solver`."""
    found: Holds = getattr(solver, "holds", "none")
    return found


@runtime_checkable
class Growing(Protocol):
    """A solver whose state grows with the training data."""

    def state_bytes(self, count: int) -> int:
        """The bytes of the state with as many examples, once fitted on a few."""


@runtime_checkable
class SelfFromRows(Protocol):
    """A solver to which the rows of a training example tell its influence on itself, without the picture."""

    def self_of_rows(self, problem: Problem, rows: Rows) -> Tensor:
        """The same (B,) as `self_influence`, from what `train_rows` gave."""


@runtime_checkable
class OfHead(Protocol):
    """A solver of the last layer alone, whose influences are products of what the head is given and its residuals."""

    def solutions(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Tensor:
        """H^-1 of residual (x) features of each test quantity, over n: (T, K, F), on the CPU."""
