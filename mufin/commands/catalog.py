"""`mufin check`, `mufin inspect` and `mufin import`: settings and files of a catalog."""

from __future__ import annotations

from pathlib import Path

from mufin.commands.console import say, say_all
from mufin.outputs import checked_target
from mufin.params import load_params


def check(params: Path) -> None:
    settings = load_params(params)
    say(f"{params} is valid")
    from mufin.inspection.check import check_catalog

    say_all(check_catalog, settings)


def inspect(
    files: list[str], write: Path | None, form: str | None, encoding: str | None, fetch: bool
) -> None:
    from mufin.inspection import inspecting

    for line in inspecting.inspect(files, write, form, encoding=encoding, fetch=fetch):
        say(line)


def import_files(
    form: str,
    files: list[str],
    interactions: list[str],
    out: Path,
    encoding: str | None,
    bad_rows: float,
    force: bool,
) -> None:
    from mufin.catalogs.importing import import_catalog, interactions_file, is_import

    target = checked_target(out, is_import, "a catalog of this command", force)
    checked_target(interactions_file(target), is_import, "a file of this command", force)
    for line in import_catalog(
        form, files, interactions, target, encoding=encoding, bad_rows=bad_rows
    ):
        say(line)
