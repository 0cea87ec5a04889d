"""What the numbers of a model's answer are: as it or its user says, and asked for where they may be two things.

A softmax of what is a probability already is none, and nothing in a row of numbers tells what it is; so whatever turns
scores into probabilities takes a `Numbers`, which is settled once for each model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from ...errors import InputError, ModelError
from ...remarks import warn
from ..answers import Gives, main_output
from ..call import Call
from ..keys import Remembered

GIVES: tuple[Gives, ...] = get_args(Gives)

_OF_HEADS: tuple[tuple[type[nn.Module], Gives], ...] = (
    (nn.Softmax, "probabilities"),
    (nn.Sigmoid, "sigmoids"),
    (nn.LogSoftmax, "logits"),
    (nn.Linear, "logits"),
)
_OF_PROBLEMS = ("single_label_classification", "multi_label_classification")  # as transformers' configurations say
_CLASSIFIERS = ("ForImageClassification", "ForSemanticSegmentation")  # as transformers calls them
_PASSED_BY = (nn.Identity, nn.Dropout, nn.Flatten)
_PARTS_OF_ROUNDING = 16  # of one, in the answer's own precision, for each class
_seen: Remembered[list[Gives | None]] = Remembered()


@dataclass(frozen=True)
class Numbers:
    """What the numbers of an answer are.

    Attributes:
        gives: "logits", whose softmax are probabilities; "probabilities" of one class, which sum to 1; "sigmoids", a
            probability for each class by itself; "score", as of a regression or a margin; an "embedding"; a detector's
            "records"; None where they lie in [0, 1] and nothing says what they are.
        multi_label: a picture may show several classes: of logits each has a sigmoid of its own.
    """

    gives: Gives | None
    multi_label: bool = False

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
        return scores.float().sigmoid() if self.multi_label or scores.shape[1] == 1 else scores.float().softmax(1)

    def why_no_probability(self) -> str:
        """Why there is none, and what to do."""
        if self.gives is None:
            return f"the model's numbers lie in [0, 1], and may be probabilities or scores; {_WAY_OUT}"
        return f"the model gives {in_words(self.gives)}, which has no probability; {_WAY_OUT}"


_WAY_OUT = (
    "say what they are: seewhy.wrap(model, gives=...) with 'logits', 'probabilities' (that sum to 1), 'sigmoids' (one "
    "by one) or 'score'"
)


def in_words(gives: Gives) -> str:
    return {"score": "a score", "embedding": "an embedding"}.get(gives, gives)


def check_gives(gives: object) -> None:
    if gives is not None and gives not in GIVES:
        raise InputError(f"gives={gives!r} is not known; use {', '.join(map(repr, GIVES))}")


def numbers_of(call: Call, output: object) -> Numbers:
    """What an answer's numbers are: as its call or its module says, else as the first answer of the model looks.

    Raises:
        ModelError: they are not what they are said to be.
    """
    said = call.gives or (said_by(call.module) if call.output is main_output else None)
    several = call.multi_label or has_many_labels(call.module)
    table = output if isinstance(output, Tensor) and output.numel() else None
    if said is None and table is not None:
        return Numbers(_seen_in(call, table), several)
    if said in ("probabilities", "sigmoids") and table is not None and table.is_floating_point():
        _check_chances(table, said)
    if said == "logits" and table is not None and looks_like(table) == "probabilities":
        if call.gives == said:
            warn(
                "gives='logits', but the model's numbers lie in [0, 1] and sum to 1, as probabilities do: a softmax of "
                "those is none; say gives='probabilities'"
            )
        else:
            said = "probabilities"  # a family's classifier with a head of somebody's own
    return Numbers(said or "logits", several)


def _seen_in(call: Call, table: Tensor) -> Gives | None:
    """What the first answer looked like, unless another lies beyond [0, 1]: no probability does."""
    seen = _seen.get(call.module, call.asked, lambda: [looks_like(table)])
    if seen[0] != "logits" and looks_like(table) == "logits":
        seen[0] = "logits"
    return seen[0]


def said_by(module: nn.Module) -> Gives | None:
    """What a module says of its numbers: by itself, by its configuration, or by how it ends."""
    own: object = getattr(module, "gives", None)
    if own in GIVES:
        return next(each for each in GIVES if each == own)
    config = getattr(module, "config", None)
    problem = getattr(config, "problem_type", None)
    if problem == "regression" or (problem is None and getattr(config, "num_labels", None) == 1):  # as transformers do
        return "score"
    if isinstance(getattr(module, "pretrained_cfg", None), dict) and getattr(module, "num_classes", None) == 0:
        return "embedding"
    if problem in _OF_PROBLEMS or _is_classifier(module):
        return _end_of(_head_of(module)) or "logits"
    if isinstance(module, nn.Sequential) and len(module):
        return said_by(module[-1])
    return _kind_of(module)


def _is_classifier(module: nn.Module) -> bool:
    """Whether it is a classifier of timm, transformers or torchvision, whose own heads give logits."""
    if isinstance(getattr(module, "pretrained_cfg", None), dict):  # timm's
        return True
    return type(module).__name__.endswith(_CLASSIFIERS) or _is_of_torchvision(module)


def _head_of(module: nn.Module) -> nn.Module:
    """The last part of a classifier, which people exchange for one of their own."""
    try:
        own: object = getattr(module, "get_classifier", None)
        head = own() if callable(own) else None
    except AttributeError:  # timm's looks for what has been exchanged
        head = None
    return head if isinstance(head, nn.Module) else next(reversed([module, *module.children()]))


def _end_of(head: nn.Module) -> Gives | None:
    """What a head gives by how it ends; of one that only passes on what it is given, an embedding."""
    parts = [part for part in head.modules() if not part._modules and not isinstance(part, _PASSED_BY)]
    return _kind_of(parts[-1]) if parts else "embedding"


def _kind_of(last: nn.Module) -> Gives | None:
    return next((gives for kind, gives in _OF_HEADS if isinstance(last, kind)), None)


def _is_of_torchvision(module: nn.Module) -> bool:
    """Whether it is a network of torchvision's that classifies pictures, or their places."""
    where = type(module).__module__
    return where.startswith("torchvision.models.") and "detection" not in where


def has_many_labels(module: nn.Module) -> bool:
    """Whether a module says of itself that a picture may show several classes, as transformers' configurations do."""
    problem: object = getattr(getattr(module, "config", None), "problem_type", None)
    return problem == "multi_label_classification"


def looks_like(scores: Tensor) -> Gives | None:
    """What (N, K, ...) or (N,) numbers look like: rows in [0, 1] that sum to 1, beyond that range, or not known."""
    if not scores.is_floating_point():
        return None
    if not _within(scores):
        return "logits"
    return "probabilities" if _has_columns(scores) and _sum_to_one(scores) else None


def _check_chances(scores: Tensor, gives: Gives) -> None:
    if not _within(scores):
        low, high = float(scores.min()), float(scores.max())
        raise ModelError(f"gives={gives!r}, but the model's numbers are {low:.3g} to {high:.3g}, not in [0, 1]")
    if gives == "probabilities" and _has_columns(scores) and not _sum_to_one(scores):
        raise ModelError(
            f"gives='probabilities', but a picture's sum to {float(scores[0].sum(0).mean()):.3g}; give 'sigmoids' "
            "where each class has one by itself"
        )


def _has_columns(scores: Tensor) -> bool:
    return scores.ndim > 1 and scores.shape[1] > 1


def _within(scores: Tensor) -> bool:
    return bool((scores >= 0).all()) and bool((scores <= 1 + _rounding(scores)).all())


def _sum_to_one(scores: Tensor) -> bool:
    return bool(((scores.float().sum(1) - 1).abs() <= _rounding(scores)).all())


def _rounding(scores: Tensor) -> float:
    return max(1e-4, _PARTS_OF_ROUNDING * torch.finfo(scores.dtype).eps)
