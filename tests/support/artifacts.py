"""Artifact folders that a test made or changed itself."""

from __future__ import annotations

from pathlib import Path

from mufin.artifacts.contents import NAME, contents_of, seal


def sealed(folder: Path) -> Path:
    """The folder, with contents.json for what is in it now; what it was made from stays."""
    made_from = contents_of(folder).made_from if (folder / NAME).exists() else None
    seal(folder, made_from)
    return folder


def relinked(home: Path) -> Path:
    """The home of a pipeline, whose artifacts fit together although a test changed some."""
    for name in (
        "data/curated",
        "data/precomputed",
        "models/pretrain",
        "models/transfer",
        "models/finetune",
        "models/index",
    ):
        sources = contents_of(home / name).made_from
        seal(home / name, {source: contents_of(home / source).id for source in sources})
    return home
