"""`mufin doctor`: all checks, a line each, and what to do where one fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import typer

from mufin.commands.checks import machine, packages, project
from mufin.commands.checks.finding import FAILS, OK, WARNING, CannotRun, Finding
from mufin.commands.checks.imports import Imported, imported
from mufin.commands.console import check_folder, say
from mufin.errors import MufinError, sentence

T = TypeVar("T")


def doctor(home: Path, as_json: bool) -> None:
    check_folder(home, "the one that holds params.yaml")
    findings = []
    for finding in _findings(home):
        findings.append(finding)
        if not as_json:
            say(_line(finding))
    counts = {state: sum(f.state == state for f in findings) for state in (OK, WARNING, FAILS)}
    if as_json:
        checks = [asdict(finding) for finding in findings]
        typer.echo(json.dumps({"counts": counts, "checks": checks}, indent=2))
    else:
        say(f"{counts[OK]} ok, {counts[WARNING]} to look at, {counts[FAILS]} that must be mended")
    if counts[FAILS]:
        raise typer.Exit(1)


def _line(finding: Finding) -> str:
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    return f"{finding.state:8} {finding.name:14} {finding.text}{remedy}"


def _findings(home: Path) -> Iterator[Finding]:
    """All of them; a check that raises is a finding too."""
    yield from _checked("python", machine.python)
    params, finding = project.settings(home)
    yield finding
    memory = _known(lambda: project.memory_needed(home))
    yield from _checked("memory", lambda: machine.cores_and_memory(memory))
    tried: list[Imported] = []
    yield from _checked("packages", lambda: _packages(home, tried))
    torch = next((one for one in tried if one.module == "torch"), None)
    yield from _checked("gpu", lambda: machine.gpu(torch, home))
    yield from _checked("git", lambda: project.git(home))
    yield from _checked("dvc", lambda: project.dvc(home))
    yield from _checked("disk", lambda: _disk(home))
    if params is not None:
        from mufin.commands.checks.encoders import encoders

        yield from _checked("encoders", lambda: encoders(params, home))


def _packages(home: Path, tried: list[Imported]) -> Iterator[Finding]:
    """Adds to `tried` how the import of each package ends."""
    wanted = packages.requirements()
    names = ["torch", *(r.module for part in wanted.values() for r in part if r.installed)]
    tried += imported(list(dict.fromkeys(names)), home)
    yield from packages.findings(wanted, tried)


def _disk(home: Path) -> Iterator[Finding]:
    try:
        cache = project.cache(home)
    except CannotRun:
        cache = home / ".dvc/cache"
    scratch = Path(os.environ.get("MUFIN_SCRATCH") or "scratch")
    places = {"disk: cache": cache, "disk: scratch": home / scratch, "disk: data": home / "data"}
    return machine.disk(places, project.space_needed(home))


def _known(ask: Callable[[], T]) -> T | None:
    """What a question returns; None where it raises, which a check says then."""
    try:
        return ask()
    except Exception:
        return None


def _checked(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; what it raises is one too, as packages may be broken."""
    try:
        yield from check()
    except MufinError as error:
        text, _, remedy = str(error).rpartition("; ")
        yield Finding(name, FAILS, text or remedy, remedy)
    except Exception as error:
        text = sentence(f"{type(error).__name__}: {error}")
        yield Finding(name, FAILS, text, "mend the installation: make setup")
