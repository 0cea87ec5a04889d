"""The written-out list of kinds of data sets, and the one that a spec names."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple

from ..arguments import checked
from ..errors import InputError, did_you_mean
from .dataset import LabeledImages, OnError, check_on_error, check_split
from .opened import MAX_PIXELS


class _Source(NamedTuple):
    """Where a kind of data set is; how many paths it is made of; and whether a seed divides or draws it."""

    module: str
    name: str
    paths: int = 1
    seeded: bool = False


SOURCES: dict[str, _Source] = {
    "scenes": _Source("drawn.scenes", "Scenes", 0, seeded=True),
    "folder": _Source("formats.folder", "PictureFolder", seeded=True),
    "csv": _Source("formats.table", "PictureTable", seeded=True),
    "voc": _Source("formats.voc", "PascalVOC"),
    "coco": _Source("formats.coco", "Coco"),
    "imagenet": _Source("formats.imagenet", "ImageNet"),
    "cub": _Source("formats.cub", "Cub", seeded=True),
    "openimages": _Source("formats.openimages", "OpenImages"),
    "stl10": _Source("formats.stl10", "STL10", seeded=True),
    "cutouts": _Source("drawn.cutouts", "Cutouts", 2, seeded=True),
}


CLASSES = {source.name: f".{source.module}" for source in SOURCES.values()}


@checked
def find_data(
    spec: str,
    *,
    split: str = "train",
    seed: int = 0,
    on_error: OnError = "raise",
    max_pixels: int = MAX_PIXELS,
    trust_paths: bool = False,
    **options: object,
) -> LabeledImages:
    """The data set that a spec names.

    Args:
        spec: "KIND:PATH" with a kind of `SOURCES`; "cutouts:STAMPS,BACKGROUNDS"; "scenes"; or a path alone, of a folder
            of pictures by class or of a CSV file. Options follow commas: "scenes:multi_label=true,size=64".
        split: "train", "val" or "test".
        seed: of what is drawn, or divided into splits by a hash; "seed=" in the spec goes before it.
        on_error: "raise" at what cannot be used; or "skip", as in `LabeledImages`.
        max_pixels: a picture of more is refused, as in `seewhy.images.read_image`.
        trust_paths: whether lists and annotations may name pictures outside the data set's folder.
        **options: of the kind, as in its class.

    Raises:
        InputError: the spec names nothing, an option does not fit, or the files are not as their layout says.

    Example:
        >>> data = seewhy.data.find_data("scenes:multi_label=true,size=64,count=4", split="val")
        >>> len(data), data.multi_label, data[0].name
        (4, True, 'val-000000')
    """
    check_split(split)
    check_on_error(on_error)
    kind, rest = _kind(spec)
    source = SOURCES[kind]
    paths, given = _parts(spec, rest, source.paths)
    for name in ("split", "on_error"):
        if name in given:
            raise InputError(
                f"data {spec!r} sets {name!r}, which is asked for apart; leave it out of the spec"
            )
    own = ({"seed": seed} if source.seeded else {}) | (
        {"on_error": on_error} if source.paths else {}
    )
    settings = {"split": split, **own, **options, **given}
    made = getattr(importlib.import_module(f".{source.module}", __package__), source.name)
    try:
        data: LabeledImages = made(*paths, **settings)
    except TypeError as error:
        said = str(error).split("() ", 1)[-1]
        raise InputError(
            f"data {spec!r} cannot be made: {said}; 'seewhy.data.{source.name}' says what it takes"
        ) from error
    data.max_pixels, data.trust_paths = max_pixels, trust_paths
    return data


def data_paths(spec: str) -> list[str]:
    """The paths that a spec names.

    Raises:
        InputError: as `find_data`.
    """
    kind, rest = _kind(spec)
    return _parts(spec, rest, SOURCES[kind].paths)[0]


def _kind(spec: str) -> tuple[str, str]:
    """The kind of a spec, and what follows it."""
    kind, _, rest = spec.partition(":")
    if kind in SOURCES:
        return kind, rest
    path = Path(spec).expanduser()
    if path.is_dir():
        return "folder", spec
    if path.suffix.lower() == ".csv":
        return "csv", spec
    kinds = ", ".join(SOURCES)
    raise InputError(
        f"data {spec!r} is not known{did_you_mean(kind, SOURCES)}; give KIND:PATH with {kinds}, or a path"
    )


def _parts(spec: str, rest: str, count: int) -> tuple[list[str], dict[str, object]]:
    """The paths of a spec, and its options; commas in the only path stay where no option follows them."""
    parts = rest.split(",") if rest else []
    options: dict[str, object] = {}
    while len(parts) > count and "=" in parts[-1]:
        name, _, text = parts.pop().partition("=")
        options[name.strip()] = _value(text.strip())
    paths = [",".join(parts)] if count == 1 and parts else parts
    if len(paths) != count or not all(paths):
        wanted = (
            "options NAME=VALUE",
            "a path",
            "two paths, cut-outs and backgrounds, with a comma between",
        )[count]
        raise InputError(
            f"data {spec!r} needs {wanted} after the colon; such as 'scenes:size=64' or 'folder:photos'"
        )
    return paths, options


def _value(text: str) -> object:
    """What an option's text says: true, false, none, a number, numbers "A-B" for a range, or the text itself."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    low, dash, high = text.partition("-")
    try:
        return (float(low), float(high)) if dash else text
    except ValueError:
        return text
