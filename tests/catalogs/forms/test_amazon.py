"""Amazon's metadata and reviews of 2023, and reviews of 2018."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mufin.catalogs.bad_rows import BadRow
from mufin.catalogs.forms.amazon import pictures
from mufin.catalogs.product import Product
from tests.catalogs.forms.reading import interactions, products, refusal, tolerant
from tests.support import exports

ITEMS = exports.shop()
BASKETS = exports.orders(ITEMS)


def test_metadata_of_2023_gives_the_largest_of_each_picture(tmp_path):
    found = products("amazon-2023", exports.amazon_2023(tmp_path, ITEMS))
    assert [p.uid for p in found] == [exports.asin(item) for item in ITEMS]
    for item, product in zip(ITEMS, found):
        assert product.images == [
            item.picture(exports.HOST, at)
            if at % 2
            else f"{exports.HOST}/{item.number}-{at}-large.jpg"
            for at in range(1, item.pictures + 1)
        ]
    assert found[0] == Product("B000000000", ITEMS[0].title, found[0].images, [], ["Amazon Home"])
    assert found[1].category == ["Home & Kitchen", "Kitchen & Dining"]


def test_the_form_of_hugging_face_gives_the_same(tmp_path):
    raw = products("amazon-2023", exports.amazon_2023(tmp_path, ITEMS))
    assert products("amazon-2023", exports.amazon_2023_parquet(tmp_path, ITEMS)) == raw


@pytest.mark.parametrize(
    "value, urls",
    [
        (None, []),
        ([], []),
        ([{"hi_res": None, "large": "l", "thumb": "t"}, {"hi_res": "h", "large": "l"}], ["l", "h"]),
        ([{"thumb": "https://a/I/41x._SS40_.jpg", "hi_res": None}], ["https://a/I/41x.jpg"]),
        ({"hi_res": [None, "h"], "large": ["l", "m"], "thumb": [], "variant": ["A"]}, ["l", "h"]),
        ({"hi_res": ["None"], "large": ["l"]}, ["l"]),
        ({"hi_res": [], "large": []}, []),
    ],
)
def test_pictures_are_a_list_of_objects_or_an_object_of_lists(value, urls):
    assert pictures(value, Path("a"), 1) == urls


@pytest.mark.parametrize("value", ["https://a/1.jpg", 7, ["https://a/1.jpg"], [["a"]]])
def test_pictures_of_another_form_are_a_bad_row(value):
    with pytest.raises(BadRow, match="a line 1 has .* in images"):
        pictures(value, Path("a"), 1)


def test_products_bought_together_are_relations_where_there_are_any(tmp_path):
    path = tmp_path / "meta_x.jsonl"
    rows = [
        {"parent_asin": "A", "title": "a", "bought_together": ["B", "C"]},
        {"parent_asin": "B", "title": None, "bought_together": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [p.related for p in products("amazon-2023", path)] == [["B", "C"], []]


def test_reviews_name_the_parent_and_have_milliseconds(tmp_path):
    found = interactions("amazon-2023", exports.amazon_reviews(tmp_path, BASKETS))
    assert [(user, item) for user, item, _, _ in found] == [
        (f"AE{number:022d}", exports.asin(item))
        for number, basket in enumerate(BASKETS)
        for item in basket
    ]
    assert found[0][2:] == (exports.START + 0.123, 1.0)


def test_reviews_may_be_parquet_and_lists_of_ratings(tmp_path):
    columns = {
        "user_id": ["U", "V"],
        "parent_asin": ["A", "B"],
        "rating": [5.0, 1.0],
        "timestamp": [1_700_000_000_000, 1_700_000_001_000],
    }
    expected = [("U", "A", 1_700_000_000.0, 1.0), ("V", "B", 1_700_000_001.0, 1.0)]
    pq.write_table(pa.table(columns | {"text": ["a", "b"]}), tmp_path / "a.parquet")
    assert interactions("amazon-2023", tmp_path / "a.parquet") == expected
    rows = zip(*columns.values())
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    assert interactions("amazon-2023", tmp_path / "a.csv") == expected


def test_reviews_of_2018_are_read(tmp_path):
    path = tmp_path / "reviews.json"
    row = {"reviewerID": "U", "asin": "A", "overall": 5.0, "unixReviewTime": 1_500_000_000}
    path.write_text(json.dumps(row) + "\n")
    assert interactions("amazon-2018", path) == [("U", "A", 1_500_000_000.0, 1.0)]


def test_bad_rows_are_dropped_up_to_the_share(tmp_path):
    path = tmp_path / "meta_x.jsonl"
    lines = ['{"parent_asin": "A", "title": "a"}', '{"parent_asin": "B", "ti', '{"title": "c"}']
    path.write_text("\n".join(lines + ['{"parent_asin": "D", "title": "d", "images": 7}']) + "\n")
    assert "line 2 is not JSON" in refusal(products, "amazon-2023", path)
    notes, bad = tolerant(0.75)
    assert [p.uid for p in products("amazon-2023", path, notes=notes, bad=bad)] == ["A"]
    bad.check()
    assert (bad.rows, bad.bad) == (4, 3)


def test_reviews_in_the_place_of_metadata_are_named(tmp_path):
    path = exports.amazon_reviews(tmp_path, BASKETS)
    text = refusal(products, "amazon-2023", path)
    assert "is Amazon's reviews of 2023, not Amazon's metadata of 2023" in text
    columns = {"user_id": ["U"], "parent_asin": ["A"], "title": ["Fine"], "rating": [5.0]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    text = refusal(products, "amazon-2023", tmp_path / "a.parquet")
    assert "is Amazon's reviews of 2023" in text


@pytest.mark.parametrize("write", [exports.amazon_2023, exports.amazon_2023_parquet])
def test_metadata_in_the_place_of_reviews_is_named(tmp_path, write):
    path = write(tmp_path, ITEMS)
    assert "is Amazon's metadata of 2023, not" in refusal(interactions, "amazon-2023", path)
