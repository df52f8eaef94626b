"""Atomic publication of files and folders, JSON and CSV, and the fingerprint that names a scratch folder."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterable, Iterator

from mufin.errors import MufinError

LARGE = 2**28  # bytes from which a file counts in `fingerprint` by size and time of change
WRITING = "while writing "  # begins the note that `publish` leaves on an error: libraries do not name the file


class ArtifactError(MufinError):
    """An artifact is missing, broken or of another form: what, where, the remedy."""


@contextlib.contextmanager
def publish(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` (make a file or a folder of it) that replaces `target` on success only.

    An error from within passes with a note that names `target`.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch / target.name
        (scratch / target.name).lstat()  # nothing made: raises before the old folder moves aside
        if target.is_dir() and not target.is_symlink():
            os.replace(target, scratch / f"{target.name}.old")
        os.replace(scratch / target.name, target)
    except Exception as error:
        error.add_note(f"{WRITING}{target}")
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_json(path: Path) -> dict:
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


def write_json(content: dict, path: Path) -> None:
    with publish(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(header: Iterable[str], rows: Iterable[Iterable], path: Path) -> None:
    """Publish `rows` under `header`."""
    with publish(path) as scratch, open(scratch, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def fingerprint(params: object, inputs: list[Path], code: list[Path]) -> str:
    """16 hex digits over settings, inputs and code: the name of a stage's scratch folder.

    A file over 256 MB counts by size and time of change: reading 300 GB of activations to find a checkpoint is no help.
    """
    digest = hashlib.sha256(repr(params).encode())
    for path in [*inputs, *code]:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            digest.update(str(file.name).encode())
            if (status := file.stat()).st_size > LARGE:
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
                continue
            with open(file, "rb") as f:
                digest.update(hashlib.file_digest(f, "sha256").digest())
    return digest.hexdigest()[:16]
