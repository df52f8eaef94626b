"""The project folder: settings, git, DVC and its remote, and what a run takes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mufin.commands.checks.finding import FAILS, OK, CannotRun, Finding, output_of
from mufin.errors import MufinError
from mufin.params import Params, load_params

SECONDS = 30.0  # for a command of DVC, which takes a second or two
DVC = [sys.executable, "-m", "dvc"]


def settings(home: Path) -> tuple[Params | None, Finding]:
    """params.yaml, None where it is missing or wrong, and what that means."""
    try:
        return load_params(home / "params.yaml"), Finding("params.yaml", OK, "is valid")
    except MufinError as error:
        text, _, remedy = str(error).rpartition("; ")
        return None, Finding("params.yaml", FAILS, text or remedy, remedy)


def git(home: Path) -> Iterator[Finding]:
    try:
        code, text, error = output_of(["git", "rev-parse", "--show-toplevel"], home, 15)
    except CannotRun as missing:
        yield Finding("git", FAILS, f"{missing}, and dvc needs it", "install git")
        return
    if code == 0:
        yield Finding("git", OK, f"repository {text.strip()}")
    else:
        text = _first(error) or f"{home} is not in a git repository"
        yield Finding("git", FAILS, text, "git clone the project, or git init in its folder")


def dvc(home: Path) -> Iterator[Finding]:
    """Version, repository and remote."""
    code, text, error = output_of([*DVC, "--version"], home, SECONDS)
    if code:
        remedy = "pip install --force-reinstall 'dvc>=3.60'"
        yield Finding("dvc", FAILS, _last(error) or "dvc cannot be run", remedy)
        return
    version = text.strip()
    code, root, error = output_of([*DVC, "root"], home, SECONDS)
    if code:
        text = f"{version}; {home.resolve()} is not in a DVC repository"
        yield Finding("dvc", FAILS, text, "dvc init in the top folder of the project")
        return
    yield Finding("dvc", OK, f"{version}, repository {(home / root.strip()).resolve()}")
    code, text, _ = output_of([*DVC, "remote", "list"], home, SECONDS)
    names = [line.split()[0] for line in text.splitlines() if line.strip()]
    said = ", ".join(names) or "none; results stay on this machine (docs/remote.md)"
    yield Finding("dvc remote", OK, said)


def cache(home: Path) -> Path:
    """DVC's cache, or where it would be; raises CannotRun."""
    code, text, _ = output_of([*DVC, "cache", "dir"], home, SECONDS)
    place = text.strip().splitlines()[-1] if code == 0 and text.strip() else ".dvc/cache"
    return home / place


def train_datapoints(home: Path) -> int | None:
    """How many the last run had; None if there was none."""
    try:
        count = json.loads((home / "metrics/curate.json").read_text())["train"]
        return count if isinstance(count, int) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def memory_needed(home: Path) -> float | None:
    """Bytes that a run on this catalog takes, about; None if it is not known."""
    from mufin.inspection import plan

    train = train_datapoints(home)
    return None if train is None or train > plan.SMALL else 1e9 * plan.memory_gb(train)


def space_needed(home: Path) -> float | None:
    """Bytes that one more run takes on the disks: as much as data/ and models/ have now."""
    size = sum(map(_size, (home / "data", home / "models")))
    return float(size) or None


def _size(folder: Path) -> int:
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(at, name)).st_size
            except OSError:  # a link to nothing
                continue
    return total


def encoders_wanted(params: Params) -> Iterator[tuple[str, str, str, str]]:
    """(setting, name, weights, kind) of each encoder that a run uses."""
    encoder = params.encoder
    for part, one in (("image", encoder.image), ("text", encoder.text)):
        if part in encoder.modalities and one.kind != "vectors":
            yield f"encoder.{part}", one.name, one.weights, one.kind


def _first(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _last(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")
