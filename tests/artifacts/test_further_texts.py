"""Reading further texts: row for row with the products, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mufin.artifacts.tables import SCHEMAS
from mufin.artifacts.texts import NAME, further_texts
from mufin.errors import ArtifactError
from tests.support.artifacts import sealed

TABLE = pa.table({"uid": ["a", "b"], "texts": [["x", "y"], []]}, schema=SCHEMAS["texts"])


def curated(folder: Path, table: pa.Table | None) -> Path:
    """A folder with two products, and `table` as their further texts."""
    products = {"uid": ["a", "b"], "title": ["", ""], "images": [[], []], "category": [[], []]}
    pq.write_table(pa.table(products, schema=SCHEMAS["products"]), folder / "products.parquet")
    if table is not None:
        pq.write_table(table, folder / NAME)
    sealed(folder)
    return folder


def test_texts_are_read_as_they_were_written(tmp_path):
    texts = further_texts(curated(tmp_path, TABLE))
    assert texts.type == pa.list_(pa.string())
    assert texts.to_pylist() == [["x", "y"], []]


def test_without_the_file_there_are_none(tmp_path):
    assert further_texts(curated(tmp_path, None)) is None


@pytest.mark.parametrize(
    "table, message",
    [
        (TABLE.slice(1), "it has 1 rows for 2 products"),
        (TABLE.take([1, 0]), "its ids are not those of products.parquet"),
        (TABLE.drop_columns(["uid"]), "has no column uid"),
        (pa.table({"uid": ["a", "b"], "texts": ["x", "y"]}), "has no column texts of list"),
    ],
)
def test_another_table_is_refused(table, message, tmp_path):
    with pytest.raises(ArtifactError, match=message) as error:
        further_texts(curated(tmp_path, table))
    assert "delete it and run `dvc repro`" in str(error.value)


def test_a_changed_or_missing_file_is_refused(tmp_path):
    folder = curated(tmp_path, TABLE)
    (folder / NAME).write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="is damaged"):
        further_texts(folder)
    (folder / NAME).unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        further_texts(folder)


def test_a_file_that_no_stage_wrote_is_refused(tmp_path):
    folder = curated(tmp_path, None)
    pq.write_table(TABLE, folder / NAME)
    with pytest.raises(ArtifactError, match="is not of the pipeline"):
        further_texts(folder)
