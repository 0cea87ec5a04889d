"""Masked forward passes: the engine of the perturbation methods and of the faithfulness metrics."""

from .baselines import (
    AnyBaseline,
    Baseline,
    BaselineLike,
    Blur,
    MeanColour,
    Noise,
    Picture,
    Several,
    SuperpixelMean,
    Zeros,
    find_baseline,
    image_seed,
)
from .engine import Chunk, ScorerError, masked_scores, settle
from .masks import FieldMasks, GridMasks, Masks, PatchMasks, StepMasks, SuperpixelMasks
from .moments import Design, Form, Found, estimate
from .rows import rows_of
from .running import Running, keep_allocator_memory
from .sampling import PAIR, Scheme, draw_grids

__all__ = [
    "AnyBaseline",
    "Baseline",
    "BaselineLike",
    "Blur",
    "Chunk",
    "Design",
    "FieldMasks",
    "Form",
    "Found",
    "GridMasks",
    "Masks",
    "MeanColour",
    "Noise",
    "PAIR",
    "PatchMasks",
    "Picture",
    "Running",
    "Scheme",
    "ScorerError",
    "Several",
    "StepMasks",
    "SuperpixelMasks",
    "SuperpixelMean",
    "Zeros",
    "draw_grids",
    "estimate",
    "find_baseline",
    "image_seed",
    "keep_allocator_memory",
    "masked_scores",
    "rows_of",
    "settle",
]
