"""The package as a whole: light to import, typed, its names true."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import seewhy

ROOT = Path(__file__).parents[1]


def test_importing_seewhy_imports_nothing_heavy() -> None:
    heavy = "('torch', 'timm', 'torchvision', 'numpy', 'matplotlib', 'rich')"
    code = f"import sys, seewhy; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
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
