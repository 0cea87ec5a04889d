"""Classes of a model's answer as targets: (N, K) scores to one for each image, (N,)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from ...errors import TargetError
from ...names import as_number, check_column, pairs_in, rank_in
from ..answers import Answer, described, has_boxes
from ..constants import column_indices
from .given import given_class, given_classes
from .names import ClassNames
from .numbers import Numbers, known_or_seen
from .target import CLASSES, Target, form_name

ScoreFunction = Callable[[Answer], Tensor]
ClassIndex = int | str | tuple[int | str, ...]


def class_scores(output: object) -> Tensor:
    """Returns the output as (N, K) class scores, of half precision in float32, or says why it is none.

    Example:
        >>> seewhy.targets.class_scores(torch.tensor([0.5, 2.0])).shape
        torch.Size([2, 1])
    """
    if has_boxes(output):
        raise TargetError(
            "the model's output is a detector's records; give a callable target such as seewhy.targets.DetectionBox"
        )
    if not isinstance(output, Tensor):
        raise TargetError(
            f"the model's output is {described(output)}, not one tensor (N, K) of class scores; say which is meant, "
            "output='logits' or output=1 or a function of that output, or give a callable target"
        )
    if not output.is_floating_point():
        raise TargetError(
            f"the model's output is of {str(output.dtype).removeprefix('torch.')} numbers, names of classes and no "
            "scores; give what returns scores (predict_proba), output= that makes counts floats, or a callable target"
        )
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    if output.ndim == 1:
        return output[:, None]
    if output.ndim != 2:
        raise TargetError(
            f"the model's output has shape {tuple(output.shape)}, not (N, K) class scores; give a callable target such "
            "as seewhy.targets.SegmentationRegion, or pass output="
        )
    return output


def score_of_class(output: object, index: ClassIndex) -> Tensor:
    """Picks a class's score for each image: (N, K) -> (N,)."""
    scores = class_scores(output)
    n, k = scores.shape
    if not isinstance(index, tuple):
        return scores[:, check_class(index, k)]
    if len(index) != n:
        raise TargetError(
            f"target names {len(index)} classes for {n} images; give one class, or one for each image"
        )
    columns = tuple(check_class(i, k) for i in index)
    return scores.gather(1, column_indices(columns, scores.device)[:, None])[:, 0]


def check_class(index: int | str, k: int) -> int:
    """Returns the column if it is one of k, or says what it is."""
    if isinstance(index, str):
        raise TargetError(
            f"target {index!r} is a name, and the model has no labels; give the class's index, or labels="
        )
    return check_column(index, k)


class OfClasses(Target):
    """A target of classes by `index`, and perhaps by `other`: a class, or where they may be `one_each`, several.

    Raises:
        ArgumentTypeError: one of them is no class.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in CLASSES:
            if hasattr(self, name):
                read = given_classes if name in self.one_each else given_class
                classes = read(getattr(self, name), f"{type(self).__name__}({name}=)")
                object.__setattr__(self, name, classes)

    @classmethod
    def is_of_one_class(cls) -> bool:
        return [name for name in cls.__dataclass_fields__ if name in CLASSES] == ["index"]

    @classmethod
    def of_class(cls, index: ClassIndex) -> Self:
        """The target of one class, or of one for each image, everything else as it is by default."""
        make: Callable[[ClassIndex], Self] = cls
        return make(index)

    @classmethod
    def from_text(cls, text: str, names: ClassNames | None) -> Self:
        """The target that "form:text" names; that of one class takes the whole text for its name.

        Raises:
            TargetError: the text does not say which classes.
        """
        return cls.of_class(text)


def class_in_words(index: ClassIndex, image: int, label: Callable[[int], str]) -> str:
    """The name of the class that a target has for one image."""
    each = index[image] if isinstance(index, tuple) else index
    return label(each) if isinstance(each, int) else each


@dataclass(frozen=True)
class Logit(OfClasses):
    """The class's score as the model gives it, (N, K) -> (N,); `index` is a class, or a tuple: one for each image.

    Example:
        >>> seewhy.targets.Logit((1, 0))(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([2., 3.])
    """

    index: ClassIndex
    one_each: ClassVar = {"index": 1}

    def __call__(self, output: object) -> Tensor:
        return score_of_class(output, self.index)

    def described(self) -> str:
        """The class alone: "281"."""
        if isinstance(self.index, tuple):
            return ",".join(map(str, self.index))
        return str(self.index)

    def in_words(self, image: int, label: Callable[[int], str]) -> str:
        return class_in_words(self.index, image, label)


@dataclass(frozen=True)
class Probability(OfClasses):
    """The class's probability, in [0, 1], of what the model's numbers are (`Model.gives`).

    Where no model says it, as where it is called on an answer, that answer itself is looked at.

    Example:
        >>> logits = seewhy.targets.Numbers("logits")
        >>> seewhy.targets.Probability(0, logits)(torch.tensor([[2.0, 2.0]]))
        tensor([0.5000])
    """

    index: ClassIndex
    numbers: Numbers | None = dataclasses.field(default=None, repr=False)
    one_each: ClassVar = {"index": 1}

    def __call__(self, output: object) -> Tensor:
        scores = class_scores(output)
        numbers = known_or_seen(self.numbers, output)
        return score_of_class(numbers.probabilities(scores), self.index)

    def in_words(self, image: int, label: Callable[[int], str]) -> str:
        return class_in_words(self.index, image, label)


@dataclass(frozen=True)
class Margin(OfClasses):
    """The score of one class less that of another: what speaks for `index` rather than for `other`.

    Example:
        >>> seewhy.targets.Margin(0, 1)(torch.tensor([[5.0, 2.0]]))
        tensor([3.])
    """

    index: ClassIndex
    other: ClassIndex
    one_each: ClassVar = {"index": 1, "other": 1}

    def __call__(self, output: object) -> Tensor:
        return score_of_class(output, self.index) - score_of_class(output, self.other)

    @classmethod
    def from_text(cls, text: str, names: ClassNames | None) -> Self:
        """The two classes are parted by "rather than", or by a slash, which a name may have one of its own."""
        both = pairs_in(text)
        known = [cut for cut in both if names and all(_is_a_class(side, names) for side in cut)]
        if not both or len(known) > 1:
            several = f", and can be read in {len(known)} ways" if known else ""
            form = form_name(cls)
            way_out = f"'{form}:tabby/tiger cat' or '{form}:281/282'"
            raise TargetError(f"target {f'{form}:{text}'!r} needs two classes{several}: {way_out}")
        return cls(*(known or both)[0])

    def in_words(self, image: int, label: Callable[[int], str]) -> str:
        one, other = (class_in_words(each, image, label) for each in (self.index, self.other))
        return f"{one} rather than {other}"


def _is_a_class(text: str, names: ClassNames) -> bool:
    return bool(names.columns(text)) or as_number(text) is not None or rank_in(text) is not None


@dataclass(frozen=True)
class Counterfactual(OfClasses):
    """The negated score (Grad-CAM, section 3.3): what would have to go for the class to lose its score.

    Example:
        >>> seewhy.targets.Counterfactual(0)(torch.tensor([[5.0, 2.0]]))
        tensor([-5.])
    """

    index: ClassIndex
    one_each: ClassVar = {"index": 1}

    def __call__(self, output: object) -> Tensor:
        return -score_of_class(output, self.index)

    def in_words(self, image: int, label: Callable[[int], str]) -> str:
        return f"not {class_in_words(self.index, image, label)}"


@dataclass(frozen=True)
class Regression(OfClasses):
    """One number of a regression's output, (N,) or (N, K); with `value`, minus the squared distance to that value.

    Example:
        >>> seewhy.targets.Regression(value=30.0)(torch.tensor([[28.0]]))
        tensor([-4.])
    """

    index: ClassIndex = 0
    value: float | None = None
    one_each: ClassVar = {"index": 1}

    def __call__(self, output: object) -> Tensor:
        number = score_of_class(output, self.index)
        if self.value is None:
            return number
        return -((number - self.value) ** 2)


@dataclass(frozen=True)
class Binary(Target):
    """A single-column classifier, (N,) or (N, 1): its score for the positive answer, negated for the other.

    Example:
        >>> seewhy.targets.Binary(positive=False)(torch.tensor([[1.5]]))
        tensor([-1.5000])
    """

    positive: bool = True

    def __call__(self, output: object) -> Tensor:
        scores = class_scores(output)
        if scores.shape[1] != 1:
            raise TargetError(
                f"Binary needs one score for each image, the model has {scores.shape[1]}; give a class index"
            )
        return scores[:, 0] if self.positive else -scores[:, 0]


@dataclass(frozen=True, eq=False)
class EmbeddingSimilarity(Target):
    """Cosine similarity of the output (N, D) with a reference embedding (D,) or (N, D): what makes the two alike.

    Example:
        >>> seewhy.targets.EmbeddingSimilarity(torch.tensor([1.0, 0.0]))(torch.tensor([[3.0, 4.0]]))
        tensor([0.6000])
    """

    reference: Tensor
    one_each: ClassVar = {"reference": 2}

    def __call__(self, output: object) -> Tensor:
        if (
            not isinstance(output, Tensor)
            or output.ndim != 2
            or output.shape[-1] != self.reference.shape[-1]
        ):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TargetError(
                f"EmbeddingSimilarity needs an output (N, {self.reference.shape[-1]}), got {shape}"
            )
        self.check_images(len(output))
        return torch.cosine_similarity(output, self.reference.to(output).expand_as(output), dim=-1)
