"""COCO (Lin et al., ECCV 2014), and sets annotated like it."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, MissingExtraError
from ..dataset import OnError, check_split
from .files import Picture, PictureFiles, existing_folder
from .marks import Marks


class Coco(PictureFiles):
    """COCO's instances, multi-label, with boxes and masks.

    Files: annotations/instances_SPLIT.json and the folder SPLIT of pictures, where SPLIT is train2017, train2014 or
    train, or val likewise. Boxes (x, y, width, height) become half-open corners; polygons and run lengths become masks.
    A crowd counts as a label, and its pixels as ones to ignore. Classes are in the order of their ids.

    Args:
        root: the folder with "annotations".
        split: "train", "val" or "test"; COCO's own "test" has no annotations.
        on_error: as in `LabelledImages`.

    Raises:
        InputError: a file that the layout needs is missing or torn.
        MissingExtraError: pycocotools is not installed.
    """

    def __init__(self, root: str | Path, *, split: str = "train", on_error: OnError = "raise") -> None:
        check_split(split)
        folder = existing_folder(root, "COCO, with 'annotations' in it")
        file = _annotations(folder, split)
        self._coco = _load(file)
        pictures_of = folder / file.stem.removeprefix("instances_")
        try:
            categories = sorted(self._coco.cats.values(), key=lambda category: category["id"])
            self._number = {category["id"]: label for label, category in enumerate(categories)}
            # Not getImgIds, which has the order of a set.
            self._ids = sorted(self._coco.imgs)
            pictures = [
                Picture(self._coco.imgs[i]["file_name"], pictures_of / self._coco.imgs[i]["file_name"], self._shown(i))
                for i in self._ids
            ]
        except KeyError as error:
            raise InputError(f"annotation '{file}' is torn: {error} is not there; get it anew") from error
        names = [category["name"] for category in categories]
        super().__init__(f"{folder.name}, {split}", names, pictures, multi_label=True, on_error=on_error)

    def _shown(self, image: int) -> tuple[int, ...]:
        return tuple(sorted({self._number[one["category_id"]] for one in self._coco.imgToAnns[image]}))

    def marks(self, index: int, size: tuple[int, int]) -> Marks:
        image = self._coco.imgs[self._ids[index]]
        try:
            return self._marks(image, size)
        except KeyError as error:
            raise InputError(f"the annotation of '{self.names[index]}' lacks {error}; mend it") from error

    def _marks(self, image: dict[str, Any], size: tuple[int, int]) -> Marks:
        said = (image["height"], image["width"])
        objects = self._coco.imgToAnns[image["id"]] if said == size else []  # of another picture nothing is decoded
        single = [one for one in objects if not one.get("iscrowd")]
        crowds = [self._mask(one, said) for one in objects if one.get("iscrowd")]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (one["bbox"] for one in single)]
        masks = [self._mask(one, said) for one in single if one.get("segmentation")]
        return Marks(
            boxes,
            [self._number[one["category_id"]] for one in single],
            np.stack(masks) if masks and len(masks) == len(single) else None,
            ignore=np.any(crowds, axis=0) if crowds else None,
            size=said,
        )

    def _mask(self, one: dict[str, Any], size: tuple[int, int]) -> Any:
        try:
            return self._coco.annToMask(one).astype(bool)
        except Exception as error:  # the decoder, in C, raises whatever it trips over
            raise InputError(f"the mask of annotation {one['id']} cannot be decoded ({error}); mend it") from error


def _annotations(folder: Path, split: str) -> Path:
    known = [folder / "annotations" / f"instances_{split}{year}.json" for year in ("2017", "2014", "")]
    for path in known:
        if path.is_file():
            return path
    wanted = ", ".join(path.name for path in known)
    there = ", ".join(sorted(path.name for path in folder.glob("annotations/instances_*.json"))) or "none"
    raise InputError(f"'{folder / 'annotations'}' has no annotations of split '{split}' ({wanted}); there: {there}")


def _load(file: Path) -> Any:
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise MissingExtraError("the data set 'coco'", "coco") from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
            return COCO(str(file))
    except Exception as error:  # of JSON, or of whatever its index trips over
        raise InputError(f"annotation '{file}' is torn ({error}); get it anew") from error
