"""JSON and CSV files, and the fingerprint of a run."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mufin.artifacts.contents import LARGE, check
from mufin.artifacts.publication import publish
from mufin.errors import ArtifactError, shown


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises ArtifactError if it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing; run `dvc repro` (or the stage that writes it) first"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is not JSON ({shown(str(error))}); delete it and run `dvc repro`"
        ) from None


def artifact_json(path: Path) -> Any:
    """The content of a JSON file of an artifact; raises ArtifactError if it is not as written."""
    check(path)
    return read_json(path)


def write_json(content: object, path: Path) -> None:
    """Publishes `content` as JSON; raises ValueError on NaN and infinity."""
    with publish(path) as scratch:
        text = json.dumps(content, indent=2, allow_nan=False)
        scratch.write_text(text + "\n", encoding="utf-8")


def link_file(source: Path, target: Path) -> None:
    """`target` is the file `source`, or a copy where its file system is another one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_sealed_json(content: dict, path: Path) -> None:
    """Publishes `content` and its hash as a JSON file that is an artifact by itself."""
    write_json(content | {"sha256": _hash(content)}, path)


def read_sealed_json(path: Path) -> dict:
    """The content that `write_sealed_json` wrote; raises ArtifactError if it is not that."""
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("sha256", None) != _hash(content):
        raise ArtifactError(
            f"{path} is damaged: its bytes have changed; "
            f"`dvc checkout --force {path}` restores it, `dvc repro` writes it again"
        )
    return content


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


def _hash(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    """`path` itself, or all files below it, sorted."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
