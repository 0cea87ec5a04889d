"""COCO (Lin et al., ECCV 2014), and sets annotated like it."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ...arguments import checked_class
from ...errors import InputError
from ..dataset import SPLITS, OnError, check_split
from ..disk import Json
from ..intake.intake import Intake, extent
from ..intake.listing import Elsewhere, as_id, once_each
from ..intake.records import Annotation, MarkedObject, Picture
from .files import PictureFiles, existing_folder
from .shapes import check_decoder, read_shape

Key = int | str
Entry = Json  # of the JSON: an image, an annotation or a category


@checked_class
class Coco(PictureFiles):
    """COCO's instances, multi-label, with boxes and masks.

    Files: annotations/instances_SPLIT.json and the folder SPLIT of pictures, where SPLIT is train2017, train2014 or
    train, or val likewise. Boxes (x, y, width, height) become half-open corners; polygons and run lengths become masks.
    A crowd counts as a label, and its pixels as ones to ignore. Classes are in the order of their ids.

    Args:
        root: the folder with "annotations".
        split: "train", "val" or "test"; COCO's own "test" has no annotations.
        on_error: as in `LabeledImages`.

    Raises:
        InputError: a file that the layout needs is missing or torn.
        MissingExtraError: pycocotools is not installed.

    Example:
        >>> data = seewhy.data.Coco("coco")
        >>> data.classes, data[0].labels, data[0].truth.boxes.shape
        (('person', 'dog', 'toothbrush'), (1,), torch.Size([1, 4]))
    """

    def __init__(
        self, root: str | Path, *, split: str = "train", on_error: OnError = "raise"
    ) -> None:
        check_split(split)
        check_decoder()
        folder = existing_folder(root, "COCO, with 'annotations' in it")
        file = _annotations(folder, split)
        told = _load(file)
        categories = [
            (as_id(_value_of(one, "id", file), "category"), one) for one in told["categories"]
        ]
        categories.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]))
        intake = Intake((key for key, _ in categories), extent, on_error)
        images = ((as_id(_value_of(one, "id", file), "picture"), one) for one in told["images"])
        self._images = once_each(images, "the picture of id", file)
        self._ids = sorted(self._images, key=lambda key: (isinstance(key, str), key))
        self._objects = _followed(told["annotations"], self._images, intake)
        home = _pictures_of(file)
        pictures = []
        for key in self._ids:
            name = _file_name(self._images[key], file)
            pictures.append(Picture(name, home / name, intake.shown(name, self._marked(key))))
        names = [str(_value_of(one, "name", file)) for _, one in categories]
        others = {
            other: Elsewhere(partial(_files, path), _pictures_of(path))
            for other in SPLITS
            if other != split and (path := _annotation_file(folder, other))
        }
        title = f"{folder.name}, {split}"
        super().__init__(
            title,
            names,
            pictures,
            intake,
            within=folder,
            others=others,
            folder=home,
            multi_label=True,
        )

    def annotation(self, index: int) -> Annotation:
        key = self._ids[index]
        height, width = (self._images[key].get(edge) for edge in ("height", "width"))
        shapes = (one.get("segmentation") for one in self._objects.get(key, ()))
        objects = [
            one._replace(mask=partial(read_shape, shape)) if shape else one
            for one, shape in zip(self._marked(key), shapes, strict=True)
        ]
        return Annotation(objects, None if height is None is width else (height, width))

    def _marked(self, image: Key) -> list[MarkedObject]:
        """The objects of a picture, without their masks."""
        return [
            MarkedObject(
                _annotation_name(one),
                one.get("category_id"),
                one.get("bbox"),
                crowd=one.get("iscrowd"),
            )
            for one in self._objects.get(image, ())
        ]


def _annotation_name(one: Entry) -> str:
    return (
        f"annotation {one['id']!r}"
        if "id" in one
        else f"annotation without id, of class {one.get('category_id')!r}"
    )


def _followed(
    told: list[Entry], images: Mapping[Key, Entry], intake: Intake
) -> dict[Key, list[Entry]]:
    """The annotations of each picture, less those that are of none, and those with the id of another."""
    found: dict[Key, list[Entry]] = {}
    seen: set[object] = set()
    for place, one in enumerate(told, 1):
        try:
            image, own = (
                as_id(one["image_id"], "picture"),
                as_id(one.get("id", f"no. {place}"), "annotation"),
            )
        except (InputError, KeyError, TypeError, AttributeError):
            intake.fault(
                f"entry {place}", f"{str(one)[:60]} has no image_id, or an id that is none"
            )
            continue
        if image not in images:
            intake.fault(
                f"picture {one['image_id']!r}",
                f"{_annotation_name(one)}: its picture is not listed",
            )
        elif own in seen:
            intake.fault(
                str(images[image].get("file_name")),
                f"{_annotation_name(one)}: another one has its id",
            )
        else:
            seen.add(own)
            found.setdefault(image, []).append(one)
    return found


def _value_of(one: Entry, key: str, file: Path) -> object:
    if not isinstance(one, dict) or key not in one:
        raise InputError(
            f"annotation '{file}' is torn: {key!r} is not there in {str(one)[:60]}; get it anew"
        )
    return one[key]


def _file_name(image: Entry, file: Path) -> str:
    name = _value_of(image, "file_name", file)
    if not isinstance(name, str) or not name:
        raise InputError(
            f"annotation '{file}' is torn: file_name {name!r} of picture {image.get('id')!r} is no text"
        )
    return name


def _annotations(folder: Path, split: str) -> Path:
    found = _annotation_file(folder, split)
    if found:
        return found
    wanted = ", ".join(_names(split))
    there = (
        ", ".join(sorted(path.name for path in folder.glob("annotations/instances_*.json")))
        or "none"
    )
    raise InputError(
        f"'{folder / 'annotations'}' has no annotations of split '{split}' ({wanted}); there: {there}"
    )


def _names(split: str) -> list[str]:
    return [f"instances_{split}{year}.json" for year in ("2017", "2014", "")]


def _annotation_file(folder: Path, split: str) -> Path | None:
    paths = (folder / "annotations" / name for name in _names(split))
    return next((path for path in paths if path.is_file()), None)


def _pictures_of(file: Path) -> Path:
    return file.parent.parent / file.stem.removeprefix("instances_")


def _files(file: Path) -> list[Path]:
    return [_pictures_of(file) / _file_name(one, file) for one in _load(file)["images"]]


def _load(file: Path) -> dict[str, list[Entry]]:
    collects = gc.isenabled()
    gc.disable()  # it would go through the millions of lists again and again, a fifth of the time
    try:
        told = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(
            f"annotation '{file}' cannot be read ({error.strerror}); check the folder"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"annotation '{file}' is torn ({error}); get it anew") from error
    finally:
        if collects:
            gc.enable()
    for key in ("images", "annotations", "categories"):
        if not isinstance(told, dict) or not isinstance(told.get(key), list):
            raise InputError(f"annotation '{file}' is torn: it has no list of {key!r}; get it anew")
    return {key: told[key] for key in ("images", "annotations", "categories")}
