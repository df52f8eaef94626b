"""Which files a script runs: its imports and theirs, read with `ast`.

DVC does not follow imports, so `make deps` writes these files into dvc.yaml; and they are part of the name of a scratch
folder, so that a changed file never goes on from a checkpoint of the old one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = ("mufin", "pipeline", "compare")


def files_of(script: Path) -> list[Path]:
    """The project's files that run when `script` runs, itself included, sorted."""
    found: set[Path] = set()
    todo = [script.resolve()]
    while todo:
        if (path := todo.pop()) not in found:
            found.add(path)
            todo += [file for module in imports(path) for file in _files(module)]
    return sorted(found)


def packages_of(script: Path) -> set[str]:
    """The modules of other projects (and of Python itself) that these files import, first parts alone."""
    return {module.split(".")[0] for path in files_of(script) for module in imports(path)} - set(
        OURS
    )


@cache
def imports(path: Path) -> frozenset[str]:
    """The modules that a file imports, at its top or in a function; not those for type checkers alone."""
    found: set[str] = set()
    for node in _run(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node` but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            continue
        yield child
        yield from _run(child)


def _files(module: str) -> Iterator[Path]:
    """The file of one of our modules, and those of the packages that it is in; nothing for other names."""
    parts = module.split(".")
    if parts[0] in OURS:
        for end in range(1, len(parts) + 1):
            place = ROOT.joinpath(*parts[:end])
            yield from (
                path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()
            )
