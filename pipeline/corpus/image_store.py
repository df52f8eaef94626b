"""Pictures as bytes in a few Parquet shards, keyed by their content; and the log from which a killed fetch goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import BinaryIO, Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema([("key", pa.string()), ("bytes", pa.binary())])
SHARD_BYTES = 2**28     # of a shard, about
GROUP_BYTES = 2**23     # of a row group: what a reader holds at once


def key_of(content: bytes) -> str:
    """The first 32 hex digits of the content's SHA-256."""
    return hashlib.sha256(content).hexdigest()[:32]


class FetchLog:
    """What has been fetched so far, one record after another: a line of JSON, then the bytes.

    A record is on disk before the next reference is looked at. A kill can tear the last one, which is cut off on opening.
    `done` has what need not be asked for again; what failed in an earlier run is asked for again, and its last record counts.
    """

    def __init__(self, path: Path):
        self.path = path
        self.done: set[str] = set()
        self.places: dict[str, int] = {}             # where the last record of each reference starts
        if path.exists():
            whole = 0
            with open(path, "rb") as file:
                while record := _record(file):
                    (self.done.discard if record[2] else self.done.add)(record[0])
                    self.places[record[0]], whole = whole, file.tell()
            os.truncate(path, whole)
        self.file = open(path, "ab")

    def add(self, reference: str, content: bytes, reason: str) -> None:
        head = json.dumps({"url": reference, "reason": reason, "size": len(content)}).encode()
        place = self.file.tell()
        self.file.write(head + b"\n" + content + b"\n")
        self.file.flush()
        self.done.add(reference)
        self.places[reference] = place

    def close(self) -> None:
        self.file.close()

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[[str], tuple[str, bytes, str] | None]]:
        """A function from a reference to its (reference, bytes, reason), None for one that is not in the log."""
        with open(self.path, "rb") as file:
            def record_of(reference: str) -> tuple[str, bytes, str] | None:
                if reference not in self.places:
                    return None
                file.seek(self.places[reference])
                return _record(file)

            yield record_of


def _record(file: BinaryIO) -> tuple[str, bytes, str] | None:
    """The record that starts here; None where there is no whole one."""
    try:
        head = json.loads(file.readline())
        url, reason, size = head["url"], head["reason"], head["size"]
    except (ValueError, KeyError, TypeError):        # cut off in the middle, or damaged
        return None
    content = file.read(size + 1)
    return (url, content[:-1], reason) if len(content) == size + 1 else None


class ImageWriter:
    """Appends pictures to `part-*.parquet`, each content once, in bounded memory."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.keys, self.number = folder, set(), 0
        self.pending: list[tuple[str, bytes]] = []
        self.pending_bytes = self.shard_bytes = 0
        self.writer: pq.ParquetWriter | None = None

    def add(self, content: bytes) -> str:
        """The key of the content, which is in the store from now on."""
        key = key_of(content)
        if key not in self.keys:
            self.keys.add(key)
            self.pending.append((key, content))
            self.pending_bytes += len(content)
            if self.pending_bytes >= GROUP_BYTES:
                self._flush()
        return key

    def _flush(self) -> None:
        if self.writer is None:
            path = self.folder / f"part-{self.number:05d}.parquet"
            self.writer = pq.ParquetWriter(path, SCHEMA, compression="none")
            self.number, self.shard_bytes = self.number + 1, 0
        keys, contents = zip(*self.pending) if self.pending else ((), ())
        self.writer.write_table(pa.table({"key": pa.array(keys, pa.string()), "bytes": pa.array(contents, pa.binary())}))
        self.shard_bytes += self.pending_bytes
        self.pending, self.pending_bytes = [], 0
        if self.shard_bytes >= SHARD_BYTES:
            self.writer.close()
            self.writer = None

    def close(self) -> None:
        """Write what is left; a store without a picture has one empty shard."""
        if self.pending or self.number == 0:
            self._flush()
        if self.writer is not None:
            self.writer.close()
            self.writer = None
