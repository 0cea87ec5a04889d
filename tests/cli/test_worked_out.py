"""What expressions of sources come to is what Python makes of them."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from seewhy.cli.worked_out import UNKNOWN, Defined, WorkedOut

SOURCE = """
from dataclasses import dataclass
ONE = 1
MORE = {"b": ONE, **{"c": (2, "x")}}

def inner(a, b=ONE, *, c=3, **rest):
    both = {"a": a, "b": b}
    return {"both": both, "c": c, **rest}

@dataclass
class Base:
    title: str
    at: str = "layer"

@dataclass
class Made(Base):
    signed: bool = False

def made(title, **rest):
    return Made(title, **{"signed": True, **rest})

OTHER = made("Other", at="input")
"""
TREE = ast.parse(SOURCE)


def defined(module: str, name: str) -> Defined:
    for line in TREE.body:
        if isinstance(line, ast.FunctionDef | ast.ClassDef) and line.name == name:
            return module, line
        if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == name:
            return module, line.value
    return module, None


def worked_out(text: str) -> object:
    return WorkedOut("m", defined).value(ast.parse(text, mode="eval").body)


@pytest.mark.parametrize(
    "text",
    [
        "ONE",
        "MORE",
        "{**MORE, 'b': 5}",
        "0 or None or ONE",
        "'yes' if MORE else 'no'",
        "inner(7)",
        "inner(7, 8, c=9, d=10)",
        "inner(b=1, a=2, **MORE)['x'] if 0 else 4",
        "inner(**{'a': 1, 'z': ONE})",
    ],
)
def test_as_python_has_it(text: str) -> None:
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    assert worked_out(text) == eval(text, names)


def test_an_object_is_its_fields() -> None:
    assert worked_out("Made('A')") == {"title": "A", "at": "layer", "signed": False}
    assert worked_out("OTHER") == {"title": "Other", "at": "input", "signed": True}
    assert worked_out("OTHER.at") == "input"


@pytest.mark.parametrize("text", ["nowhere", "inner(1).a", "1 + 1", "nowhere(1)", "lambda: 1"])
def test_what_cannot_be_told(text: str) -> None:
    assert worked_out(text) is UNKNOWN
