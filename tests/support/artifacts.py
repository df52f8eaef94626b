"""Artifact folders that a test made or changed itself."""

from __future__ import annotations

from pathlib import Path

from mufin.artifacts.contents import NAME, contents_of, seal


def sealed(folder: Path) -> Path:
    """The folder, with contents.json for what is in it now; what it was made from stays."""
    made_from = contents_of(folder).made_from if (folder / NAME).exists() else None
    seal(folder, made_from)
    return folder
