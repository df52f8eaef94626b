"""The page: a template filled with escaped text (titles come from strangers)."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mufin.reporting import svg
from mufin.reporting.claims import signed


def render(context: dict) -> str:
    """`templates/report.html` filled: one file, no scripts; raises where a name is missing."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"svg": svg, "signed": signed}
    return environment.get_template("report.html").render(context)
