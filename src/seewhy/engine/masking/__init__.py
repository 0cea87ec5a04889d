"""Masked forward passes: the engine of the perturbation methods and of the faithfulness metrics."""

from ..draws import image_seed
from ..targets.rows import rows_of
from .baselines import (
    AnyBaseline,
    Baseline,
    BaselineLike,
    Blur,
    MeanColor,
    Noise,
    Picture,
    Several,
    SuperpixelMean,
    Zeros,
    find_baseline,
)
from .masks import FieldMasks, GridMasks, Masks, PatchMasks, StepMasks, SuperpixelMasks
from .running import Running, keep_allocator_memory
from .scoring import Chunk, ScorerError, masked_scores, settle

__all__ = [
    "AnyBaseline",
    "Baseline",
    "BaselineLike",
    "Blur",
    "Chunk",
    "FieldMasks",
    "GridMasks",
    "Masks",
    "MeanColor",
    "Noise",
    "PatchMasks",
    "Picture",
    "Running",
    "ScorerError",
    "Several",
    "StepMasks",
    "SuperpixelMasks",
    "SuperpixelMean",
    "Zeros",
    "find_baseline",
    "image_seed",
    "keep_allocator_memory",
    "masked_scores",
    "rows_of",
    "settle",
]
