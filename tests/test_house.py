"""The rules of the house (CONTRIBUTING.md), read off the sources: where things lie, how long they are, who runs what.

Each list of what is `KNOWN` names what was there when its rule came. It only ever gets shorter: an entry that no longer
holds fails as one too many does.
"""

from __future__ import annotations

import ast
import os
import tomllib
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).parents[1]
SRC, TESTS = ROOT / "src" / "seewhy", ROOT / "tests"
# path below src/seewhy -> its syntax tree
TREES = {
    path.relative_to(SRC).as_posix(): ast.parse(path.read_text())
    for path in sorted(SRC.rglob("*.py"))
}

KNOWN_LONG_FILES: set[str] = set()
KNOWN_LONG_FUNCTIONS: set[str] = set()
KNOWN_RUNNERS = {
    "models/model.py",  # stays: `Model.__call__` is public and runs the module as it is
}
KNOWN_CIRCLES: set[str] = set()


def check(found: set[str], known: set[str], rule: str) -> None:
    assert not found - known, f"{rule}: {sorted(found - known)}"
    assert not known - found, (
        f"no longer so, take it off the list of what is known: {sorted(known - found)}"
    )


# where tests lie


def folders(top: Path) -> set[Path]:
    return {path.parent.relative_to(top) for path in top.rglob("*.py")}


def helpers() -> dict[str, Path]:
    """Name -> path of what tests import from one another."""
    found = [
        path for path in TESTS.rglob("*.py") if not path.name.startswith(("test_", "conftest"))
    ]
    assert len({path.stem for path in found}) == len(found), (
        "helpers are imported by name: each needs its own"
    )
    return {path.stem: path for path in found}


def test_tests_lie_as_the_sources_do() -> None:
    ours = folders(TESTS) - {Path("contracts")}
    assert ours <= folders(SRC), (
        f"folders of tests without one in src: {sorted(map(str, ours - folders(SRC)))}"
    )
    rooms = {folder.parts[0] for folder in folders(SRC) if folder.parts}
    assert rooms <= set(map(str, ours)), (
        f"rooms without tests: {sorted(rooms - set(map(str, ours)))}"
    )


def test_a_test_file_of_a_source_files_name_lies_beside_it() -> None:
    for path in TESTS.rglob("test_*.py"):
        room, name = path.relative_to(TESTS).parts[0], path.name.removeprefix("test_")
        places = {one.parent.relative_to(SRC) for one in (SRC / room).rglob(name)}
        assert not places or path.parent.relative_to(TESTS) in places, (
            f"{path} is named after a file of {places}"
        )


def test_helpers_lie_in_the_innermost_folder_of_their_users() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    found = helpers()
    listed = sorted({path.parent.relative_to(ROOT).as_posix() for path in found.values()})
    assert project["pytest"]["ini_options"]["pythonpath"] == listed, f"helpers lie in {listed}"
    assert project["ruff"]["src"] == ["src", *listed], f"helpers lie in {listed}"
    users: dict[str, set[str]] = {name: set() for name in found}
    for path in TESTS.rglob("*.py"):
        for name in absolute_imports(ast.parse(path.read_text())) & users.keys():
            users[name].add(str(path.parent))
    for name, path in found.items():
        assert users[name], f"nobody imports {path}"
        assert str(path.parent) == os.path.commonpath(users[name]), (
            f"{path} is used in {sorted(users[name])}"
        )


def absolute_imports(tree: ast.AST) -> set[str]:
    plain = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return plain | {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }


# how long things are


def test_files_are_short() -> None:
    found = {file for file in TREES if len((SRC / file).read_text().splitlines()) > 400}
    check(found, KNOWN_LONG_FILES, "files of more than 400 lines")


def test_functions_are_short() -> None:
    found = {
        f"{file}: {node.name}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > 40
    }
    check(found, KNOWN_LONG_FUNCTIONS, "functions of more than 40 lines without their docstring")


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    told = ast.get_docstring(node, clean=False) is not None
    return last(node) - node.lineno + 1 - (last(first) - first.lineno + 1 if told else 0)


def last(node: ast.stmt) -> int:
    assert node.end_lineno
    return node.end_lineno


# who runs a user's module


def test_the_engine_and_the_training_alone_run_modules_and_override_operations() -> None:
    rooms = ("engine/", "models/training/")
    found = {
        file
        for file, tree in TREES.items()
        if not file.startswith(rooms) and any(map(runs, ast.walk(tree)))
    }
    check(
        found, KNOWN_RUNNERS, "these call a module or override operations; let seewhy.engine do it"
    )


def runs(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return any(
            name_of(base) in ("TorchFunctionMode", "TorchDispatchMode", "Function")
            for base in node.bases
        )
    return isinstance(node, ast.Call) and name_of(node.func) in (
        "functional_call",
        "forward",
        "module",
    )


def name_of(node: ast.expr) -> str | None:
    return (
        node.attr
        if isinstance(node, ast.Attribute)
        else node.id
        if isinstance(node, ast.Name)
        else None
    )


# who imports whom


def module_file(module: str) -> str | None:
    """The file of seewhy.<module>, "" being the package itself; None where there is none."""
    path = module.replace(".", "/")
    return next(
        (file for file in (f"{path}.py", f"{path}/__init__.py".lstrip("/")) if file in TREES), None
    )


def imports(file: str) -> Iterator[tuple[str, str | None]]:
    """(module below seewhy, name imported from it) of every import of the package's own, wherever it stands."""
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Import):
            yield from (
                (a.name[7:], None) for a in node.names if (a.name + ".").startswith("seewhy.")
            )
        elif isinstance(node, ast.ImportFrom):
            above = ["seewhy", *file.split("/")][: -node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            if (module + ".").startswith("seewhy."):
                yield from ((module[7:], alias.name) for alias in node.names)


def origin(module: str, name: str | None) -> str:
    """The file that a name comes from: a submodule, or through a package that only hands the name on."""
    inner = module_file(f"{module}.{name}".lstrip(".")) if name else None
    file = inner or module_file(module)
    assert file, f"seewhy.{module} is imported and is not there"
    if name and not inner and file.endswith("__init__.py"):
        handed = [(m, n) for m, n in imports(file) if n == name]
        return origin(*handed[0]) if handed else file
    return file


def circles(edges: Iterable[tuple[str, str]]) -> set[str]:
    """The nodes that lead to one another, set by set."""
    graph: dict[str, set[str]] = {}
    for a, b in edges:
        graph.setdefault(a, set()).add(b)
    ends = {node: reached(graph, node) for node in graph}
    return {
        " <-> ".join(sorted(m for m in ends[n] if n in ends.get(m, ())))
        for n in graph
        if n in ends[n]
    }


def reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    new = graph[start]
    while new:
        found |= new
        new = {b for a in new for b in graph.get(a, ())} - found
    return found


def folders_apart(a: str, b: str) -> tuple[str, str] | None:
    """The folders at which the ways to two files part; None where one way ends there."""
    ways = list(
        zip(
            accumulate(Path(a).parent.parts, above),
            accumulate(Path(b).parent.parts, above),
            strict=False,
        )
    )
    return next((pair for pair in ways if pair[0] != pair[1]), None)


def above(folder: str, part: str) -> str:
    return f"{folder}/{part}"


def test_the_face_is_imported_by_the_command_line_alone() -> None:
    others = [file for file in TREES if file != "__init__.py" and not file.startswith("cli/")]
    found = {file for file in others for module, _ in imports(file) if not module}
    assert not found, (
        f"these import the package itself, not the file that a name comes from: {sorted(found)}"
    )


def test_no_imports_go_in_circles() -> None:
    """Those for type checkers and those inside functions too."""
    edges = {
        (file, origin(*one)) for file in TREES if file != "__init__.py" for one in imports(file)
    }
    apart = {pair for edge in edges if (pair := folders_apart(*edge))}
    check(circles(edges) | circles(apart), KNOWN_CIRCLES, "imports in circles")


def test_rooms_import_files_and_not_the_faces_of_others() -> None:
    """A face hands names on for users; a room that imports one imports all that is behind it."""
    found = {
        f"{file}: {name} of {module}"
        for file in TREES
        if not file.startswith(("cli/", "__")) and not file.endswith("/__init__.py")
        for module, name in imports(file)
        if module and name and is_face(module) and not module_file(f"{module}.{name}")
    }
    assert not found, f"import these from the files that define them: {sorted(found)}"


def is_face(module: str) -> bool:
    return (module_file(module) or "").endswith("__init__.py")


def test_render_names_no_method_and_no_solver() -> None:
    """It asks the record: its family, its style, its axes."""
    from seewhy.influence import SOLVERS
    from seewhy.methods import METHODS

    words = {*METHODS, *SOLVERS, *(method.title for method in METHODS.values())}
    found = {
        f"{file}: {node.value!r}"
        for file, tree in TREES.items()
        if file.startswith("render/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in words
    }
    assert not found, f"render names: {sorted(found)}"


def test_contributing_maps_every_room_and_folder() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    unnamed = {
        str(folder) for folder in folders(SRC) if folder.parts and f"`{folder.name}/`" not in page
    }
    assert not unnamed, f"name them in CONTRIBUTING.md, 'Where things are': {sorted(unnamed)}"
    files = {
        Path(file).stem for file in TREES if file.count("/") == 1 and not file.startswith("cli/")
    } - {"__init__"}
    missing = {name for name in files if f"`{name}`" not in page}
    assert not missing, f"name them in CONTRIBUTING.md, 'Where things are': {sorted(missing)}"
