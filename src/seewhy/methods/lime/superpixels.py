"""Superpixels: pieces of a picture that belong together, as integer labels (H, W) from 0 without gaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, strided

from ...arguments import brief
from ...data.preprocess import tensor_to_photos
from ...engine.pictures import is_volume
from ...errors import ArgumentTypeError, InputError, did_you_mean
from ..formula import Settings

Picture = npt.NDArray[np.uint8]  # (H, W, 3)
Labels = npt.NDArray[np.integer[Any]]
Segmentation = Callable[..., Labels]
SuperpixelsLike = str | Tensor | Labels | Segmentation
Range = tuple[Tensor, Tensor]


def _quickshift(picture: Picture, **options: object) -> Labels:
    """Quick shift (Vedaldi and Soatto, ECCV 2008), with the parameters of LIME's authors."""
    from skimage.segmentation import quickshift

    return np.asarray(
        quickshift(picture, **{"kernel_size": 4, "max_dist": 200, "ratio": 0.2, **options})
    )


def _slic(picture: Picture, **options: object) -> Labels:
    """SLIC (Achanta et al., PAMI 2012)."""
    from skimage.segmentation import slic

    return np.asarray(
        slic(
            picture,
            **{"n_segments": 50, "compactness": 10.0, "sigma": 1.0, "start_label": 0, **options},
        )
    )


def _felzenszwalb(picture: Picture, **options: object) -> Labels:
    """Felzenszwalb and Huttenlocher (IJCV 2004)."""
    from skimage.segmentation import felzenszwalb

    return np.asarray(
        felzenszwalb(picture, **{"scale": 100, "sigma": 0.5, "min_size": 50, **options})
    )


def _grid(picture: Picture, *, cells: int = 7) -> Labels:
    """Rectangles: `cells` along each edge, or as many as it has pixels."""
    if cells < 1:
        raise InputError(f"cells={cells} is no grid; give at least 1")
    h, w = picture.shape[:2]
    across = min(cells, w)
    rows, cols = np.arange(h) * min(cells, h) // h, np.arange(w) * across // w
    return np.asarray(rows[:, None] * across + cols)


SEGMENTATIONS: dict[str, Segmentation] = {
    "quickshift": _quickshift,
    "slic": _slic,
    "felzenszwalb": _felzenszwalb,
    "grid": _grid,
}


def display_pictures(x: Tensor, bounds: Range | None = None) -> list[Picture]:
    """What of a model's inputs (N, C, H, W) can be looked at, and segmented: uint8 (H, W, 3) each.

    With `bounds`, the lowest and highest value of each channel (C, 1, 1), they become 0 and 255; without, the least
    and the largest value of each image do. One channel is grey, three are RGB; of other numbers the first three
    principal components of each image's colours are shown.
    """
    values = x.detach().cpu().float()
    if bounds is None or len(bounds[0]) != values.shape[1]:
        shown = torch.stack([_three_channels(image) for image in values])
        return [np.asarray(photo) for photo in tensor_to_photos(shown, None)]
    low, high = (bound.detach().cpu().float() for bound in bounds)
    shares = ((values - low) / (high - low)).clamp(0, 1)
    pixels = (shares * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    return list(pixels.permute(0, 2, 3, 1).contiguous().numpy())


def _three_channels(image: Tensor) -> Tensor:
    """An image (C, H, W) of 1 or 3 channels as it is; of others the principal components, each leaning positive."""
    channels = len(image)
    if channels in (1, 3):
        return image.expand(3, -1, -1)
    colors = image.flatten(1).double()
    colors = colors - colors.mean(1, keepdim=True)
    axes = torch.linalg.eigh(colors @ colors.T).eigenvectors.flip(1)[
        :, :3
    ]  # (C, 3), the widest first
    axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # an eigenvector has no sign of its own
    shown = torch.zeros(3, colors.shape[1], dtype=colors.dtype)
    shown[: axes.shape[1]] = axes.T @ colors
    return shown.reshape(3, *image.shape[1:]).float()


def segment(
    x: Tensor,
    superpixels: SuperpixelsLike = "quickshift",
    *,
    options: Settings | None = None,
    bounds: Range | None = None,
) -> list[Tensor]:
    """Divides each of the images into superpixels.

    The segmentation sees what `display_pictures` shows of an image, and nothing random: the same image has the same
    superpixels, in any batch.

    Args:
        x: (N, C, H, W), preprocessed.
        superpixels: "quickshift", "slic", "felzenszwalb", "grid"; a function from a picture uint8 (H, W, 3) to labels
            (H, W); or labels, (H, W) for all images or (N, H, W), any integers. Volumes need labels, (D, H, W).
        options: of the segmentation, in place of its defaults; scikit-image's, and `cells` of "grid".
        bounds: the range of the model's input, where it is known.

    Returns:
        For each image (H, W) int64, labels 0 to d - 1, each of them there.

    Raises:
        InputError: the name is not known, the options do not fit, or the labels have another shape or no integers.
        ArgumentTypeError: `superpixels` is none of these.
    """
    if isinstance(superpixels, Tensor | np.ndarray):
        return _own_labels(x, superpixels)
    if is_volume(x):
        raise InputError(
            f"superpixels are of pictures, and x is volumes {tuple(x.shape)}; give labels (D, H, W)"
        )
    divide, found = _segmentation(superpixels), []
    for picture in display_pictures(x, bounds):
        try:
            labels = divide(picture, **(options or {}))
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(
                f"superpixels cannot be made with the options {dict(options or {})}: {error}"
            ) from error
        found += _own_labels(x[:1], labels)
    return found


def _segmentation(superpixels: str | Segmentation) -> Segmentation:
    """The function that was given, or the one of that name."""
    if callable(superpixels):
        return superpixels
    if not isinstance(superpixels, str):
        kind = type(superpixels).__name__
        raise ArgumentTypeError(
            f"superpixels is a {kind}; give a name, integer labels (H, W) or a function"
        )
    if superpixels not in SEGMENTATIONS:
        known = ", ".join(map(repr, SEGMENTATIONS))
        hint = did_you_mean(superpixels, SEGMENTATIONS)
        raise InputError(
            f"superpixels={superpixels!r} is not known{hint}; use {known}, or labels (H, W)"
        )
    return SEGMENTATIONS[superpixels]


def _own_labels(x: Tensor, labels: Tensor | Labels) -> list[Tensor]:
    """Labels that somebody gave, checked, one (H, W) for each image, numbered anew in their order."""
    if isinstance(labels, Tensor) and (labels.is_meta or labels.layout is not strided):
        raise InputError(
            f"superpixels={brief(labels)} holds no labels here; give a dense tensor of whole numbers"
        )
    given = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    n, size = len(x), tuple(x.shape[2:])
    if given.shape not in (size, (n, *size)):
        accepted = f"{size} for all images or {(n, *size)}"
        raise InputError(
            f"superpixels has shape {given.shape}, the input needs labels of shape {accepted}"
        )
    if given.dtype.kind not in "iub":
        raise InputError(
            f"superpixels holds {given.dtype}; give integer labels, one for each superpixel"
        )
    each = [given] * n if given.shape == size else list(given)
    return [torch.from_numpy(np.unique(one, return_inverse=True)[1].reshape(size)) for one in each]


def sizes(labels: Tensor) -> Tensor:
    """How many pixels each superpixel has: (d,)."""
    return torch.bincount(labels.flatten())


def centers(labels: Tensor) -> Tensor:
    """The mean (row, column) of each superpixel's pixels: (d, 2) float64; of volumes (slice, row, column)."""
    places = torch.meshgrid(*(torch.arange(n).double() for n in labels.shape), indexing="ij")
    total = [torch.bincount(labels.flatten(), weights=place.flatten()) for place in places]
    return torch.stack(total, 1) / sizes(labels)[:, None]
