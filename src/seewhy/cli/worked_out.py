"""What an expression of the sources comes to, as far as constants, dictionaries and plain functions say it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Defined = tuple[str, ast.expr | ast.FunctionDef | ast.ClassDef | None]


class _Unknown:
    """What is not to be told without running: a function, a tensor."""

    def __bool__(self) -> bool:
        return False


UNKNOWN = _Unknown()


@dataclass(frozen=True)
class WorkedOut:
    """Values in a module, or in a function of it.

    Attributes:
        module: in which names are looked for.
        defined: for a module and a name the module that defines it, and how.
        scope: what names of a function stand for.
    """

    module: str
    defined: Callable[[str, str], Defined]
    scope: Mapping[str, object] = field(default_factory=dict)

    def value(self, node: ast.expr | None) -> object:
        """What an expression comes to; an object that a class makes is the dictionary of its fields."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self.scope[name] if name in self.scope else self._named(name)
            case ast.Tuple(elts=elts):
                return tuple(map(self.value, elts))
            case ast.Dict():
                return self._dictionary(node)
            case ast.Call(func=ast.Name(id=name)):
                return self._called(name, node)
        return self._chosen(node)

    def _chosen(self, node: ast.expr | None) -> object:
        """What one of several values is: by a condition, the first that holds, or a field."""
        match node:
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.value(body if self.value(test) else orelse)
            case ast.BoolOp(op=ast.Or(), values=values):
                return next((found for each in values if (found := self.value(each))), UNKNOWN)
            case ast.Attribute(value=of, attr=attr):
                found = self.value(of)
                return found.get(attr, UNKNOWN) if isinstance(found, dict) else UNKNOWN
        return UNKNOWN

    def _named(self, name: str) -> object:
        module, found = self.defined(self.module, name)
        there = WorkedOut(module, self.defined)
        return there.value(found) if isinstance(found, ast.expr) else UNKNOWN

    def _dictionary(self, node: ast.Dict) -> dict[object, object]:
        found: dict[object, object] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            read = self.value(value)
            found |= {self.value(key): read} if key else read if isinstance(read, dict) else {}
        return found

    def _called(self, name: str, call: ast.Call) -> object:
        module, found = self.defined(self.module, name)
        there = WorkedOut(module, self.defined)
        given = tuple(map(self.value, call.args))
        named: dict[str, object] = {}
        for keyword in call.keywords:
            read = self.value(keyword.value)
            named |= {keyword.arg: read} if keyword.arg else read if isinstance(read, dict) else {}
        if isinstance(found, ast.ClassDef):
            fields = there.fields(found)
            return {**fields, **dict(zip(fields, given, strict=False)), **named}
        return (
            there.returned(found, given, named) if isinstance(found, ast.FunctionDef) else UNKNOWN
        )

    def fields(self, made: ast.ClassDef) -> dict[str, object]:
        """The fields of a dataclass, those that it inherits first, with their defaults."""
        found: dict[str, object] = {}
        for base in made.bases:
            module, parent = self.defined(self.module, getattr(base, "id", ""))
            if isinstance(parent, ast.ClassDef):
                found |= WorkedOut(module, self.defined).fields(parent)
        for line in made.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                found[line.target.id] = self.value(line.value)
        return found

    def returned(
        self, function: ast.FunctionDef, given: tuple[object, ...], named: dict[str, object]
    ) -> object:
        """What a function returns that only assigns before it does."""
        scope = self._arguments(function.args, given, named)
        for line in function.body:
            inside = WorkedOut(self.module, self.defined, scope)
            if isinstance(line, ast.Return):
                return inside.value(line.value)
            if isinstance(line, ast.Assign | ast.AnnAssign):
                target = line.targets[0] if isinstance(line, ast.Assign) else line.target
                if isinstance(target, ast.Name):
                    scope[target.id] = inside.value(line.value)
        return UNKNOWN

    def _arguments(
        self, args: ast.arguments, given: tuple[object, ...], named: dict[str, object]
    ) -> dict[str, object]:
        """What the arguments of a function are, with its defaults."""
        in_places = [arg.arg for arg in args.args]
        by_name = [arg.arg for arg in args.kwonlyargs]
        defaults = list(map(self.value, args.defaults))
        scope = dict(zip(in_places[len(in_places) - len(defaults) :], defaults, strict=True))
        scope |= zip(by_name, map(self.value, args.kw_defaults), strict=True)
        scope |= zip(in_places, given, strict=False)
        known = {*in_places, *by_name}
        scope |= {name: value for name, value in named.items() if name in known}
        if args.kwarg is not None:
            scope[args.kwarg.arg] = {n: v for n, v in named.items() if n not in known}
        return scope
