"""Shopify's exports of products and orders."""

from __future__ import annotations

import csv
import datetime
import gzip
import random
import zipfile
from pathlib import Path

import pytest

from mufin.catalogs.forms import shopify
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from tests.catalogs.forms.reading import interactions, products, refusal, tolerant
from tests.support import exports
from tests.support.exports import HOST, SHOPIFY_ORDERS, SHOPIFY_PRODUCTS

ITEMS = exports.shop()


def catalog(folder: Path, *rows: dict, name: str = "products_export_1.csv", **how) -> Path:
    """A file of Shopify's with these rows."""
    return exports._write_csv(folder / name, SHOPIFY_PRODUCTS, list(rows), **how)


def order_file(folder: Path, *rows: dict) -> Path:
    return exports._write_csv(folder / "orders_export_1.csv", SHOPIFY_ORDERS, list(rows))


def test_an_export_gives_each_handle_once_with_all_pictures(tmp_path):
    found = products("shopify", exports.shopify(tmp_path, ITEMS))
    assert [p.uid for p in found] == [item.handle for item in ITEMS]
    assert [p.title for p in found] == [item.title for item in ITEMS]
    assert [p.images for p in found] == [
        [item.picture(HOST, at) for at in range(1, item.pictures + 1)] for item in ITEMS
    ]
    assert found[0].category == ["Home & Garden", "Kitchen & Dining", "Tableware"]
    assert not any(p.related for p in found)


def test_pictures_keep_their_position_and_variant_pictures_follow(tmp_path):
    rows = [
        {"Handle": "a", "Title": "A", "Image Src": "3.jpg", "Image Position": "3"},
        {"Handle": "a", "Image Src": "10.jpg", "Image Position": "10", "Variant Image": "v.jpg"},
        {"Handle": "a", "Image Src": "none.jpg"},
        {"Handle": "a", "Image Src": "far.jpg", "Image Position": "9" * 5000},
        {"Handle": "a", "Image Src": "1.jpg", "Image Position": "1", "Variant Image": "3.jpg"},
    ]
    assert products("shopify", catalog(tmp_path, *rows))[0].images == [
        "1.jpg",
        "3.jpg",
        "10.jpg",
        "none.jpg",
        "far.jpg",
        "v.jpg",
    ]


def test_every_code_and_name_of_a_variant_is_another_id(tmp_path):
    rows = [
        {"Handle": "mug", "Title": "Mug", "Option1 Value": "Red", "Variant SKU": "'007"},
        {
            "Handle": "mug",
            "Option1 Value": "Blue",
            "Option2 Value": "XL",
            "Variant SKU": "B-1",
            "Variant Barcode": "'4006381333931",
        },
        {"Handle": "pot", "Title": "Pot", "Option1 Value": "Default Title"},
    ]
    mug, pot = products("shopify", catalog(tmp_path, *rows))
    assert mug.other_ids == ["007", "B-1", "4006381333931", "Mug", "Mug - Red", "Mug - Blue / XL"]
    assert pot.other_ids == ["Pot"]


def test_recommendations_of_the_shop_are_relations(tmp_path):
    complementary = f"Complementary products ({exports.FIELD}complementary_products)"
    related = f"Related products ({exports.FIELD}related_products)"
    rows = [
        {"Handle": "a", "Title": "A", complementary: "b; c", related: "c, d"},
        {"Handle": "b", "Title": "B", related: '["gid://shopify/Product/123"]'},
        {"Handle": "c", "Title": "C"},
    ]
    found = products("shopify", catalog(tmp_path, *rows))
    assert [p.related for p in found] == [["b", "c", "d"], ["123"], []]


def test_a_shop_in_another_language_labels_its_metafields_so(tmp_path):
    label = f"Produits complémentaires ({exports.FIELD}complementary_products)"
    path = exports._write_csv(
        tmp_path / "a.csv", ["Handle", "Title", label], [{"Handle": "a", "Title": "A", label: "b"}]
    )
    assert products("shopify", path)[0].related == ["b"]


@pytest.mark.parametrize("status", ["draft", "archived"])
def test_what_is_not_sold_is_dropped_and_counted(tmp_path, status):
    rows = [
        {"Handle": "a", "Title": "A", "Status": status},
        {"Handle": "a", "Image Src": "a.jpg"},
        {"Handle": "b", "Title": "B", "Status": "Active"},
    ]
    notes = Notes()
    assert [p.uid for p in products("shopify", catalog(tmp_path, *rows), notes=notes)] == ["b"]
    assert notes.sentences() == [f"products with the status {status}, dropped: 1, such as 'a'"]


def test_rows_in_any_order_give_the_same_products(tmp_path):
    rows = exports.shopify_rows(ITEMS)
    whole = {p.uid: p for p in products("shopify", catalog(tmp_path / "a", *rows))}
    random.Random(0).shuffle(rows)
    notes = Notes()
    mixed = products("shopify", catalog(tmp_path / "b", *rows), notes=notes)
    assert len(mixed) == len(whole)
    for product in mixed:
        assert product.images == whole[product.uid].images
        assert set(product.other_ids) == set(whole[product.uid].other_ids)
    assert any("not together" in text for text in notes.sentences())


def test_a_product_may_go_on_in_the_next_file(tmp_path):
    first = catalog(tmp_path, {"Handle": "a", "Title": "A", "Image Src": "1.jpg"}, name="1.csv")
    second = catalog(tmp_path, {"Handle": "a", "Image Src": "2.jpg"}, name="2.csv")
    assert products("shopify", first, second) == [
        Product("a", "A", ["1.jpg", "2.jpg"], other_ids=["A"])
    ]


def test_the_new_column_names_are_read_too(tmp_path):
    header = (
        "Title,URL handle,Description,Vendor,Product category,Type,Tags,Published on online store,"
        "Status,SKU,Barcode,Option1 name,Option1 value,Price,Product image URL,Image position,"
        "Image alt text,Variant image URL"
    ).split(",")
    row = {
        "Title": "A",
        "URL handle": "a",
        "Product category": "Home > Cups",
        "Status": "Active",
        "SKU": "A-1",
        "Option1 value": "Red",
        "Product image URL": "1.jpg",
        "Image position": "1",
        "Variant image URL": "2.jpg",
    }
    path = exports._write_csv(tmp_path / "product_template.csv", header, [row])
    assert products("shopify", path) == [
        Product(
            "a",
            "A",
            ["1.jpg", "2.jpg"],
            [],
            ["Home", "Cups"],
            other_ids=["A-1", "A", "A - Red"],
        )
    ]


@pytest.mark.parametrize("how", ["gz", "zip", "utf-16", "semicolons", "cp1252"])
def test_a_file_that_was_packed_or_saved_again_is_the_same(tmp_path, how):
    plain = exports.shopify(tmp_path, ITEMS)
    path = plain
    if how == "gz":
        path = tmp_path / "a.csv.gz"
        path.write_bytes(gzip.compress(plain.read_bytes()))
    elif how == "zip":
        path = tmp_path / "products_export.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.write(plain, "products_export_1.csv")
    elif how == "semicolons":
        with open(plain, newline="") as file:
            path = catalog(tmp_path, *csv.DictReader(file), name="b.csv", delimiter=";")
    else:
        path = tmp_path / "b.csv"
        path.write_text(plain.read_text(), encoding=how, newline="")
    encoding = how if how == "cp1252" else None
    assert products("shopify", path, encoding=encoding) == products("shopify", plain)


def test_orders_name_skus_or_else_names_with_the_time_of_the_order(tmp_path):
    rows = [
        {
            "Name": "#2",
            "Created at": "2024-05-01 10:00:00 -0400",
            "Lineitem name": "Mug - Red",
            "Lineitem sku": "'007",
            "Lineitem quantity": "12",
        },
        {"Name": "#2", "Lineitem name": "Pot", "Lineitem quantity": "1"},
        {"Name": "#1", "Created at": "2024-04-30 23:00:00 +0200", "Lineitem name": "Pot"},
    ]
    zone = datetime.timezone(datetime.timedelta(hours=-4))
    second = datetime.datetime(2024, 5, 1, 10, tzinfo=zone).timestamp()
    first = datetime.datetime(2024, 4, 30, 21, tzinfo=datetime.UTC).timestamp()
    assert interactions("shopify", order_file(tmp_path, *rows)) == [
        ("#2", "007", second, 1.0),
        ("#2", "Pot", second, 1.0),
        ("#1", "Pot", first, 1.0),
    ]


def test_every_item_of_the_orders_names_a_product(tmp_path):
    baskets = exports.orders(ITEMS)
    found = products("shopify", exports.shopify(tmp_path, ITEMS))
    names = {name: p.uid for p in found for name in p.other_ids}
    lines = interactions("shopify", exports.shopify_orders(tmp_path, baskets))
    named = [(order, names[item]) for order, item, _, _ in lines]
    assert sorted(named) == sorted(
        (f"#{number}", item.handle)
        for number, basket in enumerate(baskets, 1001)
        for item in basket
    )


def test_cancelled_orders_do_not_count(tmp_path):
    rows = [
        {"Name": "#2", "Cancelled at": "2024-05-01 10:00:00 -0400", "Lineitem name": "Mug"},
        {"Name": "#2", "Lineitem name": "Pot"},
        {"Name": "#1", "Lineitem name": "Pot"},
    ]
    notes = Notes()
    assert interactions("shopify", order_file(tmp_path, *rows), notes=notes) == [
        ("#1", "Pot", None, 1.0)
    ]
    assert notes.sentences() == ["cancelled orders, dropped: 1, such as '#2'"]


def test_orders_in_the_place_of_products_are_named(tmp_path):
    path = exports.shopify_orders(tmp_path, exports.orders(ITEMS, 3))
    assert refusal(products, "shopify", path) == (
        f"{path} is Shopify's export of orders, not Shopify's export of products; give it as "
        "download.interactions.location, or to `mufin import shopify` with --interactions"
    )


def test_products_in_the_place_of_orders_are_named(tmp_path):
    path = exports.shopify(tmp_path, ITEMS)
    assert "is Shopify's export of products, not" in refusal(interactions, "shopify", path)


def test_a_file_of_another_shop_is_named(tmp_path):
    path = exports.woocommerce(tmp_path, ITEMS)
    text = refusal(products, "shopify", path)
    assert "is WooCommerce's export of products" in text and "`mufin import woocommerce`" in text


def test_a_file_of_nobody_names_the_column_and_where_to_get_one(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sku,price\n1,2\n")
    assert refusal(products, "shopify", path) == (
        f"{path} has no column 'Handle' (it has sku, price), so it is not Shopify's export of "
        "products; in Shopify's admin, Products, Export writes one"
    )


def test_a_time_that_is_none_stops_or_is_counted(tmp_path):
    rows = [
        {"Name": "#2", "Created at": "yesterday", "Lineitem name": "Mug"},
        {"Name": "#1", "Created at": "2024-05-01 10:00:00 -0400", "Lineitem name": "Pot"},
        {"Name": "#0", "Cancelled at": "2024-05-01 10:00:00 -0400", "Lineitem name": "Pot"},
        {"Name": "#4", "Created at": "today", "Lineitem name": "Mug"},
        {"Name": "#4", "Lineitem name": "Pot"},
    ]
    path = order_file(tmp_path, *rows)
    assert "'yesterday' in Created at" in refusal(interactions, "shopify", path)
    notes, bad = tolerant(0.5)
    found = interactions("shopify", path, notes=notes, bad=bad)
    assert [order for order, _, _, _ in found] == ["#1", "#4"]
    bad.check()
    assert (bad.rows, bad.bad) == (5, 2)


def test_codes_that_a_spreadsheet_cut_are_dropped_and_counted(tmp_path):
    rows = [
        {"Handle": "a", "Title": "A", "Variant SKU": "A-1", "Variant Barcode": "8.90124E+12"},
        {"Handle": "b", "Title": "B", "Variant SKU": "12E5"},
    ]
    notes = Notes()
    found = products("shopify", catalog(tmp_path, *rows), notes=notes)
    assert [p.other_ids for p in found] == [["A-1", "A"], ["12E5", "B"]]
    assert list(notes.examples.values()) == ["'8.90124E+12'"]


def test_rows_of_a_product_without_end_are_dropped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(shopify, "MANY", 3)
    rows = [{"Handle": "a", "Title": "A", "Image Src": f"{n}.jpg"} for n in range(10)]
    notes = Notes()
    found = products("shopify", catalog(tmp_path, *rows), notes=notes)
    assert [p.images for p in found] == [["0.jpg", "1.jpg", "2.jpg"]]
    assert notes.counts == {"rows of a Handle after its first 3, dropped": 7}


def test_an_excel_file_gives_the_same_products(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(SHOPIFY_PRODUCTS)
    for row in exports.shopify_rows(ITEMS):
        row |= {"Image Position": int(row["Image Position"])} if "Image Position" in row else {}
        book.active.append([row.get(name) for name in SHOPIFY_PRODUCTS])
    book.save(tmp_path / "products.xlsx")
    expected = products("shopify", exports.shopify(tmp_path, ITEMS))
    assert products("shopify", tmp_path / "products.xlsx") == expected
