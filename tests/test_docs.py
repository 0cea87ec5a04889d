"""The code of README.md and docs/ runs as it stands, page by page, beside small data of the names that it uses.

What a block says cannot run here, in a comment before it, is read: Python compiles, commands have such options.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from skimage.data import chelsea
from typer.main import get_command

import seewhy
from influence_cases import NOT_TRAINED
from seewhy.cli import run
from seewhy.cli.app import app
from seewhy.data.sources import find_data
from seewhy.models.training import train

ROOT = Path(__file__).parents[1]
PAGES = {page.name: page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
LEFT_OUT = ("needs a download", "takes minutes")
BLOCK = re.compile(r"(?:<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# what `net.py:make` is in the README
NET = """
from torch import nn

def make():
    net = nn.Sequential()
    net.add_module("layer4", nn.Conv2d(3, 8, 16, stride=16))
    net.add_module("relu", nn.ReLU())
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("fc", nn.Linear(8, 1000))
    return net.eval()
"""
pytestmark = NOT_TRAINED


@dataclass(frozen=True)
class Block:
    """A block of code: where it begins, its language, and what the comment before it says."""

    where: str
    language: str
    text: str
    left_out: str

    def commands(self) -> list[list[str]]:
        """Its lines that call seewhy, in words."""
        lines = [shlex.split(line, comments=True) for line in self.text.splitlines()]
        return [words[1:] for words in lines if words and Path(words[0]).name == "seewhy"]


def blocks(name: str) -> Iterator[Block]:
    text = PAGES[name].read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start(2)) + 1
        mark, language, code = found.groups(default="")
        yield Block(f"{name}:{line}", language, code, mark)


def write_names(folder: Path) -> None:
    (folder / "names.txt").write_text("".join(f"class {i}\n" for i in range(1000)))


def write_colors(folder: Path) -> None:
    """Pictures of three classes, and a network that was trained on them."""
    chance = np.random.default_rng(0)
    for number, color in enumerate(("blue", "green", "red")):
        kept = folder / "pictures" / "train" / color
        kept.mkdir(parents=True)
        for i in range(6):
            pixels = chance.integers(0, 90, (64, 64, 3))
            pixels[8:40, 8:40, 2 - number] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(kept / f"{i}.png")
    train(
        find_data("folder:pictures"),
        backbone="timm:test_resnet",
        pretrained=False,
        size=(64, 64),
        epochs=1,
        out="mine",
    )


def of_readme(folder: Path) -> dict[str, object]:
    Image.fromarray(chelsea()).save(folder / "cat.jpg")
    Image.fromarray(chelsea()).save(folder / "photo.jpg")
    (folder / "net.py").write_text(NET)
    write_names(folder)
    net = seewhy.load_model("net.py:make").module
    return {"net": net, "x": torch.rand(1, 3, 64, 64)}


def of_influence(folder: Path) -> dict[str, object]:
    write_colors(folder)
    photo = Image.open(folder / "pictures" / "train" / "red" / "0.png").convert("RGB")
    photo.save(folder / "photo.jpg")
    return {
        "model": seewhy.load_model("mine"),
        "train_data": find_data("folder:pictures"),
        "images": [photo],
        "labels": [2],
        "photo": photo,
    }


def of_methods(folder: Path) -> dict[str, object]:
    (folder / "net.py").write_text(NET)
    return {"net": seewhy.load_model("net.py:make").module, "x": torch.rand(1, 3, 64, 64)}


# page -> what makes the files that it names, and gives the names that its Python takes for given
GIVEN: dict[str, Callable[[Path], dict[str, object]]] = {
    "README.md": of_readme,
    "influence.md": of_influence,
    "methods.md": of_methods,
}


@pytest.fixture(autouse=True)
def _forget_the_network() -> Iterator[None]:
    yield
    sys.modules.pop("net", None)  # the next page has its own


def pages() -> list[object]:
    """Those with code, of which that of the README takes longest."""
    long = {"README.md": pytest.mark.long}
    return [pytest.param(name, marks=long.get(name, ())) for name in GIVEN]


def carry_out(block: Block, names: dict[str, object]) -> None:
    if block.language == "python":
        exec(compile(block.text, block.where, "exec"), names)
        return
    for words in block.commands():
        assert run(words) == 0, f"{block.where}: seewhy {shlex.join(words)}"


@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
@pytest.mark.parametrize("name", pages())
def test_the_code_of_a_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image.Image, "show", lambda *_: None)
    names = GIVEN[name](tmp_path)
    for block in blocks(name):
        if not block.left_out:
            carry_out(block, names)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_runs_or_says_why_not(name: str) -> None:
    for block in blocks(name):
        assert block.language in ("", "python"), f"{block.where}: {block.language}"
        assert block.left_out in ("", *LEFT_OUT), f"{block.where}: {block.left_out}"
        assert block.left_out or name in GIVEN, f"{block.where}: nothing is given to it"


@pytest.mark.parametrize("name", PAGES)
def test_commands_have_the_options_that_pages_give_them(name: str) -> None:
    for block in blocks(name):
        if block.language == "python":
            compile(block.text, block.where, "exec")
            continue
        for words in block.commands():
            parse(words)


def parse(words: list[str]) -> None:
    """Reads a command line, and runs nothing; what it does not know it raises."""
    command: object = get_command(app)
    with typer.Context(command, info_name="seewhy") as context:  # type: ignore[arg-type]
        while hasattr(command, "commands"):
            command = command.commands[words[0]]
            words = words[1:]
        command.make_context("seewhy", list(words), parent=context)  # type: ignore[attr-defined]
