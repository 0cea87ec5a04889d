"""Which superpixels are shown together, and the linear model of the scores: LIME's kernel and Shapley's.

A sample is (n, d) bool, True where a superpixel is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .surrogate import TOP, Selection, Surrogate, fit, fit_selected, largest, stability

PARTS = 4  # of a sample, compared for the stability


class Kernel(Protocol):
    """How coalitions are drawn, and how a linear model is fitted to their scores."""

    @property
    def ends(self) -> int:
        """How many coalitions at the beginning are not drawn; every fit needs them."""
        ...

    @property
    def block(self) -> int:
        """How many coalitions are drawn together."""
        ...

    def draw(self, n: int, d: int, generator: torch.Generator, *, begun: bool) -> Tensor:
        """About n more coalitions of d superpixels; none where all have been drawn."""
        ...

    def fit(self, shown: Tensor, scores: Tensor) -> list[Surrogate]:
        """One model for each column of the scores (n, T)."""
        ...


@dataclass(frozen=True)
class LimeKernel:
    """A fair coin for each superpixel, the first sample shows all; near samples weigh more, by the cosine distance."""

    width: float
    ridge: float
    features: int | None
    selection: Selection
    ends: ClassVar[int] = 0
    block: ClassVar[int] = 1

    def draw(self, n: int, d: int, generator: torch.Generator, *, begun: bool) -> Tensor:
        shown = torch.rand(n, d, generator=generator, dtype=torch.float32) < 0.5
        if not begun:
            shown[:1] = True
        return shown

    def fit(self, shown: Tensor, scores: Tensor) -> list[Surrogate]:
        weights = lime_weights(shown, self.width)
        return fit_selected(
            shown.double(),
            scores,
            weights,
            ridge=self.ridge,
            features=self.features,
            selection=self.selection,
        )


def lime_weights(shown: Tensor, width: float) -> Tensor:
    """sqrt(exp(-D^2 / width^2)) with D the cosine distance to all shown, (n, d) -> (n,); with nothing shown D is 1."""
    distance = 1 - shown.double().mean(1).sqrt()  # the cosine of k ones with d ones is sqrt(k / d)
    return (-(distance**2) / (2 * width**2)).exp()


@dataclass(frozen=True)
class ShapleyKernel:
    """KernelSHAP (Lundberg and Lee, NeurIPS 2017, theorem 2): coefficients are Shapley values, exact once all is drawn.

    All shown and nothing shown are constraints, not samples: the coefficients add up to the difference of the two.
    A coalition's size k is drawn in proportion to (d - 1) / (k (d - k)), each coalition with its complement (Covert and
    Lee, AISTATS 2021). Where `samples` suffice for every coalition, each is run once and weighed instead.
    """

    ridge: float
    samples: int
    ends: ClassVar[int] = 2
    block: ClassVar[int] = 2

    def draw(self, n: int, d: int, generator: torch.Generator, *, begun: bool) -> Tensor:
        ends = (
            torch.empty(0, d, dtype=torch.bool)
            if begun
            else torch.tensor([[True], [False]]).expand(2, d)
        )
        if self._enumerates(d):
            return ends if begun else torch.cat([ends, _all_pairs(d, generator)])
        return torch.cat([ends, _drawn_pairs((n - len(ends)) // 2, d, generator)])

    def fit(self, shown: Tensor, scores: Tensor) -> list[Surrogate]:
        d = shown.shape[1]
        full, empty, inner = scores[0], scores[1], shown[2:]
        share = (full - empty) / d  # (T,)
        if not len(inner):
            unknown = torch.full((d,), 0.0 if d == 1 else math.nan, dtype=torch.float64)
            ends = zip(share, empty, strict=True)
            return [
                Surrogate(each.expand(d), unknown, float(low), math.nan, math.nan)
                for each, low in ends
            ]
        size = inner.double().sum(1, keepdim=True)
        # with sizes taken off, the shortest solution adds up to zero, and the constraint needs no multiplier
        found = fit(
            inner.double() - size / d,
            scores[2:],
            _of_one(d)[size[:, 0].long() - 1]
            if self._enumerates(d)
            else torch.ones(len(inner), dtype=torch.float64),
            ridge=self.ridge,
            offset=empty + size * share,
            block=2,
        )
        exact = self._enumerates(d) and len(inner) == 2**d - 2
        return [
            Surrogate(
                s.coefficients + share[t],
                torch.zeros(d, dtype=torch.float64) if exact else s.errors,
                float(empty[t]),
                s.r2,
                s.r2 if exact else s.r2_held_out,
            )
            for t, s in enumerate(found)
        ]

    def _enumerates(self, d: int) -> bool:
        return bool(2**d <= self.samples)


def _of_size(d: int) -> Tensor:
    """The Shapley kernel summed over all coalitions of each size 1 .. d - 1, up to a factor."""
    k = torch.arange(1, d, dtype=torch.float64)
    return (d - 1) / (k * (d - k))


def _of_one(d: int) -> Tensor:
    """The Shapley kernel of one coalition of each size 1 .. d - 1."""
    return _of_size(d) / torch.tensor([math.comb(d, k) for k in range(1, d)], dtype=torch.float64)


def _drawn_pairs(pairs: int, d: int, generator: torch.Generator) -> Tensor:
    if not pairs:
        return torch.empty(0, d, dtype=torch.bool)
    sizes = 1 + torch.multinomial(_of_size(d), pairs, replacement=True, generator=generator)
    places = torch.rand(pairs, d, generator=generator, dtype=torch.float32).argsort(1).argsort(1)
    shown = places < sizes[:, None]
    return torch.stack([shown, ~shown], 1).flatten(0, 1)


def _all_pairs(d: int, generator: torch.Generator) -> Tensor:
    """Every coalition but the two ends, once, in random order: where a run breaks off, what it has is a fair sample."""
    codes = 1 + torch.randperm(2 ** (d - 1) - 1, generator=generator)
    shown = (codes[:, None] >> torch.arange(d)) & 1 == 1
    return torch.stack([shown, ~shown], 1).flatten(0, 1)


class Sample:
    """What was drawn of one image: each distinct coalition is run once, however often it is drawn.

    Attributes:
        labels: (H, W) int64, the superpixels.
        d: how many there are.
        drawn: for each sample the number of its coalition, in the order in which coalitions are run.
    """

    def __init__(self, labels: Tensor, kernel: Kernel, generator: torch.Generator) -> None:
        self.labels, self.kernel, self._generator = labels, kernel, generator
        self.d = int(labels.max()) + 1
        self.drawn: list[int] = []
        self.found: list[Surrogate] = []
        self._numbers: dict[bytes, int] = {}
        self._coalitions = torch.empty(0, self.d, dtype=torch.bool)
        self._scores: list[Tensor] = []

    def extend(self, n: int) -> Tensor:
        """Draws n more samples (fewer where no more coalitions exist) and returns those that are new: (m, d) bool."""
        shown = self.kernel.draw(n, self.d, self._generator, begun=bool(self.drawn))
        new: list[int] = []
        for i, row in enumerate(shown.numpy()):
            number = self._numbers.setdefault(row.tobytes(), len(self._numbers))
            if number == len(self._coalitions) + len(new):
                new.append(i)
            self.drawn.append(number)
        self._coalitions = torch.cat([self._coalitions, shown[new]])
        return shown[new]

    def add(self, scores: Tensor) -> None:
        """Takes the scores (m, T) of the next coalitions."""
        self._scores.append(scores.double())

    def finished(self) -> tuple[Tensor, Tensor]:
        """The samples up to the first without a score, in whole blocks: shown (n, d), scores (n, T)."""
        scores = torch.cat(self._scores) if self._scores else torch.empty(0, 0)
        drawn = torch.tensor(self.drawn, dtype=torch.long)
        missing = (drawn >= len(scores)).nonzero()
        n = int(missing[0]) if len(missing) else len(drawn)
        n -= max(n - self.kernel.ends, 0) % self.kernel.block
        return self._coalitions[drawn[:n]], scores[drawn[:n]]

    def refit(self) -> None:
        """Fits the linear models, one for each target, to all that is finished; none to fewer than two samples."""
        shown, scores = self.finished()
        self.found = self.kernel.fit(shown, scores) if len(shown) > 1 else []

    def reaches(self, precision: float) -> bool:
        """Whether the standard errors of the top coefficients are within this share of the largest coefficient."""
        for surrogate in self.found:
            top = largest(surrogate.coefficients, TOP)
            bound = precision * surrogate.coefficients.abs().amax()
            if not (surrogate.errors[top] <= bound).all():  # so written that NaN does not
                return False
        return bool(self.found)

    def room(self, most: int) -> bool:
        """Whether more may be drawn without passing this number of samples."""
        return len(self.drawn) + self.kernel.block <= most

    def stability(self) -> list[dict[str, float | int] | None]:
        """For each target how much explanations from separate parts of the sample agree; no pass is made for it."""
        shown, scores = self.finished()
        ends, block = self.kernel.ends, self.kernel.block
        length = (len(shown) - ends) // PARTS // block * block
        if length < 2 or not any(s.errors.any() for s in self.found):  # nothing is random
            return [None] * len(self.found)
        parts = []
        for start in range(ends, ends + PARTS * length, length):
            rows = [*range(ends), *range(start, start + length)]
            parts.append(self.kernel.fit(shown[rows], scores[rows]))
        return [stability([part[t].coefficients for part in parts]) for t in range(len(self.found))]
