"""Pictures in: reading any image, and finding those of a folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from ..arguments import brief, checked
from ..errors import ArgumentTypeError, ImageError
from ..no_file import check_is_local
from ..safe_names import shown
from .manifest import is_run_folder
from .opened import MAX_PIXELS, NO_PIXELS, check_pixels, load_whole, opened
from .rgb import Array, turned_size, upright_rgb

_OURS = ("maps.npz", "boxes.json", "evaluation.json")  # beside pictures that seewhy wrote
LARGE = 50_000_000  # pixels: a photo of more is reduced before a model's input is made of it
SHOWN_SIDE = 2048  # the most along either side of a photo that is drawn
ImageLike = str | os.PathLike[str] | Image.Image | Array | Tensor
Least = Callable[[int, int], tuple[int, int]]


class Photo(NamedTuple):
    """A picture (RGB), which may be reduced, and the (height, width) that it has itself."""

    picture: Image.Image
    size: tuple[int, int]


@checked
def read_image(source: ImageLike, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads a picture as 8-bit RGB, right way up.

    EXIF rotation is applied, transparency goes on white, 16-bit grey is scaled from 0..65535 (not clipped), and of
    an animation the first frame is taken. The source is never changed and no file stays open.

    Args:
        source: A path; a PIL picture; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool or
            float in [0, 1]; or a tensor (H, W), (1, H, W) or (3, H, W) of uint8 or float in [0, 1].
        max_pixels: A picture of more is refused; and a file of more than 8 bytes for each of them, or 256 MB.

    Raises:
        ImageError: The file is missing or no sound and whole image, or the values or the shape are not as above.
        ArgumentTypeError: The source, or its dtype, is none of these types.

    Example:
        >>> gray = torch.tensor([[0.0, 0.5], [1.0, 1.0]]).numpy()
        >>> picture = seewhy.images.read_image(gray)
        >>> picture.mode, picture.getpixel((1, 0))
        ('RGB', (128, 128, 128))
    """
    return _plain_copy(_read(source, max_pixels, None).picture, source)


def read_photo(source: ImageLike, *, max_pixels: int = MAX_PIXELS, least: Least) -> Photo:
    """Reads a picture as `read_image` does, but one of more than `LARGE` pixels no larger than it is needed.

    That is decoded in its own mode (a JPEG at a half, quarter or eighth of its size, as far as that is enough), reduced
    to no less than `SHOWN_SIDE` along its longer side, and the whole is let go.

    Args:
        source: As in `read_image`.
        max_pixels: As in `read_image`.
        least: For a (height, width) the one that must be left.
    """
    return _read(source, max_pixels, least)


def drawn_photo(photo: Image.Image) -> Image.Image:
    """A copy of a photo of `SHOWN_SIDE` at most along either side."""
    factor = min(1.0, SHOWN_SIDE / max(photo.size))
    size = max(1, round(photo.width * factor)), max(1, round(photo.height * factor))
    return (
        photo.copy()
        if size == photo.size
        else photo.resize(size, Image.Resampling.BICUBIC, reducing_gap=3)
    )


@checked
def find_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Lists files as given, and of folders all images, sorted, less the hidden and our own; none is an ImageError.

    What is called like an image is listed, whatever it is: reading says of a FIFO, or of a link to nothing, what it is.

    Example:
        >>> [path.name for path in seewhy.images.find_images("photos/red")]
        ['0.png', '1.png']
    """
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    for one in listed:
        _check_path(one)
    given = list(map(Path, listed))
    found: list[Path] = []
    for path in given:
        found += _pictures_below(path) if path.is_dir() else [path]
    if not found:
        where = ", ".join(f"'{shown(path)}'" for path in given) or "an empty list of paths"
        raise ImageError(
            f"no image in {where}; accepted: image files such as .jpg or .png, and folders with some"
        )
    return found


def _check_path(one: object) -> None:
    if not isinstance(one, str | os.PathLike) or not os.fspath(one):
        raise ArgumentTypeError(
            f"paths has {brief(one)}, which is no path; give files, and folders of pictures"
        )


def _pictures_below(folder: Path) -> list[Path]:
    """What in a folder is called like an image, less the hidden and our own, sorted."""
    known = picture_endings()
    ours = {folder: False}  # what is asked for by its name is never left out
    found: list[Path] = []
    for file in sorted(folder.rglob("*")):
        # links to nothing and what is no file stay, to be told of
        if file.suffix.lower() not in known or file.is_dir():
            continue
        if file.parent not in ours:
            ours[file.parent] = _is_ours(file.parent)
        if not ours[file.parent] and not _is_hidden(file.relative_to(folder)):
            found.append(file)
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_ours(folder: Path) -> bool:
    """Whether seewhy wrote into a folder: a run, an entry of one, or what older versions did."""
    if is_run_folder(folder) or is_run_folder(folder.parent):
        return True
    return any((folder / one).exists() for one in _OURS)


@cache
def picture_endings() -> frozenset[str]:
    """The endings of files, with the dot and in small letters, that Pillow reads pixels from."""
    return frozenset(
        end
        for end, kind in Image.registered_extensions().items()
        if kind in Image.OPEN.keys() - NO_PIXELS
    )


def _read(source: ImageLike, max_pixels: int, least: Least | None) -> Photo:
    if isinstance(source, (str, os.PathLike)):
        return _from_file(os.fspath(source), max_pixels, least)
    if isinstance(source, Image.Image):
        picture, name = source, "the picture"
    elif isinstance(source, np.ndarray):
        picture, name = _of_array(source), "image array"
    elif isinstance(source, Tensor):
        picture, name = _of_tensor(source), "image tensor"
    else:
        raise ArgumentTypeError(
            f"image is a {type(source).__name__}; accepted: a path, PIL picture, array or tensor"
        )
    check_pixels(picture.size, name, max_pixels)
    try:
        return _photo(picture, name, least)
    except ImageError:
        raise
    except Exception as error:  # decoders meet damage with whatever their parsing trips over
        raise ImageError(
            f"{name} is truncated or damaged ({error}); get it anew or save it again"
        ) from error


def _from_file(name: str, max_pixels: int, least: Least | None) -> Photo:
    check_is_local(name)
    with opened(Path(name).expanduser(), max_pixels=max_pixels) as picture:
        own = picture.size
        small = _reduced(picture, own, least)
        drafted = small is not None and picture.format in ("JPEG", "MPO")
        if drafted:
            picture.draft(None, small)
        return _photo(picture, f"image '{shown(name)}'", least, own=own if drafted else None)


def _photo(
    picture: Image.Image, name: str, least: Least | None, *, own: tuple[int, int] | None = None
) -> Photo:
    """Decodes a picture, whose (width, height) is another where it is being decoded smaller."""
    load_whole(picture, name)
    size = own or picture.size  # some formats know theirs only now
    rgb = upright_rgb(picture, name, _reduced(picture, size, least))
    return Photo(rgb, turned_size(picture, size)[::-1])


def _reduced(
    picture: Image.Image, size: tuple[int, int], least: Least | None
) -> tuple[int, int] | None:
    """The (width, height), not turned yet, to which a picture is reduced; None for one that is left as it is."""
    if least is None or size[0] * size[1] <= LARGE:
        return None
    width, height = turned_size(picture, size)
    rows, columns = least(height, width)
    scale = max(SHOWN_SIDE / max(size), rows / height, columns / width)
    return None if scale >= 1 else (math.ceil(size[0] * scale), math.ceil(size[1] * scale))


def _plain_copy(picture: Image.Image, source: object) -> Image.Image:
    """No file's picture, and not the one that was given."""
    return picture.copy() if picture is source or type(picture) is not Image.Image else picture


def _eight_bit(values: Array, kind: str) -> npt.NDArray[np.uint8]:
    if values.size == 0:
        raise ImageError(
            f"image {kind} has no pixels: shape {values.shape}; accepted: at least 1 x 1"
        )
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind != "f":
        raise ArgumentTypeError(
            f"image {kind} is {values.dtype}; accepted: uint8, uint16, bool, float; convert it first"
        )
    low, high = values.min(), values.max()
    # The comparison is written so that NaN fails it.
    if not (low >= 0 and high <= 1):
        accepted = "floats in [0, 1]; divide 0..255 by 255, or undo the normalisation"
        raise ImageError(
            f"image {kind} holds floats from {low:g} to {high:g}; accepted: {accepted}"
        )
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


def _of_array(array: Array, kind: str = "array") -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = (
            "; move channels last: .transpose(1, 2, 0)"
            if array.ndim == 3 and array.shape[0] in (1, 3, 4)
            else ""
        )
        raise ImageError(
            f"image array has shape {array.shape}; accepted: (H, W) and (H, W, 1 or 3 or 4){hint}"
        )
    values = _eight_bit(array, kind)
    flat = values[:, :, 0] if values.ndim == 3 and values.shape[2] == 1 else values
    return Image.fromarray(np.ascontiguousarray(flat))


def picture_of_tensor(tensor: Tensor) -> Image.Image:
    """A tensor as `read_image` takes it, as 8-bit RGB."""
    return upright_rgb(_of_tensor(tensor), "image tensor")


def _of_tensor(tensor: Tensor) -> Image.Image:
    shape = tuple(tensor.shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)):
        hint = "; take one picture of a batch with [0]" if len(shape) == 4 else ""
        if len(shape) == 3 and shape[2] in (1, 3):
            hint = "; move channels first: .permute(2, 0, 1)"
        raise ImageError(
            f"image tensor has shape {shape}; accepted: (H, W), (1, H, W) or (3, H, W){hint}"
        )
    # numpy knows no bfloat16
    values = (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().numpy()
    return _of_array(values if values.ndim == 2 else values.transpose(1, 2, 0), "tensor")
