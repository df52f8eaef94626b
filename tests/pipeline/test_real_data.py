"""Public data: Amazon's dumps, a real catalog, and the released data set in each layout."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from mufin.corpus import xmlrepo
from mufin.corpus.fetch import Fetcher
from mufin.corpus.released_pictures import stored_picture
from mufin.corpus.sources import THUMBNAIL, Product, amazon_2014, amazon_2018
from pipeline import curate, download
from tests.support import catalogs
from tests.support.catalogs import GOOD, PRODUCTS, Shelf, as_file, refused, settings
from tests.support.projects import REAL_DATA
from tests.support.servers import Server, jpeg, limits, serving

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
        assert list(amazon_2018(path)) == [Product("A", "t", [whole], ["B"], ["c", "d"])]
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
    assert list(amazon_2014(path)) == [Product("A", "it's", [whole], ["B"], ["c", "d"])]


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
    assert list(amazon_2018(path)) == [
        Product("A", "", ["l.jpg"]),
        Product("B", "", ["s.jpg"]),
        Product("C"),
    ]
    path.write_text("{'asin': 'A'}\n{'asin': 'B', 'related': {}, 'categories': []}\n")
    assert list(amazon_2014(path)) == [Product("A"), Product("B")]


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
    wanted = {THUMBNAIL.sub("", url) for url in urls}
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


# The released data set

TITLES = {
    "train": [("A", "a tablé->round"), ("B", "b"), ("C", "")],
    "test": [("D", "d"), ("A", "a tablé->round")],
    "label": [("B", "b"), ("D", "d"), ("E", "e")],
}
SPLIT = {"train": ([[1, 0], [], [2]], [[], [0], []]), "test": ([[0, 2], [1]], [[1], []])}
IMAGES = {"A": [b"1", b"2"], "D": [b"3"]}


def release(home: Path, titles: str = "txt", images: str = "") -> Path:
    """A tiny release; titles: txt, json, json.gz; images: img.bin, npz, img.urls.txt, json."""
    (home / "raw_data").mkdir(parents=True)
    for name, rows in TITLES.items():
        if titles == "txt":
            (home / f"raw_data/{name}.raw.txt").write_bytes(
                "".join(f"{u}->{t}\n" for u, t in rows).encode("latin-1")
            )
        if titles != "txt" or images == "json":
            more = {
                uid: {"images": urls(uid), "category": ["Things", uid], "also_buy": []}
                for uid, _ in rows
            }
            as_file(
                home / f"raw_data/{name}.{titles.replace('txt', 'json')}",
                [{"uid": u, "title": t} | (more[u] if images == "json" else {}) for u, t in rows],
            )
    for name, short in (("train", "trn"), ("test", "tst")):
        labels, excluded = SPLIT[name]
        lines = [f"{len(labels)} 3", *(" ".join(f"{label}:1.0" for label in row) for row in labels)]
        (home / f"{short}_X_Y.txt").write_text("\n".join(lines) + "\n")
        pairs = [f"{i} {label}\n" for i, row in enumerate(excluded) for label in row]
        (home / f"filter_labels_{name}.txt").write_text("".join(pairs))
    if images in ("img.bin", "npz"):
        stored(home, images == "npz")
    elif images.endswith("txt"):
        (home / images).write_text(
            "".join(f"{uid}\t{url}\n" for uid in IMAGES for url in urls(uid))
        )
    return home


def urls(uid: str) -> list[str]:
    return [f"http://m.example/{uid}{i}.jpg" for i in range(len(IMAGES.get(uid, [])))]


def stored(home: Path, places: bool) -> None:
    """images/img.bin, and .npz files as in the release: value = byte offset + 1."""
    (home / "images").mkdir()
    lines, starts = [], {}
    for uid, content in [(uid, jpeg(one[0])) for uid, all in IMAGES.items() for one in all] + [
        ("E", None)
    ]:
        starts.setdefault(uid, []).append(sum(map(len, lines)))
        lines.append(
            f"{uid}\t{base64.b64encode(content).decode() if content else '!!no base64!!'}\n"
        )
    (home / "images/img.bin").write_text("".join(lines))
    for name, rows in TITLES.items() if places else ():
        found = [
            (row, start + 1) for row, (uid, _) in enumerate(rows) for start in starts.get(uid, [])
        ]
        matrix = sp.lil_matrix((len(rows), len(found)))
        for column, (row, value) in enumerate(found):
            matrix[row, column] = value
        sp.save_npz(home / f"images/{name}.img.bin.npz", matrix.tocsr())


def zipped(home: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in home.rglob("*") if p.is_file()):
            archive.write(file, Path("MM-AmazonTitles") / file.relative_to(home))
    return path


def pictures(
    layout: xmlrepo.Layout, references: list[str], most: int = 10_000
) -> list[tuple[bytes, str]]:
    with open(layout.home / "images/img.bin", "rb") as store:
        return [stored_picture(store, reference, most) for reference in references]


@pytest.mark.parametrize("titles", ["txt", "json", "json.gz"])
@pytest.mark.parametrize(
    "images", ["", "img.bin", "npz", "img.urls.txt", "raw_data/img.urls.txt", "json"]
)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_each_layout_is_read_as_released(tmp_path, titles, images, packed):
    home = release(tmp_path / "home", titles, images)
    where = zipped(home, tmp_path / "a.zip") if packed else home
    layout = xmlrepo.read(xmlrepo.open_source(str(where), tmp_path / "scratch", Fetcher(limits())))
    rows = list(layout.products)
    products = {p.uid: p for p in rows}
    assert len(rows) == len(products) and {uid: p.title for uid, p in products.items()} == dict(
        sum(TITLES.values(), [])
    )
    assert layout.labels == ["B", "D", "E"]
    for name, (uids, labels, excluded) in layout.splits.items():
        assert uids == [uid for uid, _ in TITLES[name]]
        assert [row.tolist() for row in map(labels.__getitem__, range(len(labels)))] == SPLIT[name][
            0
        ]
        assert [row.tolist() for row in map(excluded.__getitem__, range(len(excluded)))] == SPLIT[
            name
        ][1]
    if images in ("img.bin", "npz"):
        assert pictures(layout, products["A"].images) == [(jpeg(b"1"[0]), ""), (jpeg(b"2"[0]), "")]
        assert pictures(layout, products["E"].images) == [(b"", "broken base64")]
        assert pictures(layout, products["D"].images, 50) == [(b"", "too many bytes")]
        assert not products["B"].images and not products["C"].images
    else:
        assert {uid: p.images for uid, p in products.items()} == {
            uid: urls(uid) if images else [] for uid in products
        }
    assert {uid: p.category for uid, p in products.items()} == {
        u: ["Things", u] if images == "json" else [] for u in products
    }


def test_places_in_the_store_give_owner_and_order(tmp_path):
    home = release(tmp_path / "home", "txt", "img.bin")
    starts = [
        0,
        *np.cumsum(
            [len(line) for line in (home / "images/img.bin").read_bytes().splitlines(keepends=True)]
        ),
    ]
    places = [
        [],
        [starts[1] + 1, 0, starts[0] + 1],
        [starts[2] + 1],
    ]  # a stored zero means no picture
    matrix = sp.csr_matrix((np.array(sum(places, []), float), [2, 1, 0, 0], [0, 0, 3, 4]), (3, 3))
    sp.save_npz(home / "images/train.img.bin.npz", matrix)
    products = {p.uid: p.images for p in xmlrepo.read(home).products}
    layout = xmlrepo.read(home)
    assert [pictures(layout, products[uid]) for uid in "BC"] == [
        [(jpeg(b"1"[0]), ""), (jpeg(b"2"[0]), "")],
        [(jpeg(b"3"[0]), "")],
    ]
    assert len(products["A"]) == 2  # none in train; in test the same UID has two
    assert (
        pictures(layout, ["img.bin#3", "img.bin#x", f"img.bin#{starts[-1]}", "img.bin#" + "9" * 30])
        == [(b"", "no picture at its place in img.bin")] * 4
    )


def test_a_row_of_several_uids_has_all_their_pictures(tmp_path):
    home = release(tmp_path / "home", "txt", "img.bin")
    (home / "raw_data/train.raw.txt").write_text("A,D->a\nB->b\nC->c\n")
    assert [len(p.images) for p in xmlrepo.read(home).products][:2] == [3, 0]


@pytest.mark.parametrize("images", ["img.bin", "npz"])
def test_download_and_curate_keep_the_released_split(workplace, images):
    zipped(release(workplace / "home", "txt", images), Path("a.zip"))
    settings(
        download__source="mm-amazontitles",
        download__location="a.zip",
        curate__valid=0.0,
        curate__split="cold",
    )
    download.main()
    facts = json.loads(Path("data/raw/source.json").read_text())
    assert facts["released"] and facts["pictures"] == 3 and facts["failed"] == {"broken base64": 1}
    curate.main()
    uids = pl.read_parquet("data/curated/products.parquet")["uid"].to_list()
    assert [uids[i] for i in pl.read_parquet("data/curated/labels.parquet")["product"]] == [
        "B",
        "D",
        "E",
    ]
    for name in ("train", "test"):
        rows = pl.read_parquet(f"data/curated/{name}.parquet")
        assert [uids[i] for i in rows["product"]] == [uid for uid, _ in TITLES[name]]
        assert [sorted(row) for row in rows["labels"]] == [sorted(row) for row in SPLIT[name][0]]
        assert rows["excluded"].to_list() == SPLIT[name][1]


@pytest.mark.parametrize(
    "page, message",
    [
        (b'<html><form><input name="id" value="A&amp;B"><input name="uuid" value="7"></form>', ""),
        (
            b"<html>too many people",
            r"^[\w-]+ gave a page instead of a zip; "
            r"fetch the zip by hand and set download.location to it$",
        ),
    ],
)
def test_the_released_zip_is_fetched_by_its_id(workplace, monkeypatch, page, message):
    with serving(Server(Shelf)) as server:
        server.tag = '"1"'
        server.files = {
            "/get": page,
            "/get?id=A%26B&uuid=7": zipped(release(workplace / "home"), Path("a.zip")).read_bytes(),
        }
        monkeypatch.setattr(xmlrepo, "DRIVE", server.url("/get"))
        settings(
            download__source="mm-amazontitles",
            download__location=None,
            download__private_addresses=True,
            download__max_bytes=500,
        )
        if message:
            return refused(message)
        download.main()
    assert json.loads(Path("data/raw/source.json").read_text())["released"]
    assert list(server.asked) == [
        f"/get?id={xmlrepo.DRIVE_ID}&export=download&confirm=t",
        "/get?id=A%26B&uuid=7",
    ]


@pytest.mark.parametrize("form", ["lines", "list", "gz"])
def test_the_plain_json_form_has_products_and_no_split(tmp_path, form):
    rows = [
        {"ASIN": p.uid, "title": p.title, "images": p.images, "also_buy": p.related}
        for p in PRODUCTS
    ]
    text = (
        json.dumps(rows, indent=1)
        if form == "list"
        else "".join(json.dumps(row) + "\n" for row in rows)
    )
    path = tmp_path / ("a.json.gz" if form == "gz" else "a.json")
    path.write_bytes(gzip.compress(text.encode()) if form == "gz" else text.encode())
    layout = xmlrepo.read(tmp_path)
    assert layout.splits == {} and layout.labels == []
    assert list(layout.products) == [Product(p.uid, p.title, p.images, p.related) for p in PRODUCTS]


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "trn_X_Y.txt",
            "4 3\n\n\n\n\n",
            r"trn_X_Y.txt line 1 says 4 3, but the title files have 3 rows and 3 labels",
        ),
        (
            "tst_X_Y.txt",
            "2 9\n\n\n",
            r"tst_X_Y.txt line 1 says 2 9, .*the files are from different releases",
        ),
        ("trn_X_Y.txt", "", r"trn_X_Y.txt line 1 says , but"),
        (
            "trn_X_Y.txt",
            "3 3\n0:1\n",
            r"trn_X_Y.txt has 1 rows, but its header says 3; it is cut off: fetch it again",
        ),
        (
            "trn_X_Y.txt",
            "3 3\n0:1\nx:1\n\n",
            r"trn_X_Y.txt line 3 is not a list of label:value; fetch the file again",
        ),
        (
            "trn_X_Y.txt",
            "3 3\n0:1\n1:1 3:1\n\n",
            r"trn_X_Y.txt line 3 names label 3, but there are only 3 labels; fetch the file again",
        ),
        (
            "filter_labels_train.txt",
            "3 0\n",
            r"filter_labels_train.txt names a datapoint or label that is not in the split",
        ),
        (
            "filter_labels_test.txt",
            "0 3\n",
            r"filter_labels_test.txt names a datapoint or label that is not in the split",
        ),
        (
            "filter_labels_test.txt",
            "0 -1\n",
            r"filter_labels_test.txt names a datapoint or label that is not in the split",
        ),
        (
            "filter_labels_test.txt",
            "0 1\n0\n",
            r"filter_labels_test.txt is not one `datapoint label` pair per line; fetch",
        ),
        (
            "raw_data/train.raw.txt",
            "A->a\nB b\n",
            r"train.raw.txt line 2 has no `->` between UID and title; fetch the file again",
        ),
        (
            "raw_data/test.raw.txt",
            None,
            r"test.raw.txt is missing, and so is test.json; the released split needs one",
        ),
        (
            "raw_data/train.raw.txt",
            "->a\n",
            r"train.raw.txt line 1 has no UID before `->`; fetch the file again",
        ),
        (
            "raw_data/label.json",
            '{"ASIN": "B"}\n{"ASIN": "E"}\n',
            r"label.raw.txt line 2 is the product 'D', but .* has 'E' there",
        ),
        (
            "raw_data/label.json",
            '{"ASIN": "B"}\n',
            r"label.raw.txt line 2 is the product 'D', but .*label.json ends before it",
        ),
        (
            "tst_X_Y.txt",
            None,
            r"tst_X_Y.txt is missing; a released split needs trn_X_Y.txt and tst_X_Y.txt: fetch it",
        ),
        (
            "filter_labels_test.txt",
            "0 " + "9" * 30,
            r"filter_labels_test.txt is not one `datapoint label` pair per line; fetch",
        ),
        (
            "filter_labels_test.txt",
            "0 \u00e9",
            r"filter_labels_test.txt is not one `datapoint label` pair per line; fetch",
        ),
        (
            "images/train.img.bin.npz",
            "no zip",
            r"train.img.bin.npz is not a complete sparse matrix .*; fetch it again, or delete it",
        ),
        (
            "images/test.img.bin.npz",
            {"shape": (3, 1)},
            r"test.img.bin.npz has 3 rows with offsets up to byte 0, but .* has 2 rows",
        ),
        (
            "images/test.img.bin.npz",
            {"data": [10**6]},
            r"test.img.bin.npz has 2 rows with offsets up to byte 999999, but",
        ),
        (
            "images/test.img.bin.npz",
            {"data": [float("nan")]},
            r"test.img.bin.npz has 2 rows with offsets",
        ),
        (
            "images/test.img.bin.npz",
            {"indptr": [0, 2, 1]},
            r"test.img.bin.npz is not a complete sparse matrix \(its arrays do not fit together",
        ),
        (
            "images/test.img.bin.npz",
            {"format": b"coo"},
            r"test.img.bin.npz is not a complete sparse matrix \(not a CSR matrix\)",
        ),
        (
            "img.urls.txt",
            "A http://m.example/a.jpg\n",
            r"img.urls.txt line 1 has no tab between UID and URL; fetch the file again",
        ),
    ],
)
def test_a_broken_release_ends_in_a_sentence(workplace, name, content, message):
    path = release(workplace / "home", "txt", "img.bin" if name.startswith("images") else "") / name
    path.unlink(missing_ok=True)
    if isinstance(content, dict):
        rows = content.pop("shape", (2, 1))[0]
        np.savez(
            path,
            **{"format": b"csr", "data": [1.0], "indices": [0], "indptr": [0, *[1] * rows]}
            | content,
        )
    elif content is not None:
        path.write_text(content)
    settings(download__source="mm-amazontitles", download__location="home")
    refused(message)


@pytest.mark.parametrize(
    "content, message",
    [
        (b'[{"ASIN": "a"}, 7]', r"a.json product 2 is '7', not a JSON object; fetch it again"),
        (b'[{"ASIN": "a"},\n {"AS', r"a.json line 2 is not JSON .*fetch it again"),
        (b'{"ASIN": "a"}\n{"AS', r"a.json line 2 is not JSON"),
        (
            None,
            r"home has neither trn_X_Y.txt nor a JSON file of products; "
            r"is it MM-AmazonTitles-300K\?",
        ),
    ],
)
def test_a_broken_plain_json_form_ends_in_a_sentence(workplace, content, message):
    Path("home").mkdir()
    if content is not None:
        Path("home/a.json").write_bytes(content)
    settings(download__source="mm-amazontitles", download__location="home")
    refused(message)


@pytest.mark.parametrize("harm", ["cut off", "bytes changed", "no zip"])
def test_a_broken_zip_is_named_until_it_is_replaced(workplace, harm):
    home = release(workplace / "home")
    (home / "extra.txt").write_text(" ".join(str(zlib.crc32(bytes([i]))) for i in range(256)))
    good = zipped(home, Path("a.zip")).read_bytes()
    Path("a.zip").write_bytes(
        {
            "cut off": good[:-200],
            "bytes changed": good[:80] + b"\xff" * 300 + good[380:],
            "no zip": b"<html>" * 9,
        }[harm]
    )
    settings(download__source="mm-amazontitles", download__location="a.zip")
    refused(r"a.zip is not a complete zip; delete it and fetch it again")
    Path("a.zip").write_bytes(good)
    download.main()
    assert json.loads(Path("data/raw/source.json").read_text())["released"]


@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/evil"])
def test_a_zip_with_paths_outside_its_folder_writes_nothing(workplace, member):
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("good.json", GOOD)
        archive.writestr(member, "x")
    settings(download__source="mm-amazontitles", download__location="a.zip")
    refused(
        rf"a.zip holds '{re.escape(member)}', a path that leaves its folder; it is not the data set"
    )
    assert not list(workplace.rglob("evil")) and not list(workplace.rglob("good.json"))


@pytest.mark.parametrize(
    "location, message",
    [
        (
            "gone.zip",
            r"download.location is gone.zip, which does not exist; "
            r"give the zip, its folder, a URL or an id",
        ),
        (
            ["a.zip", "b.zip"],
            r"download.location is a list of 2 items; "
            r"the released data set is one zip or one folder",
        ),
    ],
)
def test_a_release_that_is_not_there_is_named(workplace, location, message):
    settings(download__source="mm-amazontitles", download__location=location)
    refused(message)
