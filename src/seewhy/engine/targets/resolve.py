"""From what a user names as the target to score functions for an output, and back to words."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import ArgumentTypeError, TargetError, did_you_mean
from .classes import Counterfactual, Logit, Margin, Probability, ScoreFunction, class_scores
from .regions import SegmentationRegion
from .rows import OneEach, row_of
from .target import Target

OWN = "each image's own"  # what a target is called that is another for each image
TargetLike = int | str | Sequence[int | str | ScoreFunction] | Tensor | ScoreFunction


@dataclass(frozen=True, eq=False)
class ResolvedTarget:
    """A target of a batch: what to call it, its score function, and the class of each image where it has one."""

    name: str
    score: ScoreFunction
    indices: tuple[int | None, ...]


_FORMS: dict[str, Callable[..., ScoreFunction]] = {
    "logit": Logit,
    "probability": Probability,
    "margin": Margin,
    "counterfactual": Counterfactual,
}
_OF_ONE_CLASS = "|".join(form for form in _FORMS if form != "margin")
_TOP = re.compile(rf"(?:({_OF_ONE_CLASS}):\s*)?top(\d+)")


def resolve(
    target: TargetLike, output: Any, labels: Sequence[str] | None = None, *, multi_label: bool = False
) -> list[ResolvedTarget]:
    """Turns what the user named into score functions for this output: one, or K for "topK".

    With `multi_label` probabilities are sigmoids.

    Raises:
        TargetError: a label, an index or a number of targets that the output does not have.
    """
    if isinstance(target, str) and (match := _TOP.fullmatch(target)):
        return _top(int(match[2]), output, _FORMS[match[1] or "logit"], multi_label)
    if isinstance(target, str) and target.partition(":")[0] in _FORMS and ":" in target:
        return resolve(_form(target), output, labels, multi_label=multi_label)
    if hasattr(target, "tolist"):  # a tensor, or numpy's integers and arrays
        target = target.tolist()
    if isinstance(target, bool) or target is None:
        raise ArgumentTypeError(f"target={target!r} is no target; give a class index, a label, 'top1' or a callable")
    if isinstance(target, int | str):
        target = Logit(target)
    elif isinstance(target, Sequence) and any(map(_is_more_than_a_class, target)):
        return [_one_each(target, output, labels, multi_label)]
    elif isinstance(target, Sequence):
        each: list[Any] = list(target)
        target = Logit(tuple(each))
    if not callable(target):
        raise ArgumentTypeError(
            f"target={target!r} is no target; give a class index, a label, 'topK', a list of those, or a callable"
        )
    if isinstance(output, Tensor) and not output.ndim:
        raise TargetError(
            "the model's output is one number for all images, as a loss is; give output=, a function from what the "
            "model returns to the tensor that is meant"
        )
    scored = _settled(target, labels, multi_label)
    index = getattr(scored, "index", None)
    n = len(output) if isinstance(output, Tensor) else None
    indices = index if isinstance(index, tuple) else (index,) * (n or 1)
    return [ResolvedTarget(describe(target), scored, indices)]


def _is_more_than_a_class(target: object) -> bool:
    if isinstance(target, str):
        return bool(_TOP.fullmatch(target)) or (target.partition(":")[0] in _FORMS and ":" in target)
    return callable(target)


def _one_each(
    targets: Sequence[int | str | ScoreFunction], output: object, labels: Sequence[str] | None, multi_label: bool
) -> ResolvedTarget:
    """A list of one target for each image."""
    n = len(targets)
    if isinstance(output, Tensor):
        check_one_each(targets, len(output))
    each = [resolve(t, row_of(output, i, n), labels, multi_label=multi_label) for i, t in enumerate(targets)]
    for target, found in zip(targets, each, strict=True):
        if len(found) > 1:
            raise TargetError(f"target {target!r} is {len(found)} targets; a list has one for each image")
    score = OneEach(tuple(found[0].score for found in each))
    return ResolvedTarget(describe(score), score, tuple(found[0].indices[0] for found in each))


def _form(target: str) -> ScoreFunction:
    """The target that "probability:tabby" or "margin:tabby/tiger cat" names."""
    form, _, name = target.partition(":")
    if form != "margin":
        return _FORMS[form](name)
    first, _, second = name.partition("/")
    if not first or not second:
        raise TargetError(f"target {target!r} needs two classes: 'margin:tabby/tiger cat' or 'margin:281/282'")
    return Margin(first, second)


def _top(k: int, output: Any, form: Callable[..., ScoreFunction], multi_label: bool) -> list[ResolvedTarget]:
    scores = class_scores(output)
    if not (most := scores.shape[1]) >= k >= 1:
        raise TargetError(f"target 'top{k}' asks for {k} classes, the model has {most}; give 'top1' to 'top{most}'")
    best = scores.detach().topk(k, dim=1).indices.T.tolist()  # (k, N)
    return [
        ResolvedTarget(describe(form(f"top{rank}")), _settled(form(tuple(indices)), None, multi_label), tuple(indices))
        for rank, indices in enumerate(best, start=1)
    ]


def _settled(target: ScoreFunction, labels: Sequence[str] | None, multi_label: bool) -> ScoreFunction:
    """Replaces the label names in a target by class indices, and says of probabilities which they are."""
    if not dataclasses.is_dataclass(target):  # a callable may have an `index` of its own
        return target
    named = {f: getattr(target, f, None) for f in ("index", "other")}
    found: dict[str, Any] = {
        f: tuple(_index(v, labels) for v in value) if isinstance(value, tuple) else _index(value, labels)
        for f, value in named.items()
        if isinstance(value, str | tuple)
    }
    if multi_label and isinstance(target, Probability | SegmentationRegion):
        found["multi_label"] = True
    return dataclasses.replace(target, **found) if found else target


def _index(name: int | str, labels: Sequence[str] | None) -> int | str:
    """The index of a label: the whole name, or the one label that has it among its comma-separated synonyms."""
    if not isinstance(name, str):
        if isinstance(name, bool) or not hasattr(name, "__index__"):
            raise ArgumentTypeError(f"target has {name!r} in its list, which is no class; give indices or labels")
        return operator.index(name)
    if name.isdecimal():
        return int(name)
    if labels is None:
        return name
    wanted = name.strip().lower()
    exact = [i for i, label in enumerate(labels) if label.lower() == wanted]
    partial = [i for i, label in enumerate(labels) if wanted in [part.strip().lower() for part in label.split(",")]]
    found = exact or partial
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{i} ({labels[i]})" for i in found[:4])  # ImageNet has two cranes
        raise TargetError(f"target {name!r} is the name of several classes: {several}; give the index")
    raise TargetError(f"target {name!r} is not a label of the model{did_you_mean(name, labels)}")


def phrase(target: ResolvedTarget, image: int, label: Callable[[int], str]) -> str:
    """What is explained of one image, in words: "tabby", "not tabby", "tabby rather than tiger cat"."""

    def name(value: Any) -> str:
        each = value[image] if isinstance(value, tuple) else value
        return label(each) if isinstance(each, int) else str(each)

    score = target.score
    if isinstance(score, OneEach):
        own = score.targets[image]
        return phrase(ResolvedTarget(describe(own), own, ()), 0, label)
    if isinstance(score, Margin):
        return f"{name(score.index)} rather than {name(score.other)}"
    if isinstance(score, Counterfactual):
        return f"not {name(score.index)}"
    return name(score.index) if isinstance(score, Logit | Probability) else target.name


def describe(target: Any) -> str:
    """A short name for a target: "281", "margin(281, 285)", or the callable's own name."""
    if isinstance(target, Logit):
        return ",".join(map(str, target.index)) if isinstance(target.index, tuple) else str(target.index)
    if isinstance(target, OneEach):
        return OWN
    if dataclasses.is_dataclass(target) and not isinstance(target, type):
        values = [getattr(target, f.name) for f in dataclasses.fields(target) if f.repr]
        shown = [value for value in values if not isinstance(value, Tensor | None)]
        return f"{type(target).__name__.lower()}({', '.join(map(str, shown))})"
    return getattr(target, "__name__", type(target).__name__)


def as_targets(targets: TargetLike | Iterable[TargetLike]) -> list[TargetLike]:
    """One target or several as a list."""
    if isinstance(targets, str | int | Tensor) or callable(targets):
        return [targets]
    if not isinstance(targets, Iterable):
        raise ArgumentTypeError(f"targets={targets!r} is no target; give a class, a label, 'topK' or a callable")
    return list(targets)


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
    if hasattr(target, "tolist"):
        target = target.tolist()
    return list(target) if isinstance(target, Sequence) and not isinstance(target, str) else None


def part_of(target: TargetLike, images: Sequence[int]) -> TargetLike:
    """The target of these of the images; of a callable that has `rows`, what that gives for them."""
    each = _listed(target)
    if each is not None:
        return [each[i] for i in images]
    rows = getattr(target, "rows", None)
    return rows(images) if callable(target) and callable(rows) else target
