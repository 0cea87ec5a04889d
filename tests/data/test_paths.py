"""What files of others name: lists that lead out of their folder, manifests that would have files removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from seewhy.data.paths import is_plain, kept_inside, leads_out
from seewhy.data.sources import find_data
from seewhy.data.store import FORMAT, MANIFEST, Store
from seewhy.errors import ImageError, InputError


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("a.png", False),
        ("b/../a.png", False),
        ("b/c", False),
        ("", False),
        ("../a.png", True),
        ("b/../../a", True),
        ("../data-2/a", True),
    ],
)
def test_whether_a_path_leads_out(tmp_path: Path, path: str, out: bool) -> None:
    folder = tmp_path / "data"
    assert leads_out(folder / path, folder) is out
    assert leads_out(f"{folder}/{path}", f"{folder}/") is out
    assert leads_out("/etc/hostname", folder)


def test_names_of_files_in_a_folder() -> None:
    assert is_plain("rows-0123456789ab-0.safetensors")
    for name in ("", ".", "..", "a/b", "../a", "/a", "a\\b", "c:a", "a\0", None, 3):
        assert not is_plain(name)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list of a picture beside it, and of one in another folder, relative and from the root."""
    for folder in ("own", "other"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "a.png")
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "b.png")
    rows = [
        "path,label,split",
        "a.png,x,train",
        "../other/a.png,x,train",
        f"{tmp_path}/other/b.png,x,train",
    ]
    (tmp_path / "own" / "list.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "own" / "list.csv"


def test_a_list_names_pictures_of_its_folder_unless_trusted(listed: Path) -> None:
    data = find_data(f"csv:{listed}")
    assert data[0].photo.size == (8, 8)
    for index in (1, 2):
        with pytest.raises(ImageError) as error:
            data[index]
        assert str(error.value).endswith(
            f"is outside of '{listed.parent}'; --trust-paths (trust_paths=True) follows it"
        )
        assert data.names[index] in str(error.value)
    trusted = find_data(f"csv:{listed}", trust_paths=True)
    assert [example.photo.size for example in trusted] == [(8, 8)] * 3
    lenient = find_data(f"csv:{listed}", on_error="skip").readable()
    assert lenient.names == ["a.png"]
    assert set(lenient.skipped) == {"../other/a.png", f"{listed.parent.parent}/other/b.png"}


def test_annotations_of_coco_name_pictures_of_its_folder(tmp_path: Path) -> None:
    for folder in ("coco/annotations", "coco/train2017"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    told = {
        "images": [{"id": 1, "file_name": "../../secret.png", "height": 8, "width": 8}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "coco/annotations/instances_train2017.json").write_text(json.dumps(told))
    with pytest.raises(
        ImageError, match=r"secret.png' of coco, train is outside of .*--trust-paths"
    ):
        find_data(f"coco:{tmp_path / 'coco'}")[0]


def test_a_file_of_a_layout_lies_in_its_folder(tmp_path: Path) -> None:
    assert kept_inside(tmp_path / "Annotations/a.xml", tmp_path) == tmp_path / "Annotations/a.xml"
    with pytest.raises(InputError, match=r"a.xml' is outside of"):
        kept_inside(tmp_path / "Annotations/../../a.xml", tmp_path)


def test_the_list_of_voc_names_no_annotation_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "voc/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "voc/JPEGImages").mkdir()
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("../../secret\n")
    (tmp_path / "secret.xml").write_text("<annotation/>")
    with pytest.raises(InputError, match=r"secret.xml' is outside of"):
        find_data(f"voc:{tmp_path / 'voc'}")


def written(folder: Path) -> Store:
    store = Store(folder)
    store.begin({"about": {}})
    store.write("rows-0123456789ab-0.safetensors", {"a": torch.zeros(2)})
    store.commit({"about": {}}, store.files)
    return store


@pytest.mark.parametrize("name", ["../moved.safetensors", "/tmp/x", "rows-0123456789ab-/../../x"])
def test_a_manifest_names_files_of_its_folder_alone(tmp_path: Path, name: str) -> None:
    written(tmp_path / "index")
    path = tmp_path / "index" / MANIFEST
    told = json.loads(path.read_text())
    told["files"][name] = next(iter(told["files"].values()))
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match="which is no file of its folder; fit it again"):
        Store(tmp_path / "index").load()


def test_a_journal_vouches_for_files_of_its_folder_alone(tmp_path: Path) -> None:
    store = written(tmp_path / "index")
    (entry,) = store.files.values()
    line = {
        "at": 1,
        "file": "../x",
        "size": entry.size,
        "sha256": entry.sha256,
        "start": 0,
        "count": 0,
    }
    (tmp_path / "index" / "journal-0.jsonl").write_text(
        json.dumps(line) + "\n" + "[" * 100_000 + "\n"
    )
    again = Store(tmp_path / "index")
    assert again.load()
    assert list(again.files) == list(store.files)


def test_nothing_outside_the_folder_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("of somebody else")
    store = written(tmp_path / "index")
    (tmp_path / "index" / "rows-0123456789ab-").mkdir()
    for name in ("../kept.txt", "rows-0123456789ab-/../../kept.txt", str(kept)):
        with pytest.raises(InputError, match=r"is no file of .*, and is not removed"):
            store.forget(name)
    assert kept.read_text() == "of somebody else"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps({"format": FORMAT}), "does not say its 'files'"),
        (json.dumps({"files": {}}), "does not say its 'format'"),
        ("[" * 100_000, "nested too deep"),
        ("[]", "holds a list, not an object"),
        ('{"format": 4, "fil', "cannot be read"),
        (json.dumps({"format": FORMAT, "files": {"a": 3}}), "cannot be read"),
        (json.dumps({"format": FORMAT, "files": []}), "cannot be read"),
    ],
)
def test_a_manifest_that_does_not_read_is_told_in_one_line(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError) as error:
        Store(tmp_path).load()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def opened_with(folder: Path, **about: Any) -> None:
    from seewhy.cli.influence_asked import OfIndex
    from seewhy.cli.influence_data import open_index

    store = Store(folder)
    store.begin({"about": about})
    open_index(OfIndex(folder))


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"model": "evil:make", "data": "scenes"}, "its model is 'evil:make'"),
        ({"model": "/tmp/evil.py:make", "data": "scenes"}, "its model is '/tmp/evil.py:make'"),
        (
            {"model": "timm:resnet18@/etc/weights.pt", "data": "scenes"},
            "its model is '/etc/weights.pt'",
        ),
        ({"model": "efficientnet_lite0", "data": "folder:/etc"}, "its data is '/etc'"),
        ({"model": "efficientnet_lite0", "data": "csv:../list.csv"}, "its data is '../list.csv'"),
        (
            {"model": "efficientnet_lite0", "data": "scenes", "labels": "/etc/passwd"},
            "its labels is '/etc/passwd'",
        ),
    ],
)
def test_an_index_of_others_opens_and_runs_nothing_that_lies_elsewhere(
    tmp_path: Path, about: Any, said: str
) -> None:
    with pytest.raises(InputError) as error:
        opened_with(tmp_path / "index", **about)
    assert said in str(error.value)
    assert "--trust-paths (trust_paths=True) follows it, or --model and --data say where" in str(
        error.value
    )


def test_an_index_that_says_nothing_of_itself(tmp_path: Path) -> None:
    from seewhy.cli.influence_asked import OfIndex
    from seewhy.cli.influence_data import open_index

    (tmp_path / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": {}}))
    with pytest.raises(InputError, match="does not say what the index is of"):
        open_index(OfIndex(tmp_path))
