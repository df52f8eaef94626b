"""Large `.npy` arrays written in bounded memory: in shards, one batch after another, or row by row in any order."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

SHARD_BYTES = 2**32  # of a shard: a few large files


class ShardWriter:
    """Arrays of equal shape appended to `<name>-<number>.npy` files of at most `SHARD_BYTES`."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.files: list[str] = []
        self.file: BinaryIO | None = None
        self.rows = 0  # of the open shard

    def add(self, rows: np.ndarray) -> None:
        """Append `rows` (n, ...) to the open shard, or begin the next one where they do not fit."""
        if self.file is not None and self.file.tell() + rows.nbytes > SHARD_BYTES:
            self._finish()
        if self.file is None:
            self.files.append(f"{self.name}-{len(self.files):05d}.npy")
            self.file, self.rows = open(self.folder / self.files[-1], "wb"), 0
            self.dtype, self.shape = rows.dtype, rows.shape[1:]
            self._header(self.file)
        self.file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def close(self) -> list[str]:
        """The names of all shards, which are on the disk now."""
        if self.file is not None:
            self._finish()
        return self.files

    def _finish(self) -> None:
        assert self.file is not None
        self.file.seek(0)
        self._header(self.file)  # now with the number of rows
        _close(self.file)
        self.file = None

    def _header(self, file: BinaryIO) -> None:
        """numpy pads the header so that any number of rows has the same length: it can be written again at the end."""
        facts = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.shape),
        }
        np.lib.format.write_array_header_1_0(file, facts)


class RowFile:
    """A `.npy` array of zeros whose rows are then written in any order.

    By plain writes: on a full disk these raise OSError, where a write through a memory map kills the process (SIGBUS).
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]):
        empty = np.lib.format.open_memmap(
            path, "w+", dtype, shape
        )  # the header and the length, no more
        self.dtype, self.start, self.row_bytes = empty.dtype, empty.offset, empty.nbytes // shape[0]
        self.file = open(path, "r+b")
        _take_space(self.file.fileno(), self.start + empty.nbytes)

    def write(self, row: int, values: np.ndarray) -> None:
        """The first numbers of a row; the rest of it stays zero."""
        self.file.seek(self.start + row * self.row_bytes)
        self.file.write(np.ascontiguousarray(values, self.dtype).data)

    def close(self) -> None:
        """Close the file, which is on the disk now."""
        _close(self.file)


def _take_space(file: int, size: int) -> None:
    """Have the file system set `size` bytes aside now: better to fail here than after hours of encoding. Not all can."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise


def _close(file: BinaryIO) -> None:
    """Close after all is on the disk: some file systems say only then that they are full."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
