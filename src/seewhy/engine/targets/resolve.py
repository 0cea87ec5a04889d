"""From what a user names as the target to score functions for an output, and back to words."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import TargetError
from ...names import as_number
from .classes import Counterfactual, Logit, Margin, Probability, ScoreFunction, class_scores
from .given import given_classes, given_target, given_targets
from .names import ClassNames, column_of
from .numbers import Numbers, in_words
from .regions import SegmentationRegion
from .rows import OneEach, row_of
from .target import Target

OWN = "each image's own"  # what a target is called that is another for each image
TargetLike = int | str | Sequence[int | str | ScoreFunction] | Tensor | ScoreFunction


@dataclass(frozen=True, eq=False)
class ResolvedTarget:
    """A target of a batch: what to call it, its score function, the class of each image where it has one, and what the
    numbers of the answer are.
    """

    name: str
    score: ScoreFunction
    indices: tuple[int | None, ...]
    numbers: Numbers


FORMS: dict[str, Callable[..., ScoreFunction]] = {
    "logit": Logit,
    "probability": Probability,
    "margin": Margin,
    "counterfactual": Counterfactual,
}
_OF_ONE_CLASS = "|".join(form for form in FORMS if form != "margin")
_TOP = re.compile(rf"(?:({_OF_ONE_CLASS}):\s*)?top(\d+)")


def resolve(
    target: TargetLike, output: Any, labels: Sequence[str] | None = None, *, numbers: Numbers
) -> list[ResolvedTarget]:
    """Turns what the user named into score functions for this output: one, or K for "topK".

    `labels` are the names of its columns, a text is a name first; `numbers` says what the output's are.

    Raises:
        ArgumentTypeError: what is no target.
        ModelError: there are more names than columns, or fewer.
        TargetError: a label, an index or a number of targets that the output does not have.
    """
    names = ClassNames.of(labels)
    if names is not None:
        names.check_output(output)
    given = given_target(target)
    if not callable(given) and numbers.gives in ("embedding", "records"):
        raise TargetError(
            f"the model gives {in_words(numbers.gives)}, which has no classes; give a callable target such as "
            "seewhy.targets.EmbeddingSimilarity or DetectionBox"
        )
    if isinstance(given, list) and any(map(_is_more_than_a_class, given)):
        return [_one_each(given, output, names, numbers)]
    if isinstance(given, list):
        given = Logit(tuple(each for each in given if isinstance(each, int | str)))
    elif isinstance(given, str) and (match := _TOP.fullmatch(given)):
        return _top(int(match[2]), output, FORMS[match[1] or "logit"], numbers)
    elif isinstance(given, str) and _has_form(given) and not (names and names.columns(given)):
        given = _form(given, names)
    elif isinstance(given, int | str):
        given = Logit(given)
    if isinstance(output, Tensor) and not output.ndim:
        raise TargetError(
            "the model's output is one number for all images, as a loss is; give output=, a function from what the "
            "model returns to the tensor that is meant"
        )
    scored = _settled(given, names, numbers)
    index = getattr(scored, "index", None)
    n = len(output) if isinstance(output, Tensor) else None
    indices = index if isinstance(index, tuple) else (index,) * (n or 1)
    return [ResolvedTarget(describe(given), scored, indices, numbers)]


def is_settled(target: object) -> bool:
    """Whether a target is a function that knows what the output's numbers are, or need not."""
    return callable(target) and getattr(target, "numbers", target) is not None


def _is_more_than_a_class(target: object) -> bool:
    if isinstance(target, str):
        return bool(_TOP.fullmatch(target)) or _has_form(target)
    return callable(target)


def _has_form(target: str) -> bool:
    return ":" in target and target.partition(":")[0] in FORMS


def _one_each(
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


def _form(target: str, names: ClassNames | None) -> ScoreFunction:
    """The target that "probability:tabby" or "margin:tabby/tiger cat" names."""
    form, _, name = target.partition(":")
    if form != "margin":
        return FORMS[form](name)
    parts = name.split("/")
    cuts = [("/".join(parts[:i]), "/".join(parts[i:])) for i in range(1, len(parts))]
    both = [cut for cut in cuts if all(cut)]
    known = [
        cut
        for cut in both
        if names and all(names.columns(side) or as_number(side) is not None for side in cut)
    ]
    if not both or len(known) > 1:  # a name may have a slash of its own
        several = f", and can be read in {len(known)} ways" if known else ""
        way_out = "'margin:tabby/tiger cat' or 'margin:281/282'"
        raise TargetError(f"target {target!r} needs two classes{several}: {way_out}")
    return Margin(*(known or both)[0])


def _top(
    k: int, output: Any, form: Callable[..., ScoreFunction], numbers: Numbers
) -> list[ResolvedTarget]:
    scores = class_scores(output)
    if not (most := scores.shape[1]) >= k >= 1:
        raise TargetError(
            f"target 'top{k}' asks for {k} classes, the model has {most}; give 'top1' to 'top{most}'"
        )
    best = scores.detach().topk(k, dim=1).indices.T.tolist()  # (k, N)
    return [
        ResolvedTarget(
            describe(form(f"top{rank}")),
            _settled(form(tuple(indices)), None, numbers),
            tuple(indices),
            numbers,
        )
        for rank, indices in enumerate(best, start=1)
    ]


def _settled(target: ScoreFunction, names: ClassNames | None, numbers: Numbers) -> ScoreFunction:
    """Replaces the label names in a target by class indices, and says of probabilities which they are."""
    if not dataclasses.is_dataclass(target):  # a callable may have an `index` of its own
        return target
    found: dict[str, Any] = {}
    for name in ("index", "other"):
        value = getattr(target, name, None)
        if isinstance(value, str | tuple):
            given = given_classes(value, f"{type(target).__name__}({name}=)")
            listed = isinstance(given, tuple)
            found[name] = (
                tuple(column_of(v, names) for v in given) if listed else column_of(given, names)
            )
    if isinstance(target, Probability | SegmentationRegion) and target.numbers is None:
        found["numbers"] = numbers
    return dataclasses.replace(target, **found) if found else target


def phrase(target: ResolvedTarget, image: int, label: Callable[[int], str]) -> str:
    """What is explained of one image, in words: "tabby", "not tabby", "tabby rather than tiger cat"."""

    def name(value: Any) -> str:
        each = value[image] if isinstance(value, tuple) else value
        return label(each) if isinstance(each, int) else str(each)

    score = target.score
    if isinstance(score, OneEach):
        own = score.targets[image]
        return phrase(dataclasses.replace(target, name=describe(own), score=own), 0, label)
    if isinstance(score, Margin):
        return f"{name(score.index)} rather than {name(score.other)}"
    if isinstance(score, Counterfactual):
        return f"not {name(score.index)}"
    return name(score.index) if isinstance(score, Logit | Probability) else target.name


def describe(target: Any) -> str:
    """A short name for a target: "281", "margin(281, 285)", or the callable's own name."""
    if isinstance(target, Logit):
        return (
            ",".join(map(str, target.index))
            if isinstance(target.index, tuple)
            else str(target.index)
        )
    if isinstance(target, OneEach):
        return OWN
    if dataclasses.is_dataclass(target) and not isinstance(target, type):
        values = [getattr(target, f.name) for f in dataclasses.fields(target) if f.repr]
        shown = [value for value in values if not isinstance(value, Tensor | None)]
        return f"{type(target).__name__.lower()}({', '.join(map(str, shown))})"
    return getattr(target, "__name__", type(target).__name__)


def as_targets(targets: TargetLike | Iterable[TargetLike]) -> list[TargetLike]:
    """One target, or several in any container, as a list.

    Raises:
        ArgumentTypeError: what is no target, or has no order.
    """
    return [*given_targets(targets)]


def check_one_each(target: TargetLike, n: int) -> None:
    """Says of a target that is for each of another number of images how many it has and how many there are."""
    if isinstance(target, Target):
        target.check_images(n)
    each = one_each(target)
    if each is not None and each != n:
        raise TargetError(
            f"target {target!r} names {each} classes for {n} images; give one for each image, or one for all. (Several "
            "targets for all images are targets=[281, 285], one list.)"
        )


def one_each(target: TargetLike) -> int | None:
    """For how many images a target says something of each, None for a target of all."""
    each = _listed(target)
    if each is not None:
        return len(each)
    return target.images if isinstance(target, Target) else None


def _listed(target: TargetLike) -> list[int | str | ScoreFunction] | None:
    """A list of targets, one for each image, in any container."""
    given = given_target(target)
    return given if isinstance(given, list) else None


def part_of(target: TargetLike, images: Sequence[int]) -> TargetLike:
    """The target of these of the images; of a callable that has `rows`, what that gives for them."""
    each = _listed(target)
    if each is not None:
        return [each[i] for i in images]
    rows = getattr(target, "rows", None)
    return rows(images) if callable(target) and callable(rows) else target
