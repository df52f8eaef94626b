"""Writers of large `.npy` arrays in bounded memory: in shards by batch, or row by row."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

SHARD_BYTES = 2**32  # size of a shard, 4 GB: few large files instead of many small ones


class ShardWriter:
    """Appends arrays to `<name>-<number>.npy` files of at most `SHARD_BYTES` each.

    All arrays must have one dtype and one shape, except for their first axis.
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.files: list[str] = []
        self.file: BinaryIO | None = None  # the open shard
        self.rows = 0  # in the open shard

    def add(self, rows: np.ndarray) -> None:
        """Appends `rows` (n, ...) to the open shard, or to a new one if they do not fit."""
        if self.file is not None and self.file.tell() + rows.nbytes > SHARD_BYTES:
            self._finish()
        if self.file is None:
            self.files.append(f"{self.name}-{len(self.files):05d}.npy")
            self.file, self.rows = open(self.folder / self.files[-1], "wb"), 0
            self.dtype, self.shape = rows.dtype, rows.shape[1:]
            self._write_header(self.file)
        self.file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def close(self) -> list[str]:
        """Writes the last shard to disk; returns the names of all shards."""
        if self.file is not None:
            self._finish()
        return self.files

    def _finish(self) -> None:
        assert self.file is not None
        self.file.seek(0)
        self._write_header(self.file)  # again, as the number of rows is known now
        _close(self.file)
        self.file = None

    def _write_header(self, file: BinaryIO) -> None:
        """Writes the header for `self.rows` rows.

        numpy pads headers for growth of the first axis, so the header has the same length for every
        number of rows and can be overwritten at the end.
        """
        facts = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.shape),
        }
        np.lib.format.write_array_header_1_0(file, facts)


class RowFile:
    """A `.npy` array of zeros whose rows are then written in any order.

    It uses plain writes. On a full disk they raise OSError, while a write through a memory map
    would kill the process (SIGBUS). With `resume`, rows of an earlier file of this kind stay.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...], resume: bool = False):
        # The memory map only creates the header and a sparse file of the full length.
        mode: Literal["r", "w+"] = "r" if resume else "w+"
        empty = np.lib.format.open_memmap(path, mode, dtype, shape)
        self.dtype, self.start, self.row_bytes = empty.dtype, empty.offset, empty.nbytes // shape[0]
        self.file = open(path, "r+b")
        _reserve(self.file.fileno(), self.start + empty.nbytes)

    def write(self, row: int, values: np.ndarray) -> None:
        """Writes the first numbers of a row; the rest of the row stays zero."""
        self.file.seek(self.start + row * self.row_bytes)
        self.file.write(np.ascontiguousarray(values, self.dtype).data)

    def sync(self) -> None:
        """All rows that were written are on the disk when this returns."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Writes everything to disk and closes the file."""
        _close(self.file)


def _reserve(file: int, size: int) -> None:
    """Reserves `size` bytes on disk, if the file system can.

    A disk that is too small then fails at once, and not after hours of encoding.
    """
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise


def _close(file: BinaryIO) -> None:
    """Syncs to disk before closing, as some file systems report a full disk only then."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
