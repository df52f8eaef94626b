"""Columns of lists, cleaned together, are as cleaned row by row."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mufin.catalogs.columnar import first_filled

LISTS = st.lists(st.text(max_size=2), max_size=3) | st.none()


@given(rows=st.lists(st.tuples(LISTS, LISTS, LISTS), max_size=6))
def test_the_first_filled_column_is_chosen_per_row(rows):
    columns = [pa.array([row[n] for row in rows], pa.list_(pa.string())) for n in range(3)]
    expected = [next((value for value in row if value), []) for row in rows]
    assert first_filled(columns).to_pylist() == expected
