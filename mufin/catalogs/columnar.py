"""Arrow columns of texts and of lists of texts, cleaned without a Python object per row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mufin.ragged import offsets_of


def lists_of(flat: pa.Array, lengths: np.ndarray) -> pa.ListArray:
    """Lists of these lengths."""
    return pa.ListArray.from_arrays(pa.array(offsets_of(lengths), pa.int32()), flat)


def lengths_of(lists: pa.ListArray) -> np.ndarray:
    """(n,) int64: the number of items of each list, 0 for null."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)


def kept(flat: pa.Array, lengths: np.ndarray, keep: np.ndarray) -> pa.ListArray:
    """The lists with only the items where `keep` (nnz,) bool is true."""
    if keep.all():
        return lists_of(flat, lengths)
    rows = np.repeat(np.arange(len(lengths)), lengths)[keep]
    return lists_of(flat.filter(pa.array(keep)), np.bincount(rows, minlength=len(lengths)))


def stripped(lists: pa.ListArray) -> pa.ListArray:
    """The lists, [] for null, of texts without blanks around them; without empty and null ones."""
    flat = pc.utf8_trim_whitespace(pc.fill_null(lists.flatten(), ""))
    return kept(flat, lengths_of(lists), pc.not_equal(pc.binary_length(flat), 0).to_numpy(False))


def first_filled(columns: list[pa.ListArray]) -> pa.ListArray:
    """Per row the first of the lists that has an item, [] if none has."""
    lengths = np.stack([lengths_of(column) for column in columns])
    choice = (lengths > 0).argmax(0)
    for number, column in enumerate(columns):
        if (choice[lengths.any(0)] == number).all():  # nearly always, in a file of one release
            return lists_of(column.flatten(), lengths[number])
    rows = np.arange(choice.size)
    every = lists_of(pa.concat_arrays([c.flatten() for c in columns]), lengths.ravel())
    return every.take(pa.array(choice * choice.size + rows))  # `choose` has no lists


def first_distinct(lists: pa.ListArray, most: int) -> pa.ListArray:
    """The first `most` distinct items of each list."""
    lengths, flat = lengths_of(lists), lists.flatten()
    if most == 0:
        return lists_of(flat.slice(0, 0), np.zeros(len(lengths), np.int64))
    rows = np.repeat(np.arange(len(lengths)), lengths)
    codes = flat.dictionary_encode().indices.to_numpy()
    keep = np.zeros(len(flat), bool)
    keep[np.unique(rows * (len(flat) + 1) + codes, return_index=True)[1]] = True
    before = offsets_of(keep)  # distinct items before each, of all lists
    starts = np.repeat(before[offsets_of(lengths)[:-1]], lengths)
    return kept(flat, lengths, keep & (before[:-1] - starts < most))
