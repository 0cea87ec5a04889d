"""Models of one's own by name: "package.module:factory", or "path/to/file.py:factory", imported and called."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import nn

from ..errors import ModelError, did_you_mean
from ..remarks import warn
from .families import FAMILIES

_SPEC = re.compile(r"(?P<place>.+?):(?P<path>[^\W\d][\w.]*)(?:@(?P<weights>.+))?")
_OF_OTHERS = re.compile(r"^<frozen|-packages")
_SHOWN = 4  # of what a module has


@dataclass(frozen=True)
class FactorySpec:
    """A factory as it is written.

    Attributes:
        place: a module with dots, or a file that ends in .py.
        path: what is in it, with dots.
        weights: the file after the "@".
    """

    place: str
    path: str
    weights: str | None = None

    def __str__(self) -> str:
        return f"{self.place}:{self.path}"

    @property
    def is_file(self) -> bool:
        return self.place.endswith(".py")


def read_factory(spec: str) -> FactorySpec | None:
    """The factory that a spec names; None where it is none, as "timm:resnet50" or a path of Windows."""
    found = _SPEC.fullmatch(spec)
    if found is None or found["place"] in FAMILIES:
        return None
    read = FactorySpec(**found.groupdict())
    return read if read.is_file or all(map(str.isidentifier, read.place.split("."))) else None


def warn_of_code(factory: FactorySpec, model: object) -> None:
    """Says that loading a model runs code, before it does.

    Raises:
        ModelError: there is no such module.
    """
    _located(factory)
    warn(
        f"model '{model}' runs the code of '{factory.place}', with all that you may do; give only what you trust"
    )


def made_by(factory: FactorySpec) -> object:
    """What a factory returns; or itself, where it is a module, a `Model`, or nothing that is called.

    Raises:
        ModelError: it cannot be imported, is not there, needs arguments, or raised.
    """
    found = imported(factory)
    holds_one = isinstance(getattr(found, "module", None), nn.Module)
    if isinstance(found, nn.Module) or holds_one or not callable(found):
        return found
    needed = needed_arguments(found)
    if needed:
        raise ModelError(
            f"factory '{factory}' needs the arguments {', '.join(needed)}; give a function without any, "
            f"such as: def make(): return {factory.path}(...)"
        )
    try:
        made: object = found()
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever code this is, it fails with whatever it likes
        raise ModelError(f"factory '{factory}' raised {_error_line(error)}") from error
    return made


def imported(factory: FactorySpec) -> object:
    """What a spec names, not called.

    Raises:
        ModelError: there is no such module, it fails when it is imported, or it has nothing of that name.
    """
    module = module_with(factory)
    found: object = module
    for part in factory.path.split("."):
        if not hasattr(found, part):
            where = getattr(module, "__file__", None) or "built in"
            known = list(_public(found, module))
            has = f"; it has {', '.join(known[:_SHOWN])}" if known else ""
            hint = did_you_mean(part, known) or has
            raise ModelError(
                f"factory '{factory}' is not there: '{factory.place}' ({where}) has no '{part}'{hint}"
            )
        found = getattr(found, part)
    return found


def needed_arguments(function: Callable[..., object]) -> list[str]:
    """The names of the arguments without which something cannot be called."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of what is written in C
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name for name, p in parameters.items() if p.default is p.empty and p.kind not in optional
    ]


def module_with(factory: FactorySpec) -> ModuleType:
    """The module that a factory is in, from the current directory, as of `python -m`, or from the file's own.

    Raises:
        ModelError: there is none, it fails when it is imported, or another one hides it.
    """
    name, here = _located(factory)
    if here is not None and _is_of(sys.modules["__main__"], here):
        return sys.modules["__main__"]  # a script that saves its own model is not run again
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            raise _no_module(factory, missing) from error
        raise ModelError(
            f"model '{factory}': '{factory.place}' cannot be imported: {_error_line(error)}"
        ) from error


def _located(factory: FactorySpec) -> tuple[str, Path | None]:
    """The name of the module, which can be imported from now on, and its file or package where that is here."""
    folder, name = _folder_and_name(factory)
    for searched in map(str, (Path.cwd(), folder)):
        if sys.path[:1] != [searched]:
            sys.path.insert(0, searched)
    importlib.invalidate_caches()
    top = name.partition(".")[0]
    files = [folder / f"{top}.py", folder / top / "__init__.py"]
    here = next(filter(Path.is_file, files), None)
    known = sys.modules.get(top)
    if known is None:
        if importlib.util.find_spec(top) is None:
            raise _no_module(factory, top)
    elif here is not None and not _is_of(known, here):
        taken = getattr(known, "__file__", None) or "a part of Python"
        raise ModelError(
            f"model '{factory}': another module '{top}' is loaded already, {taken}, and hides '{here}'; rename the file"
        )
    return name, here if top == name else None


def _folder_and_name(factory: FactorySpec) -> tuple[Path, str]:
    """Where a module is looked for first, and its name."""
    if not factory.is_file:
        return Path.cwd(), factory.place
    file = Path(factory.place).resolve()
    if not file.is_file():
        raise ModelError(f"model '{factory}': the file '{factory.place}' does not exist")
    if not file.stem.isidentifier():
        raise ModelError(
            f"model '{factory}': '{file.stem}' is no name of a module; rename the file"
        )
    return file.parent, file.stem


def _no_module(factory: FactorySpec, missing: str) -> ModelError:
    parent = Path.cwd().joinpath(*missing.split(".")[:-1])
    names = [module.name for module in pkgutil.iter_modules([str(parent)])]
    last = missing.rpartition(".")[2]
    hint = did_you_mean(last, [*FAMILIES, *names])
    families = ", ".join(f"'{family}:NAME'" for family in FAMILIES)
    return ModelError(
        f"model '{factory}' is not known: there is no module '{missing}' "
        f"in the current directory '{Path.cwd()}' or installed{hint} "
        f"(before the ':' is a module, but for {families})"
    )


def _is_of(module: ModuleType, file: Path) -> bool:
    own = getattr(module, "__file__", None)
    return own is not None and os.path.exists(own) and os.path.samefile(own, file)


def _public(found: object, module: ModuleType) -> Iterator[str]:
    """What a module has of its own that can be called."""
    for name in getattr(found, "__dict__", ()):
        value = getattr(found, name)
        written_in = getattr(value, "__module__", None)
        own = not isinstance(found, ModuleType) or written_in == module.__name__
        made = isinstance(value, nn.Module)
        if not name.startswith("_") and (made or (own and callable(value))):
            yield name


def _error_line(error: BaseException) -> str:
    """An error in one line, with the place in the code that raised it."""
    said = (str(error).strip().splitlines() or [""])[0][:160]
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}"
        said = error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if not _OF_OTHERS.search(f.filename)]
        place = f"{own[-1].filename}, line {own[-1].lineno}"
    if isinstance(error, SystemExit):
        place += "; what a script does goes below if __name__ == '__main__'"
    return f"{type(error).__name__}: {said} ({place})"
