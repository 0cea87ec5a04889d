"""Questions to an index, and its answers: of each test picture the quantity asked about, and what mattered to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...arguments import brief
from ...engine.targets.names import ClassNames
from ...engine.targets.numbers import numbers_of
from ...engine.targets.resolve import TargetLike, check_one_each, part_of, phrase, resolve
from ...errors import InputError
from ..problem import Problem, Rows, ScoreOrLoss
from ..solvers.solver import Solver
from .manifest import outputs_of

_MOST_BYTES = 256 * 2**20  # of test rows that are held while the store is read once


@dataclass(frozen=True)
class Influential:
    """One training example and its influence on one test quantity.

    Attributes:
        index: its position in the training data.
        name: as in the data set.
        label, label_name: its class.
        score: the influence, in units of the loss or target; see `seewhy.influence.problem`.

    Example:
        >>> from seewhy.influence import InfluenceIndex
        >>> index = InfluenceIndex.fit(net, (images, labels), l2=0.01)
        >>> best = index.query(images[:1], k=1, labels=[0])[0].helpful[0]
        >>> best.index, best.label, best.score > 0
        (5, 0, True)
    """

    index: int
    name: str
    label: int
    label_name: str
    score: float


@dataclass(frozen=True)
class Suspect(Influential):
    """A training example whose label may be wrong; `score` is its influence on its own loss.

    Attributes:
        predicted: what the model says of it.
        predicted_label: that class.
        probability: of that, in [0, 1].

    Example:
        >>> from seewhy.influence import InfluenceIndex, mislabeled
        >>> index = InfluenceIndex.fit(net, (images, labels), l2=0.01)
        >>> worst = mislabeled(index, top=1)[0]
        >>> worst.index, worst.label, worst.predicted_label
        (5, 0, 2)
    """

    predicted: str
    predicted_label: int
    probability: float


@dataclass(frozen=True)
class InfluenceQuery:
    """The training examples that mattered most for one test picture.

    Attributes:
        about: the quantity in words, such as "the loss of tabby".
        predicted: the model's own answer.
        helpful: leaving them out would hurt most; positive scores, best first.
        harmful: leaving them out would help most; negative scores, worst first.
        remarks: what is to know before that is believed, as of a model that has not converged.

    Example:
        >>> from seewhy.influence import InfluenceIndex
        >>> index = InfluenceIndex.fit(net, (images, labels), l2=0.01)
        >>> answer = index.query(images[:1], k=1, labels=[0])[0]
        >>> answer.about, answer.predicted
        ('the loss of class 0', 'class 0')
    """

    about: str
    predicted: str
    helpful: tuple[Influential, ...]
    harmful: tuple[Influential, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Question:
    """Test pictures with a quantity each.

    Attributes:
        images: (T, C, H, W).
        score: their labels, or a function of the outputs.
        words: for each what is asked about.
        answers: for each the class that the model says.
    """

    images: Tensor
    score: ScoreOrLoss
    words: Sequence[str]
    answers: Sequence[int]


@dataclass(frozen=True, eq=False)
class Asked:
    """The solver's test rows of some pictures, with what is asked about each, as in `Question`."""

    rows: Rows
    words: Sequence[str]
    answers: Sequence[int]

    @property
    def dtype(self) -> torch.dtype:
        """The widest floating point among the rows."""
        floating = [rows.dtype for rows in self.rows.values() if rows.is_floating_point()]
        return max(floating, key=lambda dtype: torch.finfo(dtype).bits, default=torch.float32)


def questions(
    problem: Problem,
    images: Tensor,
    labels: Tensor | Sequence[int] | None,
    target: TargetLike | None,
    *,
    classes: ClassNames,
    batch_size: int,
) -> Iterator[Question]:
    """The loss of each picture for its label, or for the model's own answer; or with `target` that, one by one.

    Raises:
        InputError: labels that do not go with the pictures, or both labels and a target.
    """
    if labels is not None and target is not None:
        raise InputError(
            "labels= and target= are both given: labels ask about their loss; give one of them"
        )
    if target is not None:
        yield from _about_target(problem, images, target, classes)
        return
    wanted = None if labels is None else _given_labels(labels, len(images))
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        answers = outputs_of(problem.call, part).argmax(1)
        whose = answers if wanted is None else wanted[start : start + batch_size]
        for label in whose.tolist():
            if not 0 <= label < len(classes):
                raise InputError(
                    f"labels has {label}, the model has {len(classes)} classes: 0 to {len(classes) - 1}"
                )
        words = [f"the loss of {classes[label]}" for label in whose.tolist()]
        yield Question(part, whose, words, answers.tolist())


def _about_target(
    problem: Problem, images: Tensor, target: TargetLike, classes: ClassNames
) -> Iterator[Question]:
    """The target of each picture, one by one: it may be another function for each."""
    check_one_each(target, len(images))
    for i in range(len(images)):
        part = images[i : i + 1]
        outputs = outputs_of(problem.call, part)
        numbers = numbers_of(problem.call, outputs)
        found = resolve(part_of(target, [i]), outputs, classes, numbers=numbers)
        if len(found) > 1:
            raise InputError(f"target={target!r} is {len(found)} targets; ask about one at a time")
        words = [phrase(found[0], 0, classes.label)]
        yield Question(part, found[0].score, words, outputs.argmax(1).tolist())


def _given_labels(given: object, n: int) -> Tensor:
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"labels={brief(given)} holds no whole numbers; give one for each picture"
        ) from error
    if labels.shape != (n,) or labels.is_floating_point():
        raise InputError(
            f"labels has shape {tuple(labels.shape)} of {labels.dtype}; {n} pictures need whole numbers ({n},)"
        )
    return labels.long().cpu()


def asked(solver: Solver, problem: Problem, each: Iterator[Question]) -> Iterator[Asked]:
    """The test rows of the questions, as many together as memory should hold."""
    held: list[tuple[Question, Rows]] = []
    size = 0
    for question in each:
        rows = solver.test_rows(problem, question.images, question.score)
        held.append((question, rows))
        size += sum(tensor.numel() * tensor.element_size() for tensor in rows.values())
        if size > _MOST_BYTES:
            yield _asked_together(held)
            held, size = [], 0
    if held:
        yield _asked_together(held)


def _asked_together(held: Sequence[tuple[Question, Rows]]) -> Asked:
    return Asked(
        {key: torch.cat([rows[key] for _, rows in held]) for key in held[0][1]},
        [words for question, _ in held for words in question.words],
        [answer for question, _ in held for answer in question.answers],
    )
