"""Pictures in and out: reading any image, preparing it for a model, and placing a map back on the photo."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import ArgumentTypeError, ImageError, did_you_mean
from .manifest import is_run_folder

# Pillow recognises these containers and has no pixels of them to give.
_NO_PIXELS = {"BUFR", "GRIB", "HDF5", "MPEG"}
_ORIENTATION = 0x112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SAYS_HOW_TO_TURN = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_OURS = ("maps.npz", "boxes.json", "evaluation.json")  # beside pictures that seewhy wrote


def read_image(source: str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | Tensor) -> Image.Image:
    """Reads a picture as 8-bit RGB, right way up.

    EXIF rotation is applied, transparency goes on white, 16-bit grey is scaled from 0..65535 (not clipped), and of
    an animation the first frame is taken. The source is never changed and no file stays open.

    Args:
        source: A path; a PIL picture; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool or
            float in [0, 1]; or a tensor (H, W), (1, H, W) or (3, H, W) of uint8 or float in [0, 1].

    Raises:
        ImageError: The file is missing or no sound image, or the values or the shape are not as above.
        ArgumentTypeError: The source, or its dtype, is none of these types.
    """
    if isinstance(source, (str, os.PathLike)):
        return _from_file(os.fspath(source))
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the picture")
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Tensor):
        return picture_of_tensor(source)
    raise ArgumentTypeError(f"image is a {type(source).__name__}; accepted: a path, PIL picture, array or tensor")


def find_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Lists files as given, and of folders all images, sorted, less the hidden and our own; none is an ImageError."""
    given = [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    known = picture_endings()
    found: list[Path] = []
    for path in given:
        inside = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in known and file.is_file()]
        ours = [p for p in {f.parent for f in inside} - {path} if _is_ours(p)]
        shown = [f for f in inside if f.parent not in ours and not any(p[0] == "." for p in f.relative_to(path).parts)]
        found += shown if path.is_dir() else [path]
    if not found:
        where = ", ".join(f"'{path}'" for path in given) or "an empty list of paths"
        raise ImageError(f"no image in {where}; accepted: image files such as .jpg or .png, and folders with some")
    return found


def _is_ours(folder: Path) -> bool:
    """Whether seewhy wrote into a folder: a run, an entry of one, or what older versions did."""
    return is_run_folder(folder) or is_run_folder(folder.parent) or any((folder / one).exists() for one in _OURS)


@cache
def picture_endings() -> frozenset[str]:
    """The endings of files, with the dot and in small letters, that Pillow reads pixels from."""
    return frozenset(
        end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN.keys() - _NO_PIXELS
    )


def upright(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF data say, of which one tag is read; what else they hold may be of any type.

    Pillow's own `exif_transpose` writes all of them anew, and fails on tags of other types than it knows.
    """
    picture.load()  # some formats turn themselves, and drop the tag
    turn = picture.getexif().get(_ORIENTATION)
    if type(turn) is not int or turn not in _TURNS:
        return picture
    turned = picture.transpose(_TURNS[turn])
    for name in _SAYS_HOW_TO_TURN:
        turned.info.pop(name, None)
    return turned


def _from_file(name: str) -> Image.Image:
    if re.match(r"https?:/", name, re.IGNORECASE):
        raise ImageError(f"image '{name}' is a web address; accepted: a local file; download it first")
    path = Path(name).expanduser()
    if os.path.isdir(path):
        raise ImageError(f"image '{name}' is a folder; accepted: one image file; find_images() lists those in a folder")
    if not os.path.exists(path):
        siblings = os.listdir(path.parent) if os.path.isdir(path.parent) else []
        raise ImageError(f"image '{name}' does not exist" + did_you_mean(path.name, siblings))
    try:
        with Image.open(path) as picture:
            return _to_rgb(picture, f"image '{name}'")
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"image '{name}' is too large to open safely ({error}); make it smaller first") from error
    except UnidentifiedImageError as error:
        what = "is not an image that Pillow can read" if os.path.getsize(path) else "is empty"
        raise ImageError(f"image '{name}' {what}; accepted: image files; convert to PNG or JPEG") from error
    except Exception as error:  # decoders meet damage with whatever their parsing trips over
        why = getattr(error, "strerror", None) or f"it is truncated or damaged: {error}"
        raise ImageError(f"image '{name}' cannot be opened ({why}); check its rights, or get it anew") from error


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    if 0 in picture.size:
        raise ImageError(f"{name} has no pixels: {picture.width} x {picture.height}; accepted: at least 1 x 1")
    try:
        turned = upright(picture)
        if turned.mode in ("I", "F") or turned.mode.startswith("I;16"):
            return Image.fromarray(eight_bit_grey(np.asarray(turned), name)).convert("RGB")
        if not turned.has_transparency_data:
            # a copy, also where there is nothing to convert
            return turned.convert("RGB")
        # Pillow converts premultiplied grey to nothing but LA.
        layer = (turned.convert("LA") if turned.mode == "La" else turned).convert("RGBA")
    except ImageError:
        raise
    except Exception as error:  # as above
        raise ImageError(f"{name} is truncated or damaged ({error}); get it anew or save it again") from error
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def eight_bit_grey(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Brings 16-bit, 32-bit or float grey (H, W) to 8 bit: by its usual range, or else from least to most."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError(f"{name} holds NaN or infinite pixels; accepted: finite values; replace them first")
    low, high = float(values.min()), float(values.max())
    usual = [top for top in ((1.0, 255.0) if values.dtype.kind == "f" else (65535.0,)) if 0 <= low <= high <= top]
    floor, top = (0.0, usual[0]) if usual else (low, high)
    return np.rint((values.astype(np.float64) - floor) * (255 / ((top - floor) or 1))).astype(np.uint8)


def _eight_bit(values: npt.NDArray[Any], kind: str) -> npt.NDArray[np.uint8]:
    if values.size == 0:
        raise ImageError(f"image {kind} has no pixels: shape {values.shape}; accepted: at least 1 x 1")
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
        raise ImageError(f"image {kind} holds floats from {low:g} to {high:g}; accepted: {accepted}")
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


def _from_array(array: npt.NDArray[Any], kind: str = "array") -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = "; move channels last: .transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"image array has shape {array.shape}; accepted: (H, W) and (H, W, 1 or 3 or 4){hint}")
    values = _eight_bit(array, kind)
    flat = values[:, :, 0] if values.ndim == 3 and values.shape[2] == 1 else values
    return _to_rgb(Image.fromarray(np.ascontiguousarray(flat)), f"image {kind}")


def picture_of_tensor(tensor: Tensor) -> Image.Image:
    shape = tuple(tensor.shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)):
        hint = "; take one picture of a batch with [0]" if len(shape) == 4 else ""
        if len(shape) == 3 and shape[2] in (1, 3):
            hint = "; move channels first: .permute(2, 0, 1)"
        raise ImageError(f"image tensor has shape {shape}; accepted: (H, W), (1, H, W) or (3, H, W){hint}")
    # numpy knows no bfloat16
    values = (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().numpy()
    return _from_array(values if values.ndim == 2 else values.transpose(1, 2, 0), "tensor")
