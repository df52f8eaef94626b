"""The image store: pictures as bytes in a few Parquet files, keyed by a hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema([("key", pa.string()), ("bytes", pa.binary())])
SHARD_BYTES = 2**28  # approximate size of one file
GROUP_BYTES = 2**23  # approximate size of a row group, which a reader holds in memory at once


def key_of(content: bytes) -> str:
    """The first 32 hex digits (128 bits) of the content's SHA-256."""
    return hashlib.sha256(content).hexdigest()[:32]


class ImageWriter:
    """Appends pictures to `part-*.parquet` in `folder`, each content once, in bounded memory."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.number = 0  # of the next file
        self.keys: set[str] = set()  # of all pictures added
        self.pending: list[tuple[str, bytes]] = []  # the row group that is being filled
        self.pending_bytes = self.shard_bytes = 0
        self.writer: pq.ParquetWriter | None = None

    def add(self, content: bytes) -> str:
        """Store the content, unless the store already holds it; returns its key."""
        key = key_of(content)
        if key not in self.keys:
            self.keys.add(key)
            self.pending.append((key, content))
            self.pending_bytes += len(content)
            if self.pending_bytes >= GROUP_BYTES:
                self._flush()
        return key

    def _flush(self) -> None:
        """Write the pending pictures as one row group."""
        if self.writer is None:
            path = self.folder / f"part-{self.number:05d}.parquet"
            # JPEG and PNG are compressed already.
            self.writer = pq.ParquetWriter(path, SCHEMA, compression="none")
            self.number, self.shard_bytes = self.number + 1, 0
        keys, contents = zip(*self.pending) if self.pending else ((), ())
        columns = {"key": pa.array(keys, pa.string()), "bytes": pa.array(contents, pa.binary())}
        self.writer.write_table(pa.table(columns))
        self.shard_bytes += self.pending_bytes
        self.pending, self.pending_bytes = [], 0
        if self.shard_bytes >= SHARD_BYTES:
            self.writer.close()
            self.writer = None

    def close(self) -> None:
        """Write the rest; a store without pictures gets one empty file, which readers can open."""
        if self.pending or self.number == 0:
            self._flush()
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def stored_pictures(folder: Path, keys: set[str]) -> dict[str, bytes]:
    """{key: bytes} of the given keys, for a few pictures; unknown keys are left out.

    The bytes of a row group are read only if one of the keys is in it.
    """
    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("part-*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            names = file.read_row_group(group, columns=["key"])["key"].to_pylist()
            if rows := [i for i, name in enumerate(names) if name in keys and name not in found]:
                contents = file.read_row_group(group, columns=["bytes"])["bytes"]
                found |= {names[i]: contents[i].as_py() for i in rows}
    return found


def read_pictures(folder: Path, wanted: set[str], chunk: int) -> Iterator[list[tuple[str, bytes]]]:
    """Lists of at most `chunk` (key, bytes) of the wanted keys, in the order of the store.

    Each key comes once; unknown keys are left out.
    """
    done: set[str] = set()
    for path in sorted(folder.glob("part-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(chunk):
            pairs = zip(batch["key"].to_pylist(), batch["bytes"].to_pylist())
            found = [(key, content) for key, content in pairs if key in wanted and key not in done]
            done.update(key for key, _ in found)
            if found:
                yield found
