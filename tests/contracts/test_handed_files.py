"""The command line over files of labels as people have them: right as in Python, or one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import seewhy
from seewhy.cli import run
from tiny_models import randomised

NAMES = ("first", "second", "third", "fourth")


@pytest.fixture(scope="module")
def handed_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network of four classes, a photo, and files of labels."""
    folder = tmp_path_factory.mktemp("handed")
    torch.manual_seed(0)
    torch.save(
        randomised(timm.create_model("test_resnet", num_classes=4)).state_dict(),
        folder / "weights.pt",
    )
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    for name, lines in {"few": NAMES[:3], "numbers": ("1", "2", "3", "4"), "names": NAMES}.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return folder


COMMANDS: dict[str, list[str]] = {
    "explain": ["-t", "{target}"],
    "localize": ["-t", "{target}"],
    "evaluate": ["-t", "{target}", "--metric", "deletion:step=6400", "--no-chance"],
}


def commanded(folder: Path, out: Path, command: str, labels: str, target: str) -> int:
    arguments = [part.replace("{target}", target) for part in COMMANDS[command]]
    model = [
        "--model",
        f"timm:test_resnet@{folder / 'weights.pt'}",
        "--labels",
        str(folder / f"{labels}.txt"),
    ]
    return run([command, str(folder / "photo.png"), *model, *arguments, "-o", str(out), "--json"])


@pytest.mark.parametrize("command", COMMANDS)
def test_too_few_names_in_a_file(
    command: str, handed_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commanded(handed_files, tmp_path, command, "few", "first") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"seewhy: .*labels has 3 names, .*4.*\n", said.err)


@pytest.mark.parametrize(
    ("labels", "target"), [("numbers", "2"), ("names", "second"), ("names", "1")]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_names_in_a_file_behind_a_byte_order_mark(
    command: str,
    labels: str,
    target: str,
    handed_files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert commanded(handed_files, tmp_path, command, labels, target) == 0
    said = json.loads(capsys.readouterr().out)
    model, photo = (
        seewhy.load_model(f"timm:test_resnet@{handed_files / 'weights.pt'}"),
        handed_files / "photo.png",
    )
    chances = model.module(model.preprocess(Image.open(photo))[0][None]).softmax(1)[0].tolist()
    if command == "evaluate":
        judged = seewhy.evaluate(
            model, photo, metrics=seewhy.metrics.Deletion(step=6400), targets=[1], chance=()
        )
        assert said["rows"][0]["mean"] == pytest.approx(float(judged.rows[0].result.mean), rel=1e-4)
        return
    entry = said["images"][0]["attributions" if command == "explain" else "found"][0]
    assert entry["label"] == {"numbers": "2", "names": "second"}[labels]
    assert entry["probability"] == pytest.approx(chances[1], rel=1e-3)
