"""Tables go to standard output, plain where that is no terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from seewhy.cli import run
from seewhy.cli.show import progress, table


def test_a_table_is_lines_of_columns_and_its_title_a_remark(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table(
        "A [b] title",
        [{"a": "猫", "b": 1.5, "c": True, "d": ""}, {"a": "long", "b": 2, "c": False, "d": None}],
    )
    said = capsys.readouterr()
    assert said.out == "a     b    c\n猫    1.5  yes\nlong  2\n"
    assert said.err == "A [b] title\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m seewhy labels efficientnet_lite0 2>&1 >&3 | cat >&2"
    shell = f"( {command} ) 3>&1 | head -3"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, env=os.environ, check=False
    )
    assert len(done.stdout.splitlines()) == 3
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("seewhy.cli.show.time.perf_counter", lambda: now[0])
    return now


def test_what_takes_more_than_half_a_minute_says_so_once(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("Explaining", 100) as show:
        clock[0] = 2.0
        show(8, 100)  # too early to tell
        clock[0] = 4.0
        show(16, 100)
        clock[0] = 40.0
        show(24, 100)
    assert capsys.readouterr().err == ""  # 21 s more
    with progress("Explaining", 200) as show:
        clock[0] += 5.0
        show(8, 200)
        clock[0] += 50.0
        show(16, 200)
    assert (
        capsys.readouterr().err
        == "seewhy: Explaining takes about 0:02:00 (h:mm:ss) more, by its first 5 s\n"
    )


def test_masked_pictures_are_the_measure_where_there_are_any(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("Explaining", 16, samples=4) as show:
        clock[0] = 30.0
        show.within(100, 1000)  # the first is slow, and does not count
        clock[0] = 34.0
        show.within(200, 1000)  # 4 s for 100 of 4 x 1000
        show(8, 16)
        clock[0] = 90.0
        show.within(900, 1000)
    assert (
        capsys.readouterr().err
        == "seewhy: Explaining takes about 0:02:36 (h:mm:ss) more, by its first 4 s\n"
    )


@pytest.mark.filterwarnings("ignore:model .* runs the code of")
def test_what_a_model_prints_is_none_of_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talks.py").write_text(TALKS)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    arguments = ["explain", str(tmp_path / "a.png"), "-m", f"{tmp_path / 'talks.py'}:make"]
    assert run([*arguments, "-o", str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["images"][0]["name"] == "a.png"
    assert "I am made" in said.err
    assert "I am asked" in said.err


TALKS = """
import torch
import seewhy

class Talks(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x):
        print("I am asked")
        return self.conv(x).relu().mean((2, 3))

def make():
    print("I am made")
    torch.manual_seed(0)
    return seewhy.wrap(Talks(), preprocess=seewhy.IMAGENET, labels=list("abcd"), gives="logits")
"""
