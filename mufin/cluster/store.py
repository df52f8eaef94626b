"""A folder that all machines of a cluster see, by a pyarrow file system URI.

A file is named by its SHA-256, so the same bytes are sent once. A folder is a list of such files,
which is written last: a folder without its list does not exist.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs

from mufin.artifacts.contents import hash_of
from mufin.errors import MufinError, shown

VARIABLE = "MUFIN_RAY_STORE"
OBJECTS = ("s3", "gcs", "abfs")  # an object appears when it is closed; others get a name at the end
BLOCK = 2**23  # bytes copied at once
READS = 32  # ranges read at the same time: an object store answers each after milliseconds
PAUSES = (0.2, 1.0)  # seconds before a range is asked for again
REASON = 78  # characters of an error

# path below the folder -> size and SHA-256 in hex, as in `contents.json`
Files = dict[str, tuple[int, str]]


class Store:
    """The files and folders below the folder `below` of the URI; can be sent to other machines.

    Raises MufinError if the URI cannot be used. So does each method if the file system refuses.
    """

    def __init__(self, uri: str, below: str = ""):
        self.uri, self.below = uri, below
        self.system, root = _opened(uri)
        self.root = "/".join(part for part in (root.rstrip("/"), below) if part)

    def __reduce__(self) -> tuple:
        return Store, (self.uri, self.below)

    def within(self, name: str) -> Store:
        """The folder `name` of this one, with files of its own."""
        return Store(self.uri, f"{self.below}/{name}" if self.below else name)

    def put(self, path: Path, digest: str | None = None) -> str:
        """Sends a file unless it is there; returns its SHA-256, which may be given."""
        digest = digest or hash_of(path)
        with self._explained(), open(path, "rb") as source:
            name = self._path(f"files/{digest}")
            # The size, as a connection that broke may have left the beginning of an object
            if self._info(name).size != os.fstat(source.fileno()).st_size:
                self._write(source, name)
        return digest

    def get(self, digest: str, target: Path) -> None:
        """Fetches a file; raises MufinError if its bytes are not those that were sent."""
        found = hashlib.sha256()
        with self._explained(), open(target, "wb") as file:
            for block in self._blocks(f"files/{digest}"):
                found.update(block)
                file.write(block)
        if found.hexdigest() != digest:
            raise MufinError(
                f"files/{digest} in {VARIABLE} has other bytes than were sent; delete it and run "
                "the same command again"
            )

    def read(self, digest: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """The bytes of a file at each of the `ranges`, (start, size).

        They are not compared with the SHA-256, which is of the whole file. Raises MufinError if the
        file ends before.
        """
        with (
            self._explained(),
            self.system.open_input_file(self._path(f"files/{digest}")) as source,
            ThreadPoolExecutor(READS) as threads,
        ):
            blocks = threads.map(lambda at: _read_at(source, *at), ranges)
            for (_, size), block in zip(ranges, blocks):
                if len(block) != size:
                    raise MufinError(
                        f"files/{digest} in {VARIABLE} is not whole; delete it and run the same "
                        "command again"
                    )
                yield block

    def put_folder(self, folder: Path, name: str, files: Files | None = None) -> None:
        """Sends the files below `folder`, or `files`, whose hashes are known, and their list."""
        files = files_below(folder) if files is None else files
        for path, (_, digest) in files.items():
            self.put(folder / path, digest)
        with self._explained():
            self._write(pa.BufferReader(json.dumps(files).encode()), self._path(f"{name}.json"))

    def get_folder(self, name: str, target: Path) -> Files:
        """Fetches the files of a folder into `target`, which is there; returns its list."""
        with self._explained():
            said = json.loads(b"".join(self._blocks(f"{name}.json")))
        files = {str(n): (int(size), str(digest)) for n, (size, digest) in said.items()}
        for path, (_, digest) in files.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            self.get(digest, target / path)
        return files

    def has_folder(self, name: str) -> bool:
        """Whether a whole folder has this name."""
        with self._explained():
            return self._info(self._path(f"{name}.json")).type == pafs.FileType.File

    def remove(self) -> None:
        """Removes all that is below this folder."""
        with self._explained():
            self.system.delete_dir_contents(self.root, missing_dir_ok=True)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _info(self, path: str) -> pafs.FileInfo:
        return self.system.get_file_info(path)

    def _blocks(self, name: str) -> Iterator[bytes]:
        """The content of a file."""
        with self.system.open_input_file(self._path(name)) as source:
            for start in range(0, source.size(), BLOCK):
                yield _read_at(source, start, BLOCK)

    def _write(self, source: BinaryIO, target: str) -> None:
        """Writes a file that is whole or not there."""
        folder, _, name = target.rpartition("/")
        path = target
        if self.system.type_name not in OBJECTS:
            self.system.create_dir(folder, recursive=True)
            path = f"{folder}/.{name}.{uuid.uuid4().hex}"
        try:
            with self.system.open_output_stream(path) as out:
                shutil.copyfileobj(source, out, BLOCK)
        except BaseException:  # if the source failed, closing has made a file of what was read
            with contextlib.suppress(OSError, pa.ArrowException):
                self.system.delete_file(path)
            raise
        if path != target:
            self.system.move(path, target)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what a file system raises into a sentence that names the store."""
        try:
            yield
        except (OSError, pa.ArrowException, ValueError) as error:
            reason = shown(_without_keys(str(error))[-REASON:])  # the cause is at the end
            raise MufinError(
                f"{VARIABLE} {shown(_without_keys(self.uri))} fails ({reason}); look "
                "whether this machine may read and write there"
            ) from error


def _read_at(source: pa.NativeFile, start: int, size: int) -> bytes:
    """`size` bytes, or fewer at the end of the file; asked for again after errors.

    So does pyarrow, but not where the server's text of the error is longer than these bytes.
    """
    for pause in PAUSES:
        try:
            return source.read_at(size, start)
        except OSError:
            time.sleep(pause)
    return source.read_at(size, start)


def files_below(folder: Path) -> Files:
    """The sizes and hashes of all files below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, hash_of(path)) for path in paths
    }


def _opened(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI and the path in it."""
    name = shown(_without_keys(uri))
    remedy = "set it to a folder that all machines see, such as s3://bucket/folder or file:///mnt/x"
    try:
        system, root = pafs.FileSystem.from_uri(uri)
        there = system.type_name != "local" or Path(root).is_dir()
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = shown(_without_keys(str(error)))
        raise MufinError(f"{VARIABLE} is {name} ({reason}); {remedy}") from None
    if not there:  # not created: where a disk is not mounted, each machine would have its own
        raise MufinError(
            f"{VARIABLE} is {name}, but {os.uname().nodename} has no such folder; create it or "
            "mount it on all machines"
        )
    return system, root


def _without_keys(text: str) -> str:
    """A URI, or a text with one, without the keys that may stand before its host."""
    return re.sub(r"//(?:[^/\s@]*|[^\s@]*:[^\s@]*)@", "//...@", text)  # a key may have a slash
