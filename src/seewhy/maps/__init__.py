"""What comes out: numbers over the places of a picture, and the records, boxes and components that are made of them."""

from .attribution import Attribution, Estimate, Family, Prediction
from .values import READABLE, STATUS_MEANINGS, Status, fuse, normalize, resize, smooth, statuses

__all__ = [
    "READABLE",
    "STATUS_MEANINGS",
    "Attribution",
    "Estimate",
    "Family",
    "Prediction",
    "Status",
    "fuse",
    "normalize",
    "resize",
    "smooth",
    "statuses",
]
