"""Tables go to standard output, plain where that is no terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
