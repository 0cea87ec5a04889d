"""What is explained: a function from a model's output to one score for each image, (N,).

A target is an int (class), a str (a label's name, "top1" .. "topK", or "probability:tabby", "probability:top1",
"margin:tabby/tiger cat", "counterfactual:tabby", "log_odds:tabby", "tabby rather than tiger cat", "top1 rather than
top2", "tabby rather than the rest"), one of the classes here, any callable `output -> (N,)`, or a list of these with
one for each image. An int is always the column. A text is a name first (in any case, or one of several between
commas), and a number where no class has that name. Lists, tuples, arrays and tensors mean the same, and so do numpy's
and torch's numbers and Python's; floats, bools, None, bytes, sets and mappings are no targets.

`target=` of methods and metrics is one target: a list has one for each image. `targets=` of `explain` and `evaluate` is
one or a list of several, each for all images; a list in that list, or a row of an array, has one for each image.

What a target holds for each image goes with it through every batch: a callable of your
own is a `Target`, or has a method `rows(images)` that gives the target of these images.
"""

from .classes import (
    Binary,
    ClassIndex,
    Counterfactual,
    EmbeddingSimilarity,
    Logit,
    Margin,
    Probability,
    Regression,
    ScoreFunction,
    class_scores,
)
from .contrasts import LogOdds, RatherThan
from .detection import DetectionBox, DetectionSimilarity
from .names import ClassNames, LabelsLike
from .numbers import GIVES, Numbers, numbers_of
from .regions import SegmentationRegion
from .resolve import (
    ResolvedTarget,
    TargetLike,
    as_targets,
    check_one_each,
    one_each,
    part_of,
    phrase,
    resolve,
)
from .rows import OneEach
from .target import Target, describe

__all__ = [
    "GIVES",
    "Binary",
    "ClassIndex",
    "ClassNames",
    "Counterfactual",
    "DetectionBox",
    "DetectionSimilarity",
    "EmbeddingSimilarity",
    "LabelsLike",
    "LogOdds",
    "Logit",
    "Margin",
    "Numbers",
    "OneEach",
    "Probability",
    "RatherThan",
    "Regression",
    "ResolvedTarget",
    "ScoreFunction",
    "SegmentationRegion",
    "Target",
    "TargetLike",
    "as_targets",
    "check_one_each",
    "class_scores",
    "describe",
    "numbers_of",
    "one_each",
    "part_of",
    "phrase",
    "resolve",
]
