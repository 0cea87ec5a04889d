"""What every solver has to beat: similarity of features, the training example's own loss, and chance."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...engine.draws import normals, uniforms
from ..gradients.per_example import quantities
from ..gradients.taps import borrowed, run
from ..head.head import Head
from ..problem import Problem, Rows, ScoreOrLoss
from .solver import Holds, Settings, WithoutFit


class Baseline(WithoutFit):
    """What fits nothing. Scores rank training examples; they have no unit."""

    name: str
    calibrated = False
    holds: Holds = "none"
    settings: Settings = MappingProxyType({})

    def dot(self, test: Rows, train: Rows) -> Tensor:
        return test["rows"] @ train["rows"].to(test["rows"].dtype).T


class EmbeddingSimilarity(Baseline):
    """The cosine of the features that the head is given, in [-1, 1]; the score asked for has no part in it."""

    name = "embedding"

    def __init__(self) -> None:
        self._head: Head | None = None

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        return self._rows(problem, images)

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        return self._rows(problem, images)

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        """1 for each: every image is like itself."""
        return torch.ones(len(images))

    def _rows(self, problem: Problem, images: Tensor) -> Rows:
        if self._head is None or not self._head.belongs_to(problem.module):
            self._head = Head(problem.restricted(()), images)
        return {"rows": normalize(self._head.features(problem, images)).cpu()}


class TrainingLoss(Baseline):
    """The training example's loss, for any test quantity: what the model got wrong taught it most."""

    name = "loss"

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        with borrowed(problem.call), torch.no_grad():
            return {
                "rows": quantities(problem, run(problem.call, {}, images), labels)[:, None].cpu()
            }

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        return {"rows": torch.ones(len(images), 1)}

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        return self.train_rows(problem, images, labels)["rows"][:, 0]


class RandomScores(Baseline):
    """Chance: scores about 0 with a deviation of 1, keyed by the images' contents and the seed."""

    name = "random"
    _dim = 64

    def __init__(self, *, seed: int = 0) -> None:
        self.settings, self._seed = {"seed": seed}, seed

    def train_rows(self, problem: Problem, images: Tensor, labels: Tensor) -> Rows:
        return {"rows": normals(images, 3 * self._seed, self._dim)}

    def test_rows(self, problem: Problem, images: Tensor, score: ScoreOrLoss) -> Rows:
        return {"rows": normals(images, 3 * self._seed + 1, self._dim) / self._dim**0.5}

    def self_influence(self, problem: Problem, images: Tensor, labels: Tensor) -> Tensor:
        return uniforms(images, 3 * self._seed + 2)
