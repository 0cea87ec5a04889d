"""What is said of a path that leads to no photo, with what may have been meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from seewhy.errors import ImageError
from seewhy.no_file import check_any_there, check_is_local


def said(*paths: Path) -> str:
    with pytest.raises(ImageError) as error:
        check_any_there(paths)
    return str(error.value)


def test_what_may_have_been_meant(tmp_path: Path) -> None:
    for name in ("zebra.jpg", "horse.jpg"):
        (tmp_path / name).touch()
    assert said(tmp_path / "zebar.jpg").endswith("does not exist; did you mean 'zebra.jpg'?")
    assert said(tmp_path / "qqq").endswith("give the path of a file, or of a folder with pictures")
    assert f"there is no folder '{tmp_path / 'a'}'" in said(tmp_path / "a" / "b" / "c.jpg")
    assert "as a pattern it fits 2 files: leave out the quotes" in said(tmp_path / "*.jpg")
    assert "does not exist" in said(tmp_path / "*.png")


def test_links_and_names_that_no_file_can_have(tmp_path: Path) -> None:
    (tmp_path / "to_nothing").symlink_to("nothing")
    (tmp_path / "round").symlink_to("round")
    assert "is a link to nothing: there is no 'nothing'" in said(tmp_path / "to_nothing")
    assert "is a link that leads to no file" in said(tmp_path / "round")
    assert "cannot be a file" in said(Path("a\0b"))


def test_one_that_is_there_is_enough(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    check_any_there([tmp_path / "b.jpg", tmp_path / "a.jpg"])
    check_any_there([tmp_path])
    check_any_there([])
    assert "b.jpg" in said(tmp_path / "b.jpg", tmp_path / "c.jpg")


def test_a_web_address_is_none_of_a_file() -> None:
    with pytest.raises(ImageError, match=r"'https://a\.org/b\.jpg' is a web address"):
        check_is_local("https://a.org/b.jpg")
    check_is_local("https.jpg")
