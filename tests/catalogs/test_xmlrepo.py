"""The data sets of the Extreme Classification Repository, in each layout."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from mufin.catalogs import released_zip, xmlrepo
from mufin.catalogs.product import Product
from mufin.catalogs.released_pictures import stored_picture
from mufin.catalogs.released_zip import open_source
from mufin.corpus.fetch import Fetcher
from pipeline import curate, download
from tests.support import catalogs
from tests.support.catalogs import GOOD, PRODUCTS, Shelf, as_file, refused, settings
from tests.support.servers import Server, jpeg, limits, serving

workplace = catalogs.workplace

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
    layout = xmlrepo.read(open_source(str(where), tmp_path / "scratch", Fetcher(limits())))
    rows = list(layout.products)
    products = {p.uid: p for p in rows}
    assert len(rows) == len(products) and {uid: p.title for uid, p in products.items()} == dict(
        sum(TITLES.values(), [])
    )
    assert layout.labels.to_pylist() == ["B", "D", "E"]
    for name, (uids, labels, excluded) in layout.splits.items():
        assert uids.to_pylist() == [uid for uid, _ in TITLES[name]]
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
        monkeypatch.setattr(released_zip, "DRIVE", server.url("/get"))
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
        f"/get?id={released_zip.DRIVE_ID}&export=download&confirm=t",
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
    assert layout.splits == {} and not len(layout.labels)
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
            r"is it a data set of the Extreme Classification Repository, with its raw text\?",
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


def test_filter_pairs_may_lie_beside_the_titles(tmp_path):
    home = release(tmp_path / "home")
    for path in home.glob("filter_labels_*"):
        path.rename(home / "raw_data" / path.name)
    assert as_read(xmlrepo.read(home)) == EXPECTED and not xmlrepo.read(home).unfiltered


# LF-AmazonTitles: titles alone, in the JSON layout and in those that are written from it


def lf(home: Path, ending: str = ".json.gz", filters: bool = True) -> Path:
    """A tiny release in the JSON layout."""
    home.mkdir()
    for name, short in (("train", "trn"), ("test", "tst"), ("label", "lbl")):
        rows = [{"uid": uid, "title": title, "content": "x" * 99} for uid, title in TITLES[name]]
        for row, labels in zip(rows, SPLIT[name][0] if name in SPLIT else ()):
            row |= {"target_ind": labels, "target_rel": [1.0] * len(labels)}
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        packed = gzip.compress(text) if ending.endswith("gz") else text
        (home / f"{short}{ending}").write_bytes(packed)
        for row, excluded in enumerate(SPLIT[name][1] if name in SPLIT and filters else ()):
            with open(home / f"filter_labels_{name}.txt", "a") as file:
                file.writelines(f"{row} {label}\n" for label in excluded)
    return home


def as_read(layout: xmlrepo.Layout) -> tuple:
    """The products, the labels and the split of a layout, as lists."""
    splits = {
        name: (
            uids.to_pylist(),
            *([row.tolist() for row in map(of.__getitem__, range(len(of)))] for of in lists),
        )
        for name, (uids, *lists) in layout.splits.items()
    }
    titles = {product.uid: product.title for product in layout.products}
    return titles, layout.labels.to_pylist(), splits


EXPECTED = (
    dict(sum(TITLES.values(), [])),
    ["B", "D", "E"],
    {name: ([uid for uid, _ in TITLES[name]], *SPLIT[name]) for name in ("train", "test")},
)


@pytest.mark.parametrize("ending", [".json", ".json.gz"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_the_json_layout_is_read_as_released(tmp_path, ending, packed):
    home = lf(tmp_path / "home", ending)
    where = zipped(home, tmp_path / "a.zip") if packed else home
    layout = xmlrepo.read(open_source(str(where), tmp_path / "scratch", Fetcher(limits())))
    assert as_read(layout) == EXPECTED and layout.unfiltered == []
    assert {name: rows.to_pylist() for name, rows in layout.rows().items()} == {
        name: [uid for uid, _ in rows] for name, rows in TITLES.items()
    }


def test_uids_come_from_json_where_other_titles_have_none(tmp_path):
    home = lf(tmp_path / "home")
    written(home, "{}.raw.txt", "lbl.raw.txt")
    assert as_read(xmlrepo.read(home)) == EXPECTED
    (home / "raw_data").mkdir()
    released = release(tmp_path / "other")
    for path in (released / "raw_data").iterdir():
        path.rename(home / "raw_data" / path.name)
    assert as_read(xmlrepo.read(home)) == EXPECTED


def written(home: Path, split: str, label: str, ids: bool = False) -> None:
    """The text layout as programs write it from the JSON files."""
    for name, rows in TITLES.items():
        short = {"train": "trn", "test": "tst", "label": "lbl"}[name]
        path = home / (label if name == "label" else split.format(short))
        path.parent.mkdir(exist_ok=True)
        lines = [f"{uid}->{title}\n" if ids else f"{title}\n" for uid, title in rows]
        path.write_bytes("".join(lines).encode("latin-1"))
        if name in SPLIT:
            labels = [" ".join(f"{label}:1" for label in row) for row in SPLIT[name][0]]
            (home / f"{short}_X_Y.txt").write_text("\n".join([f"{len(rows)} 3", *labels]) + "\n")


@pytest.mark.parametrize(
    "split, label",
    [("{}.raw.txt", "lbl.raw.txt"), ("raw/{}_X.txt", "raw/Y.txt"), ("{}_X.txt", "lbl_X.txt")],
)
@pytest.mark.parametrize("ids", [True, False])
def test_titles_beside_the_split_may_lack_uids(tmp_path, split, label, ids):
    written(tmp_path, split, label, ids)
    layout = xmlrepo.read(tmp_path)
    assert layout.unfiltered == ["filter_labels_train.txt", "filter_labels_test.txt"]
    titles, labels, splits = as_read(layout)
    if ids:
        assert (titles, labels) == EXPECTED[:2]
    else:
        assert labels == ["label-0", "label-1", "label-2"]
        assert splits["test"][0] == ["test-0", "test-1"] and titles["label-2"] == "e"
    for name in SPLIT:
        assert splits[name][1] == SPLIT[name][0] and not any(splits[name][2])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("tst.json.gz", None, r"home has trn.json but neither tst.json nor tst.json.gz"),
        ("lbl.json", b'{"uid": "B"}\n', r"trn.json.gz line 1 names label 1, but there are only 1"),
        (
            "tst.json",
            b'{"uid": "D", "target_ind": [0, 3]}\n',
            r"tst.json line 1 names label 3, but there are only 3 labels",
        ),
        ("tst.json", b'{"uid": "D", "target_ind": [-1, 0]}\n', r"line 1 names label -1, but"),
        (
            "tst.json",
            b'{"uid": "D"}\n',
            r"tst.json line 1 has None in target_ind; it must be a list of label numbers",
        ),
        ("tst.json", b'{"uid": "D", "target_ind": [1.0]}\n', r"has \[1.0\] in target_ind"),
        ("tst.json", b'{"uid": "D", "target_ind": [true]}\n', r"has \[True\] in target_ind"),
        ("tst.json", b'{"title": "D", "target_ind": []}\n', r"line 1 has the id None in uid"),
        ("tst.json", b'{"uid": "D", "targ', r"tst.json line 1 is not JSON .*fetch it again"),
        ("tst.json", b"[" * 100_000, r"tst.json line 1 is not JSON"),
        ("trn.json", b"7\n", r"trn.json product 1 is '7', not a JSON object; fetch it again"),
        ("filter_labels_test.txt", b"2 0\n", r"names a datapoint or label that is not in the"),
    ],
)
def test_a_broken_json_layout_ends_in_a_sentence(workplace, name, content, message):
    home = lf(workplace / "home")
    if content is None:
        (home / name).unlink()
    else:
        (home / name).write_bytes(content)
    settings(download__source="lf-amazontitles", download__location="home")
    refused(message)


@pytest.mark.parametrize("source", ["lf-amazontitles", "mm-amazontitles"])
def test_a_release_without_filter_pairs_is_said_to_have_none(workplace, capsys, source):
    home = (
        lf(workplace / "home", filters=False) if source[0] == "l" else release(workplace / "home")
    )
    for path in home.glob("filter_labels_*"):
        path.unlink()
    settings(download__source=source, download__location="home")
    download.main()
    text = "splits without filter pairs: no file of these was found"
    example = "'filter_labels_train.txt'"
    said = json.loads(Path("metrics/download.json").read_text())["notes"]
    assert said[text] == {"count": 2, "example": example}
    assert f"download: {text}: 2, such as {example}" in capsys.readouterr().err
