"""Attributes stay with their products when curate drops rows and joins those of one id."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts import attributes
from mufin.artifacts.attributes import NAME, read_attributes
from mufin.artifacts.tables import SCHEMAS, write_table
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from mufin.catalogs.raw_attributes import AttributeWriter
from mufin.catalogs.raw_products import write_products
from mufin.corpus.attribute_rows import write_attributes
from mufin.corpus.catalog import distinct
from mufin.corpus.clean_rows import clean_rows
from mufin.errors import ArtifactError
from pipeline import curate
from tests.support.artifacts import sealed
from tests.support.raw import written
from tests.support.stages import inside

NAMES = ["n", "flag", "word", "words"]


def raw(folder: Path, products: list[Product], names: list[str] = NAMES) -> Path:
    """`folder` as the stage download writes it, without pictures."""
    folder.mkdir()
    writer = AttributeWriter(names, folder / "waiting", Notes()) if names else None
    write_products(products, folder / "products.parquet", writer)
    if writer:
        writer.close(folder / NAME)
    none = {n: pa.array([], pa.string()) for n in SCHEMAS["image_log"].names}
    write_table(none, "image_log", folder / "image_log.parquet")
    sealed(folder)
    return folder


def kept(folder: Path, made: Path) -> pa.Table:
    """The attributes of the distinct products of `folder`, beside their table in `made`."""
    made.mkdir()
    source = clean_rows(folder, made / "rows.parquet", [], False)
    catalog = distinct(source, folder, False)
    curate._write_products(catalog, made / "products.parquet")
    write_attributes(folder, catalog.rows, made / "products.parquet", made / NAME)
    sealed(made)
    return read_attributes(made)


values = st.tuples(
    st.none() | st.floats(-9, 9),
    st.none() | st.booleans(),
    st.none() | st.sampled_from(["red", "blue"]),
    st.none() | st.sampled_from([["a", "b"], ["b", "c"]]),
)
rows = st.tuples(st.sampled_from(["p", "q", " q ", "r", "s"]), st.sampled_from(["", "t"]), values)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(rows, min_size=1, max_size=12), batch=st.integers(1, 5))
def test_attributes_are_those_of_the_row_that_is_kept(rows, batch, tmp_path_factory):
    products = [Product(uid, title, attributes=value) for uid, title, value in rows]
    products.append(Product("last", "title", attributes=(1.0, True, "red", ["a", "b"])))
    expected: dict[str, tuple] = {}
    for product in products:  # the first row with a title
        if product.title:
            expected.setdefault(product.uid.strip(), product.attributes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attributes, "BATCH", batch)  # other batches than those of the products
        folder = tmp_path_factory.mktemp("case")
        table = kept(raw(folder / "raw", products), folder / "curated")
    assert table.column_names == ["uid", *NAMES]
    assert table["uid"].to_pylist() == list(expected)
    for row in table.to_pylist():
        assert tuple(row[name] for name in NAMES) == expected[row["uid"]]


def test_labels_that_are_no_products_have_no_attributes(tmp_path):
    products = [Product(f"p{i}", "t", related=["l0", "l1"]) for i in range(9)]
    written(tmp_path, products, labels=[("l0", "tag"), ("l1", "other"), ("l2", "unused")])
    table = pa.table({"price": [float(i) for i in range(9)]})
    pq.write_table(table, tmp_path / "data/raw" / NAME)
    sealed(tmp_path / "data/raw")
    with inside(tmp_path):
        curate.main(tmp_path)
    rows = read_attributes(tmp_path / "data/curated").to_pylist()
    assert rows[:9] == [{"uid": f"p{i}", "price": float(i)} for i in range(9)]
    assert rows[9:] == [{"uid": "l0", "price": None}, {"uid": "l1", "price": None}]


def test_a_subsample_keeps_the_attributes_of_its_products(tmp_path):
    near = [[f"p{(i + step) % 40}" for step in range(1, 9)] for i in range(40)]
    products = [Product(f"p{i}", "t", related=near[i]) for i in range(40)]
    written(tmp_path, products)
    pq.write_table(pa.table({"n": [float(i) for i in range(40)]}), tmp_path / "data/raw" / NAME)
    sealed(tmp_path / "data/raw")
    with inside(tmp_path, **{"curate.max_products": 20, "curate.split": "warm"}):
        curate.main(tmp_path)
    table = read_attributes(tmp_path / "data/curated")
    assert len(table) == 20
    assert [f"p{int(n)}" for n in table["n"].to_pylist()] == table["uid"].to_pylist()


def test_without_attributes_the_uids_are_the_only_column(tmp_path):
    products = [Product("a", "t"), Product("b", ""), Product("c", "t")]
    table = kept(raw(tmp_path / "raw", products, []), tmp_path / "curated")
    assert table.to_pydict() == {"uid": ["a", "c"]}


def test_attributes_of_other_products_are_refused(tmp_path):
    folder = raw(tmp_path / "raw", [Product("a", "t"), Product("b", "t")], [])
    pq.write_table(pa.table({"x": [1.0]}), folder / NAME)
    sealed(folder)
    with pytest.raises(ArtifactError, match="has 1 rows for 2 products; run download again"):
        kept(folder, tmp_path / "curated")
