"""A class against others, as targets: why X rather than Y, and rather than all the rest.

Both are differences of logits, whatever the model gives: those of its probabilities are found again, so that a model
with its softmax inside has the maps that it has without. What speaks for both sides alike cancels. So a map shows
what tells the class from the others, and says nothing of where the class is: look at it beside the map of the class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...errors import TargetError
from .classes import ClassIndex, Margin, OfClasses, class_in_words, class_scores, score_of_class
from .numbers import Numbers, known_or_seen


@dataclass(frozen=True)
class LogOdds(OfClasses):
    """log p / (1 - p) of a class: its logit less the logsumexp of all others, "tabby rather than the rest".

    Its gradient by the logits is 1 at the class and minus each other's probability among the others. Where classes do
    not exclude each other (several labels, sigmoids) and of a single column it is the class's own logit, that of
    "tabby rather than not": its map is the evidence map. A score that is no probability has no odds.

    Raises:
        ModelError: on use, where the model's numbers have no probabilities, or nobody says what they are.

    Example:
        >>> logits = seewhy.targets.Numbers("logits")
        >>> seewhy.targets.LogOdds(0, logits)(torch.tensor([[2.0, 1.0, 1.0]]))
        tensor([0.3069])
    """

    index: ClassIndex
    numbers: Numbers | None = dataclasses.field(default=None, repr=False)
    one_each: ClassVar = {"index": 1}

    def __call__(self, output: object) -> Tensor:
        scores = class_scores(output)
        numbers = known_or_seen(self.numbers, output)
        logits = numbers.logits(scores)
        own = score_of_class(logits, self.index)
        if numbers.are_of_each_class(scores.shape[1]):
            return own
        chosen = self._chosen(logits)
        others = logits.masked_fill(chosen, -torch.inf)
        return own - others.logsumexp(1)

    def _chosen(self, logits: Tensor) -> Tensor:
        """Which of (N, K) is the class of each image."""
        device = logits.device
        own = torch.as_tensor(self.index, device=device)
        columns = torch.arange(logits.shape[1], device=device)
        return columns == own.reshape(-1, 1)

    def in_words(self, image: int, label: Callable[[int], str]) -> str:
        name = class_in_words(self.index, image, label)
        numbers = self.numbers
        if numbers is not None and numbers.are_of_each_class(columns=2):
            return f"{name} rather than not"
        return f"{name} rather than the rest"


@dataclass(frozen=True)
class RatherThan(Margin):
    """The logit of one class less that of another, log p / q: what speaks for `index` rather than for `other`.

    As `Margin`, but of the logits that the model's probabilities have, where it gives those. Of sigmoids it is the
    difference of their logits. Of scores, as of a support vector machine, it is the margin.

    Raises:
        ModelError: on use, where nobody says what the model's numbers are.
        TargetError: both are the same class.

    Example:
        >>> chances = seewhy.targets.Numbers("probabilities")
        >>> seewhy.targets.RatherThan(0, 1, chances)(torch.tensor([[0.8, 0.2]]))
        tensor([1.3863])
    """

    numbers: Numbers | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.index == self.other and not isinstance(self.index, tuple):
            raise TargetError(
                f"target {self.index!r} rather than {self.other!r} "
                f"is one class twice; give two classes, or "
                f"'log_odds:{self.index}' for this class rather than the rest"
            )

    def __call__(self, output: object) -> Tensor:
        scores = class_scores(output)
        numbers = known_or_seen(self.numbers, output)
        if numbers.gives != "score":
            scores = numbers.logits(scores)
        return super().__call__(scores)
