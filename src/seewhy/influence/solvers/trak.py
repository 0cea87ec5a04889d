"""TRAK: a linear model on projected gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...engine.call import Call
from ...errors import InputError
from ..gradients.losses import check_cross_entropy_of
from ..gradients.per_example import check_labels, example_gradients
from ..gradients.projection import Distribution, Projection
from ..gradients.taps import borrowed, run
from ..problem import Batches, Problem, Progress, Reduce, Rows, ScoreOrLoss, identity
from .solver import Holds, Settings
from .whole_gradients import as_fitted, in_double


def margin(outputs: Tensor, labels: Tensor) -> Tensor:
    """log(p / (1 - p)) of the label's probability: (B, K), (B,) -> (B,)."""
    own = outputs.gather(1, labels[:, None])
    others = outputs.scatter(1, labels[:, None], float("-inf"))
    return own[:, 0] - others.logsumexp(1)


class TRAK:
    """TRAK (Park et al., ICML 2023, section 3): tau = (1 - p_i) phi(test)^T (Phi^T Phi)^-1 phi_i, a mean over M models.

    phi = R grad log(p / (1 - p)) / sqrt(dim), R random signs. A target or loss takes its own gradient for phi(test);
    for the target log(p / (1 - p)) the scores are the paper's. As there, kernels and 1 - p are averaged over models
    each for itself. Phi^T Phi stands for n H without the logistic loss's curvature, so the scale is only roughly that
    of other solvers.

    Args:
        dim: numbers kept of each gradient and model.
        damping: added to the diagonal of Phi^T Phi, in units of its mean; above 0, for with more numbers than
            examples it is singular.
        distribution: of R: "rademacher" or "normal".
        seed: of R.

    Raises:
        InputError: an option out of range; a label that the model does not have; a loss that is not the softmax cross
            entropy.
    """

    name = "trak"
    passes = 1
    streams = False
    calibrated = False
    whitens = False
    holds: Holds = "all"

    def __init__(
        self,
        *,
        dim: int = 2048,
        damping: float = 0.1,
        distribution: Distribution = "rademacher",
        seed: int = 0,
    ) -> None:
        if damping <= 0:
            raise InputError(
                f"damping={damping} cannot be used; accepted: above 0, in units of the diagonal's mean"
            )
        Projection(dim, distribution=distribution)  # says what is wrong with them
        self.settings: Settings = {
            "dim": dim,
            "damping": damping,
            "distribution": distribution,
            "seed": seed,
        }
        self._dim = dim
        self._damping = damping
        self._distribution = distribution
        self._seed = seed
        self._projections: list[Projection] = []
        self._inverse: Tensor | None = None  # (M, dim, dim)

    def fit(
        self,
        problem: Problem,
        batches: Batches,
        *,
        reduce: Reduce = identity,
        progress: Progress | None = None,
    ) -> None:
        grams = in_double(
            torch.zeros(len(problem.calls), self._dim, self._dim, device=problem.device)
        )
        for i, (images, labels) in enumerate(batches()):
            if not i:
                check_cross_entropy_of(problem, images, self.name, values=True)
            for gram, rows in zip(grams, self._features(problem, images, labels), strict=True):
                rows = rows.to(
                    torch.promote_types(rows.dtype, torch.float32)
                )  # half as long is too coarse a sum
                gram += rows.T @ rows
            if progress:
                progress(len(images))
        grams = reduce(grams)
        means = grams.diagonal(dim1=1, dim2=2).mean(1)
        grams.diagonal(dim1=1, dim2=2).add_(self._damping * means[:, None].clamp(min=1e-30))
        factors, failed = torch.linalg.cholesky_ex(grams)
        if bool(failed.any()):
            raise InputError(
                f"damping={self._damping} is too little for the rounding of these gradients; give more"
            )
        self._inverse = torch.cholesky_inverse(factors).to(problem.flat().dtype)

    def state(self) -> dict[str, Tensor]:
        return {"inverse": as_fitted(self._inverse, self.name)}

    def load(self, problem: Problem, state: Mapping[str, Tensor]) -> None:
        self._inverse = state["inverse"].to(problem.device)

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        doubts = torch.stack(
            [_doubt(problem, call, images, labels) for call in problem.calls]
        ).mean(0)
        rows = torch.cat(self._features(problem, images, labels), 1) / len(problem.calls)
        return {
            "rows": (-doubts[:, None] * rows).cpu()
        }  # grad loss = -(1 - p) grad log(p / (1 - p))

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        inverse = as_fitted(self._inverse, self.name)
        rows = self._projected(problem, images, score)
        return {"rows": torch.cat([r @ k for r, k in zip(rows, inverse, strict=True)], 1).cpu()}

    def dot(self, test: Rows, train: Rows) -> Tensor:
        return test["rows"] @ train["rows"].to(test["rows"].dtype).T

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        both = (
            self.test_rows(problem, images, labels)["rows"]
            * self.train_rows(problem, images, labels)["rows"]
        )
        return both.sum(1)

    def _features(self, problem: Problem, images: Tensor, labels: Tensor) -> list[Tensor]:
        """phi of each model, (B, dim)."""
        return self._projected(
            problem, images, lambda outputs: -margin(outputs, _checked_labels(outputs, labels))
        )

    def _projected(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> list[Tensor]:
        """The projected gradients of each model's quantity, see `quantities`: minus a target."""
        for stream in range(len(self._projections), len(problem.calls)):
            self._projections.append(
                Projection(
                    self._dim, seed=self._seed, stream=stream, distribution=self._distribution
                )
            )
        pairs = zip(problem.calls, self._projections, strict=False)
        return [
            project(example_gradients(problem, images, score, call=call)) for call, project in pairs
        ]


def _checked_labels(outputs: Tensor, labels: Tensor) -> Tensor:
    check_labels(labels, *outputs.shape)
    return labels.to(outputs.device, torch.int64)


def _doubt(problem: Problem, call: Call, images: Tensor, labels: Tensor) -> Tensor:
    """1 - p of the label, (B,)."""
    with borrowed(call), torch.no_grad():
        outputs = run(call, {}, images)
        return torch.sigmoid(-margin(outputs, _checked_labels(outputs, labels)))
