"""`mufin import`: files of a form to a catalog of one's own, which gives the same data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from mufin.catalogs.importing import import_catalog, interactions_file, is_import
from mufin.errors import MufinError, sentence
from pipeline import curate, download
from tests.support import catalogs, exports
from tests.support.catalogs import settings
from tests.support.servers import Server, jpeg, serving

workplace = catalogs.workplace
ITEMS = exports.shop()
BASKETS = exports.orders(ITEMS)


def imported(source: str, files, behaviour=(), out: str | Path = "catalog.parquet", **how) -> list:
    """The lines that the import says."""
    files, behaviour = [str(path) for path in files], [str(path) for path in behaviour]
    return list(import_catalog(source, files, behaviour, Path(out), **how))


def rows(path: str) -> list[dict]:
    return pq.read_table(path).to_pylist()


def refused(*args, **how) -> str:
    with pytest.raises(MufinError) as error:
        imported(*args, **how)
    return sentence(str(error.value))


def test_an_import_says_what_came_in_and_the_section_to_set(workplace):
    products = exports.shopify(Path("shop"), ITEMS)
    orders = exports.shopify_orders(Path("shop"), BASKETS)
    lines = imported("shopify", [products], [orders])
    count = sum(map(len, BASKETS))
    pictures = sum(item.pictures for item in ITEMS)
    assert lines[:2] == [
        f"catalog.parquet: 40 products, {pictures} image references, 0 related ids",
        f"catalog.interactions.parquet: {count} interactions",
    ]
    section = YAML(typ="safe").load("\n".join(lines[lines.index("download:") :]))["download"]
    assert section == {
        "source": "catalog",
        "location": "catalog.parquet",
        "columns": {
            "id": "id",
            "title": "title",
            "images": "images",
            "related": [],
            "category": "category",
            "attributes": [],
            "texts": [],
        },
        "interactions": {
            "location": "catalog.interactions.parquet",
            "basket": "basket",
            "item": "item",
            "time": "time",
            "weight": "weight",
        },
    }


def test_orders_and_relations_name_products_by_their_id(workplace):
    imported(
        "shopify",
        [exports.shopify(Path("shop"), ITEMS)],
        [exports.shopify_orders(Path("shop"), BASKETS)],
    )
    handles = {row["id"] for row in rows("catalog.parquet")}
    assert {row["item"] for row in rows("catalog.interactions.parquet")} <= handles
    imported("woocommerce", [exports.woocommerce(Path("shop"), ITEMS)], out="woo.parquet")
    found = rows("woo.parquet")
    ids = {row["id"] for row in found}
    assert {uid for row in found for uid in row["related"]} <= ids
    assert any(row["other_ids"] for row in found)


def test_an_id_comes_before_the_other_ids_of_products(workplace):
    lines = [
        {"ID": "1", "SKU": "2", "Upsells": "3"},
        {"ID": "2", "SKU": "B", "Upsells": "2"},
        {"ID": "4", "SKU": "3", "Upsells": "2"},
        {"ID": "5", "SKU": "3", "Upsells": "id:1"},
    ]
    lines = [{"Type": "simple", "Published": "1", "Name": "a"} | line for line in lines]
    imported("woocommerce", [exports._write_csv(Path("wc.csv"), exports.WOOCOMMERCE, lines)])
    assert [row["related"] for row in rows("catalog.parquet")] == [["4"], ["2"], ["2"], ["1"]]


def test_a_name_of_two_products_is_said(workplace):
    rows = [{"Handle": uid, "Title": "Mug", "Variant SKU": uid.upper()} for uid in ("a", "b")]
    products = exports._write_csv(Path("p.csv"), exports.SHOPIFY_PRODUCTS, rows)
    lines = imported("shopify", [products])
    assert any("of several products; the first one keeps it: 1, such as 'Mug'" in x for x in lines)


def test_what_was_noticed_is_said_with_an_example(workplace):
    draft = exports.shopify_rows(ITEMS[:1], status="draft")
    products = exports._write_csv(
        Path("p.csv"), exports.SHOPIFY_PRODUCTS, draft + exports.shopify_rows(ITEMS[1:])
    )
    orders = exports.shopify_orders(Path("."), BASKETS)
    lines = imported("shopify", [products], [orders])
    assert f"products with the status draft, dropped: 1, such as '{ITEMS[0].handle}'" in lines
    unknown = sum(item is ITEMS[0] for basket in BASKETS for item in basket)
    assert any(
        line.startswith(f"interactions with products that are not in the catalog: {unknown}, such")
        for line in lines
    )


def test_a_catalog_without_relations_says_where_they_come_from(workplace):
    lines = imported("google-merchant", [exports.merchant_xml(Path("."), ITEMS)])
    assert any(line.startswith("There are no relations yet: set download.inter") for line in lines)


def test_files_of_the_import_are_known_by_their_mark(workplace):
    imported(
        "shopify",
        [exports.shopify(Path("."), ITEMS)],
        [exports.shopify_orders(Path("."), BASKETS)],
    )
    beside = interactions_file(Path("catalog.parquet"))
    assert is_import(Path("catalog.parquet")) and is_import(beside)
    assert not is_import(Path("products_export_1.csv")) and not is_import(Path("none.parquet"))
    assert not is_import(exports.amazon_2023_parquet(Path("."), ITEMS))


def test_a_failed_import_leaves_both_files_as_they_were(workplace):
    products = exports.shopify(Path("."), ITEMS)
    orders = exports.shopify_orders(Path("."), BASKETS)
    imported("shopify", [products], [orders])
    before = {path: path.read_bytes() for path in Path(".").glob("*.parquet")}
    assert "is Shopify's export of products, not" in refused("shopify", [products], [products])
    orders.write_text(orders.read_text().replace("2024-", "24-"))
    assert "or set --bad-rows to the share" in refused("shopify", [products], [orders])
    assert "more than --bad-rows (0.1)" in refused("shopify", [products], [orders], bad_rows=0.1)
    products.write_text(exports.shopify(Path("x"), ITEMS[:3]).read_text())
    assert {path: path.read_bytes() for path in Path(".").glob("*.parquet")} == before
    assert not [path for path in Path(".").iterdir() if ".mufin-" in path.name]


@pytest.mark.parametrize(
    "source, files, behaviour, message",
    [
        ("shopfiy", ["a.csv"], [], "'shopfiy' is no form; did you mean shopify?"),
        ("magento", ["a.csv"], [], "'magento' is no form (forms: amazon-2014, "),
        ("shopify", ["none.csv"], [], "the command names none.csv, which does not exist"),
        ("shopify", ["empty"], [], "empty, a folder without products_export*.* files"),
        ("shopify", ["http://a/x.csv"], [], "'http://a/x.csv' is a URL; fetch the file"),
        ("woocommerce", ["a.csv"], ["b.csv"], "woocommerce has no form of its own for orders"),
        ("shopify", ["drafts.csv"], [], "drafts.csv has no product that is sold"),
        ("shopify", ["none.csv", "a.csv"], [], "the command names none.csv"),
    ],
)
def test_what_cannot_be_imported_is_said(workplace, source, files, behaviour, message):
    Path("empty").mkdir()
    for name in ("a.csv", "b.csv"):
        Path(name).write_text("a,b\n1,2\n")
    drafts = exports.shopify_rows(ITEMS, status="draft")
    exports._write_csv(Path("drafts.csv"), exports.SHOPIFY_PRODUCTS, drafts)
    assert message in refused(source, files, behaviour)
    assert not Path("catalog.parquet").exists()


def test_a_file_without_items_is_refused(workplace):
    products = exports.shopify(Path("."), ITEMS)
    Path("orders.csv").write_text("Name,Lineitem name\n#1,\n")
    text = refused("shopify", [products], ["orders.csv"])
    assert "orders.csv has no interaction; rows without an order or an item, dropped: 1" in text


@pytest.mark.parametrize("source", ["hm", "polyvore"])
def test_a_folder_of_a_data_set_is_enough(workplace, source):
    for_products, for_behaviour = {
        "hm": (exports.hm, exports.hm_transactions),
        "polyvore": (exports.polyvore, exports.polyvore_outfits),
    }[source]
    for_products(Path("data-set"), ITEMS, jpeg())
    for_behaviour(Path("data-set"), BASKETS)
    lines = imported(source, ["data-set"], ["data-set"])
    assert f"catalog.interactions.parquet: {sum(map(len, BASKETS))} interactions" in lines
    images = [image for row in rows("catalog.parquet") for image in row["images"]]
    assert images and all(Path(image).is_file() for image in images)


def test_pictures_outside_the_folder_of_the_catalog_are_refused_before_reading(workplace):
    exports.hm(Path("data-set"), ITEMS, jpeg())
    text = refused("hm", ["data-set"], out="elsewhere/catalog.parquet")
    assert f"write it to {workplace}/data-set/catalog.parquet, or to a folder above that" in text
    imported("hm", ["data-set"], out="data-set/catalog.parquet")
    assert rows("data-set/catalog.parquet")[1]["images"][0].startswith("images/")


# The same data as from the form itself

EXPORTS = {
    "shopify": (exports.shopify, exports.shopify_orders),
    "woocommerce": (exports.woocommerce, None),
    "amazon-2023": (exports.amazon_2023, exports.amazon_reviews),
    "hm": (exports.hm, exports.hm_transactions),
    "movielens": (exports.movielens, exports.movielens_ratings),
    "polyvore": (exports.polyvore, exports.polyvore_outfits),
}
SETTINGS = {
    "download__private_addresses": True,
    "download__retries": 0,
    "download__max_failed": 1.0,
    "curate__split": "warm",
}


def curated(**changes) -> dict[str, bytes]:
    """{file: bytes} of data/curated, from these settings."""
    settings(**SETTINGS, **changes)
    download.main()
    curate.main()
    found = {
        path.relative_to("data/curated").as_posix(): path.read_bytes()
        for path in Path("data/curated").rglob("*.parquet")
    }
    shutil.rmtree("data")
    return found


@pytest.mark.parametrize("source", sorted(EXPORTS))
def test_the_import_gives_the_data_of_the_form(workplace, source):
    for_products, for_behaviour = EXPORTS[source]
    with serving(Server()) as server:
        of = {"hm": jpeg(), "polyvore": jpeg()}.get(source, server.url("/pic"))
        products = for_products(Path("files"), ITEMS, *([] if source == "movielens" else [of]))
        behaviour = for_behaviour(Path("files"), BASKETS) if for_behaviour else []
        behaviour = behaviour if isinstance(behaviour, list) else [behaviour]
        none = dict.fromkeys(["basket", "item", "time", "weight", "location"])
        names = [str(path) for path in behaviour] or None
        direct = curated(
            download__source=source,
            download__location=str(products),
            download__interactions=none | {"location": names},
        )
        lines = imported(source, [products], behaviour)
        text = "\n".join(lines[lines.index("download:") :])
        section = YAML(typ="safe").load(text)["download"]
        again = curated(
            **{f"download__{name}": value for name, value in section.items()},
            **({} if behaviour else {"download__interactions": none}),
        )
    assert direct.keys() == again.keys() and len(direct) >= 5
    for name, content in direct.items():
        assert again[name] == content, name
