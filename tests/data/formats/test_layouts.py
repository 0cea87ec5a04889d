"""Public data sets, each on a small copy of its layout with known pixels, boxes and masks."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import data_layouts as layouts
from data_layouts import number_of
from seewhy.data import Example, LabeledImages
from seewhy.data.sources import find_data
from seewhy.data.truth import Truth
from seewhy.errors import ImageError, InputError, SeewhyWarning

# The small copies leave most of the classes without a picture, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:.*has no picture of:seewhy.errors.SeewhyWarning")


def truth_of(example: Example) -> Truth:
    assert example.truth is not None
    return example.truth


def masks_of(example: Example) -> np.ndarray:
    masks = truth_of(example).masks
    assert masks is not None
    return masks.numpy()


def filled(rows: slice, cols: slice) -> np.ndarray:
    mask = np.zeros((20, 30), bool)
    mask[rows, cols] = True
    return mask


def test_voc(tmp_path: Path) -> None:
    root = layouts.voc(tmp_path)
    data = find_data(f"voc:{root}")
    assert (len(data.classes), data.classes[:2], data.multi_label) == (
        20,
        ("aeroplane", "bicycle"),
        True,
    )
    cat, dog = data.classes.index("cat"), data.classes.index("dog")
    assert data.names == ["000005", "000007"]
    assert data.labels == [(cat, dog), (dog,)]
    first, second = data
    assert (number_of(first.photo), number_of(second.photo)) == (1, 2)
    # First pixel 1 and last one inside: 1 to 10 is 0 up to 10.
    assert truth_of(first).boxes.tolist() == [[0, 0, 10, 5], [20, 10, 30, 20]]
    assert truth_of(first).labels.tolist() == [dog, cat]
    assert truth_of(first).difficult.tolist() == [False, True]  # type: ignore[union-attr]
    assert np.array_equal(
        masks_of(first), [filled(slice(0, 5), slice(0, 10)), filled(slice(12, 20), slice(22, 30))]
    )
    assert np.array_equal(truth_of(first).ignore, filled(slice(5, 6), slice(0, 10)))  # type: ignore[arg-type]
    assert truth_of(second).masks is None
    assert truth_of(second).boxes[0].tolist() == [2, 1, 3, 2]  # one pixel
    torch.testing.assert_close(truth_of(second).boxes[1], torch.tensor([3.6, 4.5, 9.4, 8.2]))
    nothing = find_data(f"voc:{root}", split="val")[0]
    assert (nothing.labels, len(truth_of(nothing).boxes)) == ((), 0)
    with pytest.raises(InputError, match=r"test\.txt' cannot be read \(No such file"):
        find_data(f"voc:{root}", split="test")


def test_voc_with_other_classes_and_masks_that_do_not_fit(tmp_path: Path) -> None:
    root = layouts.voc(tmp_path)
    layouts.xml(root / "Annotations/000009.xml", [("zebra", (1, 1, 2, 2), 0)])
    layouts.xml(root / "Annotations/000005.xml", [("dog", (1, 1, 10, 5), 0)])
    assert find_data(f"voc:{root}", split="val").classes == ("dog", "zebra")
    assert truth_of(find_data(f"voc:{root}")[0]).masks is None  # two masks for one object
    layouts.grey(root / "SegmentationObject/000005.png", np.ones((5, 5)))
    with pytest.raises(
        InputError,
        match=r"of '000005': object 1 \('dog'\): its mask has 5 x 5 pixels, the photo 30 x 20",
    ):
        find_data(f"voc:{root}")[0]
    layouts.text(root / "Annotations/000007.xml", "<annotation><object><name>dog</name>")
    with pytest.raises(InputError, match=r"000007.xml' is torn \(no element found"):
        find_data(f"voc:{root}")
    layouts.xml(root / "Annotations/000007.xml", [("dog", (1, 1, "wide", 2), 0)])
    with pytest.raises(
        InputError,
        match=r"of '000007': object 1 \('dog'\): box \['1', '1', 'wide', '2'\]; give four",
    ):
        find_data(f"voc:{root}")


def test_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools import mask as coder

    root, told = layouts.coco(tmp_path), layouts.coco_annotations()["annotations"]
    data = find_data(f"coco:{root}")
    assert capsys.readouterr().out == ""
    assert (data.classes, data.multi_label) == (("person", "dog", "toothbrush"), True)
    assert data.names == [f"00000000000{i}.jpg" for i in (4, 5, 9)]
    assert data.labels == [(1,), (), (0, 1, 2)]  # the crowd is there, if not counted
    assert [number_of(example.photo) for example in data] == [2, 3, 1]
    example = pickle.loads(pickle.dumps(data))[2]
    assert truth_of(example).boxes.tolist() == [[2, 3, 12.5, 9], [15, 0, 17, 20]]
    assert truth_of(example).labels.tolist() == [1, 2]
    polygon = coder.decode(coder.merge(coder.frPyObjects(told[0]["segmentation"], 20, 30)))
    assert np.array_equal(masks_of(example)[0], polygon)
    assert np.array_equal(masks_of(example)[1], filled(slice(0, 20), slice(15, 17)))
    assert np.array_equal(truth_of(example).ignore, filled(slice(0, 1), slice(0, 30)))  # type: ignore[arg-type]
    assert truth_of(data[0]).masks is None
    assert truth_of(data[1]).boxes.shape == (0, 4)
    with pytest.raises(
        InputError, match=r"no annotations of split 'val' .*there: instances_train2017.json"
    ):
        find_data(f"coco:{root}", split="val")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda told: told["annotations"][0].update(bbox=[25, 3, 10, 6]),
            r"box \[25.0, 3.0, 35.0, 9.0\] reaches beyond",
        ),
        (
            lambda told: told["annotations"][0].update(bbox=[2, 3, 0, 6]),
            r"box \[2.0, 3.0, 2.0, 9.0\] has no area",
        ),
        (
            lambda told: told["images"][0].update(height=21),
            r"picture of 30 x 21 \(width x height\), and the photo has 30 x 20",
        ),
    ],
)
def test_coco_annotations_that_are_wrong(tmp_path: Path, change: Any, said: str) -> None:
    told = layouts.coco_annotations()
    change(told)
    root = layouts.coco(tmp_path, told)
    with pytest.raises(InputError, match=f"annotation of '000000000009.jpg': .*{said}"):
        find_data(f"coco:{root}").readable()
    data = find_data(f"coco:{root}", on_error="skip").readable()
    assert len(data) == 3
    assert not data.skipped
    assert list(data.notes) == ["000000000009.jpg"]
    example = data[2]
    if "reaches" in said:
        assert truth_of(example).boxes[0].tolist() == [25, 3, 30, 9]
    elif "area" in said:
        assert truth_of(example).labels.tolist() == [2]
        assert len(masks_of(example)) == 1
    else:
        assert example.truth is None


def test_coco_that_is_torn(tmp_path: Path) -> None:
    root = layouts.coco(tmp_path)
    file = root / "annotations/instances_train2017.json"
    file.write_text(file.read_text()[:200])
    with pytest.raises(InputError, match=r"instances_train2017.json' is torn"):
        find_data(f"coco:{root}")
    told = layouts.coco_annotations()
    del told["images"][1]["file_name"]
    layouts.coco(tmp_path, told)
    with pytest.raises(InputError, match="is torn: 'file_name' is not there"):
        find_data(f"coco:{root}")
    told = layouts.coco_annotations()
    told["annotations"][0]["segmentation"] = {"size": [20, 30], "counts": 7}
    layouts.coco(tmp_path, told)
    with pytest.raises(
        InputError, match=r"of '000000000009.jpg': annotation 1: its run lengths are 7; give a list"
    ):
        find_data(f"coco:{root}")[2]


def test_coco_in_other_words(tmp_path: Path) -> None:
    sound = [
        truth_of(example).boxes.tolist() for example in find_data(f"coco:{layouts.coco(tmp_path)}")
    ]
    told = layouts.coco_annotations()
    for one in told["annotations"]:
        one["image_id"], one["category_id"] = str(one["image_id"]), float(one["category_id"])
        one["bbox"] = [str(number) for number in one["bbox"]]
    for one in told["images"]:
        one["height"] = str(one["height"])
    del told["images"][1]["height"], told["images"][1]["width"]
    root = layouts.coco(tmp_path, told)
    file = root / "annotations/instances_train2017.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # a byte order mark
    assert [truth_of(example).boxes.tolist() for example in find_data(f"coco:{root}")] == sound


def test_coco_leaks_through_links(tmp_path: Path) -> None:
    root = layouts.coco(tmp_path)
    told = {**layouts.coco_annotations(), "annotations": []}
    layouts.text(root / "annotations/instances_val2017.json", json.dumps(told))
    (root / "val2017").mkdir()
    for name in ("000000000009.jpg", "000000000004.jpg", "000000000005.jpg"):
        (root / "val2017" / name).symlink_to(f"../train2017/{name}")
    assert len(find_data(f"coco:{root}")) == 3
    with pytest.raises(
        InputError, match=r"'000000000009.jpg', which is in train too, as .*held back"
    ):
        find_data(f"coco:{root}", split="val")


def test_endings_of_pictures(tmp_path: Path) -> None:
    inside = "ILSVRC/Data/CLS-LOC/train/n01440764"
    root = layouts.imagenet(tmp_path)
    for i, ending in enumerate(("jpeg", "jpg", "png", "JPG")):
        layouts.picture(root / inside / f"n01440764_{i}.{ending}")
    layouts.text(root / inside / "notes.txt", "no picture")
    assert len(find_data(f"imagenet:{root}").readable()) == 2 + 4
    val = root / "ILSVRC/Data/CLS-LOC/val"
    (val / "ILSVRC2012_val_00000002.JPEG").rename(val / "ILSVRC2012_val_00000002.jpg")
    assert len(find_data(f"imagenet:{root}", split="val").readable()) == 3
    voc = layouts.voc(tmp_path) / "JPEGImages"
    (voc / "000007.jpg").unlink()
    layouts.picture(voc / "000007.PNG", 2)
    assert [number_of(example.photo) for example in find_data(f"voc:{voc.parent}")] == [1, 2]


def test_imagenet_whose_annotations_name_two_classes(tmp_path: Path) -> None:
    root = layouts.imagenet(tmp_path)
    (root / "LOC_val_solution.csv").unlink()
    name = "ILSVRC2012_val_00000002"
    boxes = [("n01440764", (2, 2, 10, 12), 0), ("n01443537", (1, 1, 2, 2), 0)]
    layouts.xml(root / f"ILSVRC/Annotations/CLS-LOC/val/{name}.xml", boxes)
    with pytest.raises(InputError, match=f"{name}.xml' has the classes"):
        find_data(f"imagenet:{root}", split="val")
    data = find_data(f"imagenet:{root}", split="val", on_error="skip")
    assert (len(data), list(data.skipped)) == (2, [name])


def test_imagenet(tmp_path: Path) -> None:
    root = layouts.imagenet(tmp_path)
    data = find_data(f"imagenet:{root}")
    assert data.classes == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert data.names == ["n01440764/n01440764_18", "n01443537/n01443537_2"]
    assert data.labels == [(0,), (1,)]
    assert [number_of(example.photo) for example in data] == [1, 2]
    assert truth_of(data[0]).boxes.tolist() == [
        [0, 0, 30, 20],
        [3, 4, 4, 6],
    ]  # from 0, and the last pixel is inside
    assert data[1].truth is None
    val = find_data(f"imagenet:{root}", split="val")
    assert val.labels == [(1,), (0,), (1,)]
    assert [number_of(example.photo) for example in val] == [3, 4, 5]
    assert [truth_of(example).boxes.tolist() for example in val] == [
        [[i, 2, 11, 13]] for i in (1, 2, 3)
    ]
    barred = layouts.text(tmp_path / "blacklist.txt", "2", "")
    assert find_data(f"imagenet:{root}", split="val", blacklist=barred).names == [
        val.names[0],
        val.names[2],
    ]
    (root / "LOC_val_solution.csv").unlink()
    assert find_data(f"imagenet:{root}", split="val").labels == val.labels
    with pytest.raises(InputError, match="split='test' of ImageNet has no public labels"):
        find_data(f"imagenet:{root}", split="test")
    layouts.text(barred, "2", "n3")
    with pytest.raises(InputError, match="torn at line 2: 'n3', expected one number"):
        find_data(f"imagenet:{root}", split="val", blacklist=barred)
    (root / "ILSVRC/Data/CLS-LOC/train/n0000").mkdir()
    with pytest.raises(InputError, match=r"has 'n0000', which LOC_synset_mapping.txt has not"):
        find_data(f"imagenet:{root}")
    layouts.text(root / "LOC_synset_mapping.txt", "n01440764 tench", "n01443537")
    with pytest.raises(
        InputError,
        match=r"LOC_synset_mapping.txt' is torn at line 2: 'n01443537', expected 2 columns",
    ):
        find_data(f"imagenet:{root}", split="val")


def test_cub(tmp_path: Path) -> None:
    root = layouts.cub(tmp_path)
    train, val, test = (find_data(f"cub:{root}", split=split) for split in ("train", "val", "test"))
    assert (
        train.classes
        == val.classes
        == test.classes
        == ("Black footed Albatross", "Laysan Albatross")
    )
    assert (len(train), len(val), len(test)) == (
        9 + 1,
        1,
        2,
    )  # a class of one picture is all to train
    assert len({*train.names, *val.names, *test.names}) == 13
    assert val.names != find_data(f"cub:{root}", split="val", seed=2).names
    assert test.labels == [(0,), (1,)]
    assert [number_of(example.photo) for example in test] == [12, 13]
    with_mask, without = test
    assert truth_of(with_mask).boxes.tolist() == [[12, 2, 22, 7]]
    marked = filled(slice(2, 7), slice(12, 22)) & ~filled(slice(3, 4), slice(0, 30))
    assert np.array_equal(masks_of(with_mask), marked[None])
    assert truth_of(without).boxes.tolist() == [[13, 2, 23, 7]]
    assert truth_of(without).masks is None
    lines = (root / "bounding_boxes.txt").read_text().splitlines()
    layouts.text(root / "bounding_boxes.txt", *lines[:-1])
    with pytest.raises(InputError, match=r"bounding_boxes.txt' says nothing of picture 13"):
        find_data(f"cub:{root}")
    layouts.text(root / "bounding_boxes.txt", "1 3.0 4.0 5.0", *lines[1:])
    with pytest.raises(
        InputError, match=r"Bird_0001.jpg': bird 1: box \['3.0', '4.0', '5.0'\]; give four"
    ):
        [find_data(f"cub:{root}", split=split) for split in ("train", "val")]


def test_openimages(tmp_path: Path) -> None:
    root = layouts.openimages(tmp_path)
    train, val = find_data(f"openimages:{root}"), find_data(f"openimages:{root}", split="val")
    assert train.classes == val.classes == ("01226z", "0bt_c3")
    assert (train.labels, train[0].truth, number_of(train[0].photo)) == ([(1,)], None, 1)
    assert val.names == ["val/01226z/cc.jpg", "val/0bt_c3/bb.jpg"]
    small, double = val
    assert (number_of(small.photo), number_of(double.photo)) == (3, 2)
    assert np.array_equal(masks_of(small), filled(slice(4, 8), slice(6, 12))[None])
    assert truth_of(double).boxes.tolist() == [[0, 0, 5, 4], [20, 10, 30, 12]]
    assert truth_of(double).labels.tolist() == [1, 1]
    objects = filled(slice(0, 4), slice(0, 5)) | filled(slice(10, 12), slice(20, 30))
    assert np.array_equal(masks_of(double).any(0), objects)
    ignored = filled(slice(0, 20), slice(4, 6)) & ~objects
    assert np.array_equal(truth_of(double).ignore, ignored)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no split 'test'"):
        find_data(f"openimages:{root}", split="test")
    layouts.text(root / "metadata/OpenImages/val/class_labels.txt", "val/01226z/cc.jpg,0")
    with pytest.raises(InputError, match=r"has no label of 'val/0bt_c3/bb.jpg'"):
        find_data(f"openimages:{root}", split="val")


def test_stl10_against_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import STL10

    monkeypatch.setattr(
        STL10, "_check_integrity", lambda self: True
    )  # the hashes are of the real files
    root = layouts.stl10(tmp_path)
    theirs = STL10(root, split="test")
    ours = find_data(f"stl10:{root}", split="test")
    assert list(ours.classes) == theirs.classes
    assert ours.labels == [(int(label),) for _, label in theirs]
    for example, (photo, _) in zip(ours, theirs, strict=True):
        assert np.array_equal(np.asarray(example.photo), np.asarray(photo))
    train, val = (
        find_data(f"stl10:{root}"),
        find_data(f"stl10:{root / 'stl10_binary'}", split="val"),
    )
    assert (train.class_counts(), val.class_counts()) == ((3,) * 10, (1,) * 10)
    assert sorted([*train.names, *val.names]) == [f"train-{i:05d}" for i in range(40)]
    theirs = STL10(root, split="train")
    row = int(val.names[3].split("-")[1])
    assert np.array_equal(
        np.asarray(pickle.loads(pickle.dumps(val))[3].photo), np.asarray(theirs[row][0])
    )
    with (root / "stl10_binary/test_X.bin").open("r+b") as file:
        file.truncate(27648 * 5 + 11)
    with pytest.raises(InputError, match=r"test_X.bin' is cut short: it has not the 6 pictures"):
        find_data(f"stl10:{root}", split="test")
    (root / "stl10_binary/train_y.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"train_y.bin' cannot be read"):
        find_data(f"stl10:{root}")


def cut_out(path: Path, shape: np.ndarray, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    alpha = (shape * 255).astype(np.uint8)
    layouts.Image.fromarray(np.dstack([np.full((*shape.shape, 3), colour, np.uint8), alpha])).save(
        path
    )


def cut_outs(root: Path) -> str:
    disc = np.hypot(*np.mgrid[-20:20, -30:30]) < 18
    cut_out(root / "stamps/disc.png", disc, (255, 0, 0))
    for i in range(4):
        cut_out(
            root / f"stamps/bars/{i}.png",
            np.arange(40)[:, None] * np.ones(20) < 30,
            (0, 0, 200 + 10 * i),
        )
    for i in range(3):
        layouts.picture(root / f"backgrounds/{i}.png", i, (50, 80))
    return f"cutouts:{root / 'stamps'},{root / 'backgrounds'},count=12,size=64,scale=0.4-0.6"


def test_cutouts(tmp_path: Path) -> None:
    spec = cut_outs(tmp_path)
    data = find_data(spec)
    assert (data.classes, data.class_counts(), data.multi_label) == (
        ("bars", "disc"),
        (6, 6),
        False,
    )
    blues: dict[str, set[int]] = {}
    for split in ("train", "val", "test"):
        for example in find_data(spec, split=split):
            assert example.photo.size == (64, 64)
            pixels, mask = np.asarray(example.photo).astype(int), masks_of(example)[0]
            ys, xs = np.nonzero(mask)
            assert truth_of(example).boxes.tolist() == [
                [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            ]
            longest = max(xs.max() - xs.min(), ys.max() - ys.min()) + 1
            assert 0.4 * 64 - 1.5 <= longest <= 0.6 * 64 + 1.5
            # Green is in the backgrounds alone: inside is where the object's colour has more than half of it.
            background = pixels[:, :, 1].max()
            assert np.array_equal(pixels[:, :, 1] < background / 2, mask)
            if example.labels == (0,):
                blues.setdefault(split, set()).add(int(pixels[:, :, 2].max()))
    assert not blues["train"] & blues["val"]
    assert not blues["val"] & blues["test"]
    again = find_data(spec.replace("count=12", "count=5"))
    assert np.array_equal(np.asarray(again[4].photo), np.asarray(data[4].photo))
    assert not np.array_equal(
        np.asarray(find_data(spec, seed=1)[4].photo), np.asarray(data[4].photo)
    )


def test_cutouts_that_cannot_be_used(tmp_path: Path) -> None:
    spec = cut_outs(tmp_path)
    cut_out(tmp_path / "stamps/disc.png", np.ones((9, 9)), (1, 2, 3))
    with pytest.raises(ImageError, match=r"disc.png' has no transparency"):
        find_data(spec)[1]
    data = find_data(spec, on_error="skip").readable()
    assert (len(data), len(data.skipped)) == (6, 6)
    dots = np.zeros((400, 400))
    dots[::4, ::4] = 1  # between them nothing, so that nothing is left of them when they are small
    cut_out(tmp_path / "stamps/disc.png", dots, (1, 2, 3))
    with pytest.raises(
        ImageError,
        match=r"disc.png' is too thin to be seen at \d+ x \d+ pixels; give a larger size",
    ):
        find_data(spec)[1]
    assert len(find_data(spec, on_error="skip").readable().skipped) == 6
    (tmp_path / "stamps/disc.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"disc.png' is not an image"):
        find_data(spec)[1]
    with pytest.raises(InputError, match=r"scale=\(0.9, 1.5\)"):
        find_data(spec.replace("0.4-0.6", "0.9-1.5"))
    with pytest.raises(InputError, match="needs two paths, cut-outs and backgrounds"):
        find_data(f"cutouts:{tmp_path}")


MAKERS = {
    "voc": layouts.voc,
    "coco": layouts.coco,
    "imagenet": layouts.imagenet,
    "cub": layouts.cub,
    "openimages": layouts.openimages,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_damaged_picture_is_named_counted_and_skipped_or_fatal(kind: str, tmp_path: Path) -> None:
    spec = f"{kind}:{MAKERS[kind](tmp_path)}"
    data: LabeledImages = find_data(spec, split="val" if kind == "openimages" else "train")
    path = data.paths[0]  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=path.name):
        data.readable()
    seen: list[tuple[int, int]] = []
    data = find_data(spec, split="val" if kind == "openimages" else "train", on_error="skip")
    left = data.readable(lambda done, total: seen.append((done, total)))
    assert list(left.skipped) == [data.names[0]]
    assert path.name in left.skipped[data.names[0]]
    assert (left.names, left.labels) == (data.names[1:], data.labels[1:])
    assert [example.name for example in left] == left.names
    assert seen == [(i + 1, len(data)) for i in range(len(data))]


def test_classes_without_a_picture_are_named(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    (tmp_path / "ILSVRC/Data/CLS-LOC/train/n01443537/n01443537_2.JPEG").unlink()
    with pytest.warns(
        SeewhyWarning,
        match="ImageNet, train has no picture of 'goldfish, Carassius auratus'; add some",
    ):
        find_data(f"imagenet:{tmp_path}")
