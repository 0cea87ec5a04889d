"""What is explained: a function from a model's output to one score for each image, (N,).

A target is an int (class), a str (a label's name, "top1" .. "topK", or "probability:tabby", "probability:top1",
"margin:tabby/tiger cat", "counterfactual:tabby"), a list of ints or names (one for each image), one of the classes
here, or any callable `output -> (N,)`.
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
    probabilities,
)
from .detection import DetectionBox, DetectionSimilarity
from .regions import SegmentationRegion
from .resolve import (
    ResolvedTarget,
    TargetLike,
    as_targets,
    check_one_each,
    describe,
    one_each,
    part_of,
    phrase,
    resolve,
)

__all__ = [
    "Binary",
    "ClassIndex",
    "Counterfactual",
    "DetectionBox",
    "DetectionSimilarity",
    "EmbeddingSimilarity",
    "Logit",
    "Margin",
    "Probability",
    "Regression",
    "ResolvedTarget",
    "ScoreFunction",
    "SegmentationRegion",
    "TargetLike",
    "as_targets",
    "check_one_each",
    "class_scores",
    "describe",
    "one_each",
    "part_of",
    "phrase",
    "probabilities",
    "resolve",
]
