"""Folders and lists of pictures, splits, subsets, and what is done about files that are wrong."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import data_layouts as layouts
import seewhy
from data_layouts import number_of
from seewhy.data import SOURCES, Scenes, check_splits
from seewhy.data.formats.files import hash_split
from seewhy.data.intake.masks import box_of, read_mask, scaled_mask
from seewhy.data.sources import find_data
from seewhy.errors import ImageError, InputError, MissingExtraError, SeewhyWarning

SPLITS = ("train", "val", "test")


def by_class(root: Path, **counts: int) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            layouts.picture(root / name / f"{i}.png", number, (4, 6))
    return root


def test_a_folder_is_divided_by_a_hash(tmp_path: Path) -> None:
    root = by_class(tmp_path / "photos", cat=20, dog=10)
    layouts.picture(root / "cat/deeper/x.png", 0, (4, 6))
    layouts.text(root / "cat/notes.txt", "no picture")
    data = {split: find_data(f"folder:{root}", split=split) for split in SPLITS}
    assert {split: one.class_counts() for split, one in data.items()} == {
        "train": (15, 6),
        "val": (3, 2),
        "test": (3, 2),
    }
    names = [name for one in data.values() for name in one.names]
    assert sorted(names) == sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*.png")
    )
    assert (data["train"].classes, data["train"].multi_label, data["train"].title) == (
        ("cat", "dog"),
        False,
        "photos, train",
    )
    for example in data["val"]:
        assert number_of(example.photo) == example.labels[0]
        assert example.truth is None
    assert find_data(str(root), split="val").names == data["val"].names
    assert find_data(str(root), split="val", seed=1).names != data["val"].names
    check_splits(data["train"], data["val"])


def test_a_folder_with_splits(tmp_path: Path) -> None:
    by_class(tmp_path / "train", cat=3, dog=2)
    by_class(tmp_path / "valid", cat=0, dog=4)
    train = find_data(f"folder:{tmp_path}")
    with pytest.warns(
        SeewhyWarning, match="val has no picture of 'cat'; add some, or leave the class out"
    ):
        val = find_data(f"folder:{tmp_path}", split="val")
    assert (train.class_counts(), val.class_counts()) == ((3, 2), (0, 4))
    assert val.names[0] == "valid/dog/0.png"
    with pytest.raises(InputError, match="has no split 'test'; it has 'train', 'valid'"):
        find_data(f"folder:{tmp_path}", split="test")
    by_class(tmp_path / "valid", fox=1)
    with pytest.raises(InputError, match=r"has the class 'fox', which '.*train' has not"):
        find_data(f"folder:{tmp_path}", split="val")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "train"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{i}.png")
    assert find_data(f"folder:{tmp_path}", split="train").classes == ("car", "train")


def test_a_list(tmp_path: Path) -> None:
    for i in range(4):
        layouts.picture(tmp_path / f"pictures/{i}.png", i, (20, 30))
    file = layouts.text(
        tmp_path / "list.csv",
        "path, label, x0, y0, x1, y1, split",
        "pictures/0.png,dog,1,2,3.5,4,train",
        "pictures/1.png,cat|dog,,,,,train",
        "pictures/0.png,cat,0,0,30,20,train",
        'pictures/2.png,"dog",,,,,val',
        "pictures/3.png,,,,,,train",
    )
    data = find_data(f"csv:{file}")
    assert (data.classes, data.multi_label) == (("cat", "dog"), True)
    assert data.names == ["pictures/0.png", "pictures/1.png", "pictures/3.png"]
    assert data.labels == [(0, 1), (0, 1), ()]
    assert [number_of(example.photo) for example in data] == [0, 1, 3]
    truth = data[0].truth
    assert truth is not None
    assert truth.boxes.tolist() == [[1, 2, 3.5, 4], [0, 0, 30, 20]]
    assert truth.labels.tolist() == [1, 0]
    assert data[1].truth is None
    with pytest.warns(SeewhyWarning, match=r"list.csv, val has no picture of 'cat'"):
        val = find_data(str(file), split="val")
    assert (val.names, val.labels) == (["pictures/2.png"], [(1,)])


def test_boxes_in_the_columns_of_others(tmp_path: Path) -> None:
    layouts.picture(tmp_path / "a.png")
    lines = ["path,width,height,label,xmin,ymin,xmax,ymax,split", "a.png,30,20,cat,1,2,3.5,4,train"]
    file = layouts.text(tmp_path / "list.csv", *lines)
    truth = find_data(f"csv:{file}")[0].truth
    assert truth is not None
    assert truth.boxes.tolist() == [[1, 2, 3.5, 4]]
    layouts.text(file, lines[0].replace("xmin,ymin,xmax,ymax", "x,y,w,h"), lines[1])
    with pytest.warns(
        SeewhyWarning,
        match=r"has the columns \['x', 'y', 'w', 'h'\], which are not read; \['path', .*xmin",
    ):
        assert find_data(f"csv:{file}")[0].truth is None


def test_a_list_with_a_byte_order_mark(tmp_path: Path) -> None:
    layouts.picture(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,label,split\na.png,cat,train\n", encoding="utf-8-sig")
    assert find_data(f"csv:{tmp_path / 'list.csv'}").classes == ("cat",)


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    names = [str(i) for i in range(12)]
    for i, name in enumerate(names):
        layouts.picture(tmp_path / "train" / name / "a.png", i)
    file = layouts.text(
        tmp_path / "list.csv", "path,label,split", *(f"train/{i}/a.png,{i},train" for i in names)
    )
    for spec in (f"folder:{tmp_path}", f"csv:{file}"):
        data = find_data(spec)
        assert data.classes == tuple(names)
        assert sorted((number_of(example.photo), *example.labels) for example in data) == [
            (i, i) for i in range(12)
        ]
    (tmp_path / "train/7").rename(tmp_path / "train/seven")
    assert find_data(f"folder:{tmp_path}").classes == tuple(
        sorted([*names[:7], *names[8:], "seven"])
    )


def test_a_folder_of_all_endings_loses_nothing(tmp_path: Path) -> None:
    endings = ("JPEG", "jpeg", "jpg", "JPG", "png", "PNG", "bmp", "webp", "tif", "gif")
    for i, ending in enumerate(endings):
        layouts.picture(tmp_path / f"train/cat/{i}.{ending}")
    data = find_data(f"folder:{tmp_path}").readable()
    assert sorted(data.names) == sorted(
        f"train/cat/{i}.{ending}" for i, ending in enumerate(endings)
    )


def test_a_list_without_splits_is_divided_by_a_hash(tmp_path: Path) -> None:
    file = layouts.text(
        tmp_path / "list.csv", "label,path", *(f"{i % 2},{i}.png" for i in range(40))
    )
    data = [find_data(f"csv:{file}", split=split) for split in SPLITS]
    assert [one.class_counts() for one in data] == [(14, 14), (3, 3), (3, 3)]
    assert len({name for one in data for name in one.names}) == 40
    assert not data[0].multi_label


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["path;label;split", "a.png;cat;test"],
            r"'path;label;split'\]; save it with commas.*, not semicolons",
        ),
        (["path\tlabel", "a.png\tcat"], "not tabs"),
        (["path,name", "a.png,cat"], r"has the columns \['path', 'name'\]; it needs path, label"),
        (["path,label,x0,y0,x1", "a.png,cat,1,2,3"], "for boxes, x0, y0, x1, y1"),
        (["path,label", "a.png,cat", ",dog"], "line 3: no path"),
        (["path,label,split", "a.png,cat,training"], "line 2: split 'training'"),
        (
            ["path,label,split", "a.png,cat,val", "a.png,dog,train"],
            "line 3: split 'train' of 'a.png'; .*the same for all rows",
        ),
        (["path,label,x0,y0,x1,y1", "a.png,cat,1,2,3,"], "line 2: box .*; give four numbers"),
        (["path,label,x0,y0,x1,y1", "a.png,cat|dog,1,2,3,4"], "line 2: box with the labels"),
        (["path,label,x0,y0,x1,y1", "a.png,,1,2,3,4"], "line 2: box with the labels"),
        (["path,label"], "list.csv, train has no picture; give another path or split"),
        ([], "has the columns"),
    ],
)
def test_lists_that_are_wrong(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        find_data(f"csv:{layouts.text(tmp_path / 'list.csv', *lines)}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("box", "mended", "said"),
    [
        (
            (-5, 2, 8, 40),
            [0, 2, 8, 20],
            r"box \[-5.0, 2.0, 8.0, 40.0\] reaches beyond the picture of 30 x 20",
        ),
        ((31, 2, 40, 9), None, "reaches beyond"),
        ((3, 4, 3, 9), None, r"box \[3.0, 4.0, 3.0, 9.0\] has no area"),
        ((9, 4, 3, 9), None, "has no area"),
        ((float("nan"), 4, 3, 9), None, r"box \['nan', '4', '3', '9'\]; give four numbers"),
    ],
)
def test_boxes_that_are_wrong(
    tmp_path: Path, box: Any, mended: list[int] | None, said: str
) -> None:
    layouts.picture(tmp_path / "a.png")
    layouts.picture(tmp_path / "b.png")
    x0, y0, x1, y1 = box
    file = layouts.text(
        tmp_path / "list.csv",
        "path,label,x0,y0,x1,y1,split",
        "b.png,cat,0,0,9,9,train",
        f"a.png,cat,{x0},{y0},{x1},{y1},train",
        "a.png,cat,1,1,2,2,train",
    )
    with pytest.raises(
        InputError, match=f"annotation of 'a.png': .*{said}.*; mend it, or pass on_error='skip'"
    ):
        find_data(f"csv:{file}").readable()
    data = find_data(f"csv:{file}", on_error="skip").readable()
    assert (data.names, dict(data.skipped), list(data.notes)) == (["b.png", "a.png"], {}, ["a.png"])
    truth = data[1].truth
    assert truth is not None
    assert truth.boxes.tolist() == ([mended] if mended else []) + [[1, 1, 2, 2]]


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    values = np.zeros((40, 60))
    values[10:20, 30:60] = 200
    path = layouts.grey(tmp_path / "mask.png", values)
    assert box_of(read_mask(path)) == (30, 10, 60, 20)
    assert box_of(scaled_mask(read_mask(path), (20, 30))) == (15, 5, 30, 10)
    assert box_of(scaled_mask(read_mask(path), (80, 120))) == (60, 20, 120, 40)
    assert not read_mask(path, above=200).any()
    for row in range(6):  # a single pixel is never lost
        dot = np.zeros((40, 60))
        dot[row, 7] = 1
        assert box_of(scaled_mask(read_mask(layouts.grey(path, dot)), (10, 12)))[3] == row // 4 + 1
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"mask '.*mask.png' is empty"):
        read_mask(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    root = by_class(tmp_path, cat=12, dog=12)
    damaged = root / find_data(str(root)).names[3]
    damaged.write_bytes(damaged.read_bytes()[:40])
    gone = root / find_data(str(root)).names[5]
    data = find_data(str(root), on_error="skip")
    gone.unlink()
    left = data.readable()
    assert list(left.skipped) == [path.relative_to(root).as_posix() for path in (damaged, gone)]
    assert f"image '{damaged}'" in left.skipped[left.whole.names[3]]  # type: ignore[attr-defined]
    assert (len(left), sum(left.class_counts())) == (len(data) - 2, len(data) - 2)
    again = pickle.loads(pickle.dumps(left.subset([3, 0])))
    assert again.names == [left.names[3], left.names[0]]
    assert again.skipped == left.skipped == left.readable().skipped
    with pytest.raises(ImageError, match=damaged.name):
        find_data(str(root)).readable()
    for name in data.names:
        (root / name).write_bytes(b"")
    with pytest.raises(
        InputError, match=r"no picture of .*, train can be used; the first: image '"
    ):
        data.readable()


def test_subsets() -> None:
    data = Scenes(10)
    part = data.subset([7, -1, 2])
    assert part.names == ["train-000007", "train-000009", "train-000002"]
    assert part.labels == [data.labels[7], data.labels[9], data.labels[2]]
    assert [example.name for example in part] == part.names
    assert part.subset([1])[0].name == "train-000009"
    assert sum(part.class_counts()) == 3
    with pytest.raises(IndexError):
        data.subset([10])
    seen: list[Any] = []
    assert data.subset([1, 4]).readable(lambda *done: seen.append(done)).names == [
        "train-000001",
        "train-000004",
    ]
    assert seen == [(1, 2), (2, 2)]


def test_classes_that_one_split_lacks() -> None:
    train, val = Scenes(20), Scenes(20, split="val")
    check_splits(train, val)
    some = [i for i, labels in enumerate(val.labels) if labels[0] not in (3, 8)]
    with pytest.warns(
        SeewhyWarning,
        match="scenes, val has no picture of '3', '8'; its scores say nothing about them",
    ):
        check_splits(train, val.subset(some))
    with pytest.raises(
        InputError, match="scenes, train has no picture of '3', '8', which scenes, val shows"
    ):
        check_splits(
            train.subset([i for i, labels in enumerate(train.labels) if labels[0] not in (3, 8)]),
            val,
        )
    val.classes = tuple(reversed(val.classes))
    with pytest.raises(InputError, match="differ: their order"):
        check_splits(train, val)
    val.classes = (*train.classes[:9], "ten")
    with pytest.raises(InputError, match="differ: '9', 'ten' only in one of them"):
        check_splits(train, val)


def test_hash_split() -> None:
    names = [f"{i}" for i in range(1000)]
    shares = {"val": 0.1, "test": 0.2}
    found = hash_split(names, [""] * 1000, seed=0, shares=shares)
    assert Counter(found) == {"train": 700, "val": 100, "test": 200}
    order = torch.randperm(1000).tolist()
    assert hash_split([names[i] for i in order], [""] * 1000, seed=0, shares=shares) == [
        found[i] for i in order
    ]
    more = hash_split([f"{i}" for i in range(1050)], [""] * 1050, seed=0, shares=shares)
    assert sum(a != b for a, b in zip(found, more, strict=False)) < 40  # few of the old ones move
    assert hash_split(["a", "b"], ["", ""], seed=0, shares=shares) == ["train", "train"]
    assert sorted(hash_split(["a", "b", "c"], [""] * 3, seed=0, shares=shares)) == [
        "test",
        "train",
        "val",
    ]


def test_a_name_is_unique(tmp_path: Path) -> None:
    root = layouts.voc(tmp_path)
    layouts.text(root / "ImageSets/Main/train.txt", "000005", "000007", "000005")
    with pytest.raises(InputError, match="VOC2007, train lists '000005' twice"):
        find_data(f"voc:{root}")


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("scenez", {}, "data 'scenez' is not known; did you mean 'scenes'"),
        ("cocoa:/x", {}, "did you mean 'coco'"),
        ("folder:", {}, "needs a path after the colon"),
        ("folder:/no/such", {}, "'/no/such' does not exist; give the folder of pictures by class"),
        ("csv:/no/such.csv", {}, "the list '/no/such.csv' cannot be read"),
        ("folder:/dev/null", {}, "'/dev/null' is a file"),
        ("scenes", {"split": "training"}, "split='training' is not known; did you mean 'train'"),
        ("scenes", {"on_error": "ignore"}, "on_error='ignore' is not known; use 'raise'"),
        ("voc:/tmp", {"blacklist": "x"}, "unexpected keyword argument 'blacklist'"),
    ],
)
def test_specs_that_are_wrong(spec: str, options: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        find_data(spec, **options)
    assert "\n" not in str(caught.value)


def test_a_folder_without_classes_or_pictures(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="has no sub folders; give a folder with a sub folder of pictures for each"
    ):
        find_data(str(tmp_path))
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match=r"train has no picture; give another path or split"):
        find_data(str(tmp_path))


@pytest.mark.parametrize(
    ("module", "kind", "extra"),
    [("sklearn.datasets", "scenes", "train"), ("pycocotools.mask", "coco", "coco")],
)
def test_an_extra_that_is_missing_is_named(
    module: str, kind: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seewhy.data.drawn.sprites import glyphs

    glyphs.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingExtraError, match=rf"'{kind}' needs the extra .*pip install 'seewhy\[{extra}\]'"
    ):
        find_data("scenes" if kind == "scenes" else f"coco:{layouts.coco(tmp_path)}")


def test_every_kind_of_data_set_is_handed_on() -> None:
    for source in SOURCES.values():
        assert source.name in seewhy.data.__all__, f"hand {source.name} on in data/__init__.py"
        assert isinstance(getattr(seewhy.data, source.name), type)
