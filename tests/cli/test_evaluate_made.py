"""`seewhy evaluate --metric pair_share|grid_pointing|look_alike|randomization`, over photos and over data."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

import seewhy
from seewhy.cli import run

MODEL = """
import torch
import seewhy


class Colors(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, 4, 1), torch.nn.Linear(4, 4, bias=False)
        ways = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1]]
        self.conv.weight.data.copy_(torch.tensor(ways)[:, :, None, None])
        self.conv.bias.data.fill_(-2.0)
        self.fc.weight.data.copy_(20 * torch.eye(4))

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def make():
    plain = seewhy.Preprocess((16, 16), None, (0.5,) * 3, (0.5,) * 3, "bilinear")
    labels = ["red", "green", "blue", "yellow"]
    return seewhy.wrap(Colors().eval(), preprocess=plain, labels=labels, gives="logits")
"""
pytestmark = pytest.mark.filterwarnings("ignore:model .* runs the code of")
PIXELS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
ROWS = ["path", "label", "split", "x0", "y0", "x1", "y1"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four pictures of a colour each, and a list of two with objects of two colours that are marked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "colors", raising=False)
    (tmp_path / "colors.py").write_text(MODEL)
    (tmp_path / "photos").mkdir()
    for name, pixels in PIXELS.items():
        Image.new("RGB", (16, 16), pixels).save(tmp_path / "photos" / f"{name}.png")
    with (tmp_path / "marked.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(ROWS)
        for name, left, right in (("a", "red", "blue"), ("b", "green", "red")):
            picture = Image.new("RGB", (16, 16))
            picture.paste(PIXELS[left], (0, 2, 6, 9))
            picture.paste(PIXELS[right], (9, 4, 16, 12))
            picture.save(tmp_path / f"{name}.png")
            rows.writerow([f"{name}.png", left, "test", 0, 2, 6, 9])
            rows.writerow([f"{name}.png", right, "test", 9, 4, 16, 12])
    with (tmp_path / "single.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(ROWS)
        for name in PIXELS:
            picture = Image.new("RGB", (16, 16))
            picture.paste(PIXELS[name], (2, 2, 10, 9))
            picture.save(tmp_path / f"one_{name}.png")
            rows.writerow([f"one_{name}.png", name, "test", 2, 2, 10, 9])
    return tmp_path


def asked(*words: str, method: str = "cam") -> list[str]:
    return ["evaluate", *words, "--model", "colors.py:make", "--method", method, "-o", "out"]


def told(capsys: pytest.CaptureFixture[str], *words: str, method: str = "cam") -> dict[str, object]:
    assert run([*asked(*words, method=method), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def means(found: object) -> dict[str, float]:
    assert isinstance(found, dict)
    return {row["metric"]: row["mean"] for row in found["rows"]}


def test_pairs_and_mosaics_are_made_of_photos(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["photos", "--metric", "pair_share", "--metric", "grid_pointing:side=32", "--no-chance"]
    found = told(capsys, *words, "--metric", "sparsity", "--count", "2")
    assert means(found)["sparsity"] is not None
    made = found["made"]
    assert isinstance(made, dict)
    assert list(made) == ["pairs", "pairs_shrunk", "mosaics", "mosaics_shrunk"]
    assert means(made["pairs"]) == {"pair_share": pytest.approx(1.0)}
    assert means(made["mosaics"]) == {"grid_pointing:side=32": pytest.approx(1.0)}
    assert made["pairs"]["rows"][0]["by_chance"] == pytest.approx(0.5)
    assert made["mosaics"]["rows"][0]["by_chance"] == pytest.approx(0.25)
    kept = seewhy.open("out/pairs")
    assert kept[0].result.mean == pytest.approx(1.0)
    assert (photos / "out" / "mosaics" / "best_and_worst.png").is_file()


def test_people_are_told_what_was_made_and_of_what(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(asked("photos", "--metric", "pair_share", "--no-chance", "--count", "2")) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == [
        "pictures",
        "pairs",
        "pictures",
        "pairs_shrunk",
    ]
    assert "2 pairs of" in said.err
    assert "16 x 32 (classes: the model's own answers)" in said.err


def test_marked_pairs_are_scored_as_they_are(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--metric={name}" for name in ("pair_share", "randomization", "max_sensitivity")]
    found = told(capsys, "--data", "csv:marked.csv", *words, "--no-chance")
    assert means(found)["pair_share"] == pytest.approx(1.0)
    assert len(found["images"]) == 4  # type: ignore[arg-type]
    rows = found["rows"]
    assert isinstance(rows, list)
    assert len(next(row for row in rows if row["metric"] == "randomization")["values"]) == 4
    assert "made" not in found


def test_photos_of_data_make_pairs_with_their_labels(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(
        capsys, "--data", "csv:single.csv", "--metric=pair_share", "--metric=look_alike",
        "--confidence", "0.2", "--no-chance",
    )  # fmt: skip
    made = found["made"]
    assert isinstance(made, dict)
    assert list(made) == ["pairs", "pairs_shrunk"]
    assert "(classes: of the data)" in made["pairs"]["title"]
    (row,) = found["rows"]  # type: ignore[misc]
    assert row["metric"] == "look_alike"  # type: ignore[index]
    assert row["by_chance"] == pytest.approx(56 / 256)  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos", "--metric", "look_alike"], "give pictures with boxes or masks in their place: --data"),
        (["photos", "--metric", "pointing_game"], "compares with marked objects, which photos"),
        (["photos", "--metric", "pair_share", "-t", "red"], "pair_share explains the class of each photo"),
        (["photos/red.png", "--metric", "pair_share"], "no pair can be made: of 1 photos"),
        (["photos/red.png", "--metric", "grid_pointing"], "no mosaic can be made: of 1 photos"),
        (["photos", "--metric", "pair_share", "--confidence", "1.5"], "Invalid value for '--confidence'"),
        (["--data", "folder:photos", "--metric", "look_alike"], "'photos' has no sub folders"),
        (["--data", "csv:marked.csv", "--metric", "focus"], "judges mosaics of photos"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    words: list[str], said: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(asked(*words)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert said in printed.err


def test_data_without_marks_is_told(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["path,label,split", *(f"photos/{name}.png,{name},test" for name in PIXELS)]
    Path("plain.csv").write_text("\n".join(lines))
    assert run(asked("--data", "csv:plain.csv", "--metric", "look_alike")) == 1
    said = capsys.readouterr().err
    assert "marks no object, neither by a mask nor by a box; give data that do" in said
    assert said.count("\n") == 1
