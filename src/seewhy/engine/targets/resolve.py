"""From what a user names as the target to score functions for an output, and back to words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...errors import TargetError
from ...names import parted_form, rank_in
from ..constants import keep_indices
from ..readings import Reading, noted, readings_of_the_pass
from .classes import (
    Counterfactual,
    Logit,
    Margin,
    OfClasses,
    Probability,
    ScoreFunction,
    class_scores,
)
from .contrasts import LogOdds, RatherThan
from .given import Single, given_target, given_targets
from .names import ClassNames
from .numbers import Numbers, in_words
from .rows import OneEach, row_of
from .target import CLASSES, Target, columns_of, describe

TargetLike = int | str | Sequence[int | str | ScoreFunction] | Tensor | ScoreFunction


@dataclass(frozen=True, eq=False)
class ResolvedTarget:
    """A target of a batch: what to call it, its score function, the class of each image where it has one, and what the
    numbers of the answer are.

    Example:
        >>> target = seewhy.targets.resolve("top1", net(x), numbers=seewhy.targets.Numbers("logits"))[0]
        >>> target.name, target.indices, target.score(net(x)).detach()
        ('top1', (0,), tensor([4.]))
    """

    name: str
    score: ScoreFunction
    indices: tuple[int | None, ...]
    numbers: Numbers


# what is written before a colon -> the target of it; "A rather than B" and "A rather than the rest" are the last two
FORMS: dict[str, type[OfClasses]] = {
    "logit": Logit,
    "probability": Probability,
    "margin": Margin,
    "counterfactual": Counterfactual,
    "log_odds": LogOdds,
    "rather_than": RatherThan,
}


def resolve(
    target: TargetLike, output: object, labels: Sequence[str] | None = None, *, numbers: Numbers
) -> list[ResolvedTarget]:
    """Turns what the user named into score functions for this output: one, or K for "topK".

    `labels` are the names of its columns, a text is a name first; `numbers` says what the output's are.

    Raises:
        ArgumentTypeError: what is no target.
        ModelError: there are more names than columns, or fewer.
        TargetError: a label, an index or a number of targets that the output does not have.

    Example:
        >>> logits = seewhy.targets.Numbers("logits")
        >>> found = seewhy.targets.resolve("Tiger Cat", torch.eye(2), ["tabby", "tiger cat"], numbers=logits)
        >>> found[0].score(torch.eye(2))
        tensor([0., 1.])
    """
    names = ClassNames.of(labels)
    if names is not None:
        names.check_output(output)
    given = given_target(target)
    if not callable(given):
        _check_has_classes(numbers)
    if isinstance(given, list) and any(map(_is_more_than_a_class, given)):
        return [_resolved_for_each(given, output, names, numbers)]
    top = _top_of(given)
    if top is not None:
        return _best_classes(*top, output, numbers)
    score = given if callable(given) else _score_of_classes(given, names)
    return [_resolved_score(score, output, names, numbers)]


def _check_has_classes(numbers: Numbers) -> None:
    if numbers.gives in ("embedding", "records"):
        raise TargetError(
            f"the model gives {in_words(numbers.gives)}, which has no classes; give a callable target such as "
            "seewhy.targets.EmbeddingSimilarity or DetectionBox"
        )


def _score_of_classes(given: int | str | list[Single], names: ClassNames | None) -> OfClasses:
    """The target of a class, of one for each image, or of what "probability:tabby" names."""
    if isinstance(given, list):
        return Logit(tuple(each for each in given if isinstance(each, int | str)))
    if isinstance(given, int) or not _has_form(given) or (names and names.columns(given)):
        return Logit(given)
    form, text = parted_form(given, FORMS)
    return FORMS[form].from_text(text, names)


def _resolved_score(
    score: ScoreFunction, output: object, names: ClassNames | None, numbers: Numbers
) -> ResolvedTarget:
    if isinstance(output, Tensor) and not output.ndim:
        raise TargetError(
            "the model's output is one number for all images, as a loss is; give output=, a function from what the "
            "model returns to the tensor that is meant"
        )
    settled = _settled_score(_with_ranks_found(score, output), names, numbers)
    index = getattr(settled, "index", None)
    n = len(output) if isinstance(output, Tensor) else None
    indices = index if isinstance(index, tuple) else (index,) * (n or 1)
    return ResolvedTarget(describe(score), settled, indices, numbers)


def is_settled(target: object) -> bool:
    """Whether a target is a function that knows what the output's numbers are, or need not."""
    return callable(target) and getattr(target, "numbers", target) is not None


def _is_more_than_a_class(target: object) -> bool:
    if isinstance(target, str):
        return _top_of(target) is not None or _has_form(target)
    return callable(target)


def _has_form(target: str) -> bool:
    return parted_form(target, FORMS)[0] in FORMS


def _top_of(target: object) -> tuple[int, type[OfClasses]] | None:
    """K and the form of "topK" or "probability:topK"; None of all else, and of forms of two classes."""
    if not isinstance(target, str):
        return None
    name, text = parted_form(target, FORMS)
    form, rank = FORMS[name or "logit"], rank_in(text)
    return None if rank is None or not form.is_of_one_class() else (rank, form)


def _resolved_for_each(
    targets: Sequence[int | str | ScoreFunction],
    output: object,
    labels: ClassNames | None,
    numbers: Numbers,
) -> ResolvedTarget:
    """A list of one target for each image."""
    n = len(targets)
    if isinstance(output, Tensor):
        check_one_each(targets, len(output))
    each = [
        resolve(t, row_of(output, i, n), labels, numbers=numbers) for i, t in enumerate(targets)
    ]
    for target, found in zip(targets, each, strict=True):
        if len(found) > 1:
            raise TargetError(
                f"target {target!r} is {len(found)} targets; a list has one for each image"
            )
    score = OneEach(tuple(found[0].score for found in each))
    return ResolvedTarget(
        describe(score), score, tuple(found[0].indices[0] for found in each), numbers
    )


def _best_classes(
    k: int, form: type[OfClasses], output: object, numbers: Numbers
) -> list[ResolvedTarget]:
    found = []
    for rank, columns in enumerate(_best_columns(k, output), start=1):
        score = form.of_class(tuple(columns)).settled(None, numbers)
        name = form.of_class(f"top{rank}").described()
        found.append(ResolvedTarget(name, score, tuple(columns), numbers))
    return found


def _best_columns(k: int, output: object) -> list[list[int]]:
    """The best class of each image, the second, and so on to the k-th."""
    scores = class_scores(output)
    if not (most := scores.shape[1]) >= k >= 1:
        raise TargetError(
            f"target 'top{k}' asks for {k} classes, the model has {most}; give 'top1' to 'top{most}'"
        )
    return _read_columns(_noted_columns(k, scores))


def note_best_columns(targets: Iterable[TargetLike], output: object) -> None:
    """Has the classes that "topK" means read with what else is read of an answer."""
    tops = {_top_of(target) for target in targets if isinstance(target, str)} - {None}
    if not isinstance(output, Tensor) or output.ndim != 2 or not output.is_floating_point():
        return
    for rank in {top[0] for top in tops if top is not None}:
        if 1 <= rank <= output.shape[1]:
            _noted_columns(rank, output)


def _noted_columns(k: int, scores: Tensor) -> tuple[Tensor, Reading]:
    """The k best columns of each row (N, k), and what will have read them; found once in a pass."""
    readings = readings_of_the_pass()
    key = "best columns", k, id(scores)
    kept = readings.kept.get(key) if readings else None
    if isinstance(kept, tuple) and kept[0] is scores:
        found: tuple[Tensor, Reading] = kept[1]
        return found
    best = scores.detach().topk(k, dim=1).indices
    made = best, noted(best)
    if readings:
        readings.kept[key] = scores, made
    return made


def _read_columns(found: tuple[Tensor, Reading]) -> list[list[int]]:
    """For each rank the column of each image, which stay on the device too."""
    best, reading = found
    columns: list[list[int]] = reading.tensor().T.tolist()
    for rank, each in enumerate(columns):
        keep_indices(tuple(each), best[:, rank].contiguous())
    return columns


def _with_ranks_found(score: ScoreFunction, output: object) -> ScoreFunction:
    """A target of two classes with those of each image in place of "top2"."""
    if not isinstance(score, Margin):
        return score
    found: dict[str, tuple[int, ...]] = {}
    for name in CLASSES:
        value = getattr(score, name)
        rank = rank_in(value) if isinstance(value, str) else None
        if rank is not None:
            found[name] = tuple(_best_columns(rank, output)[-1])
    return dataclasses.replace(score, **found) if found else score


def _settled_score(
    target: ScoreFunction, names: ClassNames | None, numbers: Numbers
) -> ScoreFunction:
    """Replaces the label names in a target by class indices, and says of probabilities which they are."""
    if isinstance(target, Target):
        return target.settled(names, numbers)
    if not dataclasses.is_dataclass(target):  # a callable may have an `index` of its own
        return target
    found = columns_of(target, names)
    if found:
        return dataclasses.replace(target, **found)
    return target


def phrase(target: ResolvedTarget, image: int, label: Callable[[int], str]) -> str:
    """What is explained of one image, in words: "tabby", "not tabby", "tabby rather than tiger cat".

    Example:
        >>> logits = seewhy.targets.Numbers("logits")
        >>> target = seewhy.targets.resolve("margin:0/1", torch.eye(2), numbers=logits)[0]
        >>> seewhy.targets.phrase(target, 0, ["tabby", "tiger cat"].__getitem__)
        'tabby rather than tiger cat'
    """
    score = target.score
    said = score.in_words(image, label) if isinstance(score, Target) else None
    return target.name if said is None else said


def as_targets(targets: TargetLike | Iterable[TargetLike]) -> list[TargetLike]:
    """One target, or several in any container, as a list.

    Raises:
        ArgumentTypeError: what is no target, or has no order.

    Example:
        >>> seewhy.targets.as_targets("top1"), seewhy.targets.as_targets(torch.tensor([1, 2]))
        (['top1'], [1, 2])
    """
    return [*given_targets(targets)]


def check_one_each(target: TargetLike, n: int) -> None:
    """Says of a target that is for each of another number of images how many it has and how many there are.

    Example:
        >>> seewhy.targets.check_one_each([3, 4], 2)  # says nothing: as many as images
    """
    if isinstance(target, Target):
        target.check_images(n)
    each = one_each(target)
    if each is not None and each != n:
        raise TargetError(
            f"target {target!r} names {each} classes for {n} images; give one for each image, or one for all. (Several "
            "targets for all images are targets=[281, 285], one list.)"
        )


def one_each(target: TargetLike) -> int | None:
    """For how many images a target says something of each, None for a target of all.

    Example:
        >>> seewhy.targets.one_each([3, 4]), seewhy.targets.one_each("top1")
        (2, None)
    """
    each = _listed_for_each(target)
    if each is not None:
        return len(each)
    if isinstance(target, Target):
        return target.images
    return None


def _listed_for_each(target: TargetLike) -> list[int | str | ScoreFunction] | None:
    """A list of targets, one for each image, in any container."""
    given = given_target(target)
    return given if isinstance(given, list) else None


def part_of(target: TargetLike, images: Sequence[int]) -> TargetLike:
    """The target of these of the images; of a callable that has `rows`, what that gives for them.

    Example:
        >>> seewhy.targets.part_of(seewhy.targets.Logit((3, 4, 5)), [2, 0])
        Logit(index=(5, 3))
    """
    each = _listed_for_each(target)
    if each is not None:
        return [each[i] for i in images]
    rows = getattr(target, "rows", None)
    return rows(images) if callable(target) and callable(rows) else target
