"""Packages: are those of pyproject.toml there, new enough, and can they be imported?"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mufin.commands.checks.finding import FAILS, OK, WARNING, Finding
from mufin.commands.checks.imports import Imported
from mufin.errors import MufinError

PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
OWN = "mufin-pipeline"
EXTRAS = {
    "serve": "mufin serve",
    "export": "mufin export",
    "heic": "pictures in HEIC",
    "baselines": "the baselines that are packages of others",
}
MODULES = {  # where the module has another name than the package
    "chroma-hnswlib": "hnswlib",
    "faiss-cpu": "faiss",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """A line such as `torch>=2.11`."""

    package: str
    least: str  # '' for any version

    @property
    def module(self) -> str:
        return MODULES.get(self.package, self.package.replace("-", "_"))

    @property
    def installed(self) -> bool:
        return _version(self.package) is not None


def requirements() -> dict[str, list[Requirement]]:
    """{'' or an extra: packages}, from pyproject.toml in a checkout, else as installed.

    Raises MufinError if neither can be read.
    """
    try:
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        lines = {"": project["dependencies"], **project["optional-dependencies"]}
    except FileNotFoundError:
        lines = _installed()
    except (OSError, ValueError, LookupError):
        raise MufinError(f"{PYPROJECT} cannot be read; `git checkout` restores it") from None
    return {name: [_requirement(line) for line in lines.get(name, ())] for name in ("", *EXTRAS)}


def _installed() -> dict[str, list[str]]:
    try:
        found = metadata.requires(OWN) or []
    except metadata.PackageNotFoundError:
        raise MufinError(f"{OWN} is not installed; install it with pip") from None
    lines: dict[str, list[str]] = {}
    for line in found:
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)""", line)
        lines.setdefault(extra[1] if extra else "", []).append(line)
    return lines


def _requirement(line: str) -> Requirement:
    name = re.match(r"[\w.-]+", line)
    least = re.search(r">=\s*([\w.]+)", line)
    return Requirement(name[0].lower() if name else line, least[1] if least else "")


def findings(wanted: Mapping[str, list[Requirement]], imports: list[Imported]) -> Iterator[Finding]:
    """Of the packages that all need, one finding per fault; then one finding per extra."""
    errors = {one.module: one.error for one in imports}
    faults = [fault for r in wanted[""] if (fault := _fault(r, errors))]
    for name, text, remedy in faults:
        yield Finding(name, FAILS, text, remedy)
    if not faults:
        yield Finding("packages", OK, f"{len(wanted[''])} packages, new enough, can be imported")
    for extra, purpose in EXTRAS.items():
        yield _extra(extra, purpose, wanted[extra], errors)


def _extra(extra: str, purpose: str, wanted: list[Requirement], errors: dict) -> Finding:
    name, remedy = f"extra {extra}", f"pip install '{OWN}[{extra}]'"
    missing = [r.package for r in wanted if _version(r.package) is None]
    if len(missing) == len(wanted):
        return Finding(name, OK, f"not installed; {purpose} needs it: {remedy}")
    if missing:
        return Finding(name, WARNING, f"{', '.join(missing)} is missing, for {purpose}", remedy)
    for requirement in wanted:
        if fault := _fault(requirement, errors):
            return Finding(name, WARNING, f"{fault[0]}: {fault[1]}, for {purpose}", fault[2])
    return Finding(name, OK, f"installed, for {purpose}")


def _fault(wanted: Requirement, errors: Mapping[str, str]) -> tuple[str, str, str] | None:
    """(package, what is wrong, remedy)."""
    least = f">={wanted.least}" if wanted.least else ""
    remedy = f"pip install --force-reinstall '{wanted.package}{least}'"
    version = _version(wanted.package)
    if version is None:
        return wanted.package, "is not installed", f"pip install '{wanted.package}{least}'"
    if wanted.least and _numbers(version) < _numbers(wanted.least):
        text = f"version {version} is older than {wanted.least}"
        return wanted.package, text, f"pip install --upgrade '{wanted.package}{least}'"
    if error := errors.get(wanted.module):
        return wanted.package, f"version {version} cannot be imported: {error}", remedy
    return None


def _version(package: str) -> str | None:
    """The installed version; None if there is none, or what is there is broken."""
    try:
        return metadata.version(package) or None
    except Exception:  # PackageNotFoundError, and what a broken METADATA file raises
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 11, 0) of `2.11.0rc1+cu128`: the numbers before the first other word."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
