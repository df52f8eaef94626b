"""Reads all artifacts of a pipeline again: every byte, and whether they are of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mufin.artifacts.contents import Contents, check_hash, check_id, checked
from mufin.artifacts.files import read_sealed_json
from mufin.errors import ArtifactError

PLACES = ("data", "models")  # the folders of artifacts


def verify(home: Path) -> Iterator[str]:
    """Yields a line per artifact folder of the pipeline in `home`, once all of it is as written.

    Raises ArtifactError for the first file that is missing or damaged or of another run, and if
    there is nothing to verify.
    """
    folders = [folder for place in PLACES for folder in _artifacts(home / place)]
    if not folders:
        raise ArtifactError(f"{home} has no artifacts in data/ and models/; run `dvc repro` first")
    for folder in folders:
        contents = _whole(folder)
        size = sum(size for size, _ in contents.files.values())
        yield (
            f"{folder.relative_to(home)}: {len(contents.files)} files, {size / 1e6:.1f} MB, "
            f"as written{_links(home, folder, contents.made_from)}"
        )
    for path in sorted((home / "models").glob("*.json")):
        made_from = read_sealed_json(path).get("made_from", {})
        yield f"{path.relative_to(home)}: as written{_links(home, path, made_from)}"


def _artifacts(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))


def _whole(folder: Path) -> Contents:
    """The contents of a folder whose bytes are all as they were written."""
    contents = checked(folder)
    for name, (_, digest) in contents.files.items():
        check_hash(folder / name, digest)
    return contents


def _links(home: Path, path: Path, made_from: Mapping[str, str]) -> str:
    """What the artifact was made from, as the end of a line; inputs that are not here are left out.

    Raises ArtifactError if one of them is of another run.
    """
    there = [name for name in sorted(made_from) if (home / name).is_dir()]
    for name in there:
        check_id(path, made_from, name, home / name)
    return f", from this {' and '.join(there)}" if there else ""
