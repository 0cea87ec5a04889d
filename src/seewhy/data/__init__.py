"""What goes in: pictures, how they become inputs, and data sets, named by specs such as "scenes" or "coco:PATH"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names
from .dataset import SPLITS, Example, LabeledImages, OnError, check_splits
from .images import find_images, read_image
from .placement import Placement
from .preprocess import IMAGENET, Preprocess, tensor_to_photos
from .sources import CLASSES, SOURCES, find_data

if TYPE_CHECKING:
    from .drawn.cutouts import Cutouts
    from .drawn.scenes import Scenes
    from .formats.coco import Coco
    from .formats.cub import Cub
    from .formats.folder import PictureFolder
    from .formats.imagenet import ImageNet
    from .formats.openimages import OpenImages
    from .formats.stl10 import STL10
    from .formats.table import PictureTable
    from .formats.voc import PascalVOC

__getattr__ = lazy_names(__name__, CLASSES)

__all__ = [
    "IMAGENET", "SOURCES", "SPLITS", "Coco", "Cub", "Cutouts", "Example", "ImageNet", "LabeledImages", "OnError",
    "OpenImages", "PascalVOC", "PictureFolder", "PictureTable", "Placement", "Preprocess", "STL10", "Scenes",
    "check_splits", "find_data", "find_images", "read_image", "tensor_to_photos",
]  # fmt: skip
