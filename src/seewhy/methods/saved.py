"""Explanations that were saved, as the records that they were; photos are read when they are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from ..data.disk import Json
from ..data.images import drawn_photo, read_photo
from ..data.manifest import Entry, read_entries
from ..data.opened import MAX_PIXELS
from ..errors import ImageError, InputError
from ..render.on_photos import OnPhotos
from .explanation import MAPS, Explanation
from .outcome import join
from .photos import photo_digest
from .records import attribution_again, placement_again, predictions_again


class SavedPhotos(Sequence[Image.Image]):
    """The photos of saved explanations, each read when it is asked for.

    Args:
        folder: of the run.
        entries: of the photos.

    Raises:
        ImageError: when asked for one whose file is gone, or is another one since.
    """

    def __init__(self, folder: Path, entries: Sequence[Entry]) -> None:
        self.folder, self.entries = folder, entries

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> list[Image.Image]: ...

    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        return (
            [*map(self._photo_of, self.entries[index])]
            if isinstance(index, slice)
            else self._photo_of(self.entries[index])
        )

    def _photo_of(self, entry: Entry) -> Image.Image:
        kept = entry.exact["photo"]
        if "path" not in kept and kept["file"] not in entry.files:
            raise ImageError(
                f"photo '{kept['file']}' is none of the files of {entry.name!r} in '{self.folder}'"
            )
        path = Path(kept["path"]) if "path" in kept else self.folder / kept["file"]
        if "path" in kept and (not path.is_file() or photo_digest(path) != entry.digest):
            what = (
                "is another file than was explained" if path.is_file() else "is not there any more"
            )
            raise ImageError(
                f"photo '{path}' {what}; put it back, or look at the pictures in '{self.folder}'"
            )
        height, width = placement_again(entry.exact).photo_size
        drawn = read_photo(
            path, max_pixels=max(MAX_PIXELS, height * width), least=lambda *_: (0, 0)
        ).picture
        return drawn_photo(drawn)


def open_explanation(folder: str | Path) -> Explanation:
    """The explanation of all photos of a folder that `Explanation.save` or `seewhy explain` wrote.

    Maps, statuses, facts, predictions and placements are as they were, bit by bit; an option that was an object is its
    text. Photos are read from their files when a picture is drawn.

    Raises:
        InputError: the folder holds no photo, or files of it are damaged.
    """
    folder = Path(folder)
    entries = list(read_entries(folder).values())
    if not entries:
        raise InputError(f"'{folder}' holds no photo yet; run the command that writes it again")
    whole = join(
        [dataclasses.replace(_explanation_of(folder, entry), photos=()) for entry in entries]
    )
    photos = SavedPhotos(folder, entries)
    drawn = OnPhotos(photos, whole.placements, whole.names)
    attributions = tuple(dataclasses.replace(a, photos=drawn) for a in whole)
    return dataclasses.replace(whole, photos=photos, attributions=attributions)


def saved_explanations(folder: Path, entries: Iterable[Entry]) -> Iterator[Explanation]:
    """The explanation of each photo by itself, one at a time."""
    return (_explanation_of(folder, entry) for entry in entries)


def _explanation_of(folder: Path, entry: Entry) -> Explanation:
    try:
        record, exact = entry.record, entry.exact
        arrays = _stored_maps(folder, entry)
        pairs = zip(record["attributions"], exact["attributions"], strict=True)
        return Explanation(
            model=exact["model"],
            names=(entry.name,),
            photos=SavedPhotos(folder, [entry]),
            placements=(placement_again(exact),),
            predictions=(predictions_again(exact),),
            attributions=tuple(attribution_again(told, more, arrays) for told, more in pairs),
            paths=(_kept_path(exact["photo"]),),
        )
    except Exception as error:  # readers meet damage with whatever their parsing trips over
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"what '{folder}' holds of {entry.name!r} cannot be read ({said}); run the command that wrote it again"
        ) from error


def _stored_maps(
    folder: Path, entry: Entry
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    (file,) = (name for name in entry.files if name.endswith(f"/{MAPS}"))
    with np.load(folder / file, allow_pickle=False) as stored:
        return dict(stored)


def _kept_path(kept: Json) -> Path | None:
    return Path(kept["path"]) if "path" in kept else None
