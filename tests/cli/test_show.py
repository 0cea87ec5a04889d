"""Tables go to standard output, plain where that is no terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from seewhy.cli.show import table


def test_a_table_is_lines_of_columns_and_its_title_a_remark(capsys: pytest.CaptureFixture[str]) -> None:
    table("A [b] title", [{"a": "猫", "b": 1.5, "c": True, "d": ""}, {"a": "long", "b": 2, "c": False, "d": None}])
    said = capsys.readouterr()
    assert said.out == "a     b    c\n猫    1.5  yes\nlong  2\n"
    assert said.err == "A [b] title\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m seewhy labels efficientnet_lite0 2>&1 >&3 | cat >&2"
    shell = f"( {command} ) 3>&1 | head -3"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=os.environ, check=False)
    assert len(done.stdout.splitlines()) == 3
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr
