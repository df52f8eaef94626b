"""`mufin export`: vectors and networks for programs without this library."""

from __future__ import annotations

from pathlib import Path

from mufin.commands.console import check_folder, say_all


def export(folder: Path, out: Path, kinds: str, faiss: str, force: bool) -> None:
    from mufin.serving.export import export as run

    check_folder(folder, "the one that holds params.yaml, data/ and models/")
    say_all(run, folder, out, kinds, faiss, force)
