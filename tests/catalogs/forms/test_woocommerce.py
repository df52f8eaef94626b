"""WooCommerce's export of products."""

from __future__ import annotations

from pathlib import Path

import pytest

from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from tests.catalogs.forms.reading import products, refusal, tolerant
from tests.support import exports
from tests.support.exports import WOOCOMMERCE

ITEMS = exports.shop()


def catalog(folder: Path, *rows: dict) -> Path:
    """A file of WooCommerce's with these rows."""
    rows = [{"Type": "simple", "Published": "1"} | row for row in rows]
    return exports._write_csv(folder / "wc.csv", WOOCOMMERCE, rows, encoding="utf-8-sig")


def test_an_export_gives_products_pictures_and_relations(tmp_path):
    found = products("woocommerce", exports.woocommerce(tmp_path, ITEMS))
    assert [p.uid for p in found] == [str(100 + item.number) for item in ITEMS]
    assert [p.title for p in found] == [item.title for item in ITEMS]
    assert [p.category for p in found] == [["Tableware", "Cups, mugs"]] * len(ITEMS)
    for item, product in zip(ITEMS, found):
        variation = [item.picture(exports.HOST, 9)] if len(item.colours) > 1 else []
        pictures = [item.picture(exports.HOST, at) for at in range(1, item.pictures + 1)]
        assert product.images == pictures + variation
    # Each related id is an ID, or the SKU of a product.
    skus = {name for p in found for name in p.other_ids}
    assert {ref for p in found for ref in p.related} <= skus | {p.uid for p in found}
    assert sum(len(p.related) for p in found) > 2 * len(found)


def test_upsells_and_cross_sells_are_skus_or_ids(tmp_path):
    row = {"ID": "1", "SKU": "A", "Upsells": "B, id:7", "Cross-sells": "id:7, C\\,1, B"}
    assert products("woocommerce", catalog(tmp_path, row)) == [
        Product("1", related=["B", "7", "C,1"], other_ids=["A"])
    ]


@pytest.mark.parametrize("parent", ["A", "id:1"])
@pytest.mark.parametrize("first", [True, False])
def test_variations_belong_to_their_parent_before_or_after_it(tmp_path, parent, first):
    mug = {"ID": "1", "Type": "variable, downloadable", "SKU": "A", "Images": "1.jpg, 2.jpg"}
    red = {
        "ID": "2",
        "Type": "variation, virtual",
        "SKU": "A-R",
        "GTIN, UPC, EAN, or ISBN": "4006381333931",
        "Images": "3.jpg",
        "Parent": parent,
    }
    rows = [red, mug] if first else [mug, red]
    assert products("woocommerce", catalog(tmp_path, *rows)) == [
        Product(
            "1", images=["1.jpg", "2.jpg", "3.jpg"], other_ids=["A", "2", "A-R", "4006381333931"]
        )
    ]


def test_variations_without_a_parent_are_counted(tmp_path):
    notes = Notes()
    row = {"ID": "2", "Type": "variation", "Parent": "gone"}
    assert not products("woocommerce", catalog(tmp_path, row), notes=notes)
    assert notes.sentences() == ["variations without their parent, dropped: 1, such as '2 of gone'"]


@pytest.mark.parametrize("published, state", [("0", "private"), ("-1", "draft")])
def test_what_is_not_published_is_dropped_and_counted(tmp_path, published, state):
    notes = Notes()
    rows = [{"ID": "1", "Published": published}, {"ID": "2"}]
    found = products("woocommerce", catalog(tmp_path, *rows), notes=notes)
    assert [p.uid for p in found] == ["2"]
    assert notes.sentences() == [f"products that are {state}, dropped: 1, such as '1'"]


def test_a_product_without_an_id_has_its_sku(tmp_path):
    notes = Notes()
    found = products("woocommerce", catalog(tmp_path, {"SKU": "A"}, {"Name": "B"}), notes=notes)
    assert found == [Product("A")]
    assert [*notes.counts] == ["rows without an ID and a SKU, dropped"]


def test_cells_that_look_like_formulas_lose_their_apostrophe(tmp_path):
    row = {"ID": "1", "Name": "'-50 % mug", "SKU": "'+A"}
    assert products("woocommerce", catalog(tmp_path, row))[0].title == "-50 % mug"


def test_column_names_in_another_language_name_the_remedy(tmp_path):
    path = tmp_path / "wc-product-export.csv"
    path.write_text("ID,Typ,Artikelnummer,Name,Veröffentlicht\n1,simple,A,Tasse,1\n")
    text = refusal(products, "woocommerce", path)
    assert "no column 'Type' (it has ID, Typ, Artikelnummer" in text
    assert "set it to English" in text


def test_a_file_of_another_shop_is_named(tmp_path):
    text = refusal(products, "woocommerce", exports.shopify(tmp_path, ITEMS))
    assert "is Shopify's export of products, not" in text


def test_variations_without_any_parent_go_to_no_product(tmp_path):
    rows = [{"ID": "1", "Name": "A"}, {"ID": "2", "Type": "variation", "Images": "2.jpg"}]
    assert products("woocommerce", catalog(tmp_path, *rows)) == [Product("1", "A")]


def test_ids_that_lost_digits_are_bad_rows(tmp_path):
    path = catalog(tmp_path, {"SKU": "8.90124E+12"}, {"ID": "7.0", "SKU": "B"})
    assert "in SKU: a spreadsheet program cut" in refusal(products, "woocommerce", path)
    notes, bad = tolerant(0.5)
    assert [p.uid for p in products("woocommerce", path, notes=notes, bad=bad)] == ["7"]
    bad.check()
