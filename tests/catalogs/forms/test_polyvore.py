"""Polyvore Outfits."""

from __future__ import annotations

import json

import pytest

from mufin.catalogs.notes import Notes
from tests.catalogs.forms.reading import interactions, products, refusal
from tests.support import exports

ITEMS = exports.shop()
BASKETS = exports.orders(ITEMS)


def test_items_have_their_picture_and_title(tmp_path):
    found = products("polyvore", exports.polyvore(tmp_path, ITEMS, b"jpeg"))
    assert [p.uid for p in found] == [str(100_000_000 + item.number) for item in ITEMS]
    assert [p.images for p in found] == [[f"images/{p.uid}.jpg"] for p in found]
    assert [p.title for p in found] == [
        item.title if item.number % 3 else item.title.lower() for item in ITEMS
    ]
    assert found[1].category == ["accessories", "Home", "Teapot"]
    assert not any(p.related for p in found)


def test_items_without_a_picture_are_counted(tmp_path):
    notes = Notes()
    found = products("polyvore", exports.polyvore(tmp_path, ITEMS), notes=notes)
    assert not any(p.images for p in found)
    assert notes.counts == {"items without a picture beside the file": len(ITEMS)}


def test_an_outfit_is_a_basket(tmp_path):
    found = interactions("polyvore", *exports.polyvore_outfits(tmp_path, BASKETS))
    assert found == [
        (str(200_000_000 + number), str(100_000_000 + item.number), None, 1.0)
        for number, basket in enumerate(BASKETS)
        for item in basket
    ]


def test_the_two_files_in_each_others_place_are_named(tmp_path):
    items = exports.polyvore(tmp_path, ITEMS)
    outfits = exports.polyvore_outfits(tmp_path, BASKETS)[0]
    assert "is a list, such as the outfits are" in refusal(products, "polyvore", outfits)
    assert "is not a list of outfits" in refusal(interactions, "polyvore", items)


@pytest.mark.parametrize(
    "content", [[{"question": ["1_1"]}], [{"set_id": "1", "items": ["2"]}], ["1"], [[]]]
)
def test_what_is_no_outfit_is_refused(tmp_path, content):
    path = tmp_path / "fill_in_blank_test.json"
    path.write_text(json.dumps(content))
    assert "is not a list of outfits" in refusal(interactions, "polyvore", path)


@pytest.mark.parametrize("content", ["{}", "[]", '{"1": "2"}', "7", ""])
def test_what_has_no_items_is_refused(tmp_path, content):
    path = tmp_path / "polyvore_item_metadata.json"
    path.write_text(content)
    assert "give polyvore_item_metadata.json" in refusal(products, "polyvore", path)


def test_a_file_that_is_cut_off_is_named(tmp_path):
    path = exports.polyvore(tmp_path, ITEMS)
    path.write_text(path.read_text()[:-40])
    assert "is not JSON" in refusal(products, "polyvore", path)
