"""H&M's articles and transactions."""

from __future__ import annotations

import pytest

from mufin.catalogs.notes import Notes
from tests.catalogs.forms.reading import interactions, products, refusal, tolerant
from tests.support import exports

ITEMS = exports.shop()
BASKETS = exports.orders(ITEMS)


def test_articles_have_ten_digits_and_their_picture(tmp_path):
    notes = Notes()
    found = products("hm", exports.hm(tmp_path, ITEMS, b"jpeg"), notes=notes)
    assert [p.uid for p in found] == [exports.article(item) for item in ITEMS]
    assert all(len(p.uid) == 10 and p.uid.startswith("0") for p in found)
    assert [p.images for p in found] == [
        [f"images/{exports.article(i)[:3]}/{exports.article(i)}.jpg"] if i.number % 5 else []
        for i in ITEMS
    ]
    assert found[1].title == f"{ITEMS[1].title}, Teapot, {ITEMS[1].colours[0]}"
    assert found[1].category == ["Ladieswear", "Interior textile", "Teapot"]
    assert notes.counts == {"articles without a picture beside the file": 8}


def test_ids_that_a_spreadsheet_read_as_numbers_are_restored(tmp_path):
    articles = exports.hm(tmp_path, ITEMS)
    sold = exports.hm_transactions(tmp_path, BASKETS)
    right = products("hm", articles), interactions("hm", sold)
    for path in (articles, sold):
        path.write_text(path.read_text().replace("\n0", "\n").replace(",010", ",10"))
    notes = Notes()
    assert (products("hm", articles, notes=notes), interactions("hm", sold, notes=notes)) == right
    assert notes.counts["article ids that lost their first zeros, restored"] > len(ITEMS)


def test_a_customer_is_a_basket_with_days(tmp_path):
    found = interactions("hm", exports.hm_transactions(tmp_path, BASKETS))
    assert len(found) == sum(map(len, BASKETS))
    assert found[0] == (f"{0:064x}", exports.article(BASKETS[0][0]), 1541116800.0, 1.0)


@pytest.mark.parametrize("swap", [True, False])
def test_the_two_files_in_each_others_place_are_named(tmp_path, swap):
    articles = exports.hm(tmp_path, ITEMS)
    sold = exports.hm_transactions(tmp_path, BASKETS)
    if swap:
        assert "is H&M's transactions_train.csv, not H&M's articles.csv" in refusal(
            products, "hm", sold
        )
    else:
        assert "is H&M's articles.csv, not" in refusal(interactions, "hm", articles)


def test_bad_rows_are_dropped_up_to_the_share(tmp_path):
    path = tmp_path / "articles.csv"
    path.write_text("article_id,prod_name\n,Top\n0108775015,Vest\n")
    assert "line 2 has the id '' in article_id" in refusal(products, "hm", path)
    notes, bad = tolerant(0.5)
    assert [p.uid for p in products("hm", path, notes=notes, bad=bad)] == ["0108775015"]
    bad.check()
