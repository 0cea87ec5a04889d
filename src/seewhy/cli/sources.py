"""What the catalogs list, read from their sources without running them: torch alone takes seconds to load.

A test holds it equal to the catalogs themselves.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .worked_out import Defined, WorkedOut

_PACKAGE = Path(__file__).parent.parent
_OBJECTS = ("running", "settings", "method")  # of metrics, which no text gives


@dataclass(frozen=True)
class Listed:
    """What can be asked for by name: what people call it, and the options that it has."""

    title: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class ListedMethod(Listed):
    """A method, with what people are told of it."""

    paper: str
    at: str
    signed: bool
    defaults: Mapping[str, object]  # of its options


@cache
def methods() -> dict[str, ListedMethod]:
    """The methods, in the order of their catalog."""
    inside = _literal("methods.formula", "HOW_IT_RUNS")
    catalog = WorkedOut("methods.catalog", _defined)
    found: dict[str, ListedMethod] = {}
    for variable in _names_in("methods.catalog", "METHODS"):
        method = catalog.value(ast.Name(variable))
        assert isinstance(method, dict)
        given = method["options"] if isinstance(method["options"], dict) else {}
        told = {name: value for name, value in given.items() if name not in inside}
        found[method["name"]] = ListedMethod(
            method["title"], tuple(told), method["paper"], method["at"], method["signed"], told
        )
    return found


def _defined(module: str, name: str) -> Defined:
    """The module that defines what a module calls so, and how: an expression, a function or a class."""
    place, own = _imported(module, name)
    for statement in _tree(place).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name == own:
            return place, statement
    return place, _value_in(_tree(place), own)


@cache
def metrics() -> dict[str, Listed]:
    """The metrics of explanations and those of localisation, with their settings."""
    found: dict[str, Listed] = {}
    for catalog in ("METRICS", "LOCALIZATION"):
        for variable in _names_in("metrics.catalog", catalog):
            kinds = list(_bases(*_imported("metrics.catalog", variable)))
            told = next(fields for kind in kinds if (fields := _name_and_title(kind)))
            found[told[0]] = Listed(
                told[1], tuple(name for name in _settings(kinds) if name not in _OBJECTS)
            )
    return found


@cache
def solvers() -> dict[str, Listed]:
    """The solvers, with their settings."""
    listed = _assigned("influence.solvers.catalog", "SOLVERS")
    assert isinstance(listed, ast.Dict)
    found: dict[str, Listed] = {}
    for key, value in zip(listed.keys, listed.values, strict=True):
        assert isinstance(key, ast.Constant)
        assert isinstance(value, ast.Name)
        kinds = list(_bases(*_imported("influence.solvers.catalog", value.id)))
        found[str(key.value)] = Listed(str(key.value), _settings(kinds))
    return found


@cache
def names(module: str, variable: str) -> tuple[str, ...]:
    """The texts of a tuple, or the keys of a dictionary, that a module of the package assigns."""
    value = _assigned(module, variable)
    return tuple(_keys(value)) if isinstance(value, ast.Dict) else _literal(module, variable)


@cache
def embedded_model() -> str:
    """The name of the model that comes with the installation."""
    return str(ast.literal_eval(_assigned("models.families", "DEFAULT_MODEL")))


@cache
def imagenet_labels() -> tuple[str, ...] | None:
    """The labels of the embedded model, from torchvision's sources; None where these are not at hand."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    try:
        tree = ast.parse(
            (Path(found.origin).parent / "models" / "_meta.py").read_text(encoding="utf-8")
        )
    except OSError:
        return None
    value = _value_in(tree, "_IMAGENET_CATEGORIES")
    return None if value is None else tuple(ast.literal_eval(value))


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(
        (_PACKAGE / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    )


def _value_in(tree: ast.Module, variable: str) -> ast.expr | None:
    for statement in tree.body:
        target = (
            statement.targets[0]
            if isinstance(statement, ast.Assign)
            else getattr(statement, "target", None)
        )
        if (
            isinstance(statement, ast.Assign | ast.AnnAssign)
            and isinstance(target, ast.Name)
            and target.id == variable
        ):
            return statement.value
    return None


def _assigned(module: str, variable: str) -> ast.expr:
    value = _value_in(_tree(module), variable)
    assert value is not None, f"{module} does not assign {variable}"
    return value


def _literal(module: str, variable: str) -> tuple[str, ...]:
    return tuple(ast.literal_eval(_assigned(module, variable)))


def _names_in(module: str, variable: str) -> list[str]:
    """The variables over which the comprehension of a catalog runs."""
    value = _assigned(module, variable)
    assert isinstance(value, ast.DictComp)
    listed = value.generators[0].iter
    assert isinstance(listed, ast.Tuple)
    return [each.id for each in listed.elts if isinstance(each, ast.Name)]


def _imported(module: str, name: str) -> tuple[str, str]:
    """The module that defines what a module calls so, and the name there."""
    for statement in _tree(module).body:
        if isinstance(statement, ast.ImportFrom) and statement.level:
            room = module.split(".")[: -statement.level]
            for alias in statement.names:
                if name == (alias.asname or alias.name):
                    return ".".join([*room, *(statement.module or "").split(".")]), alias.name
    return module, name


def _bases(module: str, name: str) -> Iterator[ast.ClassDef]:
    """A class of the package, and those of the package that it extends, in the order in which Python looks."""
    for statement in _tree(module).body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            yield statement
            for base in statement.bases:
                if isinstance(base, ast.Name):
                    yield from _bases(*_imported(module, base.id))


def _name_and_title(kind: ast.ClassDef) -> tuple[str, str] | None:
    for statement in kind.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Tuple):
            fields = [
                target.id for target in statement.targets[0].elts if isinstance(target, ast.Name)
            ]
            if fields[:2] == ["name", "title"]:
                name, title, *_ = ast.literal_eval(statement.value)
                return name, title
    return None


def _settings(kinds: list[ast.ClassDef]) -> tuple[str, ...]:
    """The arguments of the first constructor, and of those that it hands further ones on to."""
    found: dict[str, None] = {}
    for kind in kinds:
        for made in kind.body:
            if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                found |= dict.fromkeys(
                    arg.arg for arg in (*made.args.args[1:], *made.args.kwonlyargs)
                )
                if made.args.kwarg is None:
                    return tuple(found)
    return tuple(found)


def _keys(value: ast.AST | None) -> list[str]:
    """The texts that are keys of a dictionary, and of those put into it."""
    dictionaries = [node for node in ast.walk(value) if isinstance(node, ast.Dict)] if value else []
    return [text for each in dictionaries for key in each.keys if key and (text := _text(key))]


def _text(value: ast.expr) -> str | None:
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
