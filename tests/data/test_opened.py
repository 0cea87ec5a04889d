"""Limits of picture files, and what is no file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from seewhy.data.images import find_images, read_image
from seewhy.data.opened import MAX_PIXELS, opened
from seewhy.errors import ArgumentTypeError, ImageError, InputError


def test_a_picture_of_more_pixels_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "ten.png"
    Image.new("L", (10, 10)).save(path)
    with pytest.raises(ImageError) as error:
        read_image(path, max_pixels=99)
    said = "ten.png' has 10 x 10 pixels; accepted: at most 99; make it smaller, or allow more with max_pixels=100"
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert read_image(path, max_pixels=100).size == (10, 10)
    with (
        Image.open(path) as picture,
        pytest.raises(ImageError, match="the picture has 10 x 10 pixels"),
    ):
        read_image(picture, max_pixels=99)


def test_two_hundred_megapixels_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is decoded for that: the header says so. Pillow's own limit is another, and is not asked."""
    assert MAX_PIXELS == 200_000_000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.new("1", (15_000, 15_000)).save(tmp_path / "large.png")
    with pytest.raises(ImageError, match="has 15000 x 15000 pixels; accepted: at most 200,000,000"):
        read_image(tmp_path / "large.png")
    with opened(tmp_path / "large.png", max_pixels=225_000_000) as picture:
        assert picture.size == (15_000, 15_000)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("limit", [0, -1, 1.5, "9", True, None])
def test_a_limit_that_is_none(tmp_path: Path, limit: object) -> None:
    Image.new("L", (1, 1)).save(tmp_path / "a.png")
    with pytest.raises(
        (InputError, ArgumentTypeError), match=r"max_pixels=.*; give a whole number"
    ):
        read_image(tmp_path / "a.png", max_pixels=limit)  # type: ignore[arg-type]


def test_a_file_of_more_bytes_than_pictures_have(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    Image.new("L", (9, 9)).save(path)
    os.truncate(path, 1_600_000_001)  # a hole, which takes no room
    with pytest.raises(
        ImageError, match=r"has 1,600,000,001 bytes; accepted: at most 1,600,000,000; .*=200000001"
    ):
        read_image(path)
    assert read_image(path, max_pixels=200_000_001).size == (9, 9)


def odd_files(folder: Path) -> dict[str, str]:
    """What is no file, each with a name like a picture's; and what is to be said of it."""
    os.mkfifo(folder / "fifo.jpg")
    (folder / "dangling.jpg").symlink_to("gone.jpg")
    (folder / "a.jpg").symlink_to("b.jpg")
    (folder / "b.jpg").symlink_to("a.jpg")
    (folder / "device.png").symlink_to("/dev/zero")
    return {
        "fifo.jpg": "is a FIFO; accepted: one image file",
        "dangling.jpg": "is a link to nothing: there is no 'gone.jpg'",
        "a.jpg": "is a link that leads to no file",
        "b.jpg": "is a link that leads to no file",
        "device.png": "is a device; accepted: one image file",
    }


@pytest.mark.skipif(os.name != "posix", reason="FIFOs and devices")
def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    for name, said in odd_files(tmp_path).items():
        with pytest.raises(ImageError) as error:
            read_image(tmp_path / name)
        assert f"{name}' {said}" in str(error.value)
        assert "did you mean" not in str(error.value)


@pytest.mark.skipif(os.name != "posix", reason="sockets")
def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
        with pytest.raises(ImageError, match="is a socket"):
            read_image("socket.png")


@pytest.mark.skipif(os.name != "posix", reason="FIFOs and devices")
def test_what_is_no_file_is_listed_in_a_folder_so_that_it_is_told(tmp_path: Path) -> None:
    names = odd_files(tmp_path)
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "around").symlink_to(tmp_path, target_is_directory=True)
    assert [path.name for path in find_images(tmp_path)] == sorted(names)


def test_names_that_are_no_paths() -> None:
    with pytest.raises(ImageError, match="cannot be a file"):
        read_image("a\0b.png")
    with pytest.raises(ImageError, match="File name too long"):
        read_image("x" * 5000 + ".png")


def test_nothing_is_run_for_a_picture(tmp_path: Path) -> None:
    """Pillow hands PostScript to Ghostscript."""
    path = tmp_path / "a.eps"
    Image.new("RGB", (8, 8)).save(path)
    assert ".eps" in Image.registered_extensions()
    with pytest.raises(ImageError, match="not an image that Pillow can read"):
        read_image(path)
    with pytest.raises(ImageError, match="no image in"):
        find_images(tmp_path)
