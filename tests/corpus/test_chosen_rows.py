"""Rows that are chosen of a table, cut to any number at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mufin.corpus.chosen_rows import ChosenRows


def test_batches_are_cut_to_those_of_the_products():
    table = pa.table({"x": list(range(10))})
    some = np.array([0, 2, 3, 7, 8, 9, 12])
    chosen = ChosenRows(table.to_batches(3), table.schema, 10, some)
    parts = [chosen.next(n)["x"].to_pylist() for n in (1, 3, 0, 3)]
    assert parts == [[0], [2, 3, 7], [], [8, 9, None]]


@given(
    count=st.integers(0, 12), batch=st.integers(1, 5), sizes=st.lists(st.integers(0, 6), max_size=6)
)
def test_without_a_choice_all_rows_come_in_their_order(count, batch, sizes):
    table = pa.table({"x": pa.array(range(count), pa.int64())})
    rows = ChosenRows(table.to_batches(batch), table.schema, count)
    found = [x for size in sizes for x in rows.next(size)["x"].to_pylist()]
    assert found == ([*range(count)] + [None] * sum(sizes))[: sum(sizes)]
