"""Rows of large `.npy` files in the store: a machine reads those that it needs, by range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mufin.cluster.store import Store
from mufin.ragged import offsets_of


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array (n, ...) in a file of the store."""

    digest: str  # SHA-256 of the file
    start: int  # bytes before the first row
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, mapped: np.ndarray, digest: str) -> StoredArray:
        """The memory-mapped array of a file with this SHA-256."""
        assert isinstance(mapped, np.memmap)
        return cls(digest, mapped.offset, mapped.dtype.str, mapped.shape)

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize


class StoredRows:
    """The rows of several arrays in the store, numbered as if they were one array."""

    def __init__(self, store: Store, arrays: Sequence[StoredArray]):
        self.store, self.arrays = store, arrays
        self.starts = offsets_of([array.shape[0] for array in arrays])  # first row of each

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), ...) of `rows`, which ascend and are distinct.

        Raises MufinError if the store fails, or has not all of their bytes.
        """
        like = self.arrays[0]
        out = np.empty((len(rows), *like.shape[1:]), like.dtype)
        ends = np.searchsorted(rows, self.starts)
        for array, first, start, stop in zip(self.arrays, self.starts, ends, ends[1:]):
            if stop > start:
                self._read(array, rows[start:stop] - first, out[start:stop])
        return out

    def _read(self, array: StoredArray, rows: np.ndarray, out: np.ndarray) -> None:
        """Fills `out` with rows of one array; rows after one another are one range."""
        cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1), len(rows)]
        runs = list(zip(cuts, cuts[1:]))
        size = array.row_bytes
        ranges = [(array.start + int(rows[a]) * size, int(b - a) * size) for a, b in runs]
        flat = out.reshape(len(rows), -1).view(np.uint8)
        for (a, b), block in zip(runs, self.store.read(array.digest, ranges)):
            flat[a:b] = np.frombuffer(block, np.uint8).reshape(b - a, -1)
