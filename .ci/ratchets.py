#!/usr/bin/env python3
"""Figures of the code that may get better and not worse.

Prints each beside the value in ratchets.json, and exits 1 if one is worse. `--write` makes the values of now the ones
that count; commit the file with the change that made them better.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from radon.complexity import cc_visit
from radon.visitors import Function

COMPLEXITY, FUNCTION_LINES, FILE_LINES = 10, 40, 400
ROOT = Path(__file__).parents[1]
COMMITTED = Path(__file__).with_name("ratchets.json")


@dataclass(frozen=True)
class Figure:
    """One thing that is measured.

    Attributes:
        noise: what it may get worse by without that being so.
    """

    title: str
    decimals: int = 0
    more_is_better: bool = False
    noise: float = 0.0

    def gain(self, value: float, committed: float) -> float:
        """How much better a value is; negative if it is worse, 0 within the noise on that side."""
        gain = round((value - committed) * (1 if self.more_is_better else -1), self.decimals)
        return 0.0 if -self.noise <= gain < 0 else gain


FIGURES = {
    "complex_functions": Figure(f"functions over complexity {COMPLEXITY}"),
    "long_functions": Figure(f"functions over {FUNCTION_LINES} lines"),
    "long_files": Figure(f"files over {FILE_LINES} lines"),
    "line_length": Figure("mean characters of a line in a function", decimals=1),
    "type_ignores": Figure("type: ignore"),
    "any_annotations": Figure("Any in annotations"),
    # which branches run depends a little on the machine: threads, timings, devices
    "branch_coverage": Figure(
        "branch coverage, percent", decimals=1, more_is_better=True, noise=0.3
    ),
}


@dataclass
class Source:
    """One Python file, parsed."""

    text: str
    tree: ast.Module = field(init=False)
    comments: dict[int, tuple[int, str]] = field(init=False)  # line number -> column and text

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.text)
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        self.comments = {
            t.start[0]: (t.start[1], t.string) for t in tokens if t.type == tokenize.COMMENT
        }

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """All of them: methods, and those within others."""
        return (
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        )

    def annotations(self) -> Iterator[ast.expr]:
        """Of arguments, of what functions return, and of names and attributes."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
                yield node.annotation
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns:
                yield node.returns


def docstring_lines(node: ast.AST) -> set[int]:
    """The numbers of the lines of a function's or class's docstring."""
    if not isinstance(
        node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ) or not ast.get_docstring(node):
        return set()
    return _lines(node.body[0])


def _lines(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def is_long(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it has too many lines from its "def" to its end, its docstring left out."""
    return len(_lines(function) - docstring_lines(function)) > FUNCTION_LINES


def body_lines(source: Source) -> Iterator[str]:
    """What is written in the bodies of functions, line by line: no indentation, comments, docstrings or blank lines."""
    numbers: set[int] = set()
    for function in source.functions():
        for statement in function.body:
            numbers |= _lines(statement)
    for node in ast.walk(source.tree):
        numbers -= docstring_lines(node)
    lines = source.text.splitlines()
    for number in sorted(numbers):
        end = source.comments.get(number, (None, ""))[0]
        line = lines[number - 1][:end].strip()
        if line:
            yield line


def is_any(node: ast.AST) -> bool:
    """Whether it is `Any` or `typing.Any`."""
    return (isinstance(node, ast.Name) and node.id == "Any") or (
        isinstance(node, ast.Attribute) and node.attr == "Any"
    )


def measure(texts: Iterable[str]) -> dict[str, float]:
    """The figures of some Python files, without their coverage."""
    sources = [Source(text) for text in texts]
    blocks = [block for source in sources for block in cc_visit(source.text)]
    lines = [line for source in sources for line in body_lines(source)]
    found = {
        "complex_functions": sum(
            isinstance(b, Function) and b.complexity > COMPLEXITY for b in blocks
        ),
        "long_functions": sum(
            is_long(function) for source in sources for function in source.functions()
        ),
        "long_files": sum(len(source.text.splitlines()) > FILE_LINES for source in sources),
        "line_length": sum(map(len, lines)) / max(len(lines), 1),
        "type_ignores": sum(
            "type: ignore" in c for source in sources for _, c in source.comments.values()
        ),
        "any_annotations": sum(
            is_any(node) for s in sources for a in s.annotations() for node in ast.walk(a)
        ),
    }
    return {name: round(value, FIGURES[name].decimals) for name, value in found.items()}


def branch_coverage(report: Path) -> float:
    """The percentage of branches that ran, from what `coverage json` wrote."""
    totals = json.loads(report.read_text())["totals"]
    share = totals["covered_branches"] / totals["num_branches"]
    return round(100 * share, FIGURES["branch_coverage"].decimals)


def compare(found: dict[str, float], committed: dict[str, float]) -> int:
    """Prints the figures; returns 1 if one is worse than what is committed, else 0."""
    gains = {name: FIGURES[name].gain(value, committed[name]) for name, value in found.items()}
    for name, value in found.items():
        said = "worse" if gains[name] < 0 else "better" if gains[name] > 0 else ""
        print(
            f"{FIGURES[name].title:42}{value:>8g}{committed[name]:>8g} committed  {said}".rstrip()
        )
    if any(gain < 0 for gain in gains.values()):
        print("worse than what is committed: mend it")
        return 1
    if any(gain > 0 for gain in gains.values()):
        print(
            "better than what is committed: .ci/ratchets.py --write, and commit .ci/ratchets.json"
        )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", type=Path, default=ROOT / "src", help="the folder that is measured"
    )
    parser.add_argument("--committed", type=Path, default=COMMITTED, help="the file of values")
    parser.add_argument(
        "--coverage", type=Path, help="what `coverage json` wrote; coverage is left out without it"
    )
    parser.add_argument(
        "--write", action="store_true", help="make the values of now the ones that count"
    )
    given = parser.parse_args()
    found = measure(path.read_text(encoding="utf-8") for path in sorted(given.source.rglob("*.py")))
    if given.coverage:
        found["branch_coverage"] = branch_coverage(given.coverage)
    committed = json.loads(given.committed.read_text()) if given.committed.exists() else {}
    if given.write:
        given.committed.write_text(json.dumps(committed | found, indent=2) + "\n")
        committed |= found
    if missing := found.keys() - committed:
        parser.error(f"{given.committed} has no {', '.join(sorted(missing))}: --write")
    return compare(found, committed)


if __name__ == "__main__":
    raise SystemExit(main())
