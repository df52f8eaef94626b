"""The files that a script runs: its imports and theirs, read with `ast`.

DVC does not follow imports, so `make deps` writes these files into dvc.yaml. Their content is also
part of the name of a scratch folder: after a change of the code no run resumes an old checkpoint.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = ("mufin", "pipeline", "compare")


def files_of(script: Path) -> list[Path]:
    """The files of this project that run when `script` runs, `script` included, sorted."""
    found: set[Path] = set()
    package = script.resolve().parent / "__init__.py"
    todo = [script.resolve(), *([package] if package.exists() else [])]
    while todo:
        if (path := todo.pop()) not in found:
            found.add(path)
            todo += [file for module in imports(path) for file in _files(module)]
    return sorted(found)


def packages_of(script: Path) -> set[str]:
    """The top-level packages outside this project that these files import, Python's own too."""
    modules = {module for path in files_of(script) for module in imports(path)}
    return {module.split(".")[0] for module in modules} - set(OURS)


@cache
def imports(path: Path) -> frozenset[str]:
    """The modules that a file imports, at the top or inside functions, but not for type checking.

    `from a import b` gives both `a` and `a.b`, as `b` may be a module.
    """
    found: set[str] = set()
    for node in _executed(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node`, except those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if not _for_type_checking(child):
            yield child
            yield from _executed(child)


def _for_type_checking(node: ast.AST) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _files(module: str) -> Iterator[Path]:
    """The file of a module of this project and the `__init__.py` of its packages; else nothing."""
    parts = module.split(".")
    if parts[0] not in OURS:
        return
    for end in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:end])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.exists():
                yield path
