"""Catalogs, Amazon's dumps and the released data set, whole and broken, through the readers and `download`."""

from __future__ import annotations

import base64
import csv
import errno
import gzip
import io
import json
import re
import sys
import zipfile
import zlib
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline import curate, download, runtime
from pipeline.corpus import sources, xmlrepo
from pipeline.corpus.fetch import Fetcher, Refused
from pipeline.corpus.sources import Product, amazon_2014, amazon_2018, catalog
from pipeline.errors import MufinError

ROOT = Path(__file__).parents[1]
DUMPS = Path(__file__).parents[2] / "shared/data/amazon-metadata"
COLUMNS = {"id": "ASIN", "title": "title", "images": "images", "related": "also_buy", "category": "category"}


def jpeg(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (colour, 255 - colour, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder to run in, with what an earlier download left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUFIN_SCRATCH", raising=False)
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/earlier.txt").write_text("as it was")
    return tmp_path


PARAMS = YAML(typ="safe").load((ROOT / "params.yaml").read_text())


def settings(**changes) -> None:
    """params.yaml of the project, with `<section>__<key>` changed; as JSON, which YAML holds and which is quicker."""
    params = {name: dict(section) if isinstance(section, dict) else section for name, section in PARAMS.items()}
    for name, value in changes.items():
        section, key = name.split("__")
        params[section][key] = value
    Path("params.yaml").write_text(json.dumps(params))


def refused(message: str) -> None:
    """`download` ends in one sentence that matches, and what an earlier run left is as it was."""
    with pytest.raises(MufinError) as error:
        download.main()
    assert re.search(message, str(error.value)) and "\n" not in str(error.value), error.value
    untouched()


def untouched() -> None:
    assert [str(p) for p in sorted(Path("data").rglob("*"))] == ["data/raw", "data/raw/earlier.txt"]
    assert Path("data/raw/earlier.txt").read_text() == "as it was" and not Path("metrics/download.json").exists()


# Your own catalog

PRODUCTS = [
    Product("A1", 'A "red", round\ntable', ["img/a 1.jpg", "http://shop.example/a?x=1&y=2"], ["A2", "A3"],
            ["Home & Garden", "Tables"]),
    Product("A2", "Stol på tre ☃", [], ["A1"], []),
    Product("A3", "", ["img/c.jpg"], [], ["Lamps"]),
    Product("A4", "  spaces stay  ", ["img/d.jpg"], ["A1", "A2", "nowhere"], ["Lamps"]),
]


def as_rows(columns: dict[str, str]) -> list[dict]:
    fields = {"id": "uid"}
    return [{column: getattr(p, fields.get(name, name)) for name, column in columns.items()} for p in PRODUCTS]


def as_file(path: Path, rows: list[dict]) -> Path:
    """The rows in the form that the path's ending says; lists in cells as JSON (.csv) or with bars (.tsv)."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if name.endswith(("sv")):
        tabs, text = name.endswith(".tsv"), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if tabs else ",")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: ("|".join(v) if tabs else json.dumps(v)) if isinstance(v, list) else v for k, v in row.items()})
        content = text.getvalue().encode()
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


FORMS = ["a.jsonl", "a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.tsv", "a.parquet"]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("columns", [COLUMNS, {"id": "sku", "title": "name", "images": "pictures", "related": "bought_with",
                                               "category": "path"}], ids=["default", "renamed"])
def test_every_form_of_a_catalog_gives_the_same_products(tmp_path, name, columns):
    assert list(catalog(as_file(tmp_path / name, as_rows(columns)), columns)) == PRODUCTS


@pytest.mark.parametrize("name", FORMS)
def test_ids_may_be_whole_numbers_and_title_images_and_category_may_be_missing(tmp_path, name):
    rows = [{"ASIN": 7, "also_buy": [8]}, {"ASIN": 8, "also_buy": [7]}]
    if name.endswith(("csv", "tsv", "csv.gz")):
        rows = [{"ASIN": row["ASIN"], "also_buy": row["also_buy"][0]} for row in rows]
    assert list(catalog(as_file(tmp_path / name, rows), COLUMNS)) == [Product("7", related=["8"]), Product("8", related=["7"])]


def test_a_byte_order_mark_blank_lines_and_half_an_emoji_do_no_harm(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"ASIN": "a", "title": "caf\\u00e9 \\ud83d", "also_buy": "b|c"}\n\n  \n{"ASIN": "b"}\n')
    assert list(catalog(path, COLUMNS)) == [Product("a", "café ?", [], ["b", "c"]), Product("b")]


def test_a_catalog_through_download_keeps_products_pictures_and_reasons(workplace):
    Path("shop/img").mkdir(parents=True)
    for i in range(4):
        Path(f"shop/img/{i}.jpg").write_bytes(jpeg(i % 2))
    rows = [{"ASIN": f"p{i}", "title": "", "images": [f"img/{i}.jpg", f"img/{i}.jpg", "img/none.jpg"],
             "also_buy": ["p0"], "category": None} for i in range(4)]
    as_file(Path("shop/a.jsonl"), rows)
    settings(download__source="catalog", download__location="shop/a.jsonl")
    download.main()
    products, log = (pq.read_table(f"data/raw/{name}.parquet").to_pylist() for name in ("products", "image_log"))
    assert [p["images"] for p in products] == [[f"img/{i}.jpg", "img/none.jpg"] for i in range(4)]
    assert [r["reason"] for r in log] == [""] * 4 + ["no such file"]
    assert [r["url"] for r in log] == [f"img/{i}.jpg" for i in (0, 1, 2, 3, "none")]
    store = {r["key"]: r["bytes"] for r in pq.read_table("data/raw/images").to_pylist()}
    assert [store[r["key"]] for r in log[:4]] == [jpeg(0), jpeg(1), jpeg(0), jpeg(1)] and len(store) == 2
    assert json.loads(Path("metrics/download.json").read_text())["failed"] == {"no such file": 1}
    assert not Path("data/raw/earlier.txt").exists()


GOOD = b'{"ASIN": "a", "title": "table", "images": [], "also_buy": ["b"]}\n'
ZIPPED = gzip.compress(GOOD * 400 + json.dumps([zlib.crc32(bytes([i % 256, i // 256])) for i in range(3000)]).encode())


@pytest.mark.parametrize("name, content, message", [
    ("a.jsonl", b"hello\n", r"a.jsonl line 1 is not JSON .*mend or delete it"),
    ("a.jsonl", GOOD + b'\n{"ASIN": "b", "ti', r"a.jsonl line 3 is not JSON .*cut off\? mend or delete it"),
    ("a.jsonl", GOOD + b"[1, 2]\n", r"a.jsonl line 2 is a JSON list, not an object; one product a line"),
    ("a.jsonl", GOOD.replace(b"ASIN", b"asin"), r"a.jsonl line 1 has no column 'ASIN' .*set download.columns.id to asin$"),
    ("a.csv", b"ASIN,title,alsobuy\na,table,b\n", r"a.csv line 2 has no column 'also_buy' .*columns.related to alsobuy$"),
    ("a.jsonl", GOOD + GOOD + b'{"ASIN": 7}\n', r"a.jsonl line 3 has the id 7 of another type .*make all ids in ASIN texts"),
    ("a.jsonl", GOOD + b'{"title": "chair"}\n', r"a.jsonl line 2 has the id None of another type"),
    ("a.jsonl", b'{"ASIN": 1.5}\n', r"a.jsonl line 1 has the id 1.5 in ASIN; an id is a text or a whole number"),
    ("a.jsonl", GOOD + b'{"ASIN": "b", "also_buy": {"c": 1}}\n', r"a.jsonl line 2 has an object in also_buy; it must"),
    ("a.csv", b"ASIN,also_buy\na,[b\n", r"a.csv line 2 has '\[b' in also_buy, which is no JSON list"),
    ("a.jsonl", b"", r"a.jsonl is empty; a catalog has one product a line"),
    ("a.csv", b"ASIN,title,also_buy\n", r"a.csv is empty; a catalog has one product a line"),
    ("a.csv", b"ASIN,also_buy\n\n\na,b,c\n", r"a.csv line 4 has more cells than the header; quote cells"),
    ("a.csv", b"ASIN,title,also_buy\na,b\n", r"a.csv line 2 has fewer cells than the header; quote cells"),
    ("a.csv", b'ASIN,also_buy\na,"b\n' + b"c,d\n" * 40_000, r"a.csv line \d+ cannot be read .*is a quote before it"),
    ("a.jsonl", b'{"ASIN": "a", "title": "table"}\n', r"no product of a.jsonl has related ids; set download.columns.rel"),
    ("a.jsonl.gz", ZIPPED[:-500], r"a.jsonl.gz is a broken or cut-off gzip file; fetch it again"),
    ("a.jsonl.gz", ZIPPED[:12] + b"\xff" * 200 + ZIPPED[212:], r"a.jsonl.gz is a broken or cut-off gzip file; fetch it again"),
    ("a.jsonl.gz", GOOD, r"a.jsonl.gz is a broken or cut-off gzip file; fetch it again"),
    ("a.jsonl", GOOD * 300 + b'{"ASIN": "b", "title": "caf\xe9"}\n', r"a.jsonl line 301 is not UTF-8 text; convert the file"),
    ("a.jsonl.gz", gzip.compress(GOOD + b'"\xe9"', mtime=0), r"a.jsonl.gz line 2 is not UTF-8 text; convert the file"),
    ("a.parquet", b"PAR1 no table PAR1", r"a.parquet is not a whole Parquet file .*write it again"),
    ("a.parquet", b"", r"a.parquet is not a whole Parquet file .*write it again"),
])
def test_a_broken_catalog_ends_in_a_sentence_with_file_line_and_remedy_and_leaves_data_raw_alone(
        workplace, name, content, message):
    Path(name).write_bytes(content)
    settings(download__source="catalog", download__location=name)
    refused(message)


def test_a_parquet_file_with_broken_pages_is_named(workplace):
    as_file(Path("a.parquet"), [{"ASIN": f"p{i}", "title": f"{i * 7919}", "also_buy": ["p0"]} for i in range(3000)])
    content = Path("a.parquet").read_bytes()
    Path("a.parquet").write_bytes(content[:4] + b"\xff" * 3000 + content[3004:])
    settings(download__source="catalog", download__location="a.parquet")
    refused(r"a.parquet is not a whole Parquet file .*write it again")


def test_a_location_that_is_not_there_is_named(workplace):
    settings(download__source="catalog", download__location=["gone/*.jsonl"])
    refused(r"download.location names gone/\*.jsonl, which is not there; give a file, a folder or a glob")


def test_too_many_dead_pictures_end_in_a_sentence_and_once_mended_the_next_run_finds_them(workplace):
    as_file(Path("a.jsonl"), [{"ASIN": f"p{i}", "images": [f"{i}.jpg"], "also_buy": ["p0"]} for i in range(4)])
    settings(download__source="catalog", download__location="a.jsonl")
    refused(r"4 of 4 image references gave no picture \(no such file: 4\), more than download.max_failed \(0.25\); mend them")
    for i in range(4):
        Path(f"{i}.jpg").write_bytes(jpeg(i))
    download.main()
    assert json.loads(Path("data/raw/source.json").read_text())["failed"] == {}


@pytest.mark.parametrize("where", ["products", "log"])
def test_no_space_left_is_one_sentence_with_exit_code_1_and_data_raw_as_it_was(workplace, monkeypatch, capsys, where):
    Path("a.jpg").write_bytes(jpeg(1))
    urls = ["https://pictures.example/b.jpg"] if where == "log" else []           # files are read each time, not logged
    as_file(Path("a.jsonl"), [{"ASIN": "a", "images": ["a.jpg", *urls], "also_buy": ["b"]}, {"ASIN": "b"}])
    settings(download__source="catalog", download__location="a.jsonl")

    def fetched(references, *_):
        return ((reference, jpeg(2), "") for reference in references)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "products":
        monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    else:
        monkeypatch.setattr(download, "fetch_all", fetched)
        monkeypatch.setattr(download.FetchLog, "add", full)
    monkeypatch.setattr(sys, "argv", ["download"])
    with pytest.raises(SystemExit) as error:
        runtime.run(download.main)
    said = capsys.readouterr().err
    assert error.value.code == 1 and said.count("\n") == 1
    assert re.match(r"error: .*cannot be written: No space left on device; free or choose another place", said)
    untouched()
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(download, "fetch_all", fetched)
    download.main()
    assert json.loads(Path("data/raw/source.json").read_text())["pictures"] == 1 + len(urls)


def test_a_file_that_changed_under_its_name_is_read_again_by_the_next_run(workplace):
    as_file(Path("a.jsonl"), [{"ASIN": "a", "images": ["a.jpg"], "also_buy": ["b"]}, {"ASIN": "b"}])
    settings(download__source="catalog", download__location="a.jsonl")
    for number in (1, 2):
        Path("a.jpg").write_bytes(jpeg(number))
        download.main()
        assert pq.read_table("data/raw/images")["bytes"].to_pylist() == [jpeg(number)]


# Amazon's dumps

@pytest.mark.parametrize("url, whole", [
    ("https://m.example/images/I/51a._SX38_SY50_CR,0,0,38,50_.jpg", "https://m.example/images/I/51a.jpg"),
    ("https://m.example/images/I/51a._SS40_.jpg", "https://m.example/images/I/51a.jpg"),
    ("http://m.example/I/41a-b%2BL._SY300_.png", "http://m.example/I/41a-b%2BL.png"),
    ("https://m.example/images/I/51a_b_.jpg", "https://m.example/images/I/51a_b_.jpg"),
    ("https://m._x_.example/I/51a.jpg", "https://m._x_.example/I/51a.jpg"),
])
def test_thumbnail_markers_are_taken_out_of_the_urls_of_both_releases(tmp_path, url, whole):
    path = tmp_path / "meta.json"
    for key in ("image", "imageURL", "imageURLHighRes"):
        path.write_text(json.dumps({"asin": "A", "title": "t", key: [url], "also_buy": ["B"], "category": ["c", "d"]}) + "\n")
        assert list(amazon_2018(path)) == [Product("A", "t", [whole], ["B"], ["c", "d"])]
    path.write_text(repr({"asin": "A", "title": "it's", "imUrl": url, "related": {"also_bought": ["B"], "also_viewed": ["C"]},
                          "categories": [["c", "d"], ["e"]]}) + "\n")
    assert list(amazon_2014(path)) == [Product("A", "it's", [whole], ["B"], ["c", "d"])]


def test_the_large_pictures_of_the_2018_dump_go_before_the_small_and_all_but_the_id_may_be_missing(tmp_path):
    path = tmp_path / "meta.json"
    path.write_text(json.dumps({"asin": "A", "imageURL": ["s.jpg"], "imageURLHighRes": ["l.jpg"], "rank": []}) + "\n"
                    + json.dumps({"asin": "B", "imageURL": ["s.jpg"], "imageURLHighRes": [], "rank": "1 in x"}) + "\n"
                    + json.dumps({"asin": "C", "title": None, "also_buy": None, "image": ""}) + "\n")
    assert list(amazon_2018(path)) == [Product("A", "", ["l.jpg"]), Product("B", "", ["s.jpg"]), Product("C")]
    path.write_text("{'asin': 'A'}\n{'asin': 'B', 'related': {}, 'categories': []}\n")
    assert list(amazon_2014(path)) == [Product("A"), Product("B")]


@pytest.mark.parametrize("source, content, message", [
    ("amazon-2018", b"{'asin': 'A'}\n", r"meta_x.json line 1 is not JSON"),
    ("amazon-2018", b'{"title": "A"}\n', r"meta_x.json line 1 has the id None in asin"),
    ("amazon-2018", b"", r"holds no product; look at download.source"),
    ("amazon-2014", b"{'asin': 'A', 'related': {'also_bought': ['B']}}\n{'asin': 'B', 'ti", r"x.json line 2 is not a Py"),
    ("amazon-2014", b"__import__('os').remove('params.yaml')\n", r"meta_x.json line 1 is not a Python literal of a product"),
])
def test_a_broken_dump_ends_in_a_sentence(workplace, source, content, message):
    Path("meta_x.json").write_bytes(content)
    settings(download__source=source, download__location=".")
    refused(message)
    assert Path("params.yaml").exists()


@pytest.mark.skipif(not DUMPS.is_dir(), reason="the dumps are not here")
def test_the_real_dumps_become_distinct_clean_products_whose_split_does_not_leak(workplace, monkeypatch):
    def follow(self, url):
        assert url.startswith("http") and "._" not in url.rpartition("/")[2]
        if zlib.crc32(url.encode()) % 10 == 0:
            raise Refused("HTTP 404")
        return PICTURES[len(url) % len(PICTURES)]

    monkeypatch.setattr(Fetcher, "_follow", follow)
    settings(download__source="amazon-2018", download__location=str(DUMPS / "*.gz"))
    download.main()
    curate.main()
    raw, products = (pl.read_parquet(f"data/{name}/products.parquet") for name in ("raw", "curated"))
    log = pl.read_parquet("data/raw/image_log.parquet")
    assert set(log["reason"]) == {"", "HTTP 404"} and raw["uid"].n_unique() < len(raw)      # the same asin twice
    assert products["uid"].is_unique().all() and set(products["uid"]) <= set(raw["uid"])
    assert ((products["title"] != "") | (products["images"].list.len() > 0)).all()
    assert not products["title"].str.contains(r"</?[a-zA-Z]|&(?:\w+|#\d+);|^\s|\s$|getTime").any()
    assert raw["title"].str.contains("<span").any()

    related: dict[str, set[str]] = {}
    for uid, ids in zip(raw["uid"], raw["related"]):
        related.setdefault(uid, set()).update(ids.to_list())
    uids, labels = products["uid"].to_list(), pl.read_parquet("data/curated/labels.parquet")["product"].to_list()
    split = {name: pl.read_parquet(f"data/curated/{name}.parquet") for name in ("train", "valid", "test")}
    for rows in split.values():
        assert len(rows)
        for product, row in zip(rows["product"], rows["labels"]):
            assert {uids[labels[label]] for label in row} <= related[uids[product]]
    held = set(split["valid"]["product"]) | set(split["test"]["product"])
    assert not held & (set(split["train"]["product"]) | set(labels))
    assert not set(split["valid"]["product"]) & set(split["test"]["product"])


PICTURES = [jpeg(i) for i in range(7)]


# The released data set

TITLES = {"train": [("A", "a tablé->round"), ("B", "b"), ("C", "")], "test": [("D", "d"), ("A", "a tablé->round")],
          "label": [("B", "b"), ("D", "d"), ("E", "e")]}
SPLIT = {"train": ([[1, 0], [], [2]], [[], [0], []]), "test": ([[0, 2], [1]], [[1], []])}
IMAGES = {"A": [b"1", b"2"], "D": [b"3"]}


def release(home: Path, titles: str = "txt", images: str = "") -> Path:
    """A tiny release in the text layout; titles: txt, json, json.gz; images: img.bin or img.urls.txt."""
    (home / "raw_data").mkdir(parents=True)
    for name, rows in TITLES.items():
        if titles == "txt":
            (home / f"raw_data/{name}.raw.txt").write_bytes("".join(f"{u}->{t}\n" for u, t in rows).encode("latin-1"))
        else:
            as_file(home / f"raw_data/{name}.{titles}", [{"uid": u, "title": t} for u, t in rows])
    for name, short in (("train", "trn"), ("test", "tst")):
        labels, excluded = SPLIT[name]
        lines = [f"{len(labels)} 3", *(" ".join(f"{label}:1.0" for label in row) for row in labels)]
        (home / f"{short}_X_Y.txt").write_text("\n".join(lines) + "\n")
        pairs = [f"{i} {label}\n" for i, row in enumerate(excluded) for label in row]
        (home / f"filter_labels_{name}.txt").write_text("".join(pairs))
    if images == "img.bin":
        (home / "images").mkdir()
        lines = [f"{uid}\t{base64.b64encode(jpeg(content[0])).decode()}\n" for uid, all in IMAGES.items() for content in all]
        (home / "images/img.bin").write_text("".join(lines) + "E\t!!no base64!!\n")
    elif images:
        (home / images).write_text("".join(f"{uid}\thttp://m.example/{uid}{i}.jpg\n" for uid, all in IMAGES.items()
                                           for i in range(len(all))))
    return home


def zipped(home: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in home.rglob("*") if p.is_file()):
            archive.write(file, Path("MM-AmazonTitles") / file.relative_to(home))
    return path


@pytest.mark.parametrize("titles", ["txt", "json", "json.gz"])
@pytest.mark.parametrize("images", ["", "img.bin", "img.urls.txt", "raw_data/img.urls.txt"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_each_layout_keeps_titles_pictures_split_and_filter_pairs_as_released(tmp_path, titles, images, packed):
    home = release(tmp_path / "home", titles, images)
    where = zipped(home, tmp_path / "a.zip") if packed else home
    layout = xmlrepo.read(xmlrepo.open_source(str(where), tmp_path / "scratch", 1.0))
    products = {p.uid: p for p in layout.products}
    assert {uid: p.title for uid, p in products.items()} == dict(sum(TITLES.values(), []))
    assert layout.labels == ["B", "D", "E"]
    for name, (uids, labels, excluded) in layout.splits.items():
        assert uids == [uid for uid, _ in TITLES[name]]
        assert [row.tolist() for row in map(labels.__getitem__, range(len(labels)))] == SPLIT[name][0]
        assert [row.tolist() for row in map(excluded.__getitem__, range(len(excluded)))] == SPLIT[name][1]
    count = {uid: len(p.images) for uid, p in products.items() if p.images}
    assert count == ({} if not images else {"A": 2, "D": 1, "E": 1} if images == "img.bin" else {"A": 2, "D": 1})
    if images == "img.bin":
        stored = {reference: (content, reason) for reference, content, reason in xmlrepo.stored_images(layout, 15)}
        assert [stored[r] for r in products["A"].images] == [(jpeg(b"1"[0]), ""), (jpeg(b"2"[0]), "")]
        assert [stored[r] for r in products["E"].images] == [(b"", "broken base64")]
        assert len(list(xmlrepo.stored_images(layout, 1))) == 3


def test_a_zip_through_download_and_curate_keeps_the_released_split(workplace):
    zipped(release(workplace / "home", "txt", "img.bin"), Path("a.zip"))
    settings(download__source="mm-amazontitles", download__location="a.zip", curate__valid=0.0, curate__split="cold")
    download.main()
    facts = json.loads(Path("data/raw/source.json").read_text())
    assert facts["released"] and facts["pictures"] == 3 and facts["failed"] == {"broken base64": 1}
    curate.main()
    uids = pl.read_parquet("data/curated/products.parquet")["uid"].to_list()
    assert [uids[i] for i in pl.read_parquet("data/curated/labels.parquet")["product"]] == ["B", "D", "E"]
    for name in ("train", "test"):
        rows = pl.read_parquet(f"data/curated/{name}.parquet")
        assert [uids[i] for i in rows["product"]] == [uid for uid, _ in TITLES[name]]
        assert [sorted(row) for row in rows["labels"]] == [sorted(row) for row in SPLIT[name][0]]
        assert rows["excluded"].to_list() == SPLIT[name][1]


@pytest.mark.parametrize("form", ["lines", "list", "gz"])
def test_the_plain_json_form_has_products_and_no_split(tmp_path, form):
    rows = [{"ASIN": p.uid, "title": p.title, "images": p.images, "also_buy": p.related} for p in PRODUCTS]
    text = json.dumps(rows, indent=1) if form == "list" else "".join(json.dumps(row) + "\n" for row in rows)
    path = tmp_path / ("a.json.gz" if form == "gz" else "a.json")
    path.write_bytes(gzip.compress(text.encode()) if form == "gz" else text.encode())
    layout = xmlrepo.read(tmp_path)
    assert layout.splits == {} and layout.labels == []
    assert list(layout.products) == [Product(p.uid, p.title, p.images, p.related) for p in PRODUCTS]


@pytest.mark.parametrize("name, content, message", [
    ("trn_X_Y.txt", "4 3\n\n\n\n\n", r"trn_X_Y.txt line 1 says 4 3, but the title files have 3 rows and 3 labels"),
    ("tst_X_Y.txt", "2 9\n\n\n", r"tst_X_Y.txt line 1 says 2 9, .*the files are not of one release"),
    ("trn_X_Y.txt", "", r"trn_X_Y.txt line 1 says , but"),
    ("trn_X_Y.txt", "3 3\n0:1\n", r"trn_X_Y.txt has 1 rows where its header says 3; it is cut off: fetch it again"),
    ("trn_X_Y.txt", "3 3\n0:1\nx:1\n\n", r"trn_X_Y.txt line 3 is not a list of label:value; fetch the file again"),
    ("trn_X_Y.txt", "3 3\n0:1\n1:1 3:1\n\n", r"trn_X_Y.txt line 3 names label 3 of 3; fetch the file again"),
    ("filter_labels_train.txt", "3 0\n", r"filter_labels_train.txt names a datapoint or label that the split has not"),
    ("filter_labels_test.txt", "0 3\n", r"filter_labels_test.txt names a datapoint or label that the split has not"),
    ("filter_labels_test.txt", "0 -1\n", r"filter_labels_test.txt names a datapoint or label that the split has not"),
    ("filter_labels_test.txt", "0 1\n0\n", r"filter_labels_test.txt is not one `datapoint label` pair a line; fetch"),
    ("raw_data/train.raw.txt", "A->a\nB b\n", r"train.raw.txt line 2 has no `->` between UID and title; fetch the file again"),
    ("raw_data/test.raw.txt", None, r"test.raw.txt is missing, and so is test.json; the released split needs one"),
    ("img.urls.txt", "A http://m.example/a.jpg\n", r"img.urls.txt line 1 has no tab between UID and URL; fetch the file again"),
])
def test_a_broken_release_ends_in_a_sentence_and_leaves_data_raw_alone(workplace, name, content, message):
    path = release(workplace / "home") / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)
    settings(download__source="mm-amazontitles", download__location="home")
    refused(message)


@pytest.mark.parametrize("content, message", [
    (b'[{"ASIN": "a"}, 7]', r"a.json product 2 is '7', not a JSON object; fetch it again"),
    (b'[{"ASIN": "a"},\n {"AS', r"a.json line 2 is not JSON .*fetch it again"),
    (b'{"ASIN": "a"}\n{"AS', r"a.json line 2 is not JSON"),
    (None, r"home has neither trn_X_Y.txt nor a JSON file of products; is it MM-AmazonTitles-300K\?"),
])
def test_a_broken_plain_json_form_ends_in_a_sentence(workplace, content, message):
    Path("home").mkdir()
    if content is not None:
        Path("home/a.json").write_bytes(content)
    settings(download__source="mm-amazontitles", download__location="home")
    refused(message)


@pytest.mark.parametrize("harm", ["cut off", "bytes changed", "no zip"])
def test_a_broken_zip_is_named_and_a_whole_one_in_its_place_is_read(workplace, harm):
    home = release(workplace / "home")
    (home / "extra.txt").write_text(" ".join(str(zlib.crc32(bytes([i]))) for i in range(256)))
    good = zipped(home, Path("a.zip")).read_bytes()
    Path("a.zip").write_bytes({"cut off": good[:-200], "bytes changed": good[:80] + b"\xff" * 300 + good[380:],
                               "no zip": b"<html>" * 9}[harm])
    settings(download__source="mm-amazontitles", download__location="a.zip")
    refused(r"a.zip is not a whole zip; delete it and fetch it again")
    Path("a.zip").write_bytes(good)
    download.main()
    assert json.loads(Path("data/raw/source.json").read_text())["released"]


@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/evil"])
def test_a_zip_whose_paths_leave_its_folder_is_refused_before_anything_is_written(workplace, member):
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("good.json", GOOD)
        archive.writestr(member, "x")
    settings(download__source="mm-amazontitles", download__location="a.zip")
    refused(rf"a.zip holds '{re.escape(member)}', a path that leaves its folder; it is not the data set")
    assert not list(workplace.rglob("evil")) and not list(workplace.rglob("good.json"))


@pytest.mark.parametrize("location, message", [
    ("gone.zip", r"download.location is gone.zip, which is not there; give the zip, its folder, a URL or an id"),
    (["a.zip", "b.zip"], r"download.location is a list of 2; the released data set is one zip or folder"),
])
def test_a_release_that_is_not_there_is_named(workplace, location, message):
    settings(download__source="mm-amazontitles", download__location=location)
    refused(message)


def test_files_of_a_folder_a_glob_and_a_list_are_found_in_order(tmp_path):
    for name in ("meta_b.json.gz", "meta_a.json", "other.json"):
        (tmp_path / name).touch()
    assert [p.name for p in sources.paths_of(str(tmp_path))] == ["meta_a.json", "meta_b.json.gz"]
    assert [p.name for p in sources.paths_of([str(tmp_path / "o*"), str(tmp_path / "meta_a.json")])] == [
        "other.json", "meta_a.json"]
