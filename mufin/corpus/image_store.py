"""The image store: pictures as bytes in a few Parquet files, keyed by a hash of their content.

Readers check each picture against its key, so damaged bytes are never decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.corpus.digests import Digests
from mufin.errors import ArtifactError, shown

SCHEMA = pa.schema([("key", pa.string()), ("bytes", pa.binary())])
SHARD_BYTES = 2**28  # approximate size of one file
GROUP_BYTES = 2**23  # approximate size of a row group, which a reader holds in memory at once
KEYS = 65536  # read at once


def key_of(content: bytes) -> str:
    """The first 32 hex digits (128 bits) of the content's SHA-256."""
    return hashlib.sha256(content).hexdigest()[:32]


class ImageWriter:
    """Appends pictures to `part-*.parquet` in `folder`, each content once, in bounded memory."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.number = 0  # of the next file
        self.keys = Digests(kind="b")  # of all pictures added; the numbers say nothing
        self.pending: list[tuple[str, bytes]] = []  # the row group that is being filled
        self.pending_bytes = self.shard_bytes = 0
        self.writer: pq.ParquetWriter | None = None

    def add(self, content: bytes) -> str:
        """Store the content, unless the store already holds it; returns its key."""
        key = key_of(content)
        digest = bytes.fromhex(key)
        if self.keys.get(digest) < 0:
            self.keys.put(digest, 0)
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

    The bytes of a row group are read only if one of the keys is in it. Raises ArtifactError for a
    damaged store.
    """
    found: dict[str, bytes] = {}
    for path in store_files(folder):
        with _undamaged(path):
            file = _opened(path)
            for group in range(file.num_row_groups):
                names = file.read_row_group(group, columns=["key"])["key"].to_pylist()
                if rows := [i for i, n in enumerate(names) if n in keys and n not in found]:
                    contents = file.read_row_group(group, columns=["bytes"])["bytes"]
                    found |= {names[i]: _checked(names[i], contents[i].as_py()) for i in rows}
    return found


def stored_keys(store: Path, keys: np.ndarray) -> tuple[dict[Path, set[str]], list[str]]:
    """{file of the store: those of the `keys` to be read from it}, and the keys that none has.

    Files without such keys are left out. Raises ArtifactError for a damaged store.
    """
    files, keys = store_files(store), np.unique(keys)
    holder = _holders(files, keys)
    order = np.argsort(holder, kind="stable")
    numbers, starts = np.unique(holder[order], return_index=True)
    parts = dict(zip(numbers.tolist(), np.split(keys[order], starts[1:])))
    missing = parts.pop(-1, keys[:0])
    return {files[n]: set(part.tolist()) for n, part in parts.items()}, missing.tolist()


def _holders(files: Sequence[Path], keys: np.ndarray) -> np.ndarray:
    """(K,) int32: the number of the first of the `files` of a store that holds each key, else -1.

    `keys` (K,) are distinct and ascend. Only the keys of the files are read. Raises ArtifactError
    for a damaged store.
    """
    holder = np.full(len(keys), -1, np.int32)
    for number, path in enumerate(files):
        with _undamaged(path):
            for batch in _opened(path).iter_batches(KEYS, columns=["key"]):
                names = batch["key"].to_numpy(zero_copy_only=False).astype(str)
                place = np.minimum(np.searchsorted(keys, names), max(len(keys) - 1, 0))
                place = place[keys[place] == names] if len(keys) else place[:0]
                holder[place[holder[place] < 0]] = number
    return holder


def read_pictures(path: Path, wanted: set[str], chunk: int) -> Iterator[list[tuple[str, bytes]]]:
    """Lists of at most `chunk` (key, bytes) of the wanted keys, in the order of a store's file.

    Each key comes once; unknown keys are left out. Raises ArtifactError for a damaged store.
    """
    done: set[str] = set()
    for pairs in _batches(path, chunk):
        new = [(key, content) for key, content in pairs if key in wanted and key not in done]
        with _undamaged(path):
            found = [(key, _checked(key, content)) for key, content in new]
        done.update(key for key, _ in found)
        if found:
            yield found


def _batches(path: Path, chunk: int) -> Iterator[list[tuple[str, bytes]]]:
    """All (key, bytes) of one file, at most `chunk` at a time."""
    with _undamaged(path):
        for batch in _opened(path).iter_batches(chunk):
            yield list(zip(batch["key"].to_pylist(), batch["bytes"].to_pylist()))


def _opened(path: Path) -> pq.ParquetFile:
    """A file of the store; raises ValueError if it has other columns."""
    file = pq.ParquetFile(path)
    if not file.schema_arrow.equals(SCHEMA):
        raise ValueError(f"its columns are {file.schema_arrow.names}")
    return file


def store_files(folder: Path) -> list[Path]:
    """The files of a store, in order; raises ArtifactError if there are none."""
    if not (paths := sorted(folder.glob("part-*.parquet"))):
        raise ArtifactError(
            f"{folder} has no part-*.parquet; run `dvc repro`, which downloads the pictures first"
        )
    return paths


def _checked(key: str, content: bytes) -> bytes:
    """The content, if the key is its own; else raises ValueError."""
    if content is None or key_of(content) != key:
        raise ValueError(f"the picture {key} has other bytes")
    return content


@contextlib.contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Turns the many errors that pyarrow raises on damaged files into ArtifactError."""
    try:
        yield
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system refused to open or read it
        raise ArtifactError(
            f"{path} is damaged ({shown(str(error), 100)}); `dvc checkout` restores it from the "
            "cache, or `dvc repro -f download` downloads the pictures again"
        ) from None
