"""Names of classes from files of every usual form, and those that leave open which class has which name."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from seewhy.data.labels_file import given_labels, read_labels
from seewhy.errors import InputError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "cat\ndog, hound\n\n"),
        ("names.txt", "  cat\r\ndog, hound\r\n"),
        ("numbered.txt", "1: dog, hound\n0: cat\n"),
        ("numbered.txt", "0\tcat\n1\tdog, hound"),
        ("names.csv", 'index,name\n1,"dog, hound"\n0,cat\n'),
        ("names.csv", 'cat,0\n"dog, hound",1\n'),
        ("names.csv", 'cat\n"dog, hound"\n'),
        ("names.tsv", "0\tcat\n1\tdog, hound\n"),
        ("names.json", '["cat", "dog, hound"]'),
        ("names.json", '{"1": "dog, hound", "0": "cat"}'),
        ("names.json", '{"dog, hound": 1, "cat": 0}'),
        ("names.JSON", '{"0": ["cat"], "1": ["dog", "hound"]}'),
        ("config.json", '{"hidden": 3, "id2label": {"0": "cat", "1": "dog, hound"}}'),
    ],
)
def test_every_usual_form_gives_the_names_in_the_order_of_the_classes(
    tmp_path: Path, name: str, text: str
) -> None:
    for mark in (b"", codecs.BOM_UTF8):
        (tmp_path / name).write_bytes(mark + text.encode())
        assert read_labels(tmp_path / name) == ["cat", "dog, hound"]


def test_a_line_break_in_a_quoted_name_stays(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text('0,cat\n1,"dog\nhound"\n')
    assert read_labels(tmp_path / "names.csv") == ["cat", "dog\nhound"]


def test_an_empty_line_is_a_class_without_a_name_and_numbers_are_names(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n\ndog\n")
    assert read_labels(tmp_path / "names.txt") == ["cat", "", "dog"]
    (tmp_path / "digits.txt").write_text("0\n1\n2\n")
    assert read_labels(tmp_path / "digits.txt") == ["0", "1", "2"]
    (tmp_path / "digits.json").write_text("[3, 4]")
    assert read_labels(tmp_path / "digits.json") == ["3", "4"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("names.txt", "", "has no names"),
        (
            "names.txt",
            "1: cat\n2: dog\n",
            "its 2 numbers are 1 to 2, where a model's classes are 0 to 1",
        ),
        ("names.csv", "0,cat\n2,dog\n", "its 2 numbers are 0 to 2"),
        ("names.csv", "cat,animal\ndog,animal\n", "neither of its columns has the numbers"),
        ("names.csv", "0,cat,animal\n", "its rows have 3 columns"),
        ("names.json", '{"a": "cat"}', "its key 'a' is no number of a class"),
        ("names.json", '[{"name": "cat"}]', "{'name': 'cat'} in it is no name"),
        ("names.json", '"cat"', "it holds a str"),
        ("names.json", "{", "Expecting property name"),
        ("names.json", "{}", "has no names"),
    ],
)
def test_what_leaves_the_classes_open_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as raised:
        read_labels(tmp_path / name)
    assert said in str(raised.value)
    assert f"labels file '{tmp_path / name}'" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(b"\xff\xd8\xff")
    for path, said in (
        (tmp_path / "nowhere.txt", "No such file"),
        (tmp_path / "picture.txt", "codec can't decode"),
    ):
        with pytest.raises(InputError, match=f"cannot be read: .*{said}"):
            read_labels(path)


def test_labels_are_names_or_the_path_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps(["cat", "dog"]))
    assert (
        given_labels(str(tmp_path / "names.json"))
        == given_labels(tmp_path / "names.json")
        == ["cat", "dog"]
    )
    assert given_labels(("cat", "dog")) == ("cat", "dog")
    assert given_labels(None) is None
