"""Attributes of catalogs in every form: typed columns, row for row with the products."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.notes import Notes
from mufin.catalogs.own_catalog import Names, OwnCatalog
from mufin.catalogs.product import Product
from mufin.catalogs.raw_attributes import AttributeWriter
from mufin.catalogs.raw_products import write_products
from mufin.errors import MufinError
from tests.support.catalogs import as_file

ROWS = [
    {"id": "a", "price": 12.5, "stock": True, "brand": "Tarn", "tags": ["red", "new"]},
    {"id": "b", "price": 3, "stock": False, "brand": None, "tags": ["red"]},
    {"id": "c", "price": None, "stock": None, "brand": "7", "tags": []},
]
TYPED = {
    "price": [12.5, 3.0, None],
    "stock": [True, False, None],
    "brand": ["Tarn", None, "7"],
    "tags": [["red", "new"], ["red"], None],
}
KINDS = {"price": "number", "stock": "flag", "brand": "text", "tags": "texts"}


def kept(path: Path, names: list[str], notes: Notes | None = None, allowed: float = 0.0):
    """The attributes of the catalog in a file: their kinds, and their table."""
    notes, folder = notes or Notes(), path.parent
    bad = BadRows(notes, allowed)
    own = OwnCatalog(Names("id", "", [], {}, "", names), notes, bad=bad)
    writer = AttributeWriter(names, folder / "waiting.parquet", notes)
    write_products(own.products(path, True), folder / "products.out", writer)
    own.check()
    kinds = writer.close(folder / "attributes.out")
    assert not (folder / "waiting.parquet").exists()
    table = pq.read_table(folder / "attributes.out")
    assert len(table) == pq.read_metadata(folder / "products.out").num_rows
    return kinds, table.to_pydict()


def column(path: Path, values: list, notes: Notes | None = None) -> tuple[str, list]:
    """The kind and the values of one column of a file of JSON lines."""
    rows = [{"id": str(i), "x": value} for i, value in enumerate(values)]
    kinds, table = kept(as_file(path / "a.jsonl", rows), ["x"], notes)
    return kinds["x"], table["x"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz"])
def test_every_form_gives_the_same_typed_columns(name, tmp_path):
    assert kept(as_file(tmp_path / name, ROWS), list(KINDS)) == (KINDS, TYPED)


def test_a_workbook_gives_the_same_typed_columns(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(list(ROWS[0]))
    for row in ROWS:
        book.active.append(["|".join(v) if isinstance(v, list) else v for v in row.values()])
    book.save(tmp_path / "a.xlsx")
    assert kept(tmp_path / "a.xlsx", list(KINDS)) == (KINDS, TYPED)


def test_types_of_parquet_stay(tmp_path):
    columns = {
        "id": ["a", "b"],
        "cents": pa.array([5, None], pa.decimal128(10, 2)),
        "code": pa.array([2**60, 1]),
        "small": pa.array([1.5, float("nan")], pa.float32()),
        "when": pa.array([0, None], pa.date32()),
        "word": pa.array(["x", None]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    kinds, table = kept(tmp_path / "a.parquet", list(columns)[1:])
    assert list(kinds.values()) == ["number", "text", "number", "text", "text"]
    assert table == {
        "cents": [5.0, None],
        "code": [str(2**60), "1"],
        "small": [1.5, None],
        "when": ["1970-01-01", None],
        "word": ["x", None],
    }


def test_names_lead_into_objects_and_lists(tmp_path):
    rows = [
        {"id": "a", "offer": {"price": 2}, "variants": [{"size": "S"}, {"size": "M"}], "a.b": "x"},
        {"id": "b", "offer": '{"price": 3}', "variants": [{"size": "S"}], "a.b": None},
        {"id": "c", "offer": None, "variants": None},
    ]
    names = ["offer.price", "variants[].size", "a.b"]
    kinds, table = kept(as_file(tmp_path / "a.jsonl", rows), names)
    assert kinds == dict(zip(names, ["number", "texts", "text"]))
    assert table["offer.price"] == [2.0, 3.0, None]
    assert table["variants[].size"] == [["S", "M"], ["S"], None]
    assert table["a.b"] == ["x", None, None]


@pytest.mark.parametrize(
    "values, kind, expected, noticed",
    [
        (["5", 6, "7.50"], "number", [5.0, 6.0, 7.5], []),
        (["38", "M", "XL"], "text", ["38", "M", "XL"], ["values of x of another kind"]),
        ([True, "no", "TRUE"], "flag", [True, False, True], []),
        ([True, 1, 2.0], "text", ["true", "1", "2"], ["values of x of another kind"]),
        (["12,50", "3,00", None], "number", [12.5, 3.0, None], ["with a decimal comma"]),
        (["12,50", "3"], "text", ["12,50", "3"], ["values of x of another kind"]),
        (["38,40", "38,40,42"], "text", ["38,40", "38,40,42"], ["values of x of another kind"]),
        (["5 EUR", "6", "7,50 €"], "number", [5.0, 6.0, 7.5], ["without their currency"]),
        (["5 EUR", "$6"], "text", ["5 EUR", "$6"], ["of several currencies"]),
        (["5 EUR", "1,250 EUR"], "text", ["5 EUR", "1,250 EUR"], ["values of x of another kind"]),
        ([None, ""], "text", [None, None], ["attributes without a value"]),
        ([["a", "b"], "c", None, 5], "texts", [["a", "b"], ["c"], None, ["5"]], []),
        ([2**60, 1], "text", [str(2**60), "1"], ["values of x of another kind"]),
        ([{"a": 1}, 5], "number", [None, 5.0], ["objects in x"]),
    ],
)
def test_a_column_is_what_all_its_values_are(values, kind, expected, noticed, tmp_path):
    notes = Notes()
    assert column(tmp_path, values, notes) == (kind, expected)
    assert len(notes.counts) == len(noticed)
    for what, words in zip(notes.counts, noticed):
        assert words in what


def test_numbers_beyond_floats_are_missing(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "a", "x": 1e999}\n{"id": "b", "x": -0.0}\n')
    notes = Notes()
    kinds, table = kept(tmp_path / "a.jsonl", ["x"], notes)
    assert kinds == {"x": "number"} and table == {"x": [None, 0.0]}
    assert notes.counts == {"numbers in x that are not finite, left out": 1}


def test_a_column_that_no_file_has_is_named_with_the_near_one(tmp_path):
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        path = as_file(tmp_path / name, ROWS)
        with pytest.raises(MufinError, match=r"no column 'prcie' .*attributes to price"):
            kept(path, ["stock", "prcie"])


def test_a_column_may_be_a_title_and_an_attribute(tmp_path):
    names = Names("id", "brand", [], {}, "", ["brand", "id"])
    assert names.keys() == {"id": "id", "brand": "title"}
    kinds, table = kept(as_file(tmp_path / "a.csv", ROWS), ["id"])
    assert table == {"id": ["a", "b", "c"]}


def test_dropped_rows_leave_no_attributes(tmp_path):
    rows = [ROWS[0], {**ROWS[1], "id": ["not", "an id"]}, ROWS[2]]
    kinds, table = kept(as_file(tmp_path / "a.jsonl", rows), ["price"], allowed=0.5)
    assert table == {"price": [12.5, None]}


def test_batches_keep_their_order(tmp_path):
    rows = [{"id": f"p{i}", "n": i} for i in range(25_000)]
    kinds, table = kept(as_file(tmp_path / "a.jsonl", rows), ["n"])
    assert kinds == {"n": "number"} and table["n"] == list(range(25_000))


def test_large_texts_take_no_memory(tmp_path):
    """Ten thousand rows wait for each other; their texts of a megabyte are cut before that."""
    notes, text = Notes(), json.dumps({"id": "ID", "x": "a" * 2**20})
    with open(tmp_path / "a.jsonl", "w") as file:
        for i in range(100):
            file.write(text.replace("ID", str(i)) + "\n")
    tracemalloc.start()
    kinds, table = kept(tmp_path / "a.jsonl", ["x"], notes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 2**20 and len(table["x"][99]) == 1000


scalars = st.none() | st.booleans() | st.integers(-100, 100) | st.sampled_from(["a", "5", "no"])


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(scalars, scalars | st.lists(st.sampled_from("ab"))), min_size=1))
def test_no_value_is_lost_or_moved(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    writer = AttributeWriter(["x", "y"], folder / "waiting", Notes())
    cleaned = [(x, y if not isinstance(y, list) else (y if len(y) > 1 else None)) for x, y in rows]
    products = (Product(str(i), attributes=row) for i, row in enumerate(cleaned))
    write_products(products, folder / "products", writer)
    writer.close(folder / "attributes")
    table = pq.read_table(folder / "attributes").to_pydict()
    for name, given_values in zip("xy", zip(*cleaned)):
        for value, found in zip(given_values, table[name]):
            assert (value is None) == (found is None)
            if value is not None:
                texts = value if isinstance(value, list) else [str(value).lower()]
                assert _texts(found) == texts or _same(found, value)


def _texts(found: object) -> list[str]:
    if isinstance(found, list):
        return found
    return [str(found).lower()]


def _same(found: object, value: object) -> bool:
    """A number or flag that a text says."""
    words = {"no": False, "5": 5.0}
    return found == (words.get(value, value) if isinstance(value, str) else value)
