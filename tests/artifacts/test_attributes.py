"""Reading attributes: typed, row for row with the products, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mufin.artifacts.attributes import KINDS, NAME, kind_of, read_attributes
from mufin.artifacts.tables import SCHEMAS
from mufin.errors import ArtifactError
from tests.support.artifacts import sealed

TABLE = pa.table(
    {
        "uid": ["a", "b"],
        "price": pa.array([1.5, None]),
        "stock": pa.array([None, True]),
        "brand": pa.array(["x", None]),
        "tags": pa.array([["x", "y"], None]),
    }
)


def curated(folder: Path, table: pa.Table | None) -> Path:
    """A folder with two products, and `table` as their attributes."""
    products = {"uid": ["a", "b"], "title": ["", ""], "images": [[], []], "category": [[], []]}
    pq.write_table(pa.table(products, schema=SCHEMAS["products"]), folder / "products.parquet")
    if table is not None:
        pq.write_table(table, folder / NAME)
    sealed(folder)
    return folder


def test_attributes_are_read_as_they_were_written(tmp_path):
    table = read_attributes(curated(tmp_path, TABLE))
    assert table.equals(TABLE)
    assert [kind_of(field.type) for field in table.schema] == ["text", *KINDS]


def test_data_of_an_earlier_version_has_no_attributes(tmp_path):
    assert read_attributes(curated(tmp_path, None)).to_pydict() == {"uid": ["a", "b"]}


@pytest.mark.parametrize(
    "table, message",
    [
        (TABLE.slice(1), "it has 1 rows for 2 products"),
        (TABLE.drop_columns(["uid"]), "it begins with the columns .'price'"),
        (pa.table({}), "it begins with the columns"),
        (pa.table({"uid": ["a", "b"], "x": [1, 2]}), "its column x is of int64"),
    ],
)
def test_another_table_is_refused(table, message, tmp_path):
    with pytest.raises(ArtifactError, match=message) as error:
        read_attributes(curated(tmp_path, table))
    assert "delete it and run `dvc repro`" in str(error.value)


def test_a_changed_or_missing_file_is_refused(tmp_path):
    folder = curated(tmp_path, TABLE)
    (folder / NAME).write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="is damaged"):
        read_attributes(folder)
    (folder / NAME).unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        read_attributes(folder)


def test_what_is_no_parquet_is_refused(tmp_path):
    folder = curated(tmp_path, TABLE)
    (folder / NAME).write_bytes(b"no table")
    sealed(folder)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_attributes(folder)
