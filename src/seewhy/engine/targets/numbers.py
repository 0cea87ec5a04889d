"""What the numbers of a model's answer are: as it or its user says, and asked for where they may be two things.

A softmax of what is a probability already is none, and nothing in a row of numbers tells what it is; so whatever turns
scores into probabilities takes a `Numbers`, which is settled once for each model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ...remarks import warn
from ..answers import Gives, main_output
from ..call import Call
from ..keys import Remembered
from ..readings import noted, reading_together

GIVES: tuple[Gives, ...] = get_args(Gives)

_OF_HEADS: tuple[tuple[type[nn.Module], Gives], ...] = (
    (nn.Softmax, "probabilities"),
    (nn.Sigmoid, "sigmoids"),
    (nn.LogSoftmax, "logits"),
    (nn.Linear, "logits"),
)
_OF_PROBLEMS = (
    "single_label_classification",
    "multi_label_classification",
)  # as transformers' configurations say
_CLASSIFIERS = ("ForImageClassification", "ForSemanticSegmentation")  # as transformers calls them
_PASSED_BY = (nn.Identity, nn.Dropout, nn.Flatten)
_LIBRARIES = ("torch", "timm", "torchvision", "transformers")
_HUNDRED = 100.0
_PARTS_OF_ROUNDING = 16  # of one, in the answer's own precision, for each class
_seen: Remembered[list[Gives | None]] = Remembered()


@dataclass(frozen=True)
class Numbers:
    """What the numbers of an answer are.

    Attributes:
        gives: "logits", whose softmax are probabilities; "probabilities" of one class, which sum to 1; "sigmoids", a
            probability for each class by itself; "score", as of a regression or a margin; an "embedding"; a detector's
            "records"; None where they may be two things and nothing says which.
        multi_label: a picture may show several classes: of logits each has a sigmoid of its own.
        doubt: where nothing says what they are, how they look, and what they may be.

    Example:
        >>> seewhy.targets.Numbers("logits", multi_label=True).probabilities(torch.tensor([[0.0, 0.0]]))
        tensor([[0.5000, 0.5000]])
    """

    gives: Gives | None
    multi_label: bool = False
    doubt: str = "lie in [0, 1], and may be probabilities or scores"

    @property
    def have_probabilities(self) -> bool:
        return self.gives in ("logits", "probabilities", "sigmoids")

    def probabilities(self, scores: Tensor) -> Tensor:
        """(N, K) numbers to probabilities in float32; the only column of logits has a sigmoid.

        Raises:
            ModelError: they are no probabilities, or nobody knows.
        """
        if not self.have_probabilities:
            raise ModelError(self.why_no_probability())
        if self.gives != "logits":
            return scores.float()
        return (
            scores.float().sigmoid()
            if self.are_of_each_class(scores.shape[1])
            else scores.float().softmax(1)
        )

    def are_of_each_class(self, columns: int) -> bool:
        """Whether each class is there or not by itself, whatever the others are; else one of them is there."""
        of_several = self.gives == "logits" and self.multi_label
        return columns == 1 or of_several or self.gives == "sigmoids"

    def logits(self, scores: Tensor) -> Tensor:
        """(N, K) numbers as logits, in float32 or finer: those of sigmoids, and the logs of what sums to 1.

        Raises:
            ModelError: they have no probabilities, or nobody knows.
        """
        if not self.have_probabilities:
            raise ModelError(self.why_no_probability())
        fine = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if self.gives == "logits":
            return fine
        least = torch.finfo(fine.dtype)
        logs = fine.clamp(min=least.tiny).log()
        if not self.are_of_each_class(scores.shape[1]):
            return logs
        return logs - (1 - fine).clamp(min=least.eps / 2).log()

    def why_no_probability(self) -> str:
        """Why there is none, and what to do."""
        if self.gives is None:
            return f"the model's numbers {self.doubt}; {_WAY_OUT}"
        return f"the model gives {in_words(self.gives)}, which has no probability; {_WAY_OUT}"


_WAY_OUT = (
    "say what they are: seewhy.wrap(model, gives=...) with 'logits', 'probabilities' (that sum to 1), 'sigmoids' (one "
    "by one) or 'score'"
)


def in_words(gives: Gives) -> str:
    return {"score": "a score", "embedding": "an embedding"}.get(gives, gives)


def numbers_of(call: Call, output: object) -> Numbers:
    """What an answer's numbers are: as its call or its module says, else as the first answer of the model looks.

    Raises:
        ModelError: they are not what they are said to be.

    Example:
        >>> seewhy.targets.numbers_of(seewhy.Call(net), net(x)).gives
        'logits'
    """
    several = call.multi_label or has_many_labels(call.module)
    table = output if isinstance(output, Tensor) and output.numel() else None
    said = _said_of(call, table)
    if table is None:
        return Numbers(said or "logits", several)
    look = _Look(table)
    if said is None:
        return Numbers(_seen_in(call, look), several, look.doubt)
    return Numbers(_said_if_possible(call, said, look), several)


def _said_of(call: Call, table: Tensor | None) -> Gives | None:
    """What the call or the module says that the numbers are."""
    if call.gives is not None or call.output is not main_output:
        return call.gives
    said = own_gives(call.module)
    if said is not None:
        return said
    said = said_by(call.module)
    if said == "logits" and table is not None and _Look(table).are_one_by_one:
        return None  # a head of one column is a regression's as often as a classifier's
    return said


def _said_if_possible(call: Call, said: Gives, look: _Look) -> Gives:
    """What is said of the numbers, if they may be that; of a family's classifier what its user's own head gives.

    Raises:
        ModelError: they are not what they are said to be.
    """
    if said in ("probabilities", "sigmoids") and look.scores.is_floating_point():
        _check_chances(look, said)
    if said != "logits" or look.like != "probabilities":
        return said
    if call.gives != said:
        return "probabilities"
    warn(
        "gives='logits', but the model's numbers lie in [0, 1] and sum to 1, as probabilities do: a softmax of those "
        "is none; say gives='probabilities'"
    )
    return said


def _seen_in(call: Call, look: _Look) -> Gives | None:
    """What the first answer looked like, unless another lies beyond [0, 1]: no probability does."""
    seen = _seen.get(call.module, call.asked, lambda: [look.like])
    if seen[0] != "logits" and look.like == "logits":
        seen[0] = "logits"
    return seen[0]


def said_by(module: nn.Module) -> Gives | None:
    """What a module says of its numbers: by itself, by its configuration, or by how it ends."""
    own = own_gives(module)
    if own is not None:
        return own
    if _is_regression(module):
        return "score"
    if _is_of_timm(module) and getattr(module, "num_classes", None) == 0:
        return "embedding"
    if _is_classifier(module):
        head = _head_of(module)
        return _end_of(head) or (None if _is_of_somebody(head) else "logits")
    if isinstance(module, nn.Sequential) and len(module):
        return said_by(module[-1])
    return _kind_of(module)


def _problem_of(module: nn.Module) -> object:
    """What kind of problem a model of transformers says it solves."""
    return getattr(getattr(module, "config", None), "problem_type", None)


def _is_regression(module: nn.Module) -> bool:
    """Whether transformers would take the module's numbers for those of a regression."""
    problem = _problem_of(module)
    if problem is not None:
        return problem == "regression"
    return getattr(getattr(module, "config", None), "num_labels", None) == 1


def _is_of_timm(module: nn.Module) -> bool:
    return isinstance(getattr(module, "pretrained_cfg", None), dict)


def own_gives(module: nn.Module) -> Gives | None:
    """The attribute in which a module of somebody's own may say it."""
    own: object = getattr(module, "gives", None)
    return next((each for each in GIVES if each == own), None)


def _is_classifier(module: nn.Module) -> bool:
    """Whether it is a classifier of timm, transformers or torchvision, whose own heads give logits."""
    if _problem_of(module) in _OF_PROBLEMS or _is_of_timm(module):
        return True
    return type(module).__name__.endswith(_CLASSIFIERS) or _is_of_torchvision(module)


def _head_of(module: nn.Module) -> nn.Module:
    """The last part of a classifier, which people exchange for one of their own."""
    try:
        own: object = getattr(module, "get_classifier", None)
        head = own() if callable(own) else None
    except AttributeError:  # timm's looks for what has been exchanged
        head = None
    if isinstance(head, nn.Module):
        return head
    return next(reversed([module, *module.children()]))


def _is_of_somebody(head: nn.Module) -> bool:
    """Whether a head ends in a class of its user's, whose `forward` may end in anything."""
    if isinstance(head, nn.Sequential) and len(head):
        return _is_of_somebody(head[-1])
    return type(head).__module__.partition(".")[0] not in _LIBRARIES


def _end_of(head: nn.Module) -> Gives | None:
    """What a head gives by how it ends; of one that only passes on what it is given, an embedding.

    None where that is open.
    """
    if _is_of_somebody(head):
        return None
    parts = [
        part for part in head.modules() if not part._modules and not isinstance(part, _PASSED_BY)
    ]
    return _kind_of(parts[-1]) if parts else "embedding"


def _kind_of(last: nn.Module) -> Gives | None:
    return next((gives for kind, gives in _OF_HEADS if isinstance(last, kind)), None)


def _is_of_torchvision(module: nn.Module) -> bool:
    """Whether it is a network of torchvision's that classifies pictures, or their places."""
    where = type(module).__module__
    return where.startswith("torchvision.models.") and "detection" not in where


def has_many_labels(module: nn.Module) -> bool:
    """Whether a module says of itself that a picture may show several classes, as transformers' configurations do."""
    return _problem_of(module) == "multi_label_classification"


def looks_like(scores: Tensor) -> Gives | None:
    """What (N, K, ...) or (N,) numbers look like: rows in [0, 1] that sum to 1, beyond that range, or not known."""
    return _Look(scores).like


def known_or_seen(numbers: Numbers | None, output: object) -> Numbers:
    """What a target was told that numbers are; where no model says it, what these look like as the model gave them."""
    return numbers or Numbers(looks_like(output) if isinstance(output, Tensor) else None)


class _Look:
    """How numbers look, read from them once."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores.detach()
        self.are_one_by_one = scores.ndim == 1 or (scores.ndim == 2 and scores.shape[1] == 1)
        self.have_columns = scores.ndim > 1 and scores.shape[1] > 1

    @property
    def like(self) -> Gives | None:
        """What they look like."""
        if not self.scores.is_floating_point():
            return None
        if not self.lie_in_unit_range:
            return None if self._doubt_beyond else "logits"
        return "probabilities" if self.have_columns and self.sum_to(1) else None

    @property
    def doubt(self) -> str:
        """What numbers of which nothing is said may be."""
        if not self.scores.is_floating_point():
            return "are whole numbers, and may be classes or counts"
        if self.lie_in_unit_range:
            return "lie in [0, 1], and may be probabilities or scores"
        return self._doubt_beyond

    @property
    def _doubt_beyond(self) -> str:
        """The same of numbers that are not all in [0, 1]; nothing where they can only be logits."""
        if self.are_one_by_one:
            return "are one for each picture, and may be a logit or the value of a regression"
        if self.range[0] < 0 or not self.have_columns:
            return ""
        if self.sum_to(_HUNDRED):
            return "sum to 100, and may be percentages: say output=lambda p: p / 100 with gives='probabilities'"
        if self._are_whole:
            return "are whole numbers, and may be counts"
        return ""

    @cached_property
    def _extremes(self) -> tuple[float, ...]:
        """The lowest and the highest number, and of rows with columns the lowest and the highest sum."""
        ends = [*torch.aminmax(self.scores)]
        if self.have_columns:
            ends += torch.aminmax(self.scores.float().sum(1))
        with reading_together():
            return tuple(float(reading.tensor()) for reading in [noted(end) for end in ends])

    @property
    def range(self) -> tuple[float, float]:
        return self._extremes[0], self._extremes[1]

    @property
    def lie_in_unit_range(self) -> bool:
        low, high = self.range
        return low >= 0 and high <= 1 + self._rounding

    def sum_to(self, whole: float) -> bool:
        """Whether the columns of each row do."""
        return all(abs(end - whole) <= whole * self._rounding for end in self._extremes[2:])

    @property
    def _rounding(self) -> float:
        return max(1e-4, _PARTS_OF_ROUNDING * torch.finfo(self.scores.dtype).eps)

    @cached_property
    def _are_whole(self) -> bool:
        return bool((self.scores == self.scores.round()).all())


def _check_chances(look: _Look, gives: Gives) -> None:
    if not look.lie_in_unit_range:
        low, high = look.range
        raise ModelError(
            f"gives={gives!r}, but the model's numbers are {low:.3g} to {high:.3g}, not in [0, 1]"
        )
    if gives == "probabilities" and look.have_columns and not look.sum_to(1):
        mean = float(look.scores[0].sum(0).mean())
        raise ModelError(
            f"gives='probabilities', but a picture's sum to {mean:.3g}; give 'sigmoids' "
            "where each class has one by itself"
        )
