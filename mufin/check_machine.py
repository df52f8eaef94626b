"""Fails with one sentence where this machine lacks something that `make repro` needs.

`make` runs this file by its path, before .venv exists, with the interpreters that it finds; with
`--python` only the interpreter is checked. So this file imports the standard library alone, and
keeps to the syntax of Python 3.6.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Optional, Tuple

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    found = python_fault(sys.version_info[:3]) or venv_fault()
    if not found and "--python" not in sys.argv:
        found = git_fault(ROOT)
    if found:
        print(found, file=sys.stderr)
    return 1 if found else 0


def python_fault(version: Tuple[int, int, int]) -> Optional[str]:
    """Why a Python of this version is refused; None where it is supported."""
    first, end = supported()
    if first <= version[:2] < end:
        return None
    good = [f"{first[0]}.{minor}" for minor in range(first[1], end[1])]
    return (
        f"Python {'.'.join(map(str, version))} ({sys.executable}) is not supported; install Python "
        f"{' or '.join(good)}, and name it if it is not on the PATH: "
        f"`make repro PYTHON=/path/to/python{good[-1]}`"
    )


def supported() -> Tuple[Tuple[int, int], Tuple[int, int]]:
    """The first Python version that is supported and the first after it that is not."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    bounds = re.search(r'requires-python = ">=(\d+)\.(\d+),<(\d+)\.(\d+)"', text)
    assert bounds, "pyproject.toml has another form of requires-python"
    a, b, c, d = map(int, bounds.groups())
    return (a, b), (c, d)


def venv_fault() -> Optional[str]:
    """Why this Python cannot make .venv; Debian has `ensurepip` in a package of its own."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return (
        f"Python {version} ({sys.executable}) has no module {' and '.join(missing)}, without which "
        f"it cannot make .venv; install it (Debian and Ubuntu: apt install python{version}-venv)"
    )


def git_fault(root: Path) -> Optional[str]:
    """Why dvc cannot work in `root`, which must be the top folder of a git repository."""
    try:
        git = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--show-toplevel"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
    except OSError as error:
        return f"git cannot be run ({error.strerror}), and dvc needs it; install git"
    top = Path(git.stdout.strip())
    if git.returncode == 0 and top.resolve() == root.resolve():
        return None
    reason = git.stderr.strip().split("\n")[0] if git.returncode else f"that folder is {top}"
    return (
        f"{root} is not the top folder of a git repository ({reason}), and dvc needs one; "
        "get the project by `git clone`, or run `git init` in the folder"
    )


if __name__ == "__main__":
    sys.exit(main())
