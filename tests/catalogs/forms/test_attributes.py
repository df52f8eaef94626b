"""Columns for filters in the exports of shops: of variants, with a currency, in XML."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from mufin.catalog_params import WITH_ATTRIBUTES
from mufin.catalogs.forms import FORMS
from mufin.catalogs.notes import Notes
from tests.catalogs.forms.reading import products, refusal

SHOPIFY = """Handle,Title,Vendor,Variant Price,Option1 Value,Image Src
mug,Mug,Tarn,,S,http://a/1.jpg
mug,,,12.50,M,
mug,,,13.50,L,
tin,Tin,,3,,
mug,,Pike,1,XL,
"""
WOO = """ID,Type,SKU,Name,Published,Regular price,In stock?,Parent
1,variable,M,Mug,1,,1,
2,variation,M-S,Mug S,1,12.50,0,M
3,variation,M-L,Mug L,1,13,1,M
4,simple,T,Tin,1,5,0,
"""
FEED = """id\ttitle\timage link\tprice\tavailability\tSale Price
a\tMug\thttp://a/1.jpg\t12.50 EUR\tin stock\t
b\tTin\thttp://a/2.jpg\t3 EUR\tout of stock\t2 EUR
"""
XML = """<rss xmlns:g="http://base.google.com/ns/1.0"><channel>
<item><g:id>a</g:id><title>Mug</title><g:image_link>http://a/1.jpg</g:image_link>
<g:price>12.50 EUR</g:price><g:availability>in stock</g:availability>
<g:product_detail>x</g:product_detail><g:product_detail>y</g:product_detail></item>
<item><g:id>b</g:id><title>Tin</title><g:image_link>http://a/2.jpg</g:image_link>
<g:price>3 EUR</g:price><g:availability>out of stock</g:availability>
<g:sale_price>2 EUR</g:sale_price></item></channel></rss>
"""


def of(folder: Path, source: str, name: str, text: str, names: list[str]) -> dict[str, tuple]:
    """{uid: attributes} of the products of a file."""
    path = folder / name
    path.write_text(text)
    return {p.uid: p.attributes for p in products(source, path, attributes=names)}


def test_a_handle_has_the_first_value_of_its_rows(tmp_path):
    names = ["Variant Price", "vendor", "Option1 Value"]
    found = of(tmp_path, "shopify", "products.csv", SHOPIFY, names)
    assert found == {"mug": ("12.50", "Tarn", "S"), "tin": ("3", None, None)}


def test_a_variable_product_has_the_price_of_its_first_variation(tmp_path):
    found = of(tmp_path, "woocommerce", "a.csv", WOO, ["Regular price", "In stock?"])
    assert found == {"1": ("12.50", "1"), "4": ("5", "0")}


@pytest.mark.parametrize("name, text", [("a.tsv", FEED), ("a.xml", XML)])
def test_feeds_have_amounts_and_words(name, text, tmp_path):
    found = of(tmp_path, "google-merchant", name, text, ["price", "availability", "sale_price"])
    assert found == {
        "a": ("12.50 EUR", "in stock", None),
        "b": ("3 EUR", "out of stock", "2 EUR"),
    }


def test_an_element_that_occurs_twice_is_a_list(tmp_path):
    found = of(tmp_path, "google-merchant", "a.xml", XML, ["g:product_detail"])
    assert found == {"a": (["x", "y"],), "b": (None,)}


@pytest.mark.parametrize(
    "source, name, text, wrong, near",
    [
        ("shopify", "a.csv", SHOPIFY, "Variant Prise", "Variant Price"),
        ("woocommerce", "a.csv", WOO, "Regular_prices", "Regular price"),
        ("google-merchant", "a.tsv", FEED, "availabilty", "availability"),
        ("google-merchant", "a.xml", XML, "availabilty", "availability"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_the_near_one(
    source, name, text, wrong, near, tmp_path
):
    path = tmp_path / name
    path.write_text(text)
    said = refusal(products, source, path, notes=Notes(), attributes=[wrong])
    assert f"no column {wrong!r}" in said and f"download.columns.attributes to {near}" in said


@pytest.mark.parametrize("source, text", [("shopify", SHOPIFY), ("woocommerce", WOO)])
def test_without_the_setting_products_have_none(source, text, tmp_path):
    assert set(of(tmp_path, source, "a.csv", text, []).values()) == {()}


def test_the_settings_allow_attributes_where_the_reader_does():
    able = {n for n, f in FORMS.items() if "attributes" in inspect.signature(f.products).parameters}
    assert able == set(WITH_ATTRIBUTES) - {"sample", "catalog"}
