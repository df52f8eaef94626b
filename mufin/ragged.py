"""Rows of different lengths in two flat arrays: labels, filter pairs, images or words per product.

A filter pair is a datapoint and a label that may not be recommended to it (MUFIN Sec. 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa


def offsets_of(counts: np.ndarray | Sequence[int]) -> np.ndarray:
    """(n + 1,) int64: the start of each of n rows with these lengths, then the end of the last."""
    out = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=out[1:])
    return out


@dataclass(frozen=True, slots=True)
class Lists:
    """Ragged rows of integers or floats: row i is `values[offsets[i]:offsets[i + 1]]`."""

    offsets: np.ndarray  # (n + 1,) int64
    values: np.ndarray  # (nnz,)

    @classmethod
    def of_column(cls, column: pa.ChunkedArray) -> Lists:
        """The rows of an Arrow column of lists."""
        # Not `combine_chunks`: in one Arrow array, lists have 2^31 values at most, and texts 2 GiB.
        arrays = column.chunks or [pa.array([], column.type)]
        lengths = [np.diff(array.offsets.to_numpy()) for array in arrays]
        values = [array.flatten().to_numpy(zero_copy_only=False) for array in arrays]
        flat = values[0] if len(values) == 1 else np.concatenate(values)
        return cls(offsets_of(np.concatenate(lengths)), flat)

    @classmethod
    def of_rows(cls, rows: Sequence, dtype: type = np.int64) -> Lists:
        """The rows of a sequence of sequences."""
        lengths = np.fromiter((len(r) for r in rows), np.int64, len(rows))
        values: np.ndarray = np.zeros(0, dtype)
        if len(rows):
            values = np.concatenate([np.asarray(r, dtype) for r in rows])
        return cls(offsets_of(lengths), values.astype(dtype, copy=False))

    @classmethod
    def of_pairs(cls, rows: np.ndarray, values: np.ndarray, count: int) -> Lists:
        """`count` rows from (row, value) pairs that are sorted by row."""
        return cls(offsets_of(np.bincount(rows, minlength=count)), values)

    @classmethod
    def of_padded(cls, values: np.ndarray) -> Lists:
        """The rows of (n, width) ids, where ids below 0 are padding."""
        there = values >= 0
        return cls(offsets_of(there.sum(1)), values[there])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def lengths(self) -> np.ndarray:
        """(n,) int64: the number of values in each row."""
        return np.diff(self.offsets)

    def rows(self) -> np.ndarray:
        """(nnz,) int64: the row of each value."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def between(self, start: int, stop: int) -> Lists:
        """The rows from `start` to before `stop`; their values are not copied."""
        offsets = self.offsets[start : stop + 1]
        return Lists(offsets - offsets[0], self.values[offsets[0] : offsets[-1]])

    def take(self, index: np.ndarray) -> Lists:
        """The rows `index`, in that order; rows may repeat."""
        offsets = offsets_of(self._lengths_of(index))
        values = np.empty(offsets[-1], self.values.dtype)
        for start in range(0, len(index), TAKEN):  # positions take more memory than the values
            positions, some = self.positions(index[start : start + TAKEN])
            values[offsets[start] : offsets[start] + some[-1]] = self.values[positions]
        return Lists(offsets, values)

    def positions(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `values` of the values of rows `index`, and the offsets of these rows.

        So `take(index)` is `Lists(offsets, values[positions])`.
        """
        lengths = self._lengths_of(index)
        offsets = offsets_of(lengths)
        positions = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths)
        positions += np.arange(offsets[-1])
        return positions, offsets

    def _lengths_of(self, index: np.ndarray) -> np.ndarray:
        return self.offsets[1:][index] - self.offsets[:-1][index]

    def only(self, keep: np.ndarray) -> Lists:
        """The same rows, with only the values where `keep` (nnz,) bool is true."""
        before = np.zeros(len(keep) + 1, np.int32 if len(keep) <= MOST else np.int64)
        np.cumsum(keep, out=before[1:])
        return Lists(before[self.offsets].astype(np.int64), self.values[keep])

    def minus(self, other: Lists) -> Lists:
        """The same rows, without the values that the same row of `other` holds."""
        if not len(other.values) or not len(self.values):
            return self
        # One integer per (row, value) pair, so that a single np.isin compares all rows.
        base = int(max(self.values.max(), other.values.max())) + 1
        mine, theirs = self.rows() * base + self.values, other.rows() * base + other.values
        return self.only(~np.isin(mine, theirs))

    def transpose(self, size: int) -> Lists:
        """`size` rows: row v lists the rows of self that hold v, in ascending order."""
        order = np.argsort(self.values, kind="stable")
        return Lists(offsets_of(np.bincount(self.values, minlength=size)), self.rows()[order])

    def padded(self) -> np.ndarray:
        """(n, longest) values; -1 fills the ends of shorter rows."""
        lengths = np.diff(self.offsets)
        out = np.full((len(self), int(lengths.max(initial=0))), -1, self.values.dtype)
        out[np.arange(out.shape[1]) < lengths[:, None]] = self.values
        return out

    def to_arrow(self, dtype: pa.DataType) -> pa.Array | pa.ChunkedArray:
        """An Arrow array of lists of `dtype`; in several chunks from 2^31 values on."""
        if self.offsets[-1] <= MOST:
            return self._array(dtype)
        chunks, start = [], 0
        while start < len(self):
            stop = int(np.searchsorted(self.offsets, self.offsets[start] + MOST, "right")) - 1
            chunks.append(self.between(start, stop)._array(dtype))
            start = stop
        return pa.chunked_array(chunks)

    def _array(self, dtype: pa.DataType) -> pa.ListArray:
        offsets = pa.array(self.offsets, pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.array(self.values, dtype))


MOST = 2**31 - 1  # values of one Arrow array of lists: its offsets are int32
TAKEN = 2**20  # rows that are copied at once
ROWS = 1024  # of a block: 100 int32 ids per row fit into the cache of a core


def is_in(ids: np.ndarray, lists: Lists) -> np.ndarray:
    """(n, width) bool: whether each id of `ids` (n, width) is in the same row of `lists`.

    Ids below 0 are padding and never found. Temporary arrays are of a block of rows.
    """
    found = np.zeros(ids.shape, bool)
    if not len(lists.values) or not ids.size:
        return found
    for start in range(0, len(ids), ROWS):
        rows = slice(start, start + ROWS)
        _fill(found[rows], ids[rows], lists.between(start, min(start + ROWS, len(lists))))
    found &= ids >= 0
    return found


def _fill(found: np.ndarray, ids: np.ndarray, lists: Lists) -> None:
    """`is_in` of a block of rows, written into `found`.

    A row of few values is compared with each of them, one pass over the row's ids per value. A row
    of many values is searched in.
    """
    lengths = lists.lengths()
    # Measured: a pass over 100 ids takes 40 ns, a binary search for one of them 60 ns.
    few = lengths <= 2 * ids.shape[1]
    if not few.all():
        many = np.flatnonzero(~few)
        found[many] = _searched(ids[many], lists.take(many))
    order = np.flatnonzero(few & (lengths > 0))
    if not len(order):
        return
    order = order[np.argsort(-lengths[order], kind="stable")]  # longest first
    ids, lengths, starts = _narrow(ids[order]), lengths[order], lists.offsets[:-1][order]
    values = _narrow(lists.values)
    equal = np.zeros(ids.shape, bool)
    longer = len(order) - np.searchsorted(lengths[::-1], np.arange(lengths[0]), "right")
    for j, count in enumerate(longer.tolist()):  # `count` rows have more than j values
        equal[:count] |= ids[:count] == values[starts[:count] + j][:, None]
    found[order] = equal


def _narrow(ids: np.ndarray) -> np.ndarray:
    """The same ids as int32 where they fit: half the bytes to compare."""
    if ids.dtype == np.int32 or not ids.size or max(-ids.min(), ids.max()) >= 2**31:
        return ids
    return ids.astype(np.int32)


def _searched(ids: np.ndarray, lists: Lists) -> np.ndarray:
    """`is_in` by one binary search for all rows, in sorted integers of (row, id)."""
    base = int(max(ids.max(), lists.values.max())) + 1
    keys = np.sort(lists.rows() * base + lists.values)
    wanted = np.arange(len(ids))[:, None] * base + ids
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return keys[place] == wanted
