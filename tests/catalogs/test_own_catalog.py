"""Your own catalog, whole and broken, from files, folders and URLs, also through `download`."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mufin import runtime
from mufin.catalogs import locations, parquet_rows
from mufin.catalogs.notes import Notes
from mufin.catalogs.own_catalog import Names, OwnCatalog
from mufin.catalogs.product import Product
from mufin.corpus import collecting, fetch
from mufin.corpus.fetch import Fetcher
from mufin.corpus.fetch_log import FetchLog
from mufin.errors import MufinError
from pipeline import download
from tests.support import catalogs
from tests.support.catalogs import (
    GOOD,
    PRODUCTS,
    Shelf,
    as_file,
    refused,
    settings,
    untouched,
)
from tests.support.servers import Server, jpeg, limits, serving

workplace = catalogs.workplace

COLUMNS = {
    "id": "ASIN",
    "title": "title",
    "images": "images",
    "related": "also_buy",
    "category": "category",
}
NAMES = Names("ASIN", "title", ["images"], {"also_buy": 1.0}, "category")


def catalog(files, names, notes, **how):
    """The products of all files of a catalog, in their order, as the stage download reads them."""
    files = list(files)
    own = OwnCatalog(names, notes, **how)
    for path in files:
        yield from own.products(path, len(files) == 1)
    own.check()
    own.bad.check()


def read(path: Path, names: Names = NAMES, notes: Notes | None = None, **settings) -> list[Product]:
    """The products of one file."""
    return list(catalog([path], names, notes or Notes(), **settings))


# Catalogs in every form


def as_rows(columns: dict[str, str]) -> list[dict]:
    fields = {"id": "uid"}
    return [
        {column: getattr(p, fields.get(name, name)) for name, column in columns.items()}
        for p in PRODUCTS
    ]


FORMS = ["a.jsonl", "a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.tsv", "a.parquet"]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "columns",
    [
        COLUMNS,
        {
            "id": "sku",
            "title": "name",
            "images": "pictures",
            "related": "bought_with",
            "category": "path",
        },
    ],
    ids=["default", "renamed"],
)
def test_every_form_of_a_catalog_gives_the_same_products(tmp_path, name, columns):
    chosen = Names(
        columns["id"],
        columns["title"],
        [columns["images"]],
        {columns["related"]: 1.0},
        columns["category"],
    )
    assert read(as_file(tmp_path / name, as_rows(columns)), chosen) == PRODUCTS


@pytest.mark.parametrize("name", FORMS)
def test_ids_may_be_numbers_and_most_columns_missing(tmp_path, name):
    rows = [{"ASIN": 7, "also_buy": [8]}, {"ASIN": 8, "also_buy": [7]}]
    if name.endswith(("csv", "tsv", "csv.gz")):
        rows = [{"ASIN": row["ASIN"], "also_buy": row["also_buy"][0]} for row in rows]
    chosen = Names("ASIN", "title", [], {"also_buy": 1.0}, "category")
    assert read(as_file(tmp_path / name, rows), chosen) == [
        Product("7", related=["8"]),
        Product("8", related=["7"]),
    ]


def test_byte_order_marks_and_blank_lines_are_accepted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"ASIN": "a", "title": "caf\\u00e9 \\ud83d", "also_buy": "b|c"}\n'
        b'\n  \n{"ASIN": "b"}\n'
    )
    assert read(path, optional=["images"]) == [
        Product("a", "café ?", [], ["b", "c"]),
        Product("b"),
    ]


# Columns


def names(**changes) -> Names:
    return replace(NAMES, **changes)


def test_several_columns_of_images_are_joined_in_order(tmp_path):
    (tmp_path / "a.csv").write_text("ASIN,main,more,also_buy\na,1.jpg,2.jpg|1.jpg,b\nb,,3.jpg,\n")
    products = read(tmp_path / "a.csv", names(images=["main", "more"]), optional=["images"])
    assert [p.images for p in products] == [["1.jpg", "2.jpg", "1.jpg"], ["3.jpg"]]


def test_weighted_columns_give_each_id_the_sum_of_weights(tmp_path):
    (tmp_path / "a.csv").write_text("ASIN,images,buy,view\na,,b|c|b,d|c\nb,,,a\n")
    products = read(tmp_path / "a.csv", names(related={"buy": 1.0, "view": 0.3}))
    assert [(p.related, p.weights) for p in products] == [
        (["b", "c", "d"], [1.0, 1.3, 0.3]),
        (["a"], [0.3]),
    ]
    products = read(tmp_path / "a.csv", names(related={"buy": 1.0, "view": 1.0}))
    assert [(p.related, p.weights) for p in products] == [(["b", "c", "d"], []), (["a"], [])]


def test_no_name_is_no_column_even_if_one_has_no_name(tmp_path):
    (tmp_path / "a.csv").write_text(",ASIN,also_buy\n7,a,b\n8,b,\n")
    unnamed = names(title="", category="", images=[])
    assert [(p.title, p.category) for p in read(tmp_path / "a.csv", unnamed)] == [("", [])] * 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
def test_nested_columns_name_fields_of_objects(tmp_path, name):
    rows = [
        {
            "data": {"id": "a", "title": "table"},
            "images": [{"hi_res": "1.jpg"}, {"hi_res": None}, {"hi_res": "2.jpg"}],
            "rel": {"bought": ["b"]},
        }
    ]
    if name == "a.csv":  # then cells hold JSON
        rows = [{key: json.dumps(value) for key, value in row.items()} for row in rows]
    path = as_file(tmp_path / name, rows)
    columns = Names("data.id", "data.title", ["images[].hi_res"], {"rel.bought": 1.0}, "category")
    assert read(path, columns) == [Product("a", "table", ["1.jpg", "2.jpg"], ["b"])]


def test_parquet_may_hold_the_images_themselves(tmp_path):
    rows = [
        {"ASIN": "a", "images": [{"bytes": b"1", "path": None}, {"bytes": b"2", "path": "2.jpg"}]},
        {"ASIN": "b", "images": [{"bytes": None, "path": "3.jpg"}]},
        {"ASIN": "c", "images": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    products = read(
        tmp_path / "a.parquet",
        keep=lambda content: f"kept:{content.decode()}",
        optional=["related"],
    )
    assert [p.images for p in products] == [["kept:1", "kept:2"], ["3.jpg"], []]
    pq.write_table(pa.table({"ASIN": ["a"], "images": [b"4"]}), tmp_path / "a.parquet")
    (product,) = read(
        tmp_path / "a.parquet",
        keep=lambda content: f"kept:{content.decode()}",
        optional=["related"],
    )
    assert product.images == ["kept:4"]


def test_a_row_group_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "MOST", 2**20)
    pq.write_table(pa.table({"ASIN": ["a"], "images": [bytes(2**20)]}), tmp_path / "a.parquet")
    with pytest.raises(MufinError, match="a.parquet has a row group of 1 MB, .*row_group_size=100"):
        read(tmp_path / "a.parquet", keep=lambda content: "kept", optional=["related"])
    assert read(tmp_path / "a.parquet", names(images=[]), optional=["related"]) == [Product("a")]


def test_a_column_that_only_some_files_have_is_joined_and_said_once(tmp_path):
    (tmp_path / "a.csv").write_text("ASIN,title,images\na,x,\nb,y,\n")
    (tmp_path / "b.csv").write_text("ASIN,images,also_buy\nc,1.jpg,a\n")
    pq.write_table(pa.table({"ASIN": ["d"], "title": ["z"]}), tmp_path / "c.parquet")
    notes = Notes()
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.parquet")]
    products = list(catalog(paths, names(category=""), notes))
    assert [(p.uid, p.title, p.related) for p in products] == [
        ("a", "x", []),
        ("b", "y", []),
        ("c", "", ["a"]),
        ("d", "z", []),
    ]
    assert notes.counts == {
        "files without the column also_buy": 2,
        "files without the column title": 1,
        "files without the column images": 1,
    }


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "has, key, near",
    [
        ("also_buys", "related", "also_buys"),
        ("upsells", "related", "upsells"),
        ("imgaes", "images", "imgaes"),
        ("Picture URL", "images", "Picture URL"),
        ("product_name", "title", "product_name"),
        ("colour", "images", ""),
        ("colour", "related", ""),
    ],
)
def test_a_column_that_no_file_has_is_named_with_a_good_hint(
    tmp_path, count, ending, has, key, near
):
    setting = {"related": "also_buy"}.get(key, key)
    row = {"ASIN": "a", "title": "x", "images": "1.jpg", "also_buy": "b", "category": "c"}
    row = {has if name == setting else name: value for name, value in row.items()}
    paths = [as_file(tmp_path / f"{n}.{ending}", [row]) for n in range(count)]
    with pytest.raises(MufinError) as error:
        list(catalog(paths, NAMES, Notes()))
    remedy = f"set download.columns.{key}" + (f" to {near}" if near else "")
    assert f"0.{ending} has no column {setting!r} (it has " in str(error.value)
    assert remedy in str(error.value)
    none = "or to [] if there are none" in str(error.value)
    assert none == (key != "title") and (near or " to also_buy" not in str(error.value))


def test_no_hint_names_a_column_that_is_in_use(tmp_path):
    (tmp_path / "a.csv").write_text("ASIN,title,image\na,x,1.jpg\n")
    with pytest.raises(MufinError, match=r"set download.columns.related to the column that has"):
        read(tmp_path / "a.csv", names(images=["image"]))


def test_empty_settings_need_no_column(tmp_path):
    (tmp_path / "a.csv").write_text("ASIN,name\na,x\n")
    notes = Notes()
    assert read(tmp_path / "a.csv", Names("ASIN", "", [], {}, ""), notes) == [Product("a")]
    assert notes.counts == {}


def test_a_file_without_products_among_others_is_counted(tmp_path):
    (tmp_path / "a.csv").write_text("ASIN,images,also_buy\n")
    (tmp_path / "b.csv").write_text("ASIN,images,also_buy\na,,b\n")
    notes = Notes()
    products = list(catalog([tmp_path / "a.csv", tmp_path / "b.csv"], NAMES, notes))
    assert [p.uid for p in products] == ["a"] and notes.counts["files without a product"] == 1


# Bad rows


def test_bad_rows_of_every_kind_are_dropped_up_to_the_share(workplace):
    lines = [json.dumps({"ASIN": f"p{n}", "images": [], "also_buy": ["p0"]}) for n in range(16)]
    lines += ['{"ASIN": ', '{"title": "x"}', '{"ASIN": "q", "also_buy": [{}]}', '{"ASIN": 7}']
    Path("a.jsonl").write_text("\n".join(lines))
    settings(download__source="catalog", download__location="a.jsonl")
    refused(r"a.jsonl line 17 is not JSON .*download.bad_rows to the share")
    settings(download__source="catalog", download__location="a.jsonl", download__bad_rows=0.1)
    refused(
        r"4 of 20 rows are bad, more than download.bad_rows \(0.1\); the first: a.jsonl line 17"
    )
    settings(download__source="catalog", download__location="a.jsonl", download__bad_rows=0.2)
    download.main()
    facts = json.loads(Path("metrics/download.json").read_text())
    assert facts["products"] == 16
    assert facts["notes"]["bad rows, dropped"]["count"] == 4
    assert "line 17" in facts["notes"]["bad rows, dropped"]["example"]


def test_one_type_of_ids_is_a_matter_of_each_file_alone(tmp_path):
    as_file(tmp_path / "a.jsonl", [{"ASIN": 7, "images": [], "also_buy": []}])
    as_file(tmp_path / "b.jsonl", [{"ASIN": "8", "images": [], "also_buy": []}])
    products = catalog([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], NAMES, Notes())
    assert [p.uid for p in products] == ["7", "8"]


def test_a_catalog_through_download_keeps_products_pictures_and_reasons(workplace):
    Path("shop/img").mkdir(parents=True)
    for i in range(4):
        Path(f"shop/img/{i}.jpg").write_bytes(jpeg(i % 2))
    rows = [
        {
            "ASIN": f"p{i}",
            "title": "",
            "images": [f"img/{i}.jpg", f"img/{i}.jpg", "img/none.jpg"],
            "also_buy": ["p0"],
            "category": None,
        }
        for i in range(4)
    ]
    as_file(Path("shop/a.jsonl"), rows)
    settings(download__source="catalog", download__location="shop/a.jsonl")
    download.main()
    products, log = (
        pq.read_table(f"data/raw/{name}.parquet").to_pylist() for name in ("products", "image_log")
    )
    assert [p["images"] for p in products] == [[f"img/{i}.jpg", "img/none.jpg"] for i in range(4)]
    assert [r["reason"] for r in log] == [""] * 4 + ["no such file"]
    assert [r["url"] for r in log] == [f"img/{i}.jpg" for i in (0, 1, 2, 3, "none")]
    store = {r["key"]: r["bytes"] for r in pq.read_table("data/raw/images").to_pylist()}
    assert [store[r["key"]] for r in log[:4]] == [jpeg(0), jpeg(1), jpeg(0), jpeg(1)] and len(
        store
    ) == 2
    assert json.loads(Path("metrics/download.json").read_text())["failed"] == {"no such file": 1}
    assert not Path("data/raw/earlier.txt").exists()


ZIPPED = gzip.compress(
    GOOD * 400 + json.dumps([zlib.crc32(bytes([i % 256, i // 256])) for i in range(3000)]).encode(),
    mtime=0,
)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.jsonl", b"hello\n", r"a.jsonl line 1 is not JSON .*correct or delete it"),
        (
            "a.jsonl",
            GOOD + b'\n{"ASIN": "b", "ti',
            r"a.jsonl line 3 is not JSON .*cut off\? correct or delete it",
        ),
        (
            "a.jsonl",
            GOOD + b"[1, 2]\n",
            r"a.jsonl line 2 is a JSON list, not an object; write one product per line",
        ),
        (
            "a.jsonl",
            GOOD.replace(b"ASIN", b"asin"),
            r"a.jsonl line 1 has no column 'ASIN' .*set download.columns.id to asin$",
        ),
        (
            "a.csv",
            b"ASIN,title,images,alsobuy\na,table,,b\n",
            r"a.csv has no column 'also_buy' .*columns.related to alsobuy, or to \[\]",
        ),
        (
            "a.jsonl",
            GOOD + GOOD + b'{"ASIN": 7}\n',
            r"a.jsonl line 3 has the id 7, of another type .*make all ids in ASIN texts",
        ),
        (
            "a.jsonl",
            GOOD + b'{"title": "chair"}\n',
            r"a.jsonl line 2 has the id None in ASIN; an id must be a text or",
        ),
        (
            "a.jsonl",
            b'{"ASIN": 1.5}\n',
            r"a.jsonl line 1 has the id 1.5 in ASIN; an id must be a text or a whole number",
        ),
        (
            "a.jsonl",
            GOOD + b'{"ASIN": "b", "also_buy": {"c": 1}}\n',
            r"a.jsonl line 2 has an object in also_buy; it must",
        ),
        (
            "a.csv",
            b"ASIN,images,also_buy\na,,[b\n",
            r"a.csv line 2 has '\[b' in also_buy, which is not a JSON list",
        ),
        ("a.jsonl", b"", r"a.jsonl is empty; a catalog has one product per line"),
        ("a.csv", b"ASIN,title,also_buy\n", r"a.csv is empty; a catalog has one product per line"),
        (
            "a.csv",
            b"ASIN,also_buy,images\n\n\na,b,c,d\n",
            r"a.csv line 4 has more cells than the header; quote cells",
        ),
        (
            "a.csv",
            b"ASIN,images,also_buy\na,b\n",
            r"a.csv line 2 has fewer cells than the header; quote cells",
        ),
        (
            "a.csv",
            b'ASIN,also_buy\na,"b\n' + b"c,d\n" * 40_000,
            r"a.csv line 2 cannot be read .*close the quote that is open",
        ),
        (
            "a.csv",
            b'images,ASIN,also_buy\n,a,b\n\n,c,"d\n,e,f\n',
            r"a.csv line 4 cannot be read .*end of the file.*close the quote",
        ),
        (
            "a.tsv",
            b'ASIN\talso_buy\ta\n"c\td\te\n\ng\th\ti\n',
            r"a.tsv line 2 cannot be read .*end of the file",
        ),
        (
            "a.csv",
            b"ASIN,title,also_buy,title\na,b,c,d\n",
            r"a.csv has the column 'title' 2 times; keep one, or rename",
        ),
        ("a.csv.gz", b"", r"a.csv.gz is empty; a catalog has one product per line"),
        (
            "a.jsonl",
            b'{"ASIN": "a", "ASIN": "b"}\n',
            r"a.jsonl line 1 has 'ASIN' 2 times; keep one of them",
        ),
        (
            "a.jsonl",
            b'{"ASIN": ' + b"9" * 5000 + b"}\n",
            r"a.jsonl line 1 is JSON, but not of a product; correct or delete it",
        ),
        (
            "a.jsonl",
            b'{"ASIN": "a", "images": ' + b"[" * 100_000 + b"\n",
            r"a.jsonl line 1 is JSON, but not of a product",
        ),
        (
            "a.jsonl",
            b'{"ASIN": "a", "images": "' + b"[" * 100_000 + b'"}\n',
            r"line 1 has '\[+' in images, which is not a JSON list",
        ),
        (
            "a.jsonl",
            b'{"ASIN": "a", "title": {"en": "b"}}\n',
            r"a.jsonl line 1 has {'en': 'b'} in title; a title must be a text",
        ),
        (
            "a.jsonl",
            b'{"ASIN": "a", "images": [{}], "also_buy": []}\n',
            r"a.jsonl line 1 has {} inside images; it must be a list of texts",
        ),
        (
            "a.jsonl",
            b'{"ASIN": "' + b" " * 10**6 + b'"}\n',
            r"a.jsonl line 1 has the id ' +\.\.\. in ASIN; an id must be a text or",
        ),
        (
            "a.jsonl",
            '{"ASIN": "a"}\n'.encode("utf-16-le"),
            r"a.jsonl line 1 has a NUL character.* UTF-16, set download.encoding to utf-16-le",
        ),
        (
            "a.jsonl",
            GOOD + "\ufffd".encode() + b"\n" + b"\xe9\n",
            r"a.jsonl line 2 is not JSON|line 3 is not UTF-8",
        ),
        (
            "a.jsonl",
            gzip.compress(GOOD * 9, mtime=0)[:-20],
            r"a.jsonl is a broken or cut-off gzip file; fetch it again",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b"\xe9" + ZIPPED * 9, mtime=0)[:-4000],
            r"a.jsonl.gz line 1 is not UTF-8 text; convert the file",
        ),
        (
            "a.jsonl",
            b'{"ASIN": "a", "title": "table", "images": []}\n',
            r"a.jsonl has no column 'also_buy' .*set download.columns.related to the column",
        ),
        (
            "a.jsonl.gz",
            ZIPPED[:-500],
            r"a.jsonl.gz is a broken or cut-off gzip file; fetch it again",
        ),
        (
            "a.jsonl.gz",
            ZIPPED[:12] + b"\xff" * 200 + ZIPPED[212:],
            r"a.jsonl.gz is a broken or cut-off gzip file; fetch it again",
        ),
        ("a.jsonl.gz", GOOD, r"a.jsonl.gz is a broken or cut-off gzip file; fetch it again"),
        (
            "a.jsonl",
            GOOD * 300 + b'{"ASIN": "b", "title": "caf\xe9"}\n',
            r"a.jsonl line 301 is not UTF-8 text; convert the file",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(GOOD + b'"\xe9"', mtime=0),
            r"a.jsonl.gz line 2 is not UTF-8 text; convert the file",
        ),
        (
            "a.parquet",
            b"PAR1 no table PAR1",
            r"a.parquet is not a complete Parquet file .*write it again",
        ),
        ("a.parquet", b"", r"a.parquet is not a complete Parquet file .*write it again"),
    ],
)
def test_a_broken_catalog_is_named_by_file_and_line(workplace, name, content, message):
    Path(name).write_bytes(content)
    settings(download__source="catalog", download__location=name)
    refused(message)


def test_a_parquet_file_with_broken_pages_is_named(workplace):
    as_file(
        Path("a.parquet"),
        [{"ASIN": f"p{i}", "title": f"{i * 7919}", "also_buy": ["p0"]} for i in range(3000)],
    )
    content = Path("a.parquet").read_bytes()
    Path("a.parquet").write_bytes(content[:4] + b"\xff" * 3000 + content[3004:])
    settings(download__source="catalog", download__location="a.parquet")
    refused(r"a.parquet is not a complete Parquet file .*write it again")


def test_too_many_dead_pictures_end_the_stage_until_mended(
    workplace,
):
    as_file(
        Path("a.jsonl"),
        [{"ASIN": f"p{i}", "images": [f"{i}.jpg"], "also_buy": ["p0"]} for i in range(4)],
    )
    settings(download__source="catalog", download__location="a.jsonl")
    refused(
        r"4 of 4 image references gave no picture \(no such file: 4, such as '0.jpg'\), "
        r"more than download.max_failed \(0.25\); correct the references"
    )
    for i in range(4):
        Path(f"{i}.jpg").write_bytes(jpeg(i))
    download.main()
    assert json.loads(Path("data/raw/source.json").read_text())["failed"] == {}


@pytest.mark.parametrize("where", ["products", "log"])
def test_no_space_left_is_one_sentence_and_changes_nothing(workplace, monkeypatch, capsys, where):
    Path("a.jpg").write_bytes(jpeg(1))
    # files are read each time, and not logged
    urls = ["https://pictures.example/b.jpg"] if where == "log" else []
    as_file(
        Path("a.jsonl"),
        [{"ASIN": "a", "images": ["a.jpg", *urls], "also_buy": ["b"]}, {"ASIN": "b"}],
    )
    settings(download__source="catalog", download__location="a.jsonl")

    def fetched(references, *_):
        return ([(reference, jpeg(2), "")] for reference in references)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "products":
        monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    else:
        monkeypatch.setattr(collecting, "fetch_all", fetched)
        monkeypatch.setattr(FetchLog, "add", full)
    monkeypatch.setattr(sys, "argv", ["download"])
    with pytest.raises(SystemExit) as error:
        runtime.run(download.main)
    said = capsys.readouterr().err
    assert error.value.code == 1 and said.count("\n") == 1
    assert re.match(
        r"error: .*cannot be written: No space left on device; free space or choose another place",
        said,
    )
    untouched()
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(collecting, "fetch_all", fetched)
    download.main()
    assert json.loads(Path("data/raw/source.json").read_text())["pictures"] == 1 + len(urls)


def test_a_changed_picture_file_is_read_again(workplace):
    as_file(Path("a.jsonl"), [{"ASIN": "a", "images": ["a.jpg"], "also_buy": ["b"]}, {"ASIN": "b"}])
    settings(download__source="catalog", download__location="a.jsonl")
    for number in (1, 2):
        Path("a.jpg").write_bytes(jpeg(number))
        download.main()
        assert pq.read_table("data/raw/images")["bytes"].to_pylist() == [jpeg(number)]


# Locations


def test_files_are_found_in_order_and_each_once(tmp_path):
    for name in ("meta_b.json.gz", "meta_a.json", "other.json"):
        (tmp_path / name).touch()
    (tmp_path / "only").mkdir()

    def names(*where):
        return [
            file.path.name
            for file in locations.files_of([str(tmp_path / one) for one in where], lambda url: None)
        ]

    assert names("") == ["meta_a.json", "meta_b.json.gz"]
    assert names("o*", "meta_a.json", "*.json") == ["other.json", "meta_a.json"]


@pytest.mark.parametrize(
    "location, message",
    [
        (
            ["gone/*.jsonl"],
            r"download.location names gone/\*.jsonl, which does not exist; "
            r"give a file, a folder, a glob or a URL",
        ),
        (
            "data",
            r"download.location names data, a folder without meta_\*.json\* files; "
            r"name the files .* data/\*.jsonl",
        ),
        (
            "da*",
            r"download.location names da\*, which does not exist; "
            r"give a file, a folder, a glob or a URL",
        ),
        (
            "~nobody-here/a.jsonl",
            r"download.location names ~nobody-here/a.jsonl, which cannot be opened .*; "
            r"give a file",
        ),
        (
            "x" * 5000,
            r"download.location names x{200}, which cannot be opened \(File name too long\); "
            r"give a file",
        ),
    ],
)
def test_a_location_that_is_no_file_is_named(workplace, location, message):
    settings(download__source="catalog", download__location=location)
    refused(message)


@pytest.mark.parametrize("source", ["catalog", "amazon-2018", "mm-amazontitles"])
def test_a_missing_relative_path_tells_of_dvcs_folder(workplace, source):
    settings(download__source=source, download__location="shop.zip")
    refused(f"looked for in {workplace}.*--queue.*--temp.* absolute path.* `git add` or `dvc add`$")
    settings(download__source=source, download__location=str(workplace / "shop.zip"))
    refused(f"{workplace}/shop.zip, which does not exist; give [^.`]*$")


def stores(*names: str) -> None:
    """Folders, each with a catalog of one product, its own picture, and ways out of the folder."""
    for number, name in enumerate(names):
        folder = Path(name)
        (folder / "img").mkdir(parents=True)
        (folder / "img/a.jpg").write_bytes(jpeg(number))
        (folder / "link.jpg").symlink_to(Path(names[number - 1], "img/a.jpg").resolve())
        others = [
            f"../{Path(names[number - 1]).name}/img/a.jpg",
            str(Path(names[number - 1], "img/a.jpg").resolve()),
            Path(names[number - 1], "img/a.jpg").resolve().as_uri(),
            "link.jpg",
        ]
        row = {
            "ASIN": name,
            "images": [
                "img/a.jpg",
                "./img/../img/a.jpg",
                str((folder / "img/a.jpg").resolve()),
                *others,
            ],
            "also_buy": list(names),
        }
        as_file(folder / "a.jsonl", [row])


@pytest.mark.parametrize("names", [("one", "two"), ("shop/one", "shop/two"), ("shop", "shop/two")])
def test_pictures_come_only_from_their_own_files_folder(workplace, names):
    stores(*names)
    settings(
        download__source="catalog",
        download__location=[f"{name}/a.jsonl" for name in names],
        download__max_failed=1.0,
    )
    download.main()
    products = pq.read_table("data/raw/products.parquet").to_pylist()
    log = {r["url"]: r for r in pq.read_table("data/raw/image_log.parquet").to_pylist()}
    store = {r["key"]: r["bytes"] for r in pq.read_table("data/raw/images").to_pylist()}
    for number, product in enumerate(products):
        own, other = (
            [log[url] for url in part] for part in (product["images"][:3], product["images"][3:])
        )
        assert [store[r["key"]] for r in own] == [jpeg(number)] * 3
        inside = names[number] == "shop"  # the other folder is in this one
        assert [r["reason"] for r in other[1:]] == (
            [""] if inside else ["path outside the catalog's folder"]
        ) * 3
        assert other[0]["reason"] == (
            "no such file"
            if inside and other[0]["reason"] == "no such file"
            else "path outside the catalog's folder"
        )
    assert len({url for p in products for url in p["images"]}) == 14


def test_a_named_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    assert Fetcher(limits(), tmp_path).fetch("a.jpg") == (b"", "no such file")


# Files at URLs


@pytest.fixture
def shelf(monkeypatch):
    monkeypatch.setattr(fetch.random, "random", lambda: -0.5)  # no wait between tries
    with serving(Server(Shelf)) as server:
        server.files, server.tag = {"/pic/1.jpg": jpeg(1), "/shop/img/2.jpg": jpeg(2)}, '"1"'
        yield server


CATALOG = b"ASIN,also_buy,images\r\na,b,img/2.jpg\r\nb,a,../pic/1.jpg|file:///etc/hostname|//[|img/none.jpg\r\n"
DUMP = b'{"asin": "A", "also_buy": ["B"], "related": {"also_bought": ["B"]}}\n{"asin": "B"}\n'


@pytest.mark.parametrize(
    "source, path, content, counts",
    [
        ("catalog", "/shop/a%20b.csv?key=x/y", CATALOG, (2, 2)),
        ("catalog", "/shop/a.csv.gz", gzip.compress(CATALOG, mtime=0), (2, 2)),
        ("amazon-2018", "/meta_x.json.gz", gzip.compress(DUMP, mtime=0), (2, 0)),
        ("amazon-2018", "/x", gzip.compress(DUMP, mtime=0), (2, 0)),
        ("amazon-2014", "/meta_x.json", DUMP, (2, 0)),
    ],
    ids=["catalog", "catalog gz", "2018", "2018 without ending", "2014"],
)
def test_each_run_fetches_a_catalog_at_a_url_once(workplace, shelf, source, path, content, counts):
    shelf.files[path.partition("?")[0]] = content
    settings(
        download__source=source,
        download__location=shelf.url(path),
        download__private_addresses=True,
        download__max_bytes=700,
        download__max_failed=1.0,
    )
    for run in (1, 2):
        download.main()
        facts = json.loads(Path("data/raw/source.json").read_text())
        assert (facts["products"], facts["pictures"]) == counts and shelf.asked[path] == run
        assert not list(Path("scratch/download").iterdir())
    if source == "catalog":
        assert facts["failed"] == {"path where a URL is needed": 1, "not a URL": 1, "HTTP 404": 1}


def test_remote_catalogs_read_no_local_files(workplace, shelf):
    Path("a.jpg").write_bytes(jpeg(3))
    here = Path("a.jpg").resolve().as_uri()
    shelf.files["/shop/a.csv"] = CATALOG.replace(b"file:///etc/hostname", here.encode() + b"|a.jpg")
    as_file(Path("b.jsonl"), [{"ASIN": "c", "images": ["a.jpg", here], "also_buy": ["a"]}])
    settings(
        download__source="catalog",
        download__location=[shelf.url("/shop/a.csv"), "b.jsonl"],
        download__max_failed=1.0,
        download__private_addresses=True,
    )
    download.main()
    facts = json.loads(Path("data/raw/source.json").read_text())
    assert facts["pictures"] == 3
    assert facts["failed"] == {"HTTP 404": 2, "not a URL": 1, "path where a URL is needed": 1}


@pytest.mark.parametrize("torn, changed", [(100, False), (100, True), (len(CATALOG), False)])
def test_a_resumed_file_is_whole_and_of_one_version(tmp_path, shelf, torn, changed):
    target = tmp_path / "a.csv"
    if torn < len(CATALOG):
        Path(f"{target}.part").write_bytes(b"x" * torn if changed else CATALOG[:torn])
        Path(f"{target}.part.version").write_text('"0"' if changed else '"1"')
    else:  # killed before the rename
        Path(f"{target}.part").write_bytes(CATALOG)
        Path(f"{target}.part.version").write_text('"1"')
    shelf.files["/a.csv"] = CATALOG
    assert Fetcher(limits()).save(shelf.url("/a.csv"), target).read_bytes() == CATALOG
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"] and shelf.asked.total() == 1


def test_the_next_try_resumes_a_broken_transfer(tmp_path, shelf, monkeypatch):
    shelf.files["/a.csv"] = CATALOG
    monkeypatch.setattr(Shelf, "torn", {"/a.csv": 50})
    assert Fetcher(limits()).save(shelf.url("/a.csv"), tmp_path / "a.csv").read_bytes() == CATALOG
    assert shelf.asked["/a.csv"] == 2


def test_a_full_disk_is_no_failed_connection(tmp_path, shelf):
    shelf.files["/a.csv"] = CATALOG
    (tmp_path / "a.csv.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        Fetcher(limits()).save(shelf.url("/a.csv"), tmp_path / "a.csv")
    assert shelf.asked.total() == 1


@pytest.mark.parametrize(
    "path, private, message",
    [
        (
            "/none.csv",
            True,
            r"none.csv cannot be fetched \(HTTP 404\); correct download.location",
        ),
        (
            "/page.csv",
            True,
            r"page.csv cannot be fetched \(a web page instead of the file\); "
            r"correct download.location",
        ),
        (
            "/a.csv",
            False,
            r"a.csv cannot be fetched \(private or loopback address\); "
            r"set download.private_addresses to true",
        ),
        (
            "/torn.csv",
            True,
            r"torn.csv cannot be fetched \(connection failed\); "
            r"run again to continue where it stopped",
        ),
        ("/empty.csv", True, r"empty.csv is empty; a catalog has one product per line"),
    ],
)
def test_a_url_that_gives_no_file_is_named(workplace, shelf, monkeypatch, path, private, message):
    shelf.files |= {
        "/page.csv": b"<html>log in</html>",
        "/a.csv": CATALOG,
        "/torn.csv": CATALOG,
        "/empty.csv": b"\n",
    }
    monkeypatch.setattr(Shelf, "torn", {"/torn.csv": 50})
    settings(
        download__source="catalog",
        download__location=shelf.url(path),
        download__private_addresses=private,
        download__retries=0,
    )
    refused(message)
