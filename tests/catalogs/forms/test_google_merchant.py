"""Google Merchant feeds, as text and as XML."""

from __future__ import annotations

import bz2
import gzip
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mufin.catalogs.forms import feed_xml
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from tests.catalogs.forms.reading import products, refusal, tolerant
from tests.support import exports

ITEMS = exports.shop()
GOOGLE = 'xmlns:g="http://base.google.com/ns/1.0"'


def feed(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "feed.xml"
    path.write_bytes(text.encode(encoding))
    return path


def rss(*items: str, head: str = "") -> str:
    inside = "".join(f"<item>{item}</item>" for item in items)
    return f'{head}<rss {GOOGLE} version="2.0"><channel>{inside}</channel></rss>'


def test_text_rss_and_atom_give_the_same_products(tmp_path):
    text = products("google-merchant", exports.merchant_tsv(tmp_path, ITEMS))
    assert [p.uid for p in text] == [
        item.sku(at) for item in ITEMS for at in range(len(item.colours))
    ]
    item = ITEMS[1]
    assert text[1] == Product(
        item.sku(),
        f"{item.title}, {item.colours[0]}",
        [item.picture(exports.HOST, at) for at in range(1, item.pictures + 1)],
        [],
        ["Home", "Kitchen", "Tableware"],
        other_ids=["4000000000101"],
    )
    for atom in (False, True):
        assert products("google-merchant", exports.merchant_xml(tmp_path, ITEMS, atom=atom)) == text


def test_names_with_blanks_and_capitals_are_those_of_google(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text(
        "ID,Title,Image Link,Additional Image Link,Google Product Category\n"
        '7,Mug,https://a/1.jpg,"https://a/2,3.jpg,https://a/4.jpg",Home > Mugs\n'
    )
    assert products("google-merchant", path) == [
        Product(
            "7",
            "Mug",
            ["https://a/1.jpg", "https://a/2,3.jpg", "https://a/4.jpg"],
            [],
            ["Home", "Mugs"],
        )
    ]


def test_names_of_google_come_before_those_of_the_feed(tmp_path):
    path = feed(
        tmp_path,
        f'<feed xmlns="http://www.w3.org/2005/Atom" {GOOGLE}><entry><id>tag:shop,2026:7</id>'
        "<title>long</title><g:id>7</g:id><g:title>Mug</g:title>"
        "<g:image_link>1.jpg</g:image_link></entry></feed>",
    )
    assert products("google-merchant", path) == [Product("7", "Mug", ["1.jpg"])]


def test_elements_inside_others_are_not_of_the_item(tmp_path):
    item = "<g:tax><g:id>9</g:id></g:tax><g:id>7</g:id><title>A<b>big</b>mug</title>"
    assert products("google-merchant", feed(tmp_path, rss(item))) == [Product("7", "Amug")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_the_encoding_is_the_one_that_xml_declares(tmp_path, encoding):
    declared = encoding.removesuffix("-sig")
    head = f'<?xml version="1.0" encoding="{declared}"?>\n'
    path = feed(tmp_path, rss("<g:id>7</g:id><title>Café</title>", head=head), encoding)
    assert products("google-merchant", path) == [Product("7", "Café")]


@pytest.mark.parametrize("pack, ending", [(gzip.compress, ".gz"), (bz2.compress, ".bz2")])
def test_packed_feeds_are_read(tmp_path, pack, ending):
    plain = exports.merchant_xml(tmp_path, ITEMS)
    packed = tmp_path / f"feed.xml{ending}"
    packed.write_bytes(pack(plain.read_bytes()))
    assert products("google-merchant", packed) == products("google-merchant", plain)


def test_items_without_an_id_are_counted(tmp_path):
    notes = Notes()
    path = feed(tmp_path, rss("<title>Mug</title>", "<g:id>7</g:id>"))
    assert [p.uid for p in products("google-merchant", path, notes=notes)] == ["7"]
    assert notes.counts == {"items without an id, dropped": 1}


def test_a_feed_without_prefixes_is_read(tmp_path):
    text = "<id>7</id><title>Mug</title><image_link>1.jpg</image_link><gtin>40</gtin>"
    path = feed(tmp_path, f"<rss><channel><item>{text}</item></channel></rss>")
    assert products("google-merchant", path) == [Product("7", "Mug", ["1.jpg"], other_ids=["40"])]


def test_ids_that_lost_digits_are_bad_rows(tmp_path):
    items = "<g:id>8.90124E+12</g:id>", "<g:id>7</g:id>"
    path = feed(tmp_path, rss(*items))
    assert "a spreadsheet program cut" in refusal(products, "google-merchant", path)
    notes, bad = tolerant(0.5)
    assert [p.uid for p in products("google-merchant", path, notes=notes, bad=bad)] == ["7"]
    bad.check()


def test_parquet_may_hold_the_further_pictures_as_a_list(tmp_path):
    columns = {"id": [7], "title": ["Mug"], "image_link": ["1.jpg"]}
    table = pa.table(columns | {"additional_image_link": [["2.jpg", None, "3.jpg"]]})
    pq.write_table(table, tmp_path / "feed.parquet")
    assert products("google-merchant", tmp_path / "feed.parquet") == [
        Product("7", "Mug", ["1.jpg", "2.jpg", "3.jpg"])
    ]


# Hostile feeds

BOMB = (
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi"))
    + "]>"
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "head, title",
    [(BOMB, "&i;"), (OUTSIDE, "&x;"), ('<!DOCTYPE a SYSTEM "http://127.0.0.1/">', "")],
)
def test_document_types_are_refused(tmp_path, head, title):
    path = feed(tmp_path, rss(f"<g:id>7</g:id><title>{title}</title>", head=head))
    assert "has a document type declaration (<!DOCTYPE>)" in refusal(
        products, "google-merchant", path
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("<rss><channel><item><g:id>7</g:id></item>", r"line 1 is not XML \(no element found\)"),
        (rss("<g:id>7</g:id><title>a & b</title>"), r"line 1 is not XML \(not well-formed"),
        ("<html><body>Sign in</body></html>", r"is XML without <item> or <entry>"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', r"klingon|unknown encoding"),
        (rss("<a>" * 70 + "</a>" * 70), r"line 1 has more than 64 elements inside each other"),
    ],
)
def test_broken_feeds_are_named(tmp_path, text, message):
    assert re.search(message, refusal(products, "google-merchant", feed(tmp_path, text)))


@pytest.mark.parametrize(
    "text",
    [
        rss("<g:id>7</g:id><title>" + "a" * 3000 + "</title>"),
        rss("<g:id>7</g:id>" + "<b>aaaa</b>" * 1000),
        rss("<g:id>7</g:id>" + "<b/>" * 2000),
        rss("<g:id>7</g:id>", head=f"<!--{'a' * 200_000}-->"),
        rss(f'<g:id a="{"a" * 200_000}">7</g:id>'),
    ],
    ids=["text", "elements", "empty elements", "comment", "tag"],
)
def test_items_and_tags_have_a_largest_size(tmp_path, monkeypatch, text):
    monkeypatch.setattr(feed_xml, "LONGEST", 2000)
    assert "more than 2000" in refusal(products, "google-merchant", feed(tmp_path, text))


def test_a_feed_of_another_shop_is_named(tmp_path):
    text = refusal(products, "google-merchant", exports.woocommerce(tmp_path, ITEMS))
    assert "is WooCommerce's export of products, not a Google Merchant feed" in text
