"""Set-up: what the machine must have, which packages are pinned, what `make` and CI run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mufin import check_machine
from mufin.code import OURS, ROOT, imports
from mufin.deps import pinned

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
RUNTIME, TOOLS = (pinned((ROOT / f"constraints/{n}.txt").read_text()) for n in ("runtime", "test"))


# What the machine must have


def supported_versions() -> list[str]:
    (major, first), (_, end) = check_machine.supported()
    return [f"{major}.{minor}" for minor in range(first, end)]


@pytest.mark.parametrize("version, good", [((3, 10, 13), 0), ((3, 11, 0), 1), ((3, 13, 0), 0)])
def test_pythons_that_were_not_tried_are_refused(version, good):
    fault = check_machine.python_fault(version)
    assert (fault is None) == bool(good)
    if fault:
        assert fault.startswith("Python %d.%d.%d (" % version) and "\n" not in fault
        assert "install Python 3.11 or 3.12" in fault and "make repro PYTHON=" in fault


def test_ci_tries_every_supported_python():
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        assert re.findall(r'"(3\.\d+)"', path.read_text()) == supported_versions(), path


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_names_the_package(monkeypatch, missing):
    assert check_machine.venv_fault() is None
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == missing else found(n))
    fault = check_machine.venv_fault()
    assert f"has no module {missing}" in fault and "apt install python3." in fault


def git(folder: Path) -> Path:
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


def test_a_folder_without_its_own_repository_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "unpacked").mkdir()
    (git(tmp_path / "repository") / "below").mkdir()
    assert check_machine.git_fault(tmp_path / "repository") is None
    assert "not a git repository" in check_machine.git_fault(tmp_path / "unpacked")
    below = check_machine.git_fault(tmp_path / "repository/below")
    assert f"that folder is {tmp_path / 'repository'}" in below and "`git clone`" in below


def test_a_machine_without_git_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install git" in check_machine.git_fault(ROOT)


# `make setup` on a machine whose interpreters and installer are scripts that keep a log

MAKE = shutil.which("make") or "make"
PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >> log
case "$*" in
  *check_machine.py*) exit {accepted} ;;
  *venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp uv .venv/bin/uv ;;
esac
"""
UV = """#!/bin/sh
echo "uv $*" >> log
for word in "$@"; do case "$word" in $UV_FAILS_AT) exit 1 ;; esac; done
"""


class Machine:
    """A copy of the files of set-up, and a PATH with nothing but fakes and a few commands."""

    def __init__(self, folder: Path):
        self.folder, self.bin = folder / "project", folder / "bin"
        self.bin.mkdir()
        self.folder.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.folder / name)
        for name in ("sh", "basename", "cat", "cp", "mkdir", "rm", "touch"):
            (self.bin / name).symlink_to(shutil.which(name))
        script(self.folder / "uv", UV)

    def python(self, name: str, accepted: bool = True) -> None:
        script(self.bin / name, PYTHON.format(accepted=0 if accepted else 1))

    def setup(self, uv_fails_at: str = "nothing", **variables: str) -> tuple[int, list[str], str]:
        """The exit status of `make setup`, the commands that it ran, and what it printed."""
        log = self.folder / "log"
        log.write_text("")
        done = subprocess.run(
            [MAKE, "setup", *(f"{name}={value}" for name, value in variables.items())],
            cwd=self.folder,
            env={"PATH": str(self.bin), "UV_FAILS_AT": uv_fails_at},
            capture_output=True,
            text=True,
        )
        ran = [line for line in log.read_text().splitlines() if "check_machine.py" not in line]
        return done.returncode, ran, done.stdout + done.stderr

    def change(self, name: str) -> None:
        later = time.time() + 9
        os.utime(self.folder / name, (later, later))


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_setup_without_python_is_one_sentence(machine):
    code, ran, said = machine.setup()
    versions = " or ".join(supported_versions())
    assert code and not ran
    assert f"python3 was not found; install Python {versions} with its venv module\n" in said
    code, ran, said = machine.setup(PYTHON="/opt/python3.12")
    assert code and not ran and "/opt/python3.12 was not found" in said


def test_setup_uses_the_first_supported_python(machine):
    machine.python("python3", accepted=False)
    machine.python("python3.11")
    code, ran, _ = machine.setup()
    assert code == 0 and ran[0] == "python3.11 -m venv --clear .venv"


def test_setup_stops_at_an_unsupported_python(machine):
    machine.python("python3", accepted=False)
    code, ran, _ = machine.setup()
    assert code and not ran and not (machine.folder / ".venv").exists()


def test_setup_installs_compiled_and_within_both_constraints(machine):
    machine.python("python3")
    code, ran, _ = machine.setup()
    assert code == 0 and len(ran) == 5
    assert ran[1].endswith("-c constraints/test.txt uv")
    for line in ran[2:]:
        assert "-c constraints/runtime.txt -c constraints/test.txt" in line
        assert " --compile-bytecode " in line
    assert ran[2].endswith("-e .[serve,export,test]")
    names = [Requirement(r).name for r in EXTRAS["baselines"]]
    assert [line.split(" --only-binary ")[1] for line in ran[3:]] == [f"{n} {n}" for n in names]
    assert machine.setup()[:2] == (0, [])


@pytest.mark.parametrize("name", ["runtime.txt", "test.txt"])
def test_changed_pins_are_installed_into_the_same_venv(machine, name):
    machine.python("python3")
    machine.setup()
    machine.change(f"constraints/{name}")
    code, ran, _ = machine.setup()
    assert code == 0 and len(ran) == 4 and not any("venv --clear" in line for line in ran)


def test_a_half_made_venv_is_made_anew(machine):
    machine.python("python3")
    assert machine.setup(uv_fails_at="-e")[0] != 0
    code, ran, _ = machine.setup()
    assert code == 0 and ran[0] == "python3 -m venv --clear .venv"
    machine.change("constraints/runtime.txt")
    assert machine.setup(uv_fails_at="-e")[0] != 0
    code, ran, _ = machine.setup()
    assert code == 0 and ran[0] == "python3 -m venv --clear .venv"


def test_an_extra_without_a_wheel_costs_one_row(machine):
    machine.python("python3")
    code, ran, said = machine.setup(uv_fails_at="omikuji")
    assert code == 0 and ran[-1].endswith("--only-binary napkinxc napkinxc")
    assert "omikuji cannot be installed here: make compare reports its row as failed" in said
    assert "napkinxc cannot" not in said


# Which packages are pinned


def modules() -> set[str]:
    """The modules of other projects that mufin, pipeline and compare import."""
    paths = (path for name in OURS for path in (ROOT / name).rglob("*.py"))
    found = {module.split(".")[0] for path in paths for module in imports(path)}
    return found - set(sys.stdlib_module_names) - set(OURS)


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def required(requirements: Iterable[str]) -> set[str]:
    """The packages that these need on this machine, by the metadata of what is installed."""
    found: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(line) for line in requirements]
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in found:
            continue
        found.add(key)
        for line in importlib.metadata.requires(requirement.name) or []:
            below = Requirement(line)
            extras = requirement.extras or {""}
            if below.marker is None or any(below.marker.evaluate({"extra": e}) for e in extras):
                todo.append(below)
    return {name for name, _ in found}


def test_every_imported_package_is_declared():
    owners = importlib.metadata.packages_distributions()
    declared = names(PROJECT["dependencies"]) | names(
        [
            name
            for extra in ("baselines", "heic", "ray", "serve", "export")
            for name in EXTRAS[extra]
        ]
    )
    found = modules()
    assert "torch" in found
    for module in sorted(found):
        packages = set(map(canonicalize_name, owners.get(module, [module])))
        assert packages & declared, (
            f"{module} is imported, and pyproject.toml declares no such package"
        )


def test_all_that_stages_need_is_pinned():
    missing = required(PROJECT["dependencies"]) - set(RUNTIME)
    assert not missing, f"constraints/runtime.txt has no pin of {sorted(missing)}"


def test_tools_and_extras_are_pinned_apart():
    tools = required(EXTRAS["test"]) - required(PROJECT["dependencies"])
    assert {"pytest", "hypothesis", "ruff", "mypy"} <= tools
    assert tools <= set(TOOLS)
    assert names(EXTRAS["baselines"]) | {"uv"} <= set(TOOLS)
    assert not set(TOOLS) & set(RUNTIME)


def test_pins_keep_to_the_declared_bounds():
    pins = RUNTIME | TOOLS
    for line in [
        *PROJECT["dependencies"],
        *EXTRAS["test"],
        *EXTRAS["baselines"],
        *EXTRAS["heic"],
        *EXTRAS["ray"],
    ]:
        requirement = Requirement(line)
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, line


def test_data_files_of_the_library_are_installed():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    installed = {
        path
        for package, patterns in data.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    files = [p for p in (ROOT / "mufin").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {p for p in files if p.suffix != ".py"} == installed != set()


SET_UP = [
    *("pyproject.toml", "Makefile", "constraints/runtime.txt", "constraints/test.txt", ".ci/run"),
    *(".ci/experiment", ".github/workflows/test.yml", ".github/workflows/experiment.yml"),
]


@pytest.mark.parametrize("name", SET_UP)
def test_no_address_of_an_index_is_in_the_repository(name):
    text = (ROOT / name).read_text()
    for pattern in (r"://", r"\bindex-", r"-index\b", r"find-links", r"\.(org|com|net|io)\b"):
        assert not re.search(pattern, text), f"{name} matches {pattern}"


# What `make` and CI run


def makefile(pattern: str) -> list[str]:
    return re.findall(pattern, (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_make_help_lists_every_target():
    listed = makefile(r'^\t@echo "make ([\w-]+) ')
    assert {*listed, "help"} == set(makefile(r"^\.PHONY: (.*)$")[0].split())
    assert len(set(listed)) == len(listed) > 5


@pytest.mark.parametrize("target", makefile(r"^\.PHONY: (.*)$")[0].split())
def test_every_target_runs_a_command(target):
    """Besides set-up, which the dry run takes for done; `setup` itself is shown in full."""
    how = "--always-make" if target == "setup" else "--old-file=.venv/ready"
    words = [MAKE, "--dry-run", how, target, f"PYTHON={sys.executable}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" not in done.stdout and done.stdout.strip()


def test_ci_runs_scripts_of_the_repository():
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        ran = re.findall(r"- run: bash (\S+)$", path.read_text(), re.MULTILINE)
        assert len(ran) == 1 and (ROOT / ran[0]).is_file()
