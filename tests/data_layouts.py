"""Small copies of the layouts of public data sets, written by hand from their descriptions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def colour(number: int) -> tuple[int, int, int]:
    """A colour of its own for each number below 16."""
    return (16 * number, 255 - 16 * number, 40)


def picture(path: Path, number: int = 0, size: tuple[int, int] = (20, 30)) -> Path:
    """Writes a plain picture of `size` (H, W) in the colour of a number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], colour(number)).save(path, quality=100, subsampling=0)
    return path


def number_of(photo: Image.Image) -> int:
    """The number whose colour a plain picture has."""
    red = np.asarray(photo)[:, :, 0]
    assert red.max() - red.min() <= 2
    return round(float(red.mean()) / 16)


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def grey(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def xml(path: Path, objects: Sequence[tuple[str, tuple[Any, ...], int]]) -> Path:
    """An annotation of VOC's: name, (xmin, ymin, xmax, ymax) and difficult of each object."""
    told = "".join(
        f"<object><name>{name}</name><pose>Left</pose><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        # VOC 2012 marks parts of people likewise; they are no objects.
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
        for name, (x0, y0, x1, y1), difficult in objects
    )
    return text(
        path, f"<annotation><size><width>30</width><height>20</height></size>{told}</annotation>"
    )


def voc(root: Path) -> Path:
    """Three pictures: a dog and a difficult cat with masks; a dog; nothing."""
    folder = root / "VOC2007"
    text(folder / "ImageSets/Main/train.txt", "000005", "000007")
    text(folder / "ImageSets/Main/val.txt", "000009")
    for number, name in enumerate(("000005", "000007", "000009"), 1):
        picture(folder / f"JPEGImages/{name}.jpg", number)
    xml(
        folder / "Annotations/000005.xml", [("dog", (1, 1, 10, 5), 0), ("cat", (21, 11, 30, 20), 1)]
    )
    xml(
        folder / "Annotations/000007.xml",
        [("dog", (3, 2, 3, 2), 0), ("dog", ("4.6", "5.5", "9.4", "8.2"), 0)],
    )
    xml(folder / "Annotations/000009.xml", [])
    numbers = np.zeros((20, 30), np.uint8)
    numbers[:5, :10], numbers[12:20, 22:30], numbers[5, :10] = 1, 2, 255
    masks = Image.fromarray(numbers).convert("P")
    masks.putpalette([200, 10, 10] * 256)  # what the palette shows is not the number
    (folder / "SegmentationObject").mkdir()
    masks.save(folder / "SegmentationObject/000005.png")
    return folder


def coco_annotations() -> dict[str, Any]:
    """Two pictures, three categories with gaps between their ids, polygons, run lengths and a crowd."""
    runs = [
        300,
        40,
        260,
    ]  # of the columns of a 20 x 30 picture one after the other: zeros, ones, zeros
    return {
        "images": [
            {"id": 9, "file_name": "000000000009.jpg", "height": 20, "width": 30},
            {"id": 4, "file_name": "000000000004.jpg", "height": 20, "width": 30},
            {"id": 5, "file_name": "000000000005.jpg", "height": 20, "width": 30},
        ],
        "categories": [
            {"id": 18, "name": "dog"},
            {"id": 1, "name": "person"},
            {"id": 90, "name": "toothbrush"},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 9,
                "category_id": 18,
                "bbox": [2, 3, 10.5, 6],
                "iscrowd": 0,
                "area": 60,
                "segmentation": [[2, 3, 12.5, 3, 12.5, 9, 2, 9]],
            },
            {
                "id": 2,
                "image_id": 9,
                "category_id": 90,
                "bbox": [15, 0, 2, 20],
                "iscrowd": 0,
                "area": 40,
                "segmentation": {"size": [20, 30], "counts": runs},
            },
            {
                "id": 3,
                "image_id": 9,
                "category_id": 1,
                "bbox": [0, 0, 30, 1],
                "iscrowd": 1,
                "area": 30,
                "segmentation": {"size": [20, 30], "counts": [0] + [1, 19] * 30},
            },
            {
                "id": 4,
                "image_id": 4,
                "category_id": 18,
                "bbox": [0, 0, 5, 5],
                "iscrowd": 0,
                "area": 25,
                "segmentation": [],
            },
        ],
    }


def coco(root: Path, told: dict[str, Any] | None = None) -> Path:
    for name, number in (("000000000009", 1), ("000000000004", 2), ("000000000005", 3)):
        picture(root / f"train2017/{name}.jpg", number)
    text(root / "annotations/instances_train2017.json", json.dumps(told or coco_annotations()))
    return root


def imagenet(root: Path) -> Path:
    """Two synsets; two pictures to train, one of them with two boxes; three to validate."""
    text(
        root / "LOC_synset_mapping.txt",
        "n01440764 tench, Tinca tinca",
        "n01443537 goldfish, Carassius auratus",
    )
    picture(root / "ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_18.JPEG", 1)
    picture(root / "ILSVRC/Data/CLS-LOC/train/n01443537/n01443537_2.JPEG", 2)
    boxes = [("n01440764", (0, 0, 29, 19), 0), ("n01440764", (3, 4, 3, 5), 0)]
    xml(root / "ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_18.xml", boxes)
    for number, synset in enumerate(("n01443537", "n01440764", "n01443537"), 1):
        name = f"ILSVRC2012_val_{number:08d}"
        picture(root / f"ILSVRC/Data/CLS-LOC/val/{name}.JPEG", 2 + number)
        xml(root / f"ILSVRC/Annotations/CLS-LOC/val/{name}.xml", [(synset, (number, 2, 10, 12), 0)])
    text(
        root / "LOC_val_solution.csv",
        "ImageId,PredictionString",
        "ILSVRC2012_val_00000003,n01443537 3 2 10 12 ",
        "ILSVRC2012_val_00000001,n01443537 1 2 10 12 n01443537 4 4 5 5 ",
        "ILSVRC2012_val_00000002,n01440764 2 2 10 12 ",
    )
    return root


def cub(root: Path) -> Path:
    """Two classes; of the first ten pictures to train, of the second one; one each to test; a mask for one of these."""
    folder = root / "CUB_200_2011"
    text(folder / "classes.txt", "1 001.Black_footed_Albatross", "2 002.Laysan_Albatross")
    shown = [1] * 10 + [2, 1, 2]
    titles = {1: "001.Black_footed_Albatross", 2: "002.Laysan_Albatross"}
    names = [f"{titles[label]}/Bird_{i:04d}.jpg" for i, label in enumerate(shown, 1)]
    for i, name in enumerate(names, 1):
        picture(folder / "images" / name, i)
    text(folder / "images.txt", *(f"{i} {name}" for i, name in enumerate(names, 1)))
    text(folder / "image_class_labels.txt", *(f"{i} {label}" for i, label in enumerate(shown, 1)))
    text(folder / "train_test_split.txt", *(f"{i} {int(i <= 11)}" for i in range(1, 14)))
    text(folder / "bounding_boxes.txt", *(f"{i} {i}.0 2.0 10.0 5.0" for i in range(1, 14)))
    votes = np.zeros((20, 30))
    votes[2:7, 12:22], votes[3, 12:22] = 204, 102  # of five annotators four, and in one row two
    grey(folder / "segmentations" / Path(names[11]).with_suffix(".png"), votes)
    return folder


def openimages(root: Path) -> Path:
    """One picture to train without masks, two to validate: with two masks and an ignore mask, and with one of each."""
    picture(root / "OpenImages/train/0bt_c3/aa.jpg", 1)
    picture(root / "OpenImages/val/0bt_c3/bb.jpg", 2)
    picture(root / "OpenImages/val/01226z/cc.jpg", 3)
    for number, (rows, cols) in enumerate(
        ((slice(0, 4), slice(0, 5)), (slice(10, 12), slice(20, 30)))
    ):
        mask = np.zeros((20, 30))
        mask[rows, cols] = 255
        grey(root / f"OpenImages/val/0bt_c3/bb_m{number}.png", mask)
    ignored = np.zeros((20, 30))
    ignored[:, 4:6] = 255
    grey(root / "OpenImages/val/0bt_c3/bb_ignore.png", ignored)
    half = np.zeros((10, 15))  # half as large as the picture
    half[2:4, 3:6] = 255
    grey(root / "OpenImages/val/01226z/cc_m.png", half)
    grey(root / "OpenImages/val/01226z/cc_ignore.png", np.zeros((10, 15)))
    lists = root / "metadata/OpenImages"
    text(lists / "train/image_ids.txt", "train/0bt_c3/aa.jpg")
    text(lists / "train/class_labels.txt", "train/0bt_c3/aa.jpg,1")
    text(lists / "train/localization.txt")
    text(lists / "val/image_ids.txt", "val/01226z/cc.jpg", "val/0bt_c3/bb.jpg")
    text(lists / "val/class_labels.txt", "val/01226z/cc.jpg,0", "val/0bt_c3/bb.jpg,1")
    text(
        lists / "val/localization.txt",
        "val/0bt_c3/bb.jpg,val/0bt_c3/bb_m0.png,val/0bt_c3/bb_ignore.png",
        "val/0bt_c3/bb.jpg,val/0bt_c3/bb_m1.png,",
        "val/01226z/cc.jpg,val/01226z/cc_m.png,val/01226z/cc_ignore.png",
    )
    return root


def stl10(root: Path, train: int = 40, test: int = 6) -> Path:
    """Random pixels; labels 1, 2, ..., 10, 1, ..."""
    rng, folder = np.random.default_rng(0), root / "stl10_binary"
    folder.mkdir(parents=True)
    for part, count in (("train", train), ("test", test)):
        rng.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8).tofile(folder / f"{part}_X.bin")
        (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(folder / f"{part}_y.bin")
    text(folder / "class_names.txt", *STL10)
    return root
