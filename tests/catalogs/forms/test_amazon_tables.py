"""The columnar reader of Amazon's metadata of 2018 against the line reader."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.catalogs import json_blocks
from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.forms import amazon
from mufin.catalogs.notes import Notes
from mufin.catalogs.raw_products import first_images, write_products
from mufin.errors import MufinError

GOOD = {"asin": "B1", "title": "A &amp; B", "also_buy": ["B2"], "category": ["x"], "image": []}
ROWS = [
    {},
    {"asin": " B1 "},
    {"asin": None, "title": "t"},
    {"asin": 17, "title": "t"},
    {"asin": 1.0},
    {"asin": 10**40},
    {"asin": "8.9E+12"},
    {"asin": "Ä1", "title": "Ä \U0001f600"},
    {"asin": "B1", "title": None},
    {"asin": "B1", "title": 5},
    {"asin": "B1", "title": ["a"]},
    {"asin": "B1", "title": "<b>a</b> &amp;amp;\u0000\u2028"},
    {"asin": "B1", "title": float("nan"), "price": float("inf")},
    {"asin": "B1", "also_buy": "B2|B3"},
    {"asin": "B1", "also_buy": [["B2"]]},
    {"asin": "B1", "also_buy": {"a": ["B2"]}},
    {"asin": "B1", "also_buy": ["B2", None, " ", " B3\n", "B2", "nan"], "also_view": "B1"},
    {"asin": "B1", "also_buy": [1, "2"]},
    {"asin": "B1", "also_buy": None, "category": None, "image": None},
    {"asin": "B1", "category": ["\xa0é ", "\u200b", "a\tb", "\x1c"]},
    {"asin": "B1", "related": {"also_bought": ["B2"]}, "imUrl": "http://a/1.jpg"},
    {"asin": "B1", "imageURLHighRes": [""], "imageURL": ["http://a/2.jpg"]},
    {"asin": "B1", "imageURLHighRes": [], "imageURL": [], "image": ["http://a/3.jpg"]},
    {"asin": "B1", "imageURL": ["http://a/x._SS40_.jpg", "http://a/x.jpg", "HTTP://a/1.jpg"]},
    {"asin": "B1", "imageURL": ["http://a/x._A_y._SS40_.jpg", "http://a/._a_/b._c_.jpg "]},
    {"asin": "B1", "imageURL": ["http://a/ü._SS40_.jpg", "pictures/1.jpg", "//a/1.jpg"]},
    {"asin": "B1", "imageURL": "http://a/4.jpg"},
    {"asin": "B1", "other": "x" * 5000, "nested": [[[{"a": [1, 2, {"b": None}]}]]]},
]
LINES = [json.dumps(row).encode() for row in ROWS]
LINES += [json.dumps(row, ensure_ascii=False).encode() for row in ROWS]
LINES += [
    b'{"asin": "B1", "title": "\\ud83d"}',
    b'{"asin": "B1", "title": "\\ude00 \\ud83d\\ude00"}',
    b'{"asin": "B1", "other": "\\ud83d"}',
    b'{"asin": "B1", "asin": "B9"}',
    b'{"asin": "B1", "title": "a", "title": null}',
    b'{"asin": "B1", "brand": 1, "brand": "b"}',
    b'{"asin": "B1", "other": ' + b"7" * 4500 + b"}",
    b'{"asin": "B1", "other": ' + b"7" * 4000 + b"}",
    b'{"asin": "B1"}{"asin": "B2"}',
    b'{"asin": "B1",\n"title": "a"}',
    b'{"asin": "B1", "a": {}\n}{"asin": "B2"}',
    b'{"asin": "B1"} ',
    b' {"asin": "B1"}',
    b'{"asin": "B1"}\r',
    b'{"asin": "B1",\r"title": "a"}',
    b'{"asin": "B1", "title": "cut',
    b'{"asin": "B1", "title": "tab\there"}',
    b'{"asin": "B1", "n": 01}',
    b'{"asin": "B1", "n": NaN}',
    b'{"asin": "B1", "n": -}',
    b'{"asin": "B1", "n": 1e999}',
    b'{"asin": "B1", "n": "\\x"}',
    b'{"asin": "B1",}',
    b'{"asin": "B1", "title": "\xff"}',
    b'{"asin": "B1", "other": "\xff"}',
    b'{"asin": "B1", "other": "\xed\xa0\xbd"}',
    b'{"asin": "B1", "title": "a\0b"}',
    b'{" asin": "B1", "asin": "B2"}',
    b'["B1"]',
    b'"B1"',
    b"",
    b"  ",
    b"\xc2\xa0",
    b"\xef\xbb\xbf",
    b"null",
]


def read(how, path: Path, allowed: float, most: int):
    """(bytes of the table, counts of rows, notes), or the error."""
    notes = Notes()
    bad, out = BadRows(notes, allowed), path.with_suffix(".parquet")
    try:
        write_products(first_images(how([path], notes, bad=bad), most), out)
        bad.check()
    except MufinError as error:
        return str(error)
    return out.read_bytes(), bad.rows, bad.bad, notes.counts, notes.examples


def same(path: Path, content: bytes, allowed: float = 1.0, most: int = 2) -> None:
    path.write_bytes(content)
    assert read(amazon.tables_2018, path, allowed, most) == read(
        amazon.products_2018, path, allowed, most
    )


@pytest.mark.parametrize("line", LINES)
def test_a_nasty_line_is_read_as_by_the_line_reader(tmp_path, line):
    good, path = json.dumps(GOOD).encode(), tmp_path / "dump.json"
    for allowed in (0.0, 1.0):
        same(path, b"\n".join([good, good, line, good]) + b"\n", allowed)
    same(path, b"\n".join([line, good]), most=0)
    same(path, b"\n".join([good, line]))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(LINES) | st.just(json.dumps(GOOD).encode()), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.sampled_from([40, 300, 2**22]),
)
def test_any_lines_in_any_blocks_are_read_the_same(tmp_path_factory, lines, end, allowed, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amazon, "BLOCK", size)
        patch.setattr(json_blocks, "STRIDE", 512)
        same(tmp_path_factory.mktemp("dump") / "dump.json", end.join(lines), allowed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
TEXTS = st.lists(st.none() | st.text(max_size=5), max_size=4)
COLUMNS = {
    "title": st.none() | st.text(max_size=8) | JSON,
    "also_buy": TEXTS | JSON,
    "category": TEXTS,
    "imageURL": st.lists(st.sampled_from(["http://a/1._S_.jpg", "http://a/1.jpg", "https://b/2"])),
    "details": JSON,
}


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"asin": st.just("B1")}, optional=COLUMNS), min_size=1),
    st.booleans(),
    st.integers(0, 3),
)
def test_any_json_is_read_the_same(tmp_path_factory, rows, escaped, most):
    lines = [json.dumps(row, ensure_ascii=escaped).encode("utf-8", "surrogatepass") for row in rows]
    same(tmp_path_factory.mktemp("dump") / "dump.json", b"\n".join(lines), most=most)


def test_clean_blocks_take_the_columnar_way(tmp_path, monkeypatch):
    rows = [GOOD | {"asin": f"B{i}", "imageURL": [f"http://a/{i}.jpg"] * 2} for i in range(25_000)]
    path = tmp_path / "dump.json.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode(), 1))
    wanted = read(amazon.products_2018, path, 0.0, 5)
    monkeypatch.setattr(amazon, "BLOCK", 2**18)
    monkeypatch.setattr(amazon, "_of_2018", None)  # the line reader
    assert read(amazon.tables_2018, path, 0.0, 5) == wanted
    file = pq.ParquetFile(path.with_suffix(".parquet"))
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [10_000, 10_000, 5_000]


def test_a_cut_gzip_is_named(tmp_path):
    whole = gzip.compress(b"\n".join([json.dumps(GOOD).encode()] * 1000))
    same(tmp_path / "dump.json.gz", whole[:-20])
