"""The figures of the code that may not get worse, on a tree that is small enough to count by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "ratchets.py"
TANGLED = '''"""A module."""

from typing import Any


def choose(x: Any, *rest: dict[str, Any]) -> int:  # type: ignore[no-untyped-def]
    """A docstring, which is long and does not count.

    Nor does this.
    """
    # nor this
    if x:
        return 1  # nor this

    return 22


def branching(x):
{branches}


def lasting(x):
{lines}


LONG = """
{text}
"""
'''.format(
    branches="\n".join(f"    if x == {i}:\n        return {i}" for i in range(10)),
    lines="\n".join(["    x += 1"] * 40),
    text="\n" * 400,
)
# 3 lines of choose, 20 of branching, 40 of lasting
LENGTHS = [
    5,
    8,
    9,
    *(n for _ in range(10) for n in (len("if x == 0:"), len("return 0"))),
    *([6] * 40),
]
FIGURES = {
    "complex_functions": 1,
    "long_functions": 1,
    "long_files": 1,
    "line_length": round(sum(LENGTHS) / len(LENGTHS), 1),
    "type_ignores": 1,
    "any_annotations": 2,
}


def run(folder: Path, *options: str) -> tuple[int, str]:
    where = ["--source", str(folder / "src"), "--committed", str(folder / "ratchets.json")]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *where, *options], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def committed(folder: Path) -> dict[str, float]:
    return json.loads((folder / "ratchets.json").read_text())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "src" / "inner").mkdir(parents=True)
    (tmp_path / "src" / "inner" / "tangled.py").write_text(TANGLED)
    (tmp_path / "ratchets.json").write_text(json.dumps(FIGURES))
    return tmp_path


def coverage_report(folder: Path, covered: int) -> list[str]:
    path = folder / "coverage.json"
    path.write_text(json.dumps({"totals": {"covered_branches": covered, "num_branches": 1000}}))
    return ["--coverage", str(path)]


def test_figures_are_those_counted_by_hand(tree: Path) -> None:
    (tree / "ratchets.json").unlink()
    assert run(tree, "--write")[0] == 0
    assert committed(tree) == FIGURES
    status, said = run(tree)
    assert status == 0
    assert "worse" not in said
    assert "better" not in said


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_that_is_worse_fails_and_one_that_is_better_is_to_be_committed(
    tree: Path, name: str
) -> None:
    (tree / "ratchets.json").write_text(json.dumps({**FIGURES, name: FIGURES[name] - 1}))
    status, said = run(tree)
    assert status == 1
    assert said.count(" worse\n") == 1
    (tree / "ratchets.json").write_text(json.dumps({**FIGURES, name: FIGURES[name] + 1}))
    status, said = run(tree)
    assert status == 0
    assert said.count(" better\n") == 1
    assert "--write" in said
    assert run(tree, "--write")[0] == 0
    assert committed(tree) == FIGURES


def test_coverage_may_tremble(tree: Path) -> None:
    (tree / "ratchets.json").write_text(json.dumps({**FIGURES, "branch_coverage": 80.0}))
    assert "branch coverage" not in run(tree)[1]
    for covered, status, word in ((797, 0, ""), (796, 1, "worse"), (803, 0, "better")):
        found, said = run(tree, *coverage_report(tree, covered))
        assert found == status
        assert said.splitlines()[len(FIGURES)].endswith(f"80 committed  {word}".rstrip())
    run(tree, "--write")
    assert committed(tree)["branch_coverage"] == 80.0


def test_a_figure_without_a_committed_value_is_named(tree: Path) -> None:
    status, said = run(tree, *coverage_report(tree, 800))
    assert status != 0
    assert "branch_coverage" in said
