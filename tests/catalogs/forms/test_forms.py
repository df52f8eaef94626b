"""The list of forms: their folders, how wrong files are named, and the table of docs/forms.md."""

from __future__ import annotations

import gzip
import random
import typing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mufin.catalog_params import Download
from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.forms import FORMS, located
from mufin.catalogs.forms.recognition import SIGNS, recognised
from mufin.catalogs.notes import Notes
from mufin.errors import MufinError
from pipeline import download
from tests.catalogs.forms.table import ROWS, table
from tests.support import catalogs, exports
from tests.support.catalogs import settings
from tests.support.projects import ROOT
from tests.support.servers import jpeg

workplace = catalogs.workplace
ITEMS = exports.shop()
BASKETS = exports.orders(ITEMS)


def test_every_form_is_a_source_and_the_other_way_round():
    source = typing.get_type_hints(Download)["source"]
    own = {"sample", "sample-outfits", "catalog", "mm-amazontitles", "lf-amazontitles"}
    assert set(typing.get_args(source)) - own == FORMS.keys()
    assert {sign.source for sign in SIGNS} <= FORMS.keys()


def test_docs_have_the_table_as_the_command_prints_it():
    assert "\n".join(table()) in (ROOT / "docs/forms.md").read_text()


def test_docs_name_every_form():
    text = (ROOT / "docs/forms.md").read_text()
    assert all(f"\n## `{name}`" in text for name in FORMS)


@pytest.mark.parametrize(
    "source, names, products, behaviour",
    [
        ("hm", "articles.csv customers.csv transactions_train.csv", "a*", "t*"),
        ("amazon-2023", "meta_A.jsonl.gz A.jsonl.gz", "meta*", "A*"),
        ("amazon-2023", "raw_meta_A/0.parquet raw_review_A/0.parquet", "*meta*/*", "*rev*/*"),
        ("amazon-2018", "meta_A.json.gz A_5.json.gz", "meta*", "A*"),
        ("movielens", "movies.dat ratings.dat users.dat README", "m*", "r*"),
        ("movielens", "u.item u.data u1.base", "u.i*", "u.d*"),
        ("movielens", "movies.csv ratings.csv links.csv tags.csv", "m*", "r*"),
        ("shopify", "products_export_1.csv products_export_2.csv orders_export_1.zip", "p*", "o*"),
        (
            "polyvore",
            "polyvore_item_metadata.json nondisjoint/train.json nondisjoint/test.json "
            "nondisjoint/fill_in_blank_test.json disjoint/train.json",
            "p*",
            "nondisjoint/t*",
        ),
    ],
)
def test_a_folder_stands_for_its_files(tmp_path, source, names, products, behaviour):
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    for pattern, kind in ((products, False), (behaviour, True)):
        found = located(source, str(tmp_path), behaviour=kind)
        expected = sorted(map(str, tmp_path.glob(pattern)))
        assert ([found] if isinstance(found, str) else found) == expected


def test_files_globs_and_urls_stay_as_they_are():
    for location in ("a.csv", ["a.csv", "b*.csv", "https://a/c.csv"]):
        assert located("shopify", location) == location


def test_a_folder_without_files_of_the_form_says_what_is_there(tmp_path):
    (tmp_path / "products.json").write_text("")
    (tmp_path / "articles.csv.d").mkdir()
    with pytest.raises(MufinError) as error:
        located("hm", str(tmp_path))
    assert str(error.value) == (
        f"download.location names {tmp_path}, a folder without articles.csv* files (it has "
        "articles.csv.d, products.json); name the files themselves"
    )


@pytest.mark.parametrize(
    "columns, source, kind",
    [
        (exports.SHOPIFY_PRODUCTS, "shopify", "products"),
        (exports.SHOPIFY_ORDERS, "shopify", "interactions"),
        (exports.WOOCOMMERCE, "woocommerce", "products"),
        (exports.HM_ARTICLES, "hm", "products"),
        (["user_id", "asin", "parent_asin", "rating", "title"], "amazon-2023", "interactions"),
        (["Image Link", "ID", "Title", "Price"], "google-merchant", "products"),
    ],
)
def test_a_file_is_known_by_its_columns(columns, source, kind):
    sign = recognised(columns)
    assert sign and (sign.source, sign.kind) == (source, kind)


@pytest.mark.parametrize("columns", [[], ["sku", "price"], ["ASIN", "title", "also_buy"]])
def test_columns_of_nobody_are_not_known(columns):
    assert recognised(columns) is None


def test_two_folders_of_a_data_set_are_one_catalog(workplace):
    exports.hm(Path("a"), ITEMS[:20], jpeg())
    exports.hm(Path("b"), ITEMS[20:], jpeg())
    exports.hm_transactions(Path("a"), BASKETS)
    none = dict.fromkeys(["basket", "item", "time", "weight"])
    settings(
        download__source="hm",
        download__location=["a", "b"],
        download__interactions=none | {"location": "a"},
    )
    download.main()
    log = pq.read_table("data/raw/image_log.parquet").to_pylist()
    assert len(log) == 32 and not any(row["reason"] for row in log)


DAMAGES = [b"\0", b'"', b"\n", b",", b"\xff", b"{", b"]", b"<", b"&", b"::", b"1e400", b"9" * 40]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The bytes with some replaced, left out, put twice or cut off."""
    out = bytearray(content)
    for _ in range(draw.randint(1, 5)):
        at, length = draw.randrange(len(out) + 1), draw.randint(0, 40)
        piece = draw.choice([b"", *DAMAGES, bytes(out[at : at + 80]) * 2])
        out[at : at + length] = piece
    return bytes(out[: draw.choice([len(out), draw.randrange(len(out) + 1)])])


@pytest.mark.parametrize("source, write, write_behaviour", ROWS)
def test_a_damaged_file_gives_products_or_a_sentence(tmp_path, source, write, write_behaviour):
    draw, seen = random.Random(0), set()
    path = write(tmp_path)
    path = path / "polyvore_item_metadata.json" if path.is_dir() else path
    content = path.read_bytes()
    packed = path.suffix == ".gz"
    for _ in range(30):
        other = damaged(gzip.decompress(content) if packed else content, draw)
        path.write_bytes(gzip.compress(other) if packed else other)
        notes = Notes()
        bad = BadRows(notes, draw.choice([0.0, 0.5]))
        try:
            found = FORMS[source].products([path], notes, encoding=None, bad=bad)
            seen.add(bool(list(found)))
        except MufinError as error:
            assert "\n" not in str(error)
            seen.add(None)
    assert None in seen  # the damage was such that files were refused


def test_products_in_the_place_of_orders_point_to_the_products(workplace):
    products = exports.shopify(Path("."), ITEMS)
    none = dict.fromkeys(["basket", "item", "time", "weight"])
    settings(
        download__source="shopify",
        download__location=str(products),
        download__interactions=none | {"location": str(products)},
    )
    with pytest.raises(MufinError) as error:
        download.main()
    assert str(error.value) == (
        "products_export_1.csv is Shopify's export of products, not Shopify's export of orders; "
        "give it as products: location in the section download, or `mufin import shopify`"
    )


def test_a_shop_without_relations_is_told_to_give_its_orders(workplace):
    settings(download__source="shopify", download__location=str(exports.shopify(Path("."), ITEMS)))
    with pytest.raises(
        MufinError, match="has related ids; set download.interactions to its orders"
    ):
        download.main()
