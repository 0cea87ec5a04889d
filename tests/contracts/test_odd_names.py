"""A folder of photos with every kind of name: explained, drawn, listed and reported; nothing stops it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

import seewhy
from commands import called
from seewhy.cli.localize import localize
from tiny_models import TinyCNN

pytestmark = pytest.mark.skipif(os.name != "posix", reason="names that other systems do not allow")

NAMES = [
    b"bad\xff\xfe.png",
    b"two\nlines.png",
    b"\x1b[31mred.png",
    b"x" * 251 + b".png",
    "한".encode() * 83 + b".png",
    "gpj.\u202etac.png".encode(),
    b"explanation.json.part.png",
    b"explanation.json.png",
    b"report.html.png",
    b"maps.npz.png",
    b"CON.png",
    b"=1+1.png",
    b"<script>alert(1)<script>.png",
    b"[bold].png",
    b" .png",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, name in enumerate(NAMES):
        with open(os.fsencode(photos) + b"/" + name, "wb") as file:
            Image.new("RGB", (40, 30), (9 * i, 100, 50)).save(file, "PNG")
    return photos


def model() -> seewhy.Model:
    small = seewhy.Preprocess((32, 32), 32, (0.5,) * 3, (0.5,) * 3, "bilinear")
    labels = ["=cmd|' /C calc'!A0", "@two", "three\nlines", "\x1b[2J", "five"]
    return seewhy.wrap(TinyCNN(), preprocess=small, labels=labels)


def test_every_photo_is_explained_listed_and_reported(folder: Path, tmp_path: Path) -> None:
    found = seewhy.explain(model(), folder, targets=["top1", 2])
    path = found.save(tmp_path / "out")
    entries = json.loads(path.read_text(encoding="utf-8"))["images"]
    assert sorted(os.fsencode(entry["name"]) for entry in entries) == sorted(NAMES)
    pictures = [
        tmp_path / "out" / told["picture"] for entry in entries for told in entry["attributions"]
    ]
    assert len(set(pictures)) == 2 * len(NAMES)
    assert all(picture.is_file() for picture in pictures)
    files = sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_file())
    assert files == [".lock", "entries.jsonl", "explanation.json", "run.json"]
    page = found.report(tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert r"bad\xff\xfe.png" in page
    assert r"two\nlines.png" in page
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_tables_of_scores_are_no_formulas(folder: Path, tmp_path: Path) -> None:
    found = seewhy.evaluate(
        model(), folder / "CON.png", targets="=cmd|' /C calc'!A0", metrics="deletion", chance=()
    )
    found.save(tmp_path / "scores")
    (_, row) = (tmp_path / "scores" / "evaluation.csv").read_text().splitlines()
    cells = row.split(",")
    assert any(cell.startswith("'=cmd") for cell in cells)
    assert not any(cell.strip('"').startswith(("=", "+", "@")) for cell in cells)


def test_boxes_of_every_photo(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("seewhy.cli.parsing.loaded_model", lambda *_, **__: model())
    assert called(localize, photos=[folder], out=tmp_path / "boxes") == 0
    told = json.loads((tmp_path / "boxes" / "boxes.json").read_text())["images"]
    assert sorted(os.fsencode(entry["name"]) for entry in told) == sorted(NAMES)
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    said = said.out
    assert r"bad\xff\xfe.png" in said
