"""`mufin inspect`: what it says of files, and that the settings it writes run."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mufin.errors import MufinError
from mufin.inspection.inspecting import inspect
from mufin.params import load_params
from pipeline import curate, download
from tests.support import exports
from tests.support.projects import REAL_DATA, ROOT

ITEMS = exports.shop(60)
BASKETS = exports.orders(ITEMS, 300)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder with the settings of the project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    return tmp_path


def picture(number: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (number * 7 % 255, number * 3 % 255, 99)).save(file, "JPEG")
    return file.getvalue()


def said(*paths: str | Path, **options) -> str:
    """The report as one text with single blanks."""
    return " ".join(" ".join(inspect([str(p) for p in paths], **options)).split())


def table(path: str, rows: list[dict], encoding: str = "utf-8", separator: str = ",") -> str:
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def pairs(count: int = 100) -> list[dict]:
    """Products of which each relates to one, and that one to it."""
    return [
        {"id": f"P{k}", "title": f"thing {k}", "image": f"{k}.png", "related": f"P{k ^ 1}"}
        for k in range(count)
    ]


def friends(number: int, seed: int = 0) -> list[int]:
    return random.Random(f"{seed} {number}").sample(range(len(ITEMS)), 4)


# Columns to filter by


def test_columns_to_filter_by_are_named_and_written():
    rows = [row | {"Price": "5", "brand": "x", "size": "a" * 99, "note": "y"} for row in pairs()]
    path = table("a.csv", rows)
    assert "can be limited by Price, brand (download.columns.attributes)" in said(path)
    settings = Path("params.yaml").read_text()
    Path("params.yaml").write_text(settings.replace("attributes: []", "attributes: [note, gone]"))
    said(path, write=Path("params.yaml"))
    kept = load_params(Path("params.yaml")).download.columns.attributes
    assert kept == ["note", "Price", "brand"]


def test_columns_of_further_texts_are_named_and_kept():
    more = {"Description": "long and blue", "bullets": ["two words", "more words"], "note": "y"}
    rows = [row | more for row in pairs()]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    advice = "set download.columns.texts: [Description, bullets]"
    assert advice in said("a.jsonl", write=Path("params.yaml"))
    settings = Path("params.yaml").read_text()
    changed = settings.replace("texts: []", "texts: [Description, bullets, gone]")
    Path("params.yaml").write_text(changed)
    assert advice not in said("a.jsonl", write=Path("params.yaml"))
    kept = load_params(Path("params.yaml")).download.columns.texts
    assert kept == ["Description", "bullets"]


# The settings that are written run


def shopify() -> list[str]:
    exports.shopify(Path("shop"), ITEMS, "http://localhost:9")
    exports.shopify_orders(Path("shop"), BASKETS)
    return ["shop"]


def utf_16_with_semicolons() -> list[str]:
    Path("img").mkdir()
    rows = []
    for item in ITEMS:
        Path(f"img/{item.number}.jpg").write_bytes(picture(item.number))
        passend = ",".join(f"A{k}" for k in friends(item.number))
        rows.append(
            {"Artikelnr": f"A{item.number}", "Bezeichnung": f"{item.title} für zwei"}
            | {"Bilder": f"img/{item.number}.jpg", "Passt zu": passend, "Preis": "12,50"}
        )
    return [table("a.csv", rows, "utf-16", ";")]


def nested_json() -> list[str]:
    Path("img").mkdir()
    rows = []
    for item in ITEMS:
        Path(f"img/{item.number}.jpg").write_bytes(picture(item.number))
        rows.append(
            {
                "product": {"sku": f"S-{item.number}", "name": {"en": item.title}},
                "media": [{"thumb": "none.jpg", "large": f"img/{item.number}.jpg"}],
                "links": {"goes_with": [f"S-{k}" for k in friends(item.number)]},
                "tags": ["a", "b"],
            }
        )
    Path("nested.json").write_text(json.dumps({"meta": {"n": 60}, "data": rows}, indent=1))
    return ["nested.json"]


def parquet_with_bytes() -> list[str]:
    columns = {
        "pid": [float(item.number + 1) for item in ITEMS],
        "caption": [item.title for item in ITEMS],
        "photo": [{"bytes": picture(item.number), "path": "x.jpg"} for item in ITEMS],
        "others": [[k + 1 for k in friends(item.number)] for item in ITEMS],
    }
    pq.write_table(pa.table(columns), "images.parquet")
    return ["images.parquet"]


def orders_with_catalog() -> list[str]:
    rows = [
        {"sku": f"{item.number:05}", "name": item.title, "image": f"{item.number}.jpg"}
        for item in ITEMS
    ]
    for item in ITEMS:
        Path(f"{item.number}.jpg").write_bytes(picture(item.number))
    lines = [
        {"line": f"{order}-{item.number}", "order_no": 5000 + order, "sku": str(item.number)}
        | {"qty": 2, "order_date": f"2026-0{1 + order // 100}-{1 + order % 28:02} 10:00:00"}
        for order, basket in enumerate(BASKETS)
        for item in basket
    ]
    return [table("orders.csv", lines), table("products.csv", rows)]


def orders_with_lines() -> list[str]:
    _, products = orders_with_catalog()
    orders = [
        {"order_id": 5000 + order, "created_at": f"2026-0{1 + order // 100}-{1 + order % 28:02}"}
        | {"line_items": [{"sku": f"{i.number:05}", "price": 9.5, "quantity": 1} for i in basket]}
        for order, basket in enumerate(BASKETS)
    ]
    Path("orders.jsonl").write_text("".join(json.dumps(order) + "\n" for order in orders))
    return [products, "orders.jsonl"]


@pytest.mark.parametrize(
    "make",
    [
        shopify,
        utf_16_with_semicolons,
        nested_json,
        parquet_with_bytes,
        orders_with_catalog,
        orders_with_lines,
    ],
)
def test_the_settings_it_writes_run_download_and_curate(make):
    paths = make()
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(  # pictures of a host that does not answer may all be missing
        text.replace("max_failed: 0.25", "max_failed: 1.0").replace("retries: 3", "retries: 0")
    )
    list(inspect(paths, Path("params.yaml")))
    load_params(Path("params.yaml"))
    download.main()
    curate.main()
    facts = json.loads(Path("metrics/download.json").read_text())
    assert facts["products"] == len(ITEMS)
    assert json.loads(Path("metrics/curate.json").read_text())["train"] > 20


def test_only_download_changes_and_comments_stay():
    own = Path("params.yaml").read_text()
    own = own.replace("  source: sample  ", "  source: sample  # mine\n", 1)
    own = own.replace("seed: 0 ", "seed: 7 ", 1) + "# the end\n"
    Path("params.yaml").write_text(own)
    list(inspect([table("a.csv", pairs())], Path("params.yaml")))
    now = Path("params.yaml").read_text()
    changed = [line for line in now.splitlines() if line not in own.splitlines()]
    assert now.startswith(own[: own.index("download:")]) and now.endswith("# the end\n")
    assert "  source: catalog  # mine" in changed
    assert [line.split(":")[0].strip() for line in changed] == [
        *("source", "location", "id", "images", "related", "category")
    ]
    assert Path("params.yaml.bak").read_text() == own


def test_a_list_of_lines_gives_way_to_one_value():
    own = Path("params.yaml").read_text()
    block = "    images:\n      - one  # 1\n      - two  # 2\n    # and\n"
    start, end = own.index("    images: images"), own.index("    related: also_buy")
    Path("params.yaml").write_text(own[:start] + block + own[end:])
    list(inspect([table("a.csv", pairs())], Path("params.yaml")))
    assert load_params(Path("params.yaml")).download.columns.images == "image"
    assert "    images: image  # 2\n    # and\n" in Path("params.yaml").read_text()


def test_a_null_of_no_characters_gives_way_to_a_value():
    own = Path("params.yaml").read_text()
    for null in ("  location:\n", "  location:   # where\n"):
        Path("params.yaml").write_text(own.replace("  location: null", null.rstrip("\n"), 1))
        list(inspect([table("a.csv", pairs())], Path("params.yaml")))
        assert load_params(Path("params.yaml")).download.location == "a.csv"


def test_settings_in_json_stay_json():
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(json.dumps(content))
    list(inspect([table("a.csv", pairs())], Path("params.yaml")))
    changed = json.loads(Path("params.yaml").read_text())
    assert changed["download"]["source"] == "catalog"
    assert changed["curate"] == content["curate"]


def test_settings_that_are_not_valid_stay_as_they_are():
    Path("params.yaml").write_text("seed: no\n")
    with pytest.raises(MufinError):
        list(inspect([table("a.csv", pairs())], Path("params.yaml")))
    assert Path("params.yaml").read_text() == "seed: no\n"
    assert not Path("params.yaml.bak").exists()


def test_the_same_files_again_change_nothing():
    for _ in range(2):
        lines = list(inspect([table("a.csv", pairs())], Path("params.yaml")))
    assert lines[-1] == "params.yaml has these settings already"
    assert not Path("params.yaml.bak2").exists()


def test_a_split_that_leaves_nothing_gives_way_to_one_that_works():
    lines = [
        {"order": order, "id": f"P{2 * pair + side}", "date": f"2026-01-{1 + order % 28:02}"}
        for order, pair in enumerate([*range(50)] * 6)
        for side in (0, 1)
    ]
    products = [row | {"related": ""} for row in pairs()]
    Path("0.png").write_bytes(picture())
    products = [row | {"image": "0.png"} for row in products]
    report = list(inspect([table("p.csv", products), table("o.csv", lines)], Path("params.yaml")))
    assert load_params(Path("params.yaml")).curate.split == "time"
    download.main()
    curate.main()
    made = json.loads(Path("metrics/curate.json").read_text())
    sizes = f"time: {made['train']} train, {made['valid']} valid, {made['test']} test datapoints"
    assert any(f"{sizes}, {made['labels']} labels" in line for line in report)


# What it says


def test_mutual_pairs_pass_no_cold_split_and_warm_or_time_is_named():
    text = said(table("a.csv", pairs()))
    assert "100 % of the relations have their reverse" in text
    assert "cold: not possible: all relations are mutual pairs" in text
    assert "use curate.split: warm or time where it is possible" in text


@pytest.mark.parametrize(
    "form, make",
    [
        ("shopify", lambda p: exports.shopify(p, ITEMS)),
        ("woocommerce", lambda p: exports.woocommerce(p, ITEMS)),
        ("google-merchant", lambda p: exports.merchant_tsv(p, ITEMS)),
        ("google-merchant", lambda p: exports.merchant_xml(p, ITEMS)),
        ("amazon-2023", lambda p: exports.amazon_2023(p, ITEMS)),
        ("amazon-2023", lambda p: exports.amazon_2023_parquet(p, ITEMS)),
        ("movielens", lambda p: exports.movielens(p, ITEMS, "1m")),
        ("movielens", lambda p: exports.movielens(p, ITEMS, "100k")),
        ("hm", lambda p: exports.hm(p, ITEMS, picture())),
        ("polyvore", lambda p: exports.polyvore(p, ITEMS, picture())),
    ],
)
def test_each_form_is_known_by_its_file_and_by_its_folder(form, make):
    path = make(Path("there"))
    assert f"Form {form}:" in said(path)
    assert f"Form {form}:" in said("there")


@pytest.mark.parametrize(
    "make, column",
    [
        (exports.shopify, "Body (HTML)"),
        (exports.woocommerce, "Description"),
        (exports.amazon_2023, "features"),
    ],
)
def test_columns_of_further_texts_of_a_form_are_named(make, column):
    make(Path("there"), ITEMS)
    assert f"download.columns.texts: [{column}]" in said("there")


def test_two_of_the_forms_with_what_people_did():
    exports.hm(Path("hm"), ITEMS, picture())
    exports.hm_transactions(Path("hm"), BASKETS)
    exports.amazon_2023(Path("amazon"), ITEMS)
    exports.amazon_reviews(Path("amazon"), BASKETS)
    rows = sum(map(len, BASKETS))
    for folder in ("hm", "amazon"):
        text = said(folder)
        assert (
            f"{rows} rows from 20" in text and f"{rows} of {rows} (100 %) are of products" in text
        )
        assert "time: 60 train" in text


def test_products_without_a_title_or_a_picture_and_repeated_ones_are_counted():
    rows = [
        {"id": "A", "title": "one", "images": "no.jpg", "related": "B|X"},
        {"id": "B", "title": "one", "images": "", "related": "A"},
        {"id": "C", "title": "nan", "images": "", "related": "A|C"},
        {"id": "D", "title": "<b></b>", "images": "", "related": "A"},
        {"id": "A", "title": "two", "images": "", "related": ""},
    ]
    text = said(table("a.csv", rows))
    for part in (
        "2 of 5 (40 %) have neither title nor picture: dropped, such as 'C'",
        "1 of 5 (20 %) have the id of an earlier row: joined with it, such as 'A'",
        "1 of 2 (50 %) have the title of another product, such as 'B' and 'A'",
        "1 of 5 (20 %) have a title that is markup alone, such as 'D'",
        "words for nothing in title, read as missing: 1, such as 'nan'",
        "5 of 6 (83.3 %) are products of the catalog unknown: 1, such as 'X'",
        "'no.jpg': no such file",
    ):
        assert part in text, part


def test_ids_that_nearly_match_are_named_with_the_setting_that_joins_them():
    text = said(*orders_with_catalog())
    assert "nearly an id:" in text and "download.match_ids: [zeros] would join them" in text
    assert "match_ids: [zeros]" in text.partition("The settings")[2]


def test_the_first_pictures_are_decoded():
    paths = utf_16_with_semicolons()
    Path("img/1.jpg").write_bytes(picture()[:200])
    Path("img/2.jpg").unlink()
    text = said(*paths)
    assert "'img/0.jpg': JPEG, 40 x 30 pixels" in text
    assert "'img/1.jpg': corrupt or truncated" in text and "'img/2.jpg': no such file" in text


def test_pictures_that_are_all_missing_are_noticed():
    assert "none of the pictures above was found" in said(table("a.csv", pairs()))
    Path("0.png").write_bytes(picture())
    assert "none of the pictures above" not in said("a.csv")


def test_paths_of_windows_are_read():
    Path("bilder").mkdir()
    Path("bilder/1.jpg").write_bytes(picture())
    text = said(table("a.csv", [row | {"image": "bilder\\1.jpg"} for row in pairs()]))
    assert "'bilder/1.jpg': JPEG, 40 x 30 pixels" in text


def test_urls_are_fetched_only_when_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "mufin.corpus.fetch.Fetcher.fetch", lambda self, url: asked.append(url) or (picture(), "")
    )
    path = exports.shopify(Path("shop"), ITEMS)
    assert "not fetched (--fetch does)" in said(path) and not asked
    assert "JPEG, 40 x 30 pixels" in said(path, fetch=True) and len(asked) == 3


def test_related_ids_are_known_by_what_they_name():
    rows = [
        {"nr": 100 + k, "text": f"a thing {k}", "pic": f"{k}.jpg"}
        | {"a": f"{k % 5}|{k % 7}", "b": f"{100 + (k + 1) % 60}, {100 + (k + 2) % 60}"}
        for k in range(60)
    ]
    assert "related: b;" in said(table("a.csv", rows))


def test_labels_that_are_no_products_are_found():
    ads = [
        {"ad": f"ad{k}", "headline": f"buy thing {k}", "image": f"{k}.png"}
        | {"queries": f"q{k % 30}|q{k % 7}"}
        for k in range(100)
    ]
    queries = [{"qid": f"q{k}", "query": f"cheap thing number {k}"} for k in range(30)]
    text = said(table("ads.csv", ads), table("queries.tsv", queries, separator="\t"))
    assert "labels queries.tsv: id: qid; text: query" in text


def test_orders_alone_are_told_from_products():
    orders, _ = orders_with_catalog()
    with pytest.raises(MufinError, match="looks like orders, ratings or clicks"):
        said(orders)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "utf-16-le"])
def test_encodings_and_separators_are_found(encoding):
    rows = [row | {"title": f"Größe {k}"} for k, row in enumerate(pairs(20))]
    text = said(table("a.csv", rows, encoding, ";"))
    assert "Größe 0" in text and "cells separated by semicolons" in text
    named = encoding in ("cp1252", "utf-16-le")
    assert (f"encoding: {encoding}" in text.partition("The settings")[2]) == named


def test_bad_rows_are_counted_and_the_setting_for_them_is_written():
    lines = ["id,title,image,related", *(f"P{k},t {k},{k}.png,P{k ^ 1}" for k in range(100))]
    lines[50] += ",one,more"
    Path("a.csv").write_text("\n".join(lines) + "\n")
    text = said("a.csv")
    assert "bad rows, dropped: 1" in text and "download.bad_rows: 0.02 drops" in text


def test_only_the_first_rows_of_a_large_file_are_read():
    text = said(table("a.csv", pairs(5000)), rows=2000)
    assert "2,000 rows, the first ones" in text


@pytest.mark.parametrize(
    "name, content",
    [
        ("empty.csv", b""),
        ("zeros.bin", bytes(5000)),
        ("noise.csv", random.Random(1).randbytes(5000)),
        ("quote.csv", b'id,title\n1,"open\n2,b\n'),
        ("one.json", b"{"),
        ("deep.json", b"[" * 5000),
        ("cut.gz", b"\x1f\x8b\x08\x00\x00"),
        ("cut.zip", b"PK\x03\x04abc"),
        ("cut.parquet", b"PAR1abc"),
        ("text.txt", b"hello\nworld\n"),
        ("doctype.xml", b"<!DOCTYPE a><a></a>"),
        ("header.csv", b"id,title,images,related\n"),
    ],
)
def test_files_that_are_no_catalog_end_in_one_sentence(name, content):
    Path(name).write_bytes(content)
    with pytest.raises(MufinError) as error:
        said(name)
    assert "\n" not in str(error.value)


def test_the_report_fits_a_terminal_and_has_no_control_characters():
    rows = [row | {"title": "\x1b[31mred\x07 " + "long " * 99} for row in pairs(20)]
    lines = list(inspect([table("a.csv", rows)]))
    assert all(line.isprintable() for line in lines)
    assert all(len(line) <= 100 for line in lines)


def test_inspection_imports_no_heavy_package():
    modules = "mufin.inspection.inspecting, mufin.inspection.check"
    code = f"import sys, {modules}; print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("torch", "transformers", "timm", "sklearn", "polars"):
        assert f"'{heavy}'" not in out.stdout, heavy


def test_figures_of_real_products_are_those_of_the_stage():
    if not (REAL_DATA / "ikea/catalog.jsonl").exists():
        pytest.skip("the data set is not here")
    text = said(REAL_DATA / "ikea/catalog.jsonl")
    assert "cold: 1,367 train, 150 valid, 649 test datapoints, 1,367 labels" in text
    assert "48,610 of 48,610 (100 %) are products" in text and "JPEG, 500 x 500" in text


def test_ids_that_a_program_wrote_as_floats_are_those_of_lists():
    rows = [
        {"": k, "product_id": f"{1000 + k}.0", "name": f"a thing {k}", "img_url": f"https://x/{k}"}
        | {"alike": str([1000 + (k + 1) % 60, 1000 + (k + 7) % 60])}
        for k in range(60)
    ]
    text = said(table("a.csv", rows))
    assert "related: alike" in text and "120 of 120 (100 %) are products" in text


def test_products_of_several_rows_are_named():
    rows = [row | {"image": f"{k}.png"} for row in pairs(30) for k in range(3)]
    text = said(table("a.csv", rows))
    assert "60 of 90 (66.7 %) have the id of an earlier row" in text
    assert "Products have several rows" in text


def test_of_the_sizes_of_a_picture_the_largest_is_taken():
    rows = [
        {"id": f"B{k}", "name": f"a thing {k}", "related": f"B{(k + 1) % 30}"}
        | {f"Image-URL-{size}": f"http://x/{k}.{size}.jpg" for size in "SML"}
        | {"photo1": f"http://x/{k}.jpg", "photo2": f"http://x/{k}b.jpg"}
        for k in range(30)
    ]
    assert "images: [Image-URL-L, photo1, photo2]" in said(table("a.csv", rows))


def test_numbers_of_categories_are_no_related_ids():
    rows = [
        {"id": k, "name": f"a thing {k}", "cats": f"{k % 9 + 1},{k % 7 + 1}", "stock": k % 50 + 1}
        for k in range(1, 301)
    ]
    assert "related: none" in said(table("a.csv", rows))


def test_parts_of_one_catalog_are_read_together():
    for part in range(3):
        rows = [row | {"id": f"{part} {row['id']}"} for row in pairs(40)]
        rows = [row | {"related": f"{(part + 1) % 3} {row['related']}"} for row in rows]
        table(f"part-{part}.csv", rows)
    text = said("part-0.csv", "part-1.csv", "part-2.csv")
    assert 'location: "part-*.csv"' in text and "120 of 120 (100 %) are products" in text


def test_a_released_set_is_known_by_its_folder():
    Path("set/raw_data").mkdir(parents=True)
    Path("set/trn_X_Y.txt").write_text("294805 131073\n")
    text = said("set")
    assert "lf-amazontitles" in text and "294,805 datapoints, 131,073 labels" in text
    Path("set/img.urls.txt").write_text("")
    list(inspect(["set"], Path("params.yaml")))
    s = load_params(Path("params.yaml")).download
    assert (s.source, s.location) == ("mm-amazontitles", "set")


def test_figures_of_labels_are_those_of_the_stage():
    Path("a.png").write_bytes(picture())
    ads = [
        {"ad": f"{k}", "headline": f"buy thing {k}", "image": "a.png"}
        | {"queries": f"{k % 30}|{k % 7}|99"}
        for k in range(100)
    ]
    queries = [{"qid": f"{k}", "query": f"cheap thing number {k}"} for k in range(30)]
    paths = [table("ads.csv", ads), table("queries.csv", queries)]
    text = " ".join(" ".join(inspect(paths, Path("params.yaml"))).split())
    assert "200 of 300 (66.7 %) are labels" in text
    download.main()
    curate.main()
    made = json.loads(Path("metrics/curate.json").read_text())
    assert f"{made['train']} train, {made['valid']} valid, {made['test']} test" in text
    assert f"{made['labels']} labels" in text


def test_ids_are_not_joined_where_products_would_be():
    ids = [*(f"P{k}" for k in range(40)), "p0", "p1"]
    rows = [
        {"id": uid, "title": uid, "image": "a.png", "related": f"p{k % 40}"}
        for k, uid in enumerate(ids, 3)
    ]
    text = said(table("a.csv", rows))
    assert "makes ids of products equal" in text and "match_ids" not in text.partition("put")[2]


def test_a_list_on_one_long_line_is_read():
    rows = [row | {"text": "long " * 40_000} for row in pairs(100)]
    Path("a.json").write_text(json.dumps(rows))
    assert "100 of 100 (100 %) are products" in said("a.json")


def test_bad_rows_of_products_are_a_share_of_the_products():
    products, orders = pairs(50), []
    for order in range(300):
        orders += [{"order": order, "id": f"P{(order + side) % 50}"} for side in (0, 1)]
    table("p.csv", products)
    table("o.csv", orders)
    with open("p.csv", "a") as file:
        file.write("a,b,c,d,e\n")
    list(inspect(["p.csv", "o.csv"], Path("params.yaml")))
    assert load_params(Path("params.yaml")).download.bad_rows >= 1 / 51


def test_a_zip_of_different_tables_is_to_be_unpacked():
    exports.movielens(Path("ml"), ITEMS, "25m")
    exports.movielens_ratings(Path("ml"), BASKETS, "25m")
    shutil.make_archive("ml", "zip", "ml")
    with pytest.raises(MufinError, match="different columns; unpack it, and name the folder"):
        said("ml.zip")


def test_a_zip_of_one_table_is_read():
    Path("there").mkdir()
    table("there/a.csv", pairs(), separator=";")
    shutil.make_archive("a", "zip", "there")
    assert "in a zip (a.csv)" in said("a.zip") and "100 of 100 (100 %)" in said("a.zip")
