"""Small sound data sets, and forty ways in which annotation files of others are wrong, in each reader that knows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import data_layouts as layouts

Damage = Callable[[Path], object]
TRAIN = "ILSVRC/Data/CLS-LOC/train/n01440764"


@dataclass(frozen=True)
class Sound:
    """A data set without a fault, and what its picture and annotation that faults are put into are called.

    `box` writes another box, as the four texts of the reader's convention; `size` another stated width and height.
    """

    kind: str
    make: Callable[[Path], Path]
    picture: str
    annotation: str
    split: str = "train"
    photo: str = ""
    box: Callable[[Path, list[str]], object] | None = None
    size: Callable[[Path, str, str], object] | None = None


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, in one reader.

    Attributes:
        says: what the error, or the note, must name.
        listed: whether nobody knows what is meant, so that it is an error even where faults are skipped.
    """

    what: str
    kind: str
    damage: Damage
    says: tuple[str, ...]
    listed: bool = False
    split: str = ""


def change(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old} is not in {path}"
    path.write_text(text.replace(old, new, count), encoding="utf-8")


def told(root: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edits COCO's JSON."""
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def first(root: Path, **entries: Any) -> None:
    """Edits COCO's annotation 1."""
    told(root, lambda content: content["annotations"][0].update(entries))


def table(root: Path) -> Path:
    layouts.picture(root / "a.png")
    layouts.picture(root / "b.png", 1)
    layouts.picture(root / "c.png", 2)
    return layouts.text(
        root / "list.csv",
        "path,label,x0,y0,x1,y1,split,width,height",
        "a.png,cat,3,4,13,14,train,30,20",
        "b.png,dog,1,2,3,4,train,30,20",
        "c.png,dog,,,,,val,,",
    )


def folder(root: Path) -> Path:
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            layouts.picture(root / split / name / f"{split}.png", number)
    return root


def coco_box(root: Path, texts: list[str]) -> None:
    # JSON has no texts where numbers are meant, but NaN and Infinity, as Python writes it
    first(root, bbox=[float(text) if text not in ("", "wide") else text for text in texts])


def xml_box(name: str, root: Path, texts: list[str]) -> None:
    corners = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(
        f"<{corner}>{text}</{corner}>" for corner, text in zip(corners, texts, strict=False)
    )
    path = root / name
    start, end = (path.read_text().index(tag) for tag in ("<bndbox>", "</bndbox>"))
    path.write_text(path.read_text()[:start] + f"<bndbox>{box}" + path.read_text()[end:])


def xml_size(name: str, root: Path, width: str, height: str) -> None:
    change(
        root / name,
        "<width>30</width><height>20</height>",
        f"<width>{width}</width><height>{height}</height>",
    )


def coco_size(root: Path, width: str, height: str) -> None:
    told(root, lambda content: content["images"][0].update(width=width, height=height))


VOC_XML = "Annotations/000005.xml"
IMAGENET_XML = "ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_18.xml"
BOXES = "bounding_boxes.txt"

SOUND = {
    one.kind: one
    for one in (
        Sound(
            "csv",
            table,
            "a.png",
            "line 2",
            photo="a.png",
            box=lambda root, box: change(root.parent / "list.csv", "3,4,13,14", ",".join(box)),
            size=lambda root, *size: change(
                root.parent / "list.csv", "train,30,20", f"train,{','.join(size)}"
            ),
        ),
        Sound(
            "voc",
            layouts.voc,
            "000005",
            "object 1 ('dog')",
            photo="JPEGImages/000005.jpg",
            box=partial(xml_box, VOC_XML),
            size=partial(xml_size, VOC_XML),
        ),
        Sound(
            "imagenet",
            layouts.imagenet,
            "n01440764/n01440764_18",
            "object 1 ('n01440764')",
            photo=f"{TRAIN}/n01440764_18.JPEG",
            box=partial(xml_box, IMAGENET_XML),
            size=partial(xml_size, IMAGENET_XML),
        ),
        Sound(
            "coco",
            layouts.coco,
            "000000000009.jpg",
            "annotation 1",
            photo="train2017/000000000009.jpg",
            box=coco_box,
            size=coco_size,
        ),
        Sound(
            "cub",
            layouts.cub,
            "Laysan_Albatross/Bird_0013.jpg",
            "bird 13",
            split="test",
            box=lambda root, box: change(
                root / BOXES, "13 13.0 2.0 10.0 5.0", f"13 {' '.join(box)}"
            ),
        ),
        Sound(
            "openimages",
            layouts.openimages,
            "val/0bt_c3/bb.jpg",
            "mask 'val/0bt_c3/bb_m0.png'",
            split="val",
        ),
        Sound("folder", folder, "train/cat/train.png", ""),
    )
}
CORNERS, EXTENTS = ("csv", "voc", "imagenet"), ("coco", "cub")


def _boxes() -> Iterator[Fault]:
    """Boxes as corners, and as a corner with width and height."""
    for what, corners, extents in (
        ("a word in a box", "3 4 wide 14", "3 4 wide 10"),
        ("a box that is not a number", "3 nan 13 14", "3 nan 10 10"),
        ("an infinite box", "3 4 inf 14", "3 4 inf 10"),
        ("a box without width", "5 4 2 14", "5 4 0 10"),
        ("a box upside down", "3 14 13 4", "3 14 10 -10"),
        ("a box beside the picture", "41 4 49 14", "41 4 8 10"),
        ("a box beyond the picture", "3 4 40 14", "3 4 37 10"),
        ("a box before the picture", "-9 4 13 14", "-9 4 22 10"),
    ):
        for kind in (*CORNERS, *EXTENTS):
            yield _box(what, kind, (corners if kind in CORNERS else extents).split(" "))
    for kind in (*CORNERS, "coco"):
        yield _box("an empty cell in a box", kind, ["3", "4", "", "14"])
    for kind in ("voc", "imagenet", *EXTENTS):
        yield _box("a box of three numbers", kind, ["3", "4", "10"])
    for kind in EXTENTS:
        yield _box("a box of five numbers", kind, ["3", "4", "10", "10", "1"])
    for what, box in (
        ("null", None),
        ("[]", []),
        ("a dictionary", {"x": 1}),
        ("yes", [True, 1, 2, 3]),
        ("7", 7),
    ):
        yield _of("coco", f"a box that is {what}", partial(first, bbox=box))
    for kind, name in (("voc", VOC_XML), ("imagenet", IMAGENET_XML)):
        yield _of(kind, "no box", lambda root, name=name: change(root / name, "bndbox", "box", 2))
        odd = ("<difficult>0", "<difficult>maybe")
        yield _of(
            kind, "difficult is a word", lambda root, name=name, odd=odd: change(root / name, *odd)
        )
    yield _of(
        "csv", "a box of two classes", lambda file: change(file, "a.png,cat", "a.png,cat|dog")
    )
    more = "a.png,cat,1,1,2,2,train,30,20,1"
    yield Fault(
        "more cells than columns", "csv", lambda file: _add(file, more), ("a.png", "line 5")
    )


def _of(kind: str, what: str, damage: Damage) -> Fault:
    return Fault(what, kind, damage, (SOUND[kind].picture, SOUND[kind].annotation))


def _box(what: str, kind: str, texts: list[str]) -> Fault:
    write = SOUND[kind].box
    assert write is not None
    return _of(kind, what, lambda root: write(root, texts))


def _sizes() -> Iterator[Fault]:
    for kind in (*CORNERS, "coco"):
        sound = SOUND[kind]
        says, size = (sound.picture,), sound.size
        assert size is not None
        for what, width, height in (
            ("a photo made smaller", "60", "40"),
            ("a photo turned since", "20", "30"),
            ("a size of nothing", "0", "0"),
            ("a size in words", "wide", "20"),
            ("half a size", "30", ""),
        ):
            damage = partial(lambda write, *size: write(size[-1], *size[:-1]), size, width, height)
            yield Fault(what, kind, damage, says)
        yield Fault("a photo turned by its EXIF tag", kind, partial(_turned, sound.photo), says)
    yield Fault(
        "two sizes of one picture",
        "csv",
        lambda file: change(
            file, "b.png,dog,1,2,3,4", "a.png,dog,1,2,3,4,train,31,20\nb.png,dog,1,2,3,4"
        ),
        ("a.png", "line 3"),
    )


def _turned(photo: str, root: Path) -> None:
    path = (root.parent if root.suffix == ".csv" else root) / photo
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (30, 20)).save(path, exif=exif.tobytes())


def _shapes() -> Iterator[Fault]:
    for what, shape in (
        ("run lengths of another size", {"size": [10, 15], "counts": [0, 150]}),
        ("run lengths that are too few", {"size": [20, 30], "counts": [5, 10]}),
        ("negative run lengths", {"size": [20, 30], "counts": [-5, 605]}),
        ("run lengths of fractions", {"size": [20, 30], "counts": [0.5, 599.5]}),
        ("run lengths without size", {"counts": [0, 600]}),
        ("run lengths of a torn text", {"size": [20, 30], "counts": "oo"}),
        ("run lengths of odd letters", {"size": [20, 30], "counts": "h\u00e9"}),
        ("a polygon of two points", [[2, 3, 12, 9]]),
        ("a polygon of half a point", [[2, 3, 12, 3, 12, 9, 2]]),
        ("a polygon of no number", [[2, 3, 12, float("nan"), 12, 9]]),
        ("a polygon of words", [[2, 3, "wide", 3, 12, 9]]),
        ("a polygon far away", [[2, 3, 1e9, 3, 12, 9]]),
        ("a polygon that is not in a list", [2, 3, 12, 3, 12, 9]),
        ("a mask that is a text", "mask.png"),
    ):
        yield _of("coco", what, partial(first, segmentation=shape))
    yield _of("coco", "a crowd without mask", partial(first, iscrowd=1, segmentation=[]))
    yield _of("coco", "a crowd of neither 0 nor 1", partial(first, iscrowd="no"))
    half, junk = np.ones((20, 15)), b"no picture"
    voc, mask = "SegmentationObject/000005.png", "OpenImages/val/0bt_c3/bb_m0.png"
    numbers = np.array([[1, 2]])
    yield _of("voc", "masks of another size", lambda root: layouts.grey(root / voc, numbers))
    yield Fault(
        "damaged masks",
        "voc",
        lambda root: (root / voc).write_bytes(junk),
        ("000005", "000005.png"),
    )
    yield _of(
        "openimages", "a mask of other proportions", lambda root: layouts.grey(root / mask, half)
    )
    yield _of("openimages", "a damaged mask", lambda root: (root / mask).write_bytes(junk))
    yield _of("openimages", "a mask that is not there", lambda root: (root / mask).unlink())
    yield _of(
        "openimages", "an empty mask", lambda root: layouts.grey(root / mask, 0 * half.repeat(2, 1))
    )
    ignored = "OpenImages/val/0bt_c3/bb_ignore.png"
    says = (SOUND["openimages"].picture, "bb_ignore.png")
    yield Fault(
        "damaged pixels to ignore",
        "openimages",
        lambda root: (root / ignored).write_bytes(junk),
        says,
    )
    says = ("Bird_0012.jpg", "bird 12")
    yield Fault(
        "a mask of other proportions", "cub", lambda root: layouts.grey(_mask(root), half), says
    )
    yield Fault("a damaged mask", "cub", lambda root: _mask(root).write_bytes(junk), says)


def _mask(root: Path) -> Path:
    return next((root / "segmentations").rglob("Bird_0012.png"))


def _references() -> Iterator[Fault]:
    """References to nothing."""
    yield _of("coco", "a class that is not listed", partial(first, category_id=7))
    yield _of("coco", "a class that is null", partial(first, category_id=None))
    says = (SOUND["imagenet"].picture, "object 1 ('n7')")
    damage: Damage = lambda root: change(root / IMAGENET_XML, "n01440764", "n7")  # noqa: E731
    yield Fault("a class that is not listed", "imagenet", damage, says)
    for kind, path in (("voc", VOC_XML), ("imagenet", IMAGENET_XML)):
        says = (SOUND[kind].picture, "object 1 ('')")
        yield Fault(
            "no class",
            kind,
            lambda root, path=path: change(root / path, "name>", "called>", 2),
            says,
        )
        says = (SOUND[kind].picture, path.rpartition("/")[2])
        yield Fault(
            "a torn annotation",
            kind,
            lambda root, path=path: layouts.text(root / path, "<annotation>"),
            says,
        )
    says = ("Bird_0013.jpg", "class '9'")
    labels = "image_class_labels.txt"
    yield Fault(
        "a class that is not listed",
        "cub",
        lambda root: change(root / labels, "13 2", "13 9"),
        says,
    )
    yield Fault(
        "no picture of this id", "coco", partial(first, image_id=77), ("picture 77", "annotation 1")
    )
    yield Fault("no picture at all", "coco", partial(first, image_id=None), ("entry 1", "image_id"))
    entry = partial(told, edit=lambda content: content["annotations"].insert(0, "annotation"))
    yield Fault("an entry that is a word", "coco", entry, ("entry 1", "image_id"))
    yield Fault(
        "no picture of this id",
        "cub",
        lambda root: _add(root / BOXES, "14 1 2 3 4"),
        ("picture 14", BOXES),
    )
    lists = "metadata/OpenImages/val"
    for file in ("localization.txt", "class_labels.txt"):
        damage = partial(lambda file, root: _add(root / lists / file, "val/x.jpg,1,"), file)
        yield Fault(
            f"no picture of this id in {file}", "openimages", damage, ("val/x.jpg", "not listed")
        )
    damage = partial(_without, "metadata/OpenImages/val/class_labels.txt", "val/0bt_c3/bb.jpg")
    yield Fault("no label", "openimages", damage, ("val/0bt_c3/bb.jpg", "class_labels.txt"))
    solution = "LOC_val_solution.csv"
    damage = partial(_without, solution, "ILSVRC2012_val_00000002")
    yield Fault(
        "no label", "imagenet", damage, ("ILSVRC2012_val_00000002", "no label"), split="val"
    )
    damage = partial(lambda root: change(root / solution, "n01440764 2", "n7 2"))
    yield Fault(
        "a class that is not listed",
        "imagenet",
        damage,
        ("ILSVRC2012_val_00000002", "n7"),
        split="val",
    )
    yield Fault(
        "no path", "csv", lambda file: _add(file, ",cat,,,,,train,,"), ("list.csv", "line 5")
    )
    says = ("000005", "cannot be read")
    yield Fault("no annotation", "voc", lambda root: (root / VOC_XML).unlink(), says)


def _twice() -> Iterator[Fault]:
    """What is there twice, so that nobody knows which is meant."""
    again = {"id": 4, "file_name": "000000000009.jpg", "height": 20, "width": 30}
    for what, kind, damage, says in (
        (
            "a picture's id",
            "coco",
            partial(told, edit=lambda told: told["images"].append(again)),
            "picture of id 4",
        ),
        (
            "a picture's id",
            "cub",
            lambda root: _add(root / "images.txt", "5 other.jpg"),
            "picture '5'",
        ),
        ("a picture's box", "cub", lambda root: _add(root / BOXES, "5 1 2 3 4"), "picture '5'"),
        (
            "a picture's id",
            "voc",
            lambda root: _add(root / "ImageSets/Main/train.txt", "000005"),
            "'000005' twice",
        ),
        (
            "a picture's label",
            "openimages",
            partial(_append, "class_labels.txt", "val/0bt_c3/bb.jpg,0"),
            "bb.jpg",
        ),
        (
            "a picture's id",
            "openimages",
            partial(_append, "image_ids.txt", "val/0bt_c3/bb.jpg"),
            "bb.jpg' twice",
        ),
        (
            "a class's id",
            "coco",
            partial(told, edit=lambda told: told["categories"].append({"id": 18})),
            "id 18",
        ),
        (
            "a class's id",
            "cub",
            lambda root: _add(root / "classes.txt", "2 Gull"),
            "class '2' twice",
        ),
        (
            "a class's id",
            "imagenet",
            lambda root: _add(root / "LOC_synset_mapping.txt", "n01440764 x"),
            "n01440764",
        ),
        (
            "a picture by its stem",
            "imagenet",
            lambda root: layouts.picture(root / TRAIN / "n01440764_18.png"),
            "_18",
        ),
        (
            "a picture by its stem",
            "voc",
            lambda root: layouts.picture(root / "JPEGImages/000005.png"),
            "000005",
        ),
        (
            "a file by its spelling",
            "csv",
            lambda file: _add(file, "x/../a.png,dog,,,,,train,,"),
            "x/../a.png",
        ),
        ("a file by its case", "csv", lambda file: _add(file, "A.PNG,dog,,,,,train,,"), "A.PNG"),
        (
            "a file in two splits",
            "csv",
            lambda file: _add(file, f"{file.parent}/a.png,dog,,,,,val,,"),
            "in val too",
        ),
        (
            "a file by a link",
            "csv",
            lambda file: _linked(file.parent, "c.png", "a.png"),
            "in val too",
        ),
        (
            "a file in two splits",
            "voc",
            lambda root: _add(root / "ImageSets/Main/val.txt", "000005"),
            "in val too",
        ),
        (
            "a file in two splits",
            "folder",
            partial(_linked, name="val/dog/x.png", to="train/cat/train.png"),
            "",
        ),
        (
            "a file in two folders",
            "folder",
            partial(_linked, name="train/dog/x.png", to="train/cat/train.png"),
            "",
        ),
        (
            "a file in two splits",
            "openimages",
            partial(_append, "../train/image_ids.txt", "val/0bt_c3/bb.jpg"),
            "",
        ),
        (
            "a column",
            "csv",
            lambda file: change(file, "width,height", "width,height,label"),
            "one of them twice",
        ),
    ):
        split = "val" if "val/dog" in str(damage) else ""
        yield Fault(f"{what}, twice", kind, damage, (says,), listed=True, split=split)
    other = partial(
        _append, "localization.txt", "val/0bt_c3/bb.jpg,val/0bt_c3/bb_m1.png,val/other.png"
    )
    says = (SOUND["openimages"].picture, "bb_m1.png")
    yield Fault("pixels to ignore, twice", "openimages", other, says)
    for name in (None, "", 7):
        damage: Damage = partial(
            told, edit=lambda told, name=name: told["images"][1].update(file_name=name)
        )
        yield Fault(
            f"a file called {name!r}", "coco", damage, ("picture 4", "file_name"), listed=True
        )
    nothing = partial(told, edit=lambda told: told["images"][1].update(file_name="a\0/b\0.jpg"))
    yield Fault("a path that is none", "coco", nothing, (r"a\x00/b",))
    yield _of(
        "coco",
        "an annotation's id, twice",
        partial(told, edit=lambda told: told["annotations"][1].update(id=1)),
    )


def _add(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line + "\n")


def _append(name: str, line: str, root: Path) -> None:
    _add(root / "metadata/OpenImages/val" / name, line)


def _without(name: str, picture: str, root: Path) -> None:
    """A list without the line of a picture."""
    path = root / name
    layouts.text(
        path, *(line for line in path.read_text().splitlines() if not line.startswith(picture))
    )


def _linked(root: Path, name: str, to: str) -> None:
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(root / to)


FAULTS = [*_boxes(), *_sizes(), *_shapes(), *_references(), *_twice()]
