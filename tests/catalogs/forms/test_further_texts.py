"""Texts beside the title in the exports of shops and in Amazon's metadata."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from mufin.catalog_params import WITH_TEXTS
from mufin.catalogs.forms import FORMS
from mufin.catalogs.notes import Notes
from tests.catalogs.forms.reading import products, refusal

SHOPIFY = """Handle,Title,Body (HTML),Option1 Value,Image Src
mug,Mug,<p>A mug | for tea</p>,Red,http://a/1.jpg
mug,,,Blue,
tin,Tin,nan,,
mug,,<p>A mug | for tea</p>,Red,
"""
WOO = """ID,Type,SKU,Name,Published,Description,Short description,Parent
1,variable,M,Mug,1,"A mug,\\nfor tea",short,
2,variation,M-S,Mug S,1,small,,M
3,variation,M-L,Mug L,1,large,,M
4,simple,T,Tin,1,,,
"""
FEED = """id\ttitle\timage link\tdescription\tmaterial
a\tMug\thttp://a/1.jpg\tA mug | for tea\t
b\tTin\thttp://a/2.jpg\t\ttin
"""
XML = """<rss xmlns:g="http://base.google.com/ns/1.0"><channel>
<item><g:id>a</g:id><title>Mug</title><g:image_link>http://a/1.jpg</g:image_link>
<description>A mug | for tea</description></item>
<item><g:id>b</g:id><title>Tin</title><g:image_link>http://a/2.jpg</g:image_link>
<description></description><g:material>tin</g:material></item></channel></rss>
"""
OLD = {"asin": "a", "title": "Mug", "related": {"also_bought": ["b"]}, "description": "A | mug"}
NEW = {"asin": "a", "title": "Mug", "also_buy": [], "description": ["A mug", ""], "feature": ["x"]}
LATEST = {"parent_asin": "a", "title": "Mug", "images": [], "main_category": "Home"} | {
    "description": ["A mug"],
    "features": ["one", "two"],
}


def of(folder: Path, source: str, name: str, text: str, names: list[str]) -> dict[str, list[str]]:
    """{uid: further texts} of the products of a file."""
    path = folder / name
    path.write_text(text)
    return {p.uid: p.texts for p in products(source, path, texts=names)}


def test_a_handle_has_the_texts_of_all_its_rows(tmp_path):
    found = of(tmp_path, "shopify", "a.csv", SHOPIFY, ["body (html)", "Option1 Value"])
    assert found == {"mug": ["<p>A mug | for tea</p>", "Red", "Blue"], "tin": []}


def test_a_variable_product_has_the_texts_of_its_variations(tmp_path):
    found = of(tmp_path, "woocommerce", "a.csv", WOO, ["Description", "Short description"])
    assert found == {"1": ["A mug,\nfor tea", "short", "small", "large"], "4": []}


@pytest.mark.parametrize("name, text", [("a.tsv", FEED), ("a.xml", XML)])
def test_feeds_have_descriptions(name, text, tmp_path):
    found = of(tmp_path, "google-merchant", name, text, ["description", "material"])
    assert found == {"a": ["A mug | for tea"], "b": ["tin"]}


@pytest.mark.parametrize(
    "source, name, text, names, expected",
    [
        ("amazon-2014", "a.json", repr(OLD), ["description"], ["A | mug"]),
        ("amazon-2018", "a.json", json.dumps(NEW), ["feature", "description"], ["x", "A mug"]),
        (
            "amazon-2023",
            "a.jsonl",
            json.dumps(LATEST),
            ["features", "description"],
            ["one", "two", "A mug"],
        ),
    ],
)
def test_metadata_has_descriptions_and_features(source, name, text, names, expected, tmp_path):
    assert of(tmp_path, source, name, text + "\n", names) == {"a": expected}


@pytest.mark.parametrize(
    "source, name, text, wrong, near",
    [
        ("shopify", "a.csv", SHOPIFY, "Body (HTM)", "Body"),
        ("woocommerce", "a.csv", WOO, "Descriptions", "Description"),
        ("google-merchant", "a.tsv", FEED, "descripton", "description"),
        ("google-merchant", "a.xml", XML, "descripton", "description"),
        ("amazon-2014", "a.json", repr(OLD), "descripton", "description"),
        ("amazon-2018", "a.json", json.dumps(NEW), "features", "feature"),
        ("amazon-2023", "a.jsonl", json.dumps(LATEST), "feature", "features"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_the_near_one(
    source, name, text, wrong, near, tmp_path
):
    path = tmp_path / name
    path.write_text(text + "\n")
    said = refusal(products, source, path, notes=Notes(), texts=[wrong])
    assert f"no column {wrong!r}" in said and f"download.columns.texts to {near}" in said


def test_an_object_in_place_of_a_text_is_a_bad_row(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(NEW | {"description": {"en": "A mug"}}) + "\n")
    said = refusal(products, "amazon-2018", path, notes=Notes(), texts=["description"])
    assert "line 1" in said and "description[].en" in said


def test_the_settings_allow_texts_where_the_reader_does():
    able = {n for n, f in FORMS.items() if "texts" in inspect.signature(f.products).parameters}
    assert able == set(WITH_TEXTS) - {"catalog"}
