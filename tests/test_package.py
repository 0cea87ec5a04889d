"""The package as a whole: light to import, typed, its names true."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import seewhy

ROOT = Path(__file__).parents[1]
# those below seewhy that say what is public
PACKAGES = sorted(
    ".".join(path.parent.relative_to(ROOT / "src").parts)
    for path in (ROOT / "src").glob("seewhy/*/**/__init__.py")
    if "__all__ =" in path.read_text()
)


def test_importing_seewhy_imports_nothing_heavy() -> None:
    heavy = "('torch', 'timm', 'torchvision', 'numpy', 'matplotlib', 'rich')"
    code = f"import sys, seewhy; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_every_public_name_is_there() -> None:
    for name in seewhy.__all__:
        assert getattr(seewhy, name) is not None
        assert name in dir(seewhy)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = seewhy.nothing


def test_the_package_is_typed() -> None:
    assert files("seewhy").joinpath("py.typed").is_file()


def test_the_changelog_and_the_project_name_this_version() -> None:
    newest = re.search(r"^## \[(\d[\w.]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    project = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert newest is not None
    assert project is not None
    assert newest[1] == project[1] == seewhy.__version__


def resolve(name: str) -> object:
    """What a dotted name means, whose modules need not be imported yet."""
    parts = name.split(".")
    found: object = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        found = (
            getattr(found, part)
            if hasattr(found, part)
            else importlib.import_module(".".join(parts[:i]))
        )
    return found


def named_in(page: Path) -> set[str]:
    """The names of seewhy in the code of a page of Markdown."""
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL))
    dotted = {name.rstrip(".") for name in re.findall(r"\bseewhy\.[A-Za-z_.]+", code)}
    lines = re.findall(r"\bfrom (seewhy[\w.]*) import ([\w, ]+)", code)
    return dotted | {
        f"{module}.{name.split()[0]}" for module, names in lines for name in names.split(",")
    }


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md"))),
]


@pytest.mark.parametrize("page", PAGES)
def test_every_name_in_the_documents_is_there(page: str) -> None:
    for name in named_in(ROOT / page):
        resolve(name)


def test_every_name_in_docstrings_and_messages_is_there() -> None:
    for path in sorted((ROOT / "src").rglob("*.py")):
        for name in re.findall(r"\bseewhy(?:\.[A-Za-z_]\w*)+", path.read_text()):
            resolve(name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_is_there(package: str) -> None:
    for name in importlib.import_module(package).__all__:
        resolve(f"{package}.{name}")
