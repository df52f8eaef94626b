"""Public data: Amazon's dumps and a real catalog."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest

from mufin.catalogs.forms.amazon import products_2014, products_2018
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from mufin.catalogs.thumbnails import without_size
from pipeline import curate, download
from tests.support import catalogs
from tests.support.catalogs import Shelf, refused, settings
from tests.support.projects import REAL_DATA
from tests.support.servers import Server, jpeg, serving

workplace = catalogs.workplace


# Amazon's dumps


@pytest.mark.parametrize(
    "url, whole",
    [
        (
            "https://m.example/images/I/51a._SX38_SY50_CR,0,0,38,50_.jpg",
            "https://m.example/images/I/51a.jpg",
        ),
        ("https://m.example/images/I/51a._SS40_.jpg", "https://m.example/images/I/51a.jpg"),
        ("http://m.example/I/41a-b%2BL._SY300_.png", "http://m.example/I/41a-b%2BL.png"),
        ("https://m.example/images/I/51a_b_.jpg", "https://m.example/images/I/51a_b_.jpg"),
        ("https://m._x_.example/I/51a.jpg", "https://m._x_.example/I/51a.jpg"),
    ],
)
def test_thumbnail_markers_leave_the_urls_of_both_releases(tmp_path, url, whole):
    path = tmp_path / "meta.json"
    for key in ("image", "imageURL", "imageURLHighRes"):
        path.write_text(
            json.dumps(
                {"asin": "A", "title": "t", key: [url], "also_buy": ["B"], "category": ["c", "d"]}
            )
            + "\n"
        )
        assert list(products_2018([path], Notes())) == [
            Product("A", "t", [whole], ["B"], ["c", "d"])
        ]
    path.write_text(
        repr(
            {
                "asin": "A",
                "title": "it's",
                "imUrl": url,
                "related": {"also_bought": ["B"], "also_viewed": ["C"]},
                "categories": [["c", "d"], ["e"]],
            }
        )
        + "\n"
    )
    assert list(products_2014([path], Notes())) == [
        Product("A", "it's", [whole], ["B"], ["c", "d"])
    ]


def test_large_pictures_go_first_and_only_ids_are_needed(
    tmp_path,
):
    path = tmp_path / "meta.json"
    path.write_text(
        json.dumps({"asin": "A", "imageURL": ["s.jpg"], "imageURLHighRes": ["l.jpg"], "rank": []})
        + "\n"
        + json.dumps({"asin": "B", "imageURL": ["s.jpg"], "imageURLHighRes": [], "rank": "1 in x"})
        + "\n"
        + json.dumps({"asin": "C", "title": None, "also_buy": None, "image": ""})
        + "\n"
    )
    assert list(products_2018([path], Notes())) == [
        Product("A", "", ["l.jpg"]),
        Product("B", "", ["s.jpg"]),
        Product("C"),
    ]
    path.write_text("{'asin': 'A'}\n{'asin': 'B', 'related': {}, 'categories': []}\n")
    assert list(products_2014([path], Notes())) == [Product("A"), Product("B")]


@pytest.mark.parametrize(
    "source, content, message",
    [
        ("amazon-2014", b"{[]: 1}\n", r"meta_x.json line 1 is not a Python literal of a product"),
        (
            "amazon-2014",
            b"(" * 100_000 + b"\n",
            r"meta_x.json line 1 is not a Python literal of a product",
        ),
        (
            "amazon-2014",
            b"{'asin': 'A', 'related': ['B']}\n",
            r"x.json line 1 has \['B'\] in related and .* set download.source",
        ),
        (
            "amazon-2014",
            b"{'asin': 'A', 'categories': 'c'}\n",
            r"x.json line 1 has {} in related and 'c' in categories, not",
        ),
        ("amazon-2018", b"{'asin': 'A'}\n", r"meta_x.json line 1 is not JSON"),
        ("amazon-2018", b'{"title": "A"}\n', r"meta_x.json line 1 has the id None in asin"),
        ("amazon-2018", b"", r"holds no product; look at download.source"),
        (
            "amazon-2014",
            b"{'asin': 'A', 'related': {'also_bought': ['B']}}\n{'asin': 'B', 'ti",
            r"x.json line 2 is not a Py",
        ),
        (
            "amazon-2014",
            b"__import__('os').remove('params.yaml')\n",
            r"meta_x.json line 1 is not a Python literal of a product",
        ),
    ],
)
def test_a_broken_dump_ends_in_a_sentence(workplace, source, content, message):
    Path("meta_x.json").write_bytes(content)
    settings(download__source=source, download__location=".")
    refused(message)
    assert Path("params.yaml").exists()


# Real data


class Amazon(Shelf):
    """Answers each path with a picture that depends on it; one in ten has none."""

    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

    def do_GET(self):
        number = zlib.crc32(self.path.encode())
        with self.server.lock:
            self.server.asked[self.path] += 1
        self.answer(404) if number % 10 == 0 else self.answer(
            body=PICTURES[number % 7], Content_Type="image/jpeg"
        )


PICTURES = [jpeg(i) for i in range(7)]


@pytest.mark.skipif(not (REAL_DATA / "amazon-metadata").is_dir(), reason="the dumps are not here")
def test_the_real_dumps_become_clean_products_without_a_leak(workplace):
    with serving(Server(Amazon)) as server:
        urls = moved(REAL_DATA / "amazon-metadata", Path("dumps"), server.url(""))
        settings(
            download__source="amazon-2018",
            download__location="dumps",
            download__private_addresses=True,
            download__per_host=16,
            download__timeout=60.0,
        )
        download.main()
    curate.main()
    wanted = {without_size(url) for url in urls}
    dead = {url for url in wanted if zlib.crc32(urlsplit(url).path.encode()) % 10 == 0}
    assert (
        server.asked == Counter({urlsplit(url).path: 1 for url in wanted})
        and len(wanted) > 4000
        and len(dead) > 300
    )
    facts = json.loads(Path("data/raw/source.json").read_text())
    assert (
        facts["products"] == 1547 + 3385
        and facts["references"] == len(wanted)
        and facts["pictures"] == 7
    )
    assert facts["failed"] == {"HTTP 404": len(dead)}
    log = pl.read_parquet("data/raw/image_log.parquet")
    assert set(log.filter(pl.col("reason") != "")["url"]) == dead and set(log["url"]) == wanted

    raw, products = (
        pl.read_parquet(f"data/{name}/products.parquet") for name in ("raw", "curated")
    )
    dropped = json.loads(Path("metrics/curate.json").read_text())["dropped"]
    assert (
        len(products)
        == len(raw)
        - dropped["rows with the id of another"]
        - dropped["products with neither title nor picture"]
        and dropped["rows with the id of another"] > 0
    )
    assert products["uid"].is_unique().all() and set(products["uid"]) <= set(raw["uid"])
    assert ((products["title"] != "") | (products["images"].list.len() > 0)).all()
    assert not products["title"].str.contains(r"</?[a-zA-Z]|&(?:\w+|#\d+);|^\s|\s$|getTime").any()
    assert (
        dropped["titles that were markup alone"] >= 3000
        and raw["title"].str.contains("<span").sum() >= 3000
    )
    related: dict[str, set[str]] = {}
    for uid, ids in zip(raw["uid"], raw["related"]):
        related.setdefault(uid, set()).update(ids.to_list())
    whole_split(products["uid"].to_list(), related)


def moved(source: Path, target: Path, host: str) -> set[str]:
    """Copy the dumps with all pictures at `host`; returns the URLs of these."""
    target.mkdir()
    urls: set[str] = set()
    for path in sorted(source.glob("*.gz")):
        text = re.sub(
            r"https?://[^/\"]*images-amazon\.com(?=/images/)", host, gzip.open(path, "rt").read()
        )
        (target / path.name).write_bytes(gzip.compress(text.encode(), 1))
        rows = [json.loads(line) for line in text.splitlines()]
        urls |= {
            url for r in rows for url in (r.get("imageURLHighRes") or r.get("image") or [])[:15]
        }
    return urls


def whole_split(uids: list[str], related: dict[str, set[str]]) -> dict[str, set[int]]:
    """{split or "labels": products}, once nothing held out is in train and truth is relations."""
    labels = pl.read_parquet("data/curated/labels.parquet")["product"].to_list()
    split = {
        name: pl.read_parquet(f"data/curated/{name}.parquet") for name in ("train", "valid", "test")
    }
    for rows in split.values():
        assert len(rows)
        for product, row in zip(rows["product"], rows["labels"]):
            assert len(row) and {uids[labels[label]] for label in row} <= related[uids[product]]
    sets = {name: set(rows["product"]) for name, rows in split.items()} | {"labels": set(labels)}
    assert not sets["valid"] & sets["test"] and not (sets["valid"] | sets["test"]) & (
        sets["train"] | sets["labels"]
    )
    assert sum(map(len, list(sets.values())[:3])) == sum(map(len, split.values()))
    return sets


@pytest.mark.skipif(not (REAL_DATA / "ikea").is_dir(), reason="the catalog is not here")
def test_the_real_catalog_is_kept_whole_without_a_leak(
    workplace,
):
    settings(
        download__source="catalog",
        download__location=str(REAL_DATA / "ikea/catalog.jsonl"),
        download__max_failed=0.0,
    )
    download.main()
    curate.main()
    facts = json.loads(Path("data/raw/source.json").read_text())
    assert (facts["products"], facts["references"], facts["failed"], facts["relations"]) == (
        2191,
        2187,
        {},
        48_610,
    )
    raw, products = (
        pl.read_parquet(f"data/{name}/products.parquet") for name in ("raw", "curated")
    )
    assert products["uid"].to_list() == raw["uid"].to_list() and products["uid"].n_unique() == 2191
    assert (products["images"].list.len() == 0).sum() == 4 and (
        raw["related"].list.len() == 0
    ).sum() == 14
    assert (products["title"] == "").sum() == 0
    sets = whole_split(
        products["uid"].to_list(), dict(zip(raw["uid"], map(set, raw["related"].to_list())))
    )
    left = json.loads(Path("metrics/curate.json").read_text())["dropped"]
    assert sum(len(sets[name]) for name in ("train", "valid", "test")) == 2191 - 14 - sum(
        count for reason, count in left.items() if reason.endswith("products without a label")
    )
