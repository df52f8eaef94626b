"""Tables between stages: of their schema, published whole; errors name file and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mufin.artifacts.curated import read_split
from mufin.artifacts.tables import (
    SCHEMAS,
    batch_count,
    narrow,
    read_ranking,
    read_table,
    table_batches,
    wide,
    write_ranking,
    write_table,
)
from mufin.errors import ArtifactError
from tests.support.artifacts import sealed

SOME = {
    pa.string(): ["a", ""],
    pa.int32(): [3, 0],
    pa.int64(): [2**40, -1],
    pa.float32(): [0.5, 0.0],
    pa.float64(): [1e9 + 0.1, 0.0],
    pa.bool_(): [True, False],
    pa.list_(pa.string()): [["x", "y"], []],
    pa.list_(pa.int32()): [[2, 1], []],
    pa.list_(pa.float32()): [[0.5], []],
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_table_comes_back_as_it_was_written(tmp_path, schema):
    columns = {f.name: SOME[f.type] for f in SCHEMAS[schema]}
    more = columns | {"more": [1, 2]}  # not in the schema: left out
    write_table(more, schema, tmp_path / "t.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    table = read_table(sealed(tmp_path) / "t.parquet", schema)
    assert table.schema.equals(SCHEMAS[schema]) and table.to_pydict() == columns
    name = SCHEMAS[schema].names[-1]
    assert read_table(tmp_path / "t.parquet", schema, [name]).column_names == [name]
    batches = list(table_batches(tmp_path / "t.parquet", schema, [name], 1))
    assert batch_count(tmp_path / "t.parquet", 1) == len(batches)
    assert len(batches) == 2 and pa.Table.from_batches(batches).to_pydict() == {name: columns[name]}


@pytest.mark.parametrize(
    "change",
    [
        {"product": [1, 2**40]},
        {"product": np.array([1.5, 2])},
        {"product": ["a", "b"]},
        {"labels": [1, 2]},
        {"product": [1]},
        "excluded",
    ],
    ids=["too large", "fractions", "strings", "no lists", "too short", "one left out"],
)
def test_wrong_columns_are_refused_and_the_old_table_stays(tmp_path, change):
    columns = {"product": [1, 2], "labels": [[1], []], "excluded": [[], [0]]}
    write_table(columns, "split", tmp_path / "t.parquet")
    bad = (
        {n: c for n, c in columns.items() if n != change}
        if isinstance(change, str)
        else columns | change
    )
    with pytest.raises((KeyError, pa.ArrowInvalid, pa.ArrowTypeError)):
        write_table(bad, "split", tmp_path / "t.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    assert read_table(sealed(tmp_path) / "t.parquet", "split").to_pydict() == columns


def all_readers(path: Path, schema: str):
    return [
        lambda: read_table(path, schema),
        lambda: read_table(path, schema, ["labels"]),
        lambda: list(table_batches(path, schema, ["product", "labels"])),
        lambda: read_split(path),
    ]


@pytest.mark.parametrize("reader", range(4))
@pytest.mark.parametrize(
    "labels, said",
    [
        (None, "labels of list<.*int32>"),
        (pa.array([1, 2]), "labels of list<.*int32>"),
        (pa.array([["a"], []]), "labels of list<.*int32>"),
        (pa.array([[1], []], pa.list_(pa.int64())), "labels of list<.*int32>"),
    ],
    ids=["missing", "numbers", "strings", "of 64 bits"],
)
def test_a_wrong_column_is_named_with_its_file(tmp_path, reader, labels, said):
    path = tmp_path / "train.parquet"
    columns = {
        "product": pa.array([1, 2], pa.int32()),
        "excluded": pa.array([[], []], pa.list_(pa.int32())),
    }
    pq.write_table(pa.table(columns | ({} if labels is None else {"labels": labels})), path)
    sealed(tmp_path)
    with pytest.raises(
        ArtifactError, match=f"train.parquet has no column {said}; .*run `dvc repro`$"
    ):
        all_readers(path, "split")[reader]()


@pytest.mark.parametrize("reader", range(4))
def test_missing_and_broken_tables_are_named_with_the_remedy(tmp_path, reader):
    path = tmp_path / "train.parquet"
    with pytest.raises(ArtifactError, match="train.parquet is missing; run `dvc repro`"):
        all_readers(path, "split")[reader]()
    write_table({"product": [1, 2], "labels": [[1], []], "excluded": [[], [0]]}, "split", path)
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[:-20], b"PAR1" + b"x" * 99 + b"PAR1"):
        path.write_bytes(broken)
        sealed(tmp_path)
        with pytest.raises(
            ArtifactError,
            match="(?s)train.parquet cannot be read .*; delete it and run `dvc repro`$",
        ):
            all_readers(path, "split")[reader]()
    path.unlink()
    path.mkdir()
    with pytest.raises(ArtifactError, match="train.parquet is missing"):
        all_readers(path, "split")[reader]()


@pytest.mark.parametrize("schema", ["predictions", "shortlist"])
def test_rankings_come_back_padded_and_cut_to_the_longest(tmp_path, schema):
    labels = np.array([[5, 2, -1, -1], [7, 1, 3, -1], [-1, -1, -1, -1]])
    scores = np.array([[0.5, 0.25, -9, -9], [0.75, 0.5, 0.125, -9], [-9] * 4], np.float32)
    write_ranking(labels, scores, tmp_path / "r.parquet", schema)
    table = read_table(sealed(tmp_path) / "r.parquet", schema).to_pydict()
    assert table["labels"] == [[5, 2], [7, 1, 3], []]
    assert table[SCHEMAS[schema].names[1]] == [[0.5, 0.25], [0.75, 0.5, 0.125], []]
    back = read_ranking(tmp_path / "r.parquet", schema)
    assert back.dtype == np.int64 and np.array_equal(back, labels[:, :3])


def test_a_wide_column_joins_more_than_two_to_the_31_values():
    chunk = pa.ListArray.from_arrays(pa.array([0, 2**30], pa.int32()), pa.nulls(2**30))
    table = pa.table({"many": pa.chunked_array([chunk] * 3)})
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        pa.concat_arrays(table["many"].chunks)
    column = wide(table)["many"]
    assert column.num_chunks == 1
    assert column.chunk(0).offsets.to_pylist() == [0, 2**30, 2**31, 3 * 2**30]


def test_narrow_columns_are_those_before_wide():
    columns = {"uid": ["a", None], "images": [["k", "l"], None], "weight": [1.0, None]}
    table = pa.table(columns, metadata={"made": "here"})
    parts = pa.concat_tables([table, table])
    found = wide(parts)
    assert pa.types.is_large_string(found.schema.field("uid").type)
    assert all(column.num_chunks == 1 for column in found.columns)
    assert narrow(found).equals(parts) and narrow(found.slice(2)).equals(table)
    assert narrow(found).schema.equals(table.schema, check_metadata=True)
