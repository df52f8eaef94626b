"""`contents.json`: the sizes and hashes of all files of an artifact, and what it was made from.

Every folder that a stage publishes has one. It shows that the pipeline wrote the folder, so that
nothing else is ever replaced, and readers compare with it what they read. Readers hash whatever
they read as a whole; of memory-mapped arrays over `LARGE` bytes they compare the size alone, and
`mufin verify` hashes these too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mufin.errors import ArtifactError

NAME = "contents.json"
LARGE = 2**28  # bytes; a reader of a part of a file does not hash a file above this size
WRITER = "mufin"
REMEDY = "`dvc checkout --force` restores it; if you changed it yourself, see `mufin seal`"

# (path, size, modification time, inode) of files whose hash was right: a file is hashed only once
_whole: set[tuple[str, int, int, int]] = set()


@dataclass(frozen=True, slots=True)
class Contents:
    """What `contents.json` says about the folder that it is in."""

    folder: Path
    id: str  # 64 hex digits, a hash of everything below
    made_from: dict[str, str]  # name of an input, such as data/curated -> its id
    files: dict[str, tuple[int, str]]  # path below the folder -> bytes and SHA-256 in hex


def seal(
    folder: Path,
    made_from: Mapping[str, str] | None = None,
    known: Mapping[str, tuple[int, str]] | None = None,
) -> None:
    """Writes `contents.json` for the files that are in `folder` now.

    `made_from` names the artifacts that it belongs together with, and their ids. Files whose size
    and SHA-256 are `known` are not hashed.
    """
    known = known or {}
    files = {
        name: known[name] if name in known else (path.stat().st_size, hash_of(path))
        for name, path in sorted(_files(folder).items())
    }
    said = {"made_from": dict(made_from or {}), "files": files}
    content = {"written_by": WRITER, "id": _id(said), **said}
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n")


def contents_of(folder: Path) -> Contents:
    """What the folder's `contents.json` says; raises ArtifactError if it is missing or broken."""
    path = folder / NAME
    try:
        if path.exists() and not path.is_file():  # reading a pipe would block
            raise ValueError
        content = json.loads(path.read_text())
        said = {"made_from": dict(content["made_from"]), "files": dict(content["files"])}
        files = {name: (int(size), str(digest)) for name, (size, digest) in said["files"].items()}
        whole = content["written_by"] == WRITER and content["id"] == _id(said)
    except FileNotFoundError:
        if not folder.exists():
            raise ArtifactError(
                f"{folder} is missing; run `dvc repro` (or the stage that writes it) first"
            ) from None
        raise ArtifactError(f"{path} is missing, so the folder is not whole; {REMEDY}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ArtifactError(f"{path} is damaged; {REMEDY}") from None
    if not whole:
        raise ArtifactError(f"{path} is damaged; {REMEDY}")
    return Contents(folder, content["id"], said["made_from"], files)


def checked(folder: Path) -> Contents:
    """The contents of a folder whose files are all there, with their sizes, and no others.

    It reads no file but `contents.json`. Raises ArtifactError.
    """
    contents, there = contents_of(folder), _files(folder)
    for name, (size, _) in contents.files.items():
        if name not in there:
            raise ArtifactError(f"{folder / name} is missing; {REMEDY}")
        _check_size(there[name], size)
    if others := foreign(contents):
        raise ArtifactError(
            f"{folder / others[0]} is not of the pipeline; move it away, "
            "or make it part of the artifact with `mufin seal`"
        )
    return contents


def foreign(contents: Contents) -> list[str]:
    """The files below the folder that `contents.json` does not name; hidden ones do not count."""
    names = sorted(set(_files(contents.folder)) - set(contents.files))
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def check(path: Path, mapped: bool = False) -> None:
    """Raises ArtifactError if the file is not as the pipeline wrote it.

    `contents.json` in one of the folders above the file says how that was. Size and hash must be
    equal; if the file will be memory-mapped (`mapped`) and is large, only the size.
    """
    if not path.is_file():
        raise ArtifactError(
            f"{path} is missing; run `dvc repro` (or the stage that writes it) first"
        )
    contents = _above(path)
    name = path.relative_to(contents.folder).as_posix()
    if name not in contents.files:
        raise ArtifactError(f"{path} is not of the pipeline: {NAME} does not name it; {REMEDY}")
    size, digest = contents.files[name]
    _check_size(path, size)
    if not (mapped and size > LARGE):
        check_hash(path, digest)


def check_hash(path: Path, digest: str) -> None:
    """Raises ArtifactError if the file has another SHA-256; remembers it otherwise."""
    status = path.stat()
    mark = (str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)
    if mark in _whole:
        return
    if hash_of(path) != digest:
        raise ArtifactError(f"{path} is damaged: its bytes have changed; {REMEDY}")
    _whole.add(mark)


def check_made_from(folder: Path, name: str, source: Path) -> None:
    """Raises ArtifactError if `folder` was not made from the artifact in `source`.

    `name` is that of the source in `made_from`, such as data/curated.
    """
    check_id(folder, contents_of(folder).made_from, name, source)


def check_id(path: Path, made_from: Mapping[str, str], name: str, source: Path) -> None:
    """`check_made_from` for a file or folder `path`, whose `made_from` was read already."""
    if made_from.get(name) != contents_of(source).id:
        raise ArtifactError(
            f"{path} and {source} are of different runs; run `dvc repro`, "
            "or `dvc checkout --force` for those of one run"
        )


def hash_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_size(path: Path, size: int) -> None:
    if (found := path.stat().st_size) != size:
        raise ArtifactError(f"{path} is damaged: it has {found} bytes and not {size}; {REMEDY}")


def _above(path: Path) -> Contents:
    """The contents of the artifact that a file belongs to."""
    for folder in path.parents:
        if (folder / NAME).exists():
            return contents_of(folder)
    raise ArtifactError(
        f"{path} is not of the pipeline: no folder above it has a {NAME}; "
        "run `dvc repro`; if you made it yourself, see `mufin seal`"
    )


def _files(folder: Path) -> dict[str, Path]:
    """{path below the folder: path} of all files in it but its own `contents.json`."""
    found = {}
    for at, _, names in os.walk(folder):
        for name in names:
            path = Path(at, name)
            found[path.relative_to(folder).as_posix()] = path
    found.pop(NAME, None)
    return found


def _id(said: dict) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
