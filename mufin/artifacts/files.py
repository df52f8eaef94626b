"""Atomic publication of files and folders, JSON and CSV, and the fingerprint of a run."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mufin.errors import MufinError

LARGE = 2**28  # bytes; `fingerprint` does not read the content of files above this size
WRITING = "while writing "  # the note that `publish` adds to an error; libraries name no file


class ArtifactError(MufinError):
    """An artifact is missing, broken or has another format: which, where, and the remedy."""


@contextlib.contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target` that replaces `target` on success only.

    The caller creates a file or a folder at that path. An error in the block is raised again, with
    a note that names `target`. Raises FileNotFoundError if nothing was created.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch / target.name
        (scratch / target.name).lstat()  # raises here, before an old folder is moved away
        if target.is_dir() and not target.is_symlink():
            os.replace(target, scratch / f"{target.name}.old")
        os.replace(scratch / target.name, target)
    except Exception as error:
        error.add_note(f"{WRITING}{target}")
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises ArtifactError if it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing; run `dvc repro` (or the stage that writes it) first"
        ) from None
    except ValueError as error:
        raise ArtifactError(
            f"{path} is not JSON ({error}); delete it and run `dvc repro`"
        ) from None


def write_json(content: object, path: Path) -> None:
    """Publishes `content` as JSON; raises ValueError on NaN and infinity."""
    with publish(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(header: Iterable[str], rows: Iterable[Iterable], path: Path) -> None:
    """Publishes a CSV file of `header` and `rows`."""
    with publish(path) as scratch, open(scratch, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def fingerprint(params: object, inputs: list[Path], code: list[Path]) -> str:
    """16 hex digits of a hash over settings, input files and code files.

    It names the scratch folder of a run, where a killed run finds its checkpoint. A file larger
    than `LARGE` is hashed by size and modification time, because reading hundreds of gigabytes of
    activations would take longer than the checkpoint saves.
    """
    digest = hashlib.sha256(repr(params).encode())
    for path in [*inputs, *code]:
        for file in _files(path):
            digest.update(str(file.name).encode())
            if (status := file.stat()).st_size > LARGE:
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
                continue
            with open(file, "rb") as f:
                digest.update(hashlib.file_digest(f, "sha256").digest())
    return digest.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    """`path` itself, or all files below it, sorted."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
