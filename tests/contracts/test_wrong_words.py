"""The same wrong words for every argument and option of every command: exit 0, or one line that says what is wrong."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import typer
from PIL import Image

from seewhy.cli import explain, run
from seewhy.cli.app import app
from seewhy.cli.groups import Asked

TINY = """
import torch
from torch import nn
import seewhy

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    size = seewhy.Preprocess((16, 16), 16, (0.5,) * 3, (0.5,) * 3, "bilinear")
    return seewhy.wrap(net, preprocess=size, labels=["a", "b", "c"])
"""
WRONG = [
    "",
    "nothing",
    "-1",
    "1.5",
    "nan",
    "1e400",
    "\x1b[31m",
    "x" * 300,
    "=1+1",
    "a,,b",
    ":",
    "./../nothing",
    "[1",
    "\udcff",
]
FIT = [
    "influence",
    "fit",
    "--data",
    "folder:pictures",
    "--model",
    "tiny.py:make",
    "--solver",
    "gradient_dot",
]
QUERY = ["influence", "query", "photo.png", "--index", "index", "--trust-paths"]
COMMANDS: dict[str, list[str]] = {
    "explain": ["explain", "photo.png", "--model", "tiny.py:make"],
    "evaluate": [
        "evaluate",
        "photo.png",
        "--model",
        "tiny.py:make",
        "--metric",
        "sparseness",
        "--no-chance",
    ],
    "localize": ["localize", "photo.png", "--model", "tiny.py:make"],
    "layers": ["layers", "tiny.py:make"],
    "labels": ["labels", "tiny.py:make"],
    "methods": ["methods"],
    "train": [
        "train",
        "--data",
        "scenes:count=2,size=32",
        "--scratch",
        "--lr",
        "0",
    ],  # refused as the last
    "demo": ["demo"],
    "influence fit": FIT,
    "influence query": QUERY,
    "influence mislabeled": ["influence", "mislabeled", "--index", "index", "--trust-paths"],
}
MAKES_MUCH = {"--size", "--workers", "--lr"}  # where a number is right, however large


def parameters(name: str) -> Iterator[Any]:
    command: Any = typer.main.get_command(app)
    for part in name.split():
        command = command.commands[part]
    yield from command.params


def words_with(name: str, parameter: Any, wrong: str) -> list[str]:
    """A command line in which this argument or option is wrong."""
    words = COMMANDS[name]
    if parameter.param_type_name == "argument":
        place = len(name.split())
        return [*words[:place], wrong, *words[place + 1 :]]
    return [*words, parameter.opts[0], wrong]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    (folder / "tiny.py").write_text(TINY)
    chance = np.random.default_rng(0)
    for path in (
        folder / "photo.png",
        *(folder / "pictures" / "train" / label / "1.png" for label in "abc"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo, of small photos and a small model."""
    for name in ("chelsea", "coffee"):
        monkeypatch.setattr(skimage.data, name, lambda: np.full((16, 16, 3), 99, np.uint8))
    monkeypatch.setattr(explain, "Asked", partial(Asked, model="tiny.py:make"))


@pytest.fixture(autouse=True)
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    sys.modules.pop("tiny", None)


def test_an_empty_photo_is_not_the_current_folder(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("explain", "localize", "evaluate", "influence query"):
        assert run([*name.split(), ""]) == 1
        assert "an empty text is no path" in capsys.readouterr().err


CASES = [
    (name, parameter.name, i)
    for name in COMMANDS
    for i, parameter in enumerate(parameters(name))
    if parameter.name not in ("help", "as_json") and not getattr(parameter, "is_flag", False)
]


@pytest.mark.usefixtures("small_demo")
@pytest.mark.parametrize(("name", "parameter", "index"), CASES)
def test_wrong_words(
    name: str, parameter: str, index: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.startswith("influence") and name != "influence fit" and not (place / "index").exists():
        assert run([*FIT, "--out", "index"]) == 0
        capsys.readouterr()
    asked = list(parameters(name))[index]
    for wrong in WRONG:
        if set(asked.opts) & MAKES_MUCH and wrong not in ("", "nothing", "-1"):
            continue
        status = run([*words_with(name, asked, wrong), "--json"])
        out, err = capsys.readouterr()
        told = f"{parameter}={wrong!r}: {err}"
        assert "Traceback" not in err, told
        assert "--debug shows where" not in err, told
        assert "\x1b" not in out + err, told
        if status:
            assert status == 1, told
            assert out == "", told
            assert err.splitlines()[-1].startswith("seewhy: "), told
        else:
            json.loads(out)
