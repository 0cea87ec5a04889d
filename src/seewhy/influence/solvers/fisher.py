"""The gradients that the Fisher information is of: for labels that are drawn, for signs in their place, or as given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from ...engine.draws import normals, uniforms
from ...errors import InputError
from ..gradients.per_example import cotangents
from ..gradients.taps import AffineLayer, Taps, Use, borrowed, run
from ..problem import Problem

Fisher = Literal["sketched", "sampled", "empirical"]


@dataclass(frozen=True)
class FisherDraws:
    """How labels are drawn for each example.

    Attributes:
        kind: as `EKFAC` takes it.
        samples: for each example, keyed by its content and the seed.
        seed: another one, other labels.

    Raises:
        InputError: one is out of range.
    """

    kind: Fisher
    samples: int
    seed: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(Fisher):
            raise InputError(
                f"fisher={self.kind!r} is not known; use {', '.join(map(repr, get_args(Fisher)))}"
            )
        if self.samples < 1:
            raise InputError(f"samples={self.samples} cannot be used; accepted: 1 or more")

    @property
    def of_model(self) -> bool:
        """Whether the model says which labels are likely, or they are the training examples' own."""
        return self.kind != "empirical"

    @property
    def count(self) -> int:
        """Of gradients for each example."""
        return self.samples if self.of_model else 1

    def gradients(
        self, problem: Problem, layers: list[AffineLayer], images: Tensor, labels: Tensor
    ) -> list[list[Use]]:
        """For each draw of labels what the layers were given and the gradients of what they gave."""
        with borrowed(problem.call), Taps(layers) as taps:
            outputs = run(problem.call, {}, images)
            # also where others are drawn: it checks the labels
            slopes = [cotangents(problem, outputs, labels)]
            if self.of_model:
                draw = drawn if self.kind == "sampled" else sketched
                seeds = [self.seed * 1_000_003 + i for i in range(self.samples)]
                slopes = [draw(outputs.detach().softmax(1), images, seed) for seed in seeds]
            return [
                uses_of(taps, outputs, s, len(images), keep=i + 1 < len(slopes))
                for i, s in enumerate(slopes)
            ]


def drawn(p: Tensor, images: Tensor, seed: int) -> Tensor:
    """The gradient p - onehot of the cross entropy with labels drawn from probabilities (B, K)."""
    u = uniforms(images, seed).to(p)
    labels = (p.cumsum(1) < u[:, None]).sum(1).clamp(max=p.shape[1] - 1)
    return p - nn.functional.one_hot(labels, p.shape[1]).to(p.dtype)


def sketched(p: Tensor, images: Tensor, seed: int) -> Tensor:
    """sqrt(p) s - p (sqrt(p) . s) with random signs s: its second moment is diag(p) - p p^T."""
    signed = p.sqrt() * normals(images, seed, p.shape[1]).sign().to(p)
    return signed - p * signed.sum(1, keepdim=True)


def uses_of(
    taps: Taps, outputs: Tensor, slopes: Tensor, count: int, *, keep: bool = False
) -> list[Use]:
    """What the tapped layers were given with the gradients of what they gave."""
    signals = taps.gradients(outputs, slopes, keep=keep)
    for layer, given, _ in taps.uses:
        if len(given) != count or given.ndim < 2:
            raise InputError(
                f"layer {layer.name!r} was given {tuple(given.shape)} for {count} images; ekfac needs a row for each "
                "image: leave it out with parameters="
            )
    return [
        (layer, given, signal) for (layer, given, _), signal in zip(taps.uses, signals, strict=True)
    ]
