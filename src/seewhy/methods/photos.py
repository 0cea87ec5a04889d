"""The photos of an explanation, read batch by batch, in every form in which they may be given."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.images import Photo, drawn_photo, find_images, read_photo
from ..data.manifest import stored_file
from ..data.opened import MAX_PIXELS
from ..data.placement import Placement
from ..data.preprocess import Preprocess, tensor_to_photos
from ..engine.call import Call
from ..engine.inputs import settled_input, warn_of_range
from ..engine.pictures import check_input, is_volume
from ..errors import ImageError, InputError, ModelError
from ..models.model import Model
from ..render.frames import frames_shown, side_by_side

ImageLike = str | PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor
OnBadImage = Callable[[Any, ImageError], None]  # a picture as it was given, and the reason
ImagesLike = ImageLike | Iterable[ImageLike]


class Batch(NamedTuple):
    """The photos of one pass that could be read: which of all, what they are called, themselves, and as inputs.

    The photos are as large as they are drawn; placements are in their own pixels.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    photos: tuple[Image.Image, ...]
    placements: tuple[Placement, ...]
    paths: tuple[Path | None, ...]  # the file of each, where it came from one
    x: Tensor  # (N, C, H, W), or (N, C, D, H, W) of volumes, whose photos are of some frames side by side


class Source:
    """The photos, read batch by batch.

    A file is called by its name, and of a folder by its path below that; where two would be called the same, by more of
    their paths.
    """

    def __init__(
        self,
        images: ImagesLike,
        model: Model,
        on_bad_image: OnBadImage | None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.model, self.on_bad_image, self.max_pixels = model, on_bad_image, max_pixels
        self.tensor = images if isinstance(images, Tensor) and images.ndim != 3 else None
        self.items: list[ImageLike] = []
        self.names: list[str] = []
        self.first_error: ImageError | None = None  # of the pictures that were left out
        if self.tensor is not None:
            check_input(self.tensor)
            _check_channels(self.tensor, model.preprocess)
            warn_of_range(self.tensor, model.preprocess.bounds if model.preprocess else None)
        else:
            self._list_pictures(_each_picture(images))
        if len(self) == 0:
            raise InputError("images is empty; give at least one photo")
        if self.items and model.preprocess is None:
            raise ModelError(
                f"{model.name} does not say how photos become its input; wrap it: seewhy.wrap(module, "
                "preprocess=seewhy.IMAGENET) if it was trained as ImageNet models are (a factory of --model may return "
                "that), or give a tensor (N, C, H, W)"
            )

    def settled(self, call: Call) -> Call:
        """The call of these pictures, which a tensor of whole numbers may leave open (`settled_input`)."""
        return call if self.tensor is None else settled_input(call, self.tensor)[0]

    def _list_pictures(self, given: Iterable[ImageLike]) -> None:
        """Fills in the pictures, folders by what is in them, and what each is called."""
        called: list[tuple[str, ...]] = []  # from the shortest name to the longest
        for item in given:
            if isinstance(item, str | PathLike):
                found = find_images([item])
                self.items += found
                called += [_names_of_file(path, Path(item)) for path in found]
            else:
                called.append((f"image {len(self.items)}",) * 3)
                self.items.append(item)
        self.names = [each[0] for each in called]
        for longer in (1, 2):
            times = Counter(self.names)
            self.names = [
                each[longer] if times[name] > 1 else name
                for name, each in zip(self.names, called, strict=True)
            ]

    def __len__(self) -> int:
        return len(self.items) if self.tensor is None else len(self.tensor)

    def all_of(self, start: int, stop: int, names: Collection[str]) -> bool:
        """Whether the photos from one to another are all among these names."""
        return bool(self.names) and all(name in names for name in self.names[start:stop])

    def batch(self, start: int, stop: int) -> Batch:
        """The pictures from one to another that can be read.

        Raises:
            ImageError: one cannot, and nobody is to be told.
        """
        if self.tensor is not None:
            return self._batch_of_tensor(self.tensor[start:stop], start)
        read = list(filter(None, map(self._read_or_told, range(start, stop))))
        if not read:
            return Batch((), (), (), (), (), torch.empty(0))
        indices, names, photos, placements, paths, inputs = zip(*read, strict=True)
        return Batch(indices, names, photos, placements, paths, torch.stack(inputs))

    def _batch_of_tensor(self, x: Tensor, start: int) -> Batch:
        """Inputs as they were given, from the one of that number on."""
        x = x if x.is_floating_point() else x.float()
        photos, placement = _photos_of(x, self.model.preprocess)
        indices = tuple(range(start, start + len(x)))
        return Batch(
            indices=indices,
            names=tuple(f"image {i}" for i in indices),
            photos=tuple(photos),
            placements=(placement,) * len(x),
            paths=(None,) * len(x),
            x=x,
        )

    def _read_or_told(self, index: int) -> _ReadPhoto | None:
        """One picture; None for one that cannot be read, of which it tells."""
        item, preprocess = self.items[index], self.model.preprocess
        assert preprocess is not None
        try:
            photo = read_photo(item, max_pixels=self.max_pixels, least=preprocess.enough)
            x, placement = _prepared_photo(photo, self.names[index], preprocess)
            path = item if isinstance(item, Path) else None
            drawn = drawn_photo(photo.picture)
            return _ReadPhoto(index, self.names[index], drawn, placement, path, x)
        except ImageError as error:
            if self.on_bad_image is None:
                raise
            self.first_error = self.first_error or error
            self.on_bad_image(item, error)
            return None


class _ReadPhoto(NamedTuple):
    """A row of a `Batch`. The picture is as it is drawn, so that two never stand in memory whole."""

    place: int  # among all that were given
    name: str
    photo: Image.Image
    placement: Placement
    path: Path | None
    x: Tensor  # (C, H, W)


def photo_digest(photo: Path | Image.Image) -> str:
    """The SHA-256 of a file, or of a picture's size and pixels."""
    if isinstance(photo, Path):
        return stored_file(photo).sha256
    return hashlib.sha256(f"{photo.mode} {photo.size} ".encode() + photo.tobytes()).hexdigest()


def _check_channels(x: Tensor, preprocess: Preprocess | None) -> None:
    """Says of inputs (N, C, H, W) that they have not the channels of what the preprocessing gives."""
    if preprocess is None or x.shape[1] == len(preprocess.mean):
        return
    last = x.shape[-1] == len(preprocess.mean)
    raise InputError(
        f"images has shape {tuple(x.shape)}, not (N, {len(preprocess.mean)}, H, W)"
        + ("; its channels seem to come last: give images.permute(0, 3, 1, 2)" if last else "")
    )


def _photos_of(x: Tensor, preprocess: Preprocess | None) -> tuple[list[Image.Image], Placement]:
    """What inputs look like, and where on that the model looks."""
    frames = frames_shown(x.shape[2]) if is_volume(x) else ()
    shown = side_by_side(x[:, :, list(frames)]) if frames else x
    h, w = shown.shape[2:]
    whole = (0.0, 0.0, float(w), float(h))
    photos = tensor_to_photos(shown, preprocess)
    return photos, Placement((h, w), whole, frames)


def _each_picture(images: ImagesLike) -> Iterable[ImageLike]:
    """One picture, or several: an array (N, H, W, 3) is several."""
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    return [images] if isinstance(images, str | PathLike | Image.Image | Tensor) else images


def _prepared_photo(photo: Photo, name: str, preprocess: Preprocess) -> tuple[Tensor, Placement]:
    """The input, and which part of the photo it is of, in the photo's own pixels."""
    try:
        x, placement = preprocess(photo.picture)
        return x, placement.scaled(photo.size)
    except ImageError as error:
        raise ImageError(f"image '{name}': {error}") from error


def _names_of_file(path: Path, given: Path) -> tuple[str, str, str]:
    """What a file may be called: by its path below what was given, with the folder before that, and by all of it."""
    folder = given.parent if path == given else given
    below = path.relative_to(folder).as_posix()
    return below, f"{folder.resolve().name}/{below}", path.as_posix()
