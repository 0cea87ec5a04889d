"""The versions that are tested are those that pyproject.toml states."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def stated(*extras: str) -> dict[str, Requirement]:
    """What seewhy needs, with these extras."""
    texts = [
        *PROJECT["dependencies"],
        *(text for extra in extras for text in PROJECT["optional-dependencies"][extra]),
    ]
    return {one.name: one for one in map(Requirement, texts) if one.name != PROJECT["name"]}


def fixed(name: str) -> dict[str, Version]:
    """The versions that a file of constraints fixes."""
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {package: Version(version) for package, version in pairs}


def test_the_lowest_versions_stated_are_tested() -> None:
    needed = stated("hf", "train", "coco", "influence")
    floors = {name: Version(spec.version) for name, one in needed.items() for spec in one.specifier}
    assert fixed("lowest") == floors


def test_the_newest_versions_tested_are_fixed_and_allowed() -> None:
    needed, newest = stated("hf", "train", "coco", "influence", "test"), fixed("newest")
    assert newest.keys() == needed.keys()
    assert [name for name, version in newest.items() if version not in needed[name].specifier] == []
