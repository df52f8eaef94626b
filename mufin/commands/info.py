"""`mufin info`: what the folder of a run holds, as text or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import typer

from mufin.commands.console import check_folder, say
from mufin.commands.run_facts import facts_of

SHOWN = 12  # digits of an id


def info(folder: Path, as_json: bool) -> None:
    check_folder(folder, "the one that holds data/ and models/")
    facts = facts_of(folder)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for line in _lines(facts):
        say(line)


def _lines(facts: dict) -> Iterator[str]:
    """A heading per section, and a line per fact."""
    for name, section in facts.items():
        if not section:
            continue
        if not isinstance(section, dict):
            text = ", ".join(section) if isinstance(section, list) else str(section)
            yield f"{name}: {text}"
            continue
        yield f"{name}:"
        width = max(map(len, section))
        for key, value in section.items():
            yield f"  {key:{width}}  {_text(name, value)}"


def _text(section: str, value: object) -> str:
    if section == "disk" and isinstance(value, int):
        return f"{value / 1e6:,.1f} MB"
    if section in ("ids", "made_from") and isinstance(value, str):
        return value[:SHOWN]
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(section, item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)
