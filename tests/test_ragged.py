"""Ragged rows against loops over lists of lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin import ragged
from mufin.ragged import Lists, is_in, offsets_of

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=8)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_ragged_rows_are_the_rows_they_were_made_of(rows):
    lists = Lists.of_rows(rows)
    assert len(lists) == len(rows) and lists.offsets.dtype == lists.values.dtype == np.int64
    assert [lists[i].tolist() for i in range(len(lists))] == rows
    assert lists.rows().tolist() == [i for i, row in enumerate(rows) for _ in row]


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_transposed_row_v_lists_the_rows_that_hold_v(rows):
    flipped = Lists.of_rows(rows).transpose(12)
    assert len(flipped) == 12
    assert [flipped[v].tolist() for v in range(12)] == [
        [i for i, row in enumerate(rows) for x in row if x == v] for v in range(12)
    ]


@settings(max_examples=60, deadline=None)
@given(ROWS.filter(len), st.lists(st.integers(0, 99), max_size=12))
def test_taken_rows_and_positions_are_in_asked_order(rows, index):
    index = np.array([i % len(rows) for i in index], np.int64)
    lists = Lists.of_rows(rows)
    taken = lists.take(index)
    assert [taken[j].tolist() for j in range(len(taken))] == [rows[i] for i in index]
    positions, offsets = lists.positions(index)
    starts = np.cumsum([0, *map(len, rows)])
    assert positions.tolist() == [starts[i] + j for i in index for j in range(len(rows[i]))]
    assert offsets.tolist() == np.cumsum([0, *(len(rows[i]) for i in index)]).tolist()


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(5, 9))
def test_rows_beyond_the_values_of_one_array_are_chunks(rows, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "MOST", most)
        column = Lists.of_rows(rows).to_arrow(pa.int32())
    assert column.type == pa.list_(pa.int32()) and column.to_pylist() == rows
    if isinstance(column, pa.ChunkedArray):
        assert all(len(chunk.flatten()) <= most for chunk in column.chunks)
        found = Lists.of_column(column)
        assert [found[i].tolist() for i in range(len(found))] == rows


def test_lists_with_more_than_two_to_the_31_values():
    chunk = pa.ListArray.from_arrays(pa.array([0, 2**20], pa.int32()), pa.nulls(2**20, pa.int8()))
    column = pa.chunked_array([chunk] * 3)
    assert Lists.of_column(column).offsets.tolist() == [0, 2**20, 2**21, 3 * 2**20]
    many = Lists(np.array([0, 2**30, 2**31 - 1, 2**31, 2**31 + 5]), np.broadcast_to(0, 2**31 + 5))
    parts: list[Lists] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lists, "_array", lambda self, dtype: parts.append(self) or pa.nulls(0))
        many.to_arrow(pa.int32())
    assert [part.offsets.tolist() for part in parts] == [[0, 2**30, 2**31 - 1], [0, 1, 6]]


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 8), st.integers(0, 8))
def test_chunked_and_sliced_columns_give_the_same_rows(rows, start, cut):
    array = Lists.of_rows(rows).to_arrow(pa.int32())
    assert array.type == pa.list_(pa.int32()) and array.to_pylist() == rows
    column = pa.chunked_array([array[:cut], array[cut:]], pa.list_(pa.int32()))
    for wanted, found in (
        (rows, Lists.of_column(column)),
        (rows[start:], Lists.of_column(column[start:])),
        ([], Lists.of_column(pa.chunked_array([], pa.list_(pa.int32())))),
    ):
        assert found.offsets[0] == 0 and [found[i].tolist() for i in range(len(found))] == wanted


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(0, 4), st.integers(0, 10**6), st.integers(1, 9), st.integers(0, 2**33))
def test_is_in_equals_a_loop_and_ignores_padding(rows, width, seed, block, first):
    ids = np.random.default_rng(seed).integers(-2, 14, (len(rows), width))
    ids[ids >= 0] += first  # also ids past int32
    rows = [[value + first for value in row] for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "ROWS", block)
        found = is_in(ids, Lists.of_rows(rows))
    assert found.shape == ids.shape
    assert found.tolist() == [
        [bool(x >= 0 and x in row) for x in line] for line, row in zip(ids.tolist(), rows)
    ]


def test_is_in_takes_rows_of_very_different_lengths():
    rng = np.random.default_rng(0)
    rows = [rng.permutation(5000)[:count] for count in (3000, 0, 4, 1, 900, 7)]
    for dtype in (np.int32, np.int64):
        ids = rng.integers(-1, 5000, (6, 20)).astype(dtype)
        found = is_in(ids, Lists.of_rows(rows, dtype))
        assert found.tolist() == [np.isin(line, row).tolist() for line, row in zip(ids, rows)]
        assert found[0].any() and found[4].any()


@given(ROWS, st.integers(0, 8), st.integers(0, 8))
def test_rows_between_are_a_slice(rows, start, stop):
    start, stop = min(start, len(rows)), min(max(start, stop), len(rows))
    part = Lists.of_rows(rows).between(start, max(start, stop))
    assert [part[i].tolist() for i in range(len(part))] == rows[start : max(start, stop)]


@given(ROWS)
def test_rows_of_counts_pairs_and_padding_are_the_same(rows):
    lists = Lists.of_rows(rows)
    counts = [len(row) for row in rows]
    assert offsets_of(counts).tolist() == [sum(counts[:i]) for i in range(len(counts) + 1)]
    assert lists.lengths().tolist() == counts
    width = max(counts, default=0)
    padded = lists.padded()
    assert padded.shape == (len(rows), width)
    assert padded.tolist() == [row + [-1] * (width - len(row)) for row in rows]
    for other in (
        Lists.of_padded(padded),
        Lists.of_pairs(lists.rows(), lists.values, len(rows)),
    ):
        assert [other[i].tolist() for i in range(len(other))] == rows


@given(ROWS, st.integers(0, 10**6))
def test_only_and_minus_equal_a_loop(rows, seed):
    lists, rng = Lists.of_rows(rows), np.random.default_rng(seed)
    keep = rng.random(len(lists.values)) < 0.5
    kept, flags = lists.only(keep), iter(keep.tolist())
    assert [kept[i].tolist() for i in range(len(rows))] == [
        [x for x in row if next(flags)] for row in rows
    ]
    other = [rng.integers(0, 10, rng.integers(0, 4)).tolist() for _ in rows]
    left = lists.minus(Lists.of_rows(other))
    assert [left[i].tolist() for i in range(len(rows))] == [
        [x for x in row if x not in gone] for row, gone in zip(rows, other)
    ]


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_padded_rows_end_in_minus_one(rows):
    padded, width = Lists.of_rows(rows).padded(), max(map(len, rows), default=0)
    assert padded.shape == (len(rows), width)
    assert padded.tolist() == [row + [-1] * (width - len(row)) for row in rows]
