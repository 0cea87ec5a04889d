"""Names: shown on one line, safe as files, no formulas in spreadsheets, the same again out of JSON."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from seewhy.cli.show import said, table
from seewhy.data.disk import json_bytes
from seewhy.safe_names import cell, file_stem, shown, within_bytes

ODD = os.fsdecode(b"bad\xff\xfe.jpg")
NAMES = {
    "plain cat.jpg": "plain cat.jpg",
    "고양이 №1 🐈.jpg": "고양이 №1 🐈.jpg",
    "two\nlines\r.jpg": r"two\nlines\r.jpg",
    "\x1b[31mred\x07": r"\x1b[31mred\x07",
    "\x9b31m": r"\x9b31m",
    ODD: r"bad\xff\xfe.jpg",
    "gpj.\u202etac": r"gpj.\u202etac",
    "a\u2028b\u200e": r"a\u2028b\u200e",
    "lone \ud83d": r"lone \ud83d",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_on_one_line_and_acts_on_nothing(name: str) -> None:
    assert shown(name) == NAMES[name]
    assert shown(Path(name)) == NAMES[name]
    assert shown(name).encode().decode() == shown(shown(name))


def test_a_long_name_gives_way_in_its_middle() -> None:
    assert shown("abcdefghij.jpg", 9) == "abcd….jpg"
    assert shown("abc", 3) == "abc"
    assert {len(shown("x" * 255, most)) for most in (1, 2, 16, 60)} == {1, 2, 16, 60}


@pytest.mark.parametrize("name", NAMES)
def test_json_gives_a_name_back(name: str) -> None:
    written = json_bytes({"name": name})
    assert json.loads(written.decode()) == {"name": name}
    assert os.fsencode(json.loads(json_bytes(ODD))) == b"bad\xff\xfe.jpg"


@pytest.mark.parametrize(
    "name",
    [
        *NAMES,
        "x" * 255,
        "한" * 255,
        "CON",
        "con",
        "Aux.b",
        "LPT1",
        "..",
        ".",
        "",
        "a/b\\c:d*?",
        "explanation.json.part",
    ],
)
def test_a_stem_is_a_file_everywhere(tmp_path: Path, name: str) -> None:
    stem = file_stem(name)
    (tmp_path / stem).mkdir()
    assert stem == within_bytes(stem, 121)
    assert stem.lower() not in {"con", "aux.b", "lpt1"}
    assert not set(stem) & set('/\\:*?"<>| \n\x1b')
    assert stem[0] != "."


def test_stems_are_no_files_that_we_write() -> None:
    ours = [
        "explanation.json",
        "report.html",
        "maps.npz",
        "evaluation.csv",
        "explanation.json.part",
        "a.lock",
    ]
    assert [file_stem(name) for name in ours] == [f"{name}_" for name in ours]
    assert [file_stem(name) for name in ("cat", "IMG_1.2", "a b")] == ["cat", "IMG_1.2", "a_b"]


def test_a_text_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    texts = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "cat", "", "a=b"]
    assert [cell(text) for text in texts] == [
        "'=cmd|' /C calc'!A0",
        "'+1",
        "'-1",
        "'@SUM(A1)",
        "'\\t=1",
        "'\\r=1",
        "cat",
        "",
        "a=b",
    ]
    numbers: list[Any] = [-1.5, 3, None, True]
    assert [cell(value) for value in numbers] == numbers
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow([cell(ODD), cell("two\nlines")])
    assert (tmp_path / "a.csv").read_text() == "bad\\xff\\xfe.jpg,two\\nlines\n"


def test_a_table_holds_whatever_the_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Console(highlight=False, force_terminal=True, no_color=True, width=80)
    monkeypatch.setattr("seewhy.cli.show.Console", lambda **_: terminal)
    rows = [
        {"photo": name, "explained": "tiger cat", "status": "ok"}
        for name in ("x" * 251 + ".jpg", "\x1b[2J\n")
    ]
    table("Why", rows)
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert lines[0].split() == ["photo", "explained", "status"]
    assert [line.split()[1:] for line in lines[1:]] == [["tiger", "cat", "ok"]] * 2
    assert lines[1].split()[0] == "x" * 13 + "…" + "x" * 8 + ".jpg"
    assert lines[2].split()[0] == r"\x1b[2J\n"
    assert said("[bold]\x1b") == r"\[bold]\x1b"
