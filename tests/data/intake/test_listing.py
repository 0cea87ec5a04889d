"""What records refer to: ids, classes in order, and real files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seewhy.data.intake.listing import (
    Elsewhere,
    as_id,
    elsewhere,
    in_class_order,
    once_each,
    refuse_shared_files,
)
from seewhy.data.intake.records import Picture
from seewhy.errors import InputError


def listed(*paths: Path) -> list[Picture]:
    return [Picture(path.name, path, (0,)) for path in paths]


def files(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_ids() -> None:
    assert [as_id(said, "picture") for said in (7, "7", 7.0, "07", "a", "-7")] == [
        7,
        7,
        7,
        "07",
        "a",
        "-7",
    ]
    for said in (None, True, 7.5, float("nan"), "", [7], {}):
        with pytest.raises(InputError, match="is no id of a picture; give a number or a text"):
            as_id(said, "picture")
    with pytest.raises(InputError, match="'list' has the picture 7 twice"):
        once_each([(7, "a"), (8, "b"), (7, "a")], "the picture", Path("list"))


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        ([str(i) for i in range(12)], [str(i) for i in range(12)]),
        (["10", "9", "9", "100"], ["9", "10", "100"]),
        (["02", "1", "10"], ["1", "02", "10"]),
        (["10", "9", "cat"], ["10", "9", "cat"]),
        (["b", "a"], ["a", "b"]),
        (["²", "10", "9"], ["10", "9", "²"]),
        ([], []),
    ],
)
def test_the_order_of_classes(names: list[str], ordered: list[str]) -> None:
    assert in_class_order(reversed(names)) == ordered


@pytest.mark.parametrize("spelled", ["./a.png", "../p/a.png", "A.png", "link.png", "../q/a.png"])
def test_one_file_in_other_words(tmp_path: Path, spelled: str) -> None:
    a, b = files(tmp_path / "p", "a.png", "b.png")
    (tmp_path / "p/link.png").symlink_to("a.png")
    (tmp_path / "q").symlink_to("p")
    other = Path(f"{tmp_path}/p/{spelled}")
    with pytest.raises(
        InputError, match=r"some lists '.*' twice, also as 'a.png'; leave one of the two out"
    ):
        refuse_shared_files("some", [*listed(a, b), Picture(spelled, other, (0,))], {})
    with pytest.raises(
        InputError, match=r"some has 'a.png', which is in val too, as '.*': what is held back"
    ):
        refuse_shared_files("some", listed(a, b), elsewhere([a, other], ["train", "val"], "train"))
    refuse_shared_files("some", listed(b), elsewhere([a, other], ["train", "val"], "train"))


def test_files_that_differ_in_case_alone_are_two_where_both_are_there(tmp_path: Path) -> None:
    a, b = files(tmp_path, "a.png", "A.png")
    if len(os.listdir(tmp_path)) == 1:
        pytest.skip("this file system knows no case")
    refuse_shared_files("some", listed(a, b), {})


def test_files_that_are_not_there_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    refuse_shared_files("some", listed(tmp_path / "p/a.png", tmp_path / "q/a.png"), {})
    with pytest.raises(InputError, match=r"lists 'a.png' twice; leave"):
        refuse_shared_files("some", listed(tmp_path / "p/a.png", tmp_path / "p/a.png"), {})


def test_splits_in_folders_of_their_own_are_listed_only_where_links_lead_out(
    tmp_path: Path,
) -> None:
    train, val = files(tmp_path / "store/train", "a.png"), files(tmp_path / "val", "b.png")
    (tmp_path / "train").symlink_to("store/train")
    asked: list[str] = []

    def listing() -> list[Path]:
        asked.append("val")
        return sorted((tmp_path / "val").iterdir())

    def check(folder: Path) -> None:
        inside = listed(*sorted((tmp_path / "train").iterdir()))
        refuse_shared_files("some", inside, {"val": Elsewhere(listing, folder)}, tmp_path / "train")

    check(tmp_path / "val")
    assert not asked  # all of train's files lie in train
    (tmp_path / "train/c.png").symlink_to(val[0])
    with pytest.raises(InputError, match=r"'c.png', which is in val too"):
        check(tmp_path / "val")
    (tmp_path / "train/c.png").unlink()
    (tmp_path / "val/d.png").symlink_to(train[0])
    check(tmp_path / "val")  # told when val is read
    with pytest.raises(InputError, match=r"'a.png', which is in val too"):
        check(tmp_path / "store")  # the folders overlap
