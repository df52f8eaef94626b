"""Data sets as the Extreme Classification Repository distributes them.

MUFIN Sec. 4, Datasets, and App. B describe MM-AmazonTitles-300K, the one with pictures. Others,
such as LF-AmazonTitles-131K and -1.3M, have titles alone, to which vectors of pictures can be added
(`vector_files`). A set is a zip or a folder in one of these layouts, of which <split> is train or
test, and <titles> train, test or label:

The text layout:

    trn_X_Y.txt, tst_X_Y.txt        `rows columns`, then per datapoint its `label:value` tokens
    raw_data/<titles>.raw.txt       `UID->title` in latin-1, one line per row
    raw_data/<titles>.json          the same products as JSON, with pictures and categories
    img.urls.txt                    `UID<TAB>URL`, one line per picture; also in raw_data/
    images/img.bin                  `UID<TAB>base64 of a JPEG`, one line per picture
    images/<titles>.img.bin.npz     a sparse matrix: where the pictures of a row are in img.bin

For each <titles>, one of the two files in raw_data is required, or one of TITLES. All picture files
are optional.

The JSON layout:

    trn.json, tst.json, lbl.json    {uid, title, target_ind, ...} per line: target_ind are labels

In both, datapoints and labels count from 0, files may be gzipped, and there can be filter pairs:

    filter_labels_<split>.txt       one `datapoint label` per line

The plain layout has no split: one or more JSON files of objects with the keys ASIN, title, images
(URLs) and also_buy.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from mufin.catalogs.cells import texts_of, title_of, uid_of
from mufin.catalogs.json_text import json_items
from mufin.catalogs.product import Product
from mufin.catalogs.released_pictures import picture_urls, stored_pictures
from mufin.catalogs.released_split import label_lists, pairs, sparse
from mufin.catalogs.text_files import begins_with, latin1_lines_of, lines_of
from mufin.errors import MufinError, shown
from mufin.ragged import Lists

SHORT = {"train": "trn", "test": "tst", "label": "lbl"}  # how files abbreviate the names
SPLITS = ("train", "test")
# Other files of titles, as the published programs for these sets write them from the released ones,
# often without UIDs. <split> stands for trn or tst.
TITLES = {
    "train": ("trn.raw.txt", "raw/trn_X.txt", "trn_X.txt"),
    "test": ("tst.raw.txt", "raw/tst_X.txt", "tst_X.txt"),
    "label": ("lbl.raw.txt", "raw/lbl_X.txt", "raw/Y.txt", "lbl_X.txt", "Y.txt"),
}
FIRST = 1000  # lines that show whether a file of titles has UIDs
CHUNK = 100_000  # UIDs that are Python texts at the same time


@dataclass(slots=True)
class Layout:
    """The content of an unpacked folder; without labels and splits in the plain layout."""

    home: Path  # the folder that its files are in
    products: Iterator[Product]  # each UID once, or once more if only a later row has pictures
    labels: pa.ChunkedArray  # (L,) the UID of each label
    splits: dict[str, tuple[pa.ChunkedArray, Lists, Lists]]  # train, test: UIDs, labels, filter
    unfiltered: list[str] = field(default_factory=list)  # files of filter pairs that are missing

    def rows(self) -> dict[str, pa.ChunkedArray]:
        """{train, test, label: the UID of each row}; empty without a split."""
        if not self.splits:
            return {}
        return {name: uids for name, (uids, _, _) in self.splits.items()} | {"label": self.labels}


def read(home: Path) -> Layout:
    """Products and split of an unpacked folder in any layout; raises MufinError for none of them.

    Where a folder has the files of both layouts, the UIDs decide: files of titles outside of
    raw_data are written from the JSON files, and have none.
    """
    marks, objects = _named(home, "trn_X_Y.txt"), _named(home, "trn.json", "trn.json.gz")
    if marks and not (objects and not (marks[0].parent / "raw_data").is_dir()):
        return _read_text_layout(marks[0].parent)
    if objects:
        return _read_json_layout(objects[0].parent)
    files = sorted(p for p in home.rglob("*.json*") if p.is_file())
    files = [p for p in files if not p.name.startswith("._")]  # copies that macOS adds to a zip
    if not files:
        raise MufinError(
            f"{home} has neither trn_X_Y.txt nor a JSON file of products; "
            "is it a data set of the Extreme Classification Repository, with its raw text?"
        )
    products = (p for f in files for p in _json_products(f))
    return Layout(home, products, _texts([]), {})


def _named(home: Path, *names: str) -> list[Path]:
    return sorted(path for name in names for path in home.rglob(name) if path.is_file())


def _texts(texts: Iterable[str]) -> pa.ChunkedArray:
    """The texts as an Arrow column, which takes a tenth of the memory of a list."""
    texts, parts = iter(texts), []
    while some := list(itertools.islice(texts, CHUNK)):
        parts.append(pa.array(some, pa.string()))
    return pa.chunked_array(parts, pa.string())


# The text layout


def _read_text_layout(root: Path) -> Layout:
    uids = {name: _texts(p.uid for p in _entries(root, name)) for name in SHORT}
    num_labels = len(uids["label"])
    splits = {}
    for name in SPLITS:
        labels = sparse(root / f"{SHORT[name]}_X_Y.txt", len(uids[name]), num_labels)
        excluded = pairs(_filter(root, name), len(uids[name]), num_labels)
        splits[name] = (uids[name], labels, excluded)
    sizes = {name: len(rows) for name, rows in uids.items()}
    return Layout(root, _text_products(root, sizes), uids["label"], splits, _unfiltered(root))


def _filter(root: Path, name: str) -> Path:
    file = f"filter_labels_{name}.txt"
    inner = root / "raw_data" / file
    return inner if inner.exists() and not (root / file).exists() else root / file


def _unfiltered(root: Path) -> list[str]:
    return [_filter(root, name).name for name in SPLITS if not _filter(root, name).exists()]


def _entries(root: Path, name: str) -> Iterator[Product]:
    """The products of title file `name`: train, test or label.

    Titles come from `raw_data/<name>.raw.txt`, pictures and categories from the JSON beside it. If
    only the JSON exists, the titles are in it too. If both exist, their rows must be the same
    products in the same order, else MufinError is raised. Without both it is a file of TITLES.
    """
    text = root / f"raw_data/{name}.raw.txt"
    described = [root / f"raw_data/{name}{end}" for end in (".json", ".json.gz")]
    other = next((path for path in described if path.exists()), None)
    if not text.exists():
        plain = next((root / file for file in TITLES[name] if (root / file).exists()), None)
        if other:
            yield from _json_products(other)
        elif plain:
            yield from _plain_titles(plain, name)
        else:
            raise MufinError(
                f"{text} is missing, and so is {name}.json; the released split needs one of them"
            )
    elif other is None:
        for uid, title in _titles(text):
            yield Product(uid, title)
    else:
        products = _json_products(other)
        for number, (uid, title) in enumerate(_titles(text), 1):
            product = next(products, None)
            if product is None or product.uid != uid:
                has = "ends before it" if product is None else f"has {shown(product.uid)} there"
                raise MufinError(
                    f"{text} line {number} is the product {shown(uid)}, but {other} {has}; "
                    "the files are from different releases: remove one of them"
                )
            yield Product(uid, title, product.images, product.related, product.category)


def _titles(path: Path) -> Iterator[tuple[str, str]]:
    """(UID, title) of each line of a `UID->title` file."""
    for number, line in latin1_lines_of(path):
        uid, arrow, title = line.rstrip("\r\n").partition("->")
        if not arrow or not uid.strip():
            missing = "UID before `->`" if arrow else "`->` between UID and title"
            raise MufinError(f"{path} line {number} has no {missing}; fetch the file again")
        yield uid.strip(), title


def _plain_titles(path: Path, name: str) -> Iterator[Product]:
    """The products of a file of titles; without UIDs in its first lines, these are name and row."""
    first = [line for _, line in itertools.islice(latin1_lines_of(path), FIRST)]
    if first and all("->" in line for line in first):  # a title may have an arrow too
        for uid, title in _titles(path):
            yield Product(uid, title)
        return
    for number, line in latin1_lines_of(path):
        yield Product(f"{name}-{number - 1}", line.rstrip("\r\n"))


def _text_products(root: Path, sizes: dict[str, int]) -> Iterator[Product]:
    """The products of all title files, as `Layout.products`; `sizes` has the rows of each file.

    Their pictures come from images/img.bin, or from img.urls.txt, or from the JSON.
    """
    pictures = stored_pictures(root, sizes) or picture_urls(root)

    def every() -> Iterator[Product]:
        for name in sizes:
            for row, product in enumerate(_entries(root, name)):
                if pictures:
                    product.images = pictures(name, row, product.uid)
                yield product

    return _distinct(every())


def _distinct(products: Iterable[Product]) -> Iterator[Product]:
    """Each UID once, or once more if only a later row has pictures."""
    has_pictures: dict[str, bool] = {}  # of each UID so far
    for product in products:
        known = product.uid in has_pictures
        if not known or (product.images and not has_pictures[product.uid]):
            has_pictures[product.uid] = bool(product.images)
            yield product


# The JSON layout


def _read_json_layout(root: Path) -> Layout:
    files = {name: _json_file(root, short) for name, short in SHORT.items()}
    labels = _texts(_uid(row, files["label"], n) for n, row in _objects(files["label"]))
    splits = {}
    for name in SPLITS:
        uids, targets = _targets(files[name], len(labels))
        splits[name] = (uids, targets, pairs(_filter(root, name), len(uids), len(labels)))
    products = _distinct(p for path in files.values() for p in _json_products(path))
    return Layout(root, products, labels, splits, _unfiltered(root))


def _json_file(root: Path, short: str) -> Path:
    for path in (root / f"{short}.json", root / f"{short}.json.gz"):
        if path.is_file():
            return path
    raise MufinError(
        f"{root} has trn.json but neither {short}.json nor {short}.json.gz; a released split needs "
        "the files of trn, tst and lbl: fetch it again"
    )


def _targets(path: Path, num_labels: int) -> tuple[pa.ChunkedArray, Lists]:
    """The UID and the label ids of each datapoint."""
    parts: list[pa.Array] = []
    some: list[str] = []

    def rows() -> Iterator[tuple[int, list[int]]]:
        for number, row in _objects(path):
            some.append(_uid(row, path, number))
            if len(some) == CHUNK:
                parts.append(pa.array(some, pa.string()))
                some.clear()
            yield number, _labels(row, path, number)

    labels = label_lists(rows(), path, num_labels)
    return pa.chunked_array([*parts, pa.array(some, pa.string())], pa.string()), labels


def _labels(row: dict, path: Path, number: int) -> list[int]:
    value = row.get("target_ind")
    # `type`, because True is an int too
    if not isinstance(value, list) or not all(type(label) is int for label in value):
        raise MufinError(
            f"{path} line {number} has {shown(value)} in target_ind; it must be a list of label "
            "numbers: fetch the file again"
        )
    return value


def _uid(row: dict, path: Path, number: int) -> str:
    return uid_of(row.get("ASIN", row.get("uid")), path, number, "ASIN" if "ASIN" in row else "uid")


def _objects(path: Path) -> Iterator[tuple[int, dict]]:
    """(line or item number, object) of a JSON file: one object per line, or one list of objects."""
    if begins_with(path, "["):
        rows: Iterator[tuple[int, object]] = enumerate(json_items(path), 1)
    else:
        rows = ((number, _object(path, number, line)) for number, line in lines_of(path))
    for number, row in rows:
        if not isinstance(row, dict):
            raise MufinError(
                f"{path} product {number} is {str(row)[:60]!r}, not a JSON object; fetch it again"
            )
        yield number, row


def _object(path: Path, number: int, line: str) -> object:
    try:
        return json.loads(line)
    # Or a number with thousands of digits, or thousands of nested brackets
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", "not a product")
        raise MufinError(f"{path} line {number} is not JSON ({why}); fetch it again") from None


def _json_products(path: Path) -> Iterator[Product]:
    """The products of a JSON file."""
    for number, row in _objects(path):
        yield Product(
            _uid(row, path, number),
            title_of(row.get("title"), path, number),
            texts_of(row.get("images"), path, number, "images"),
            texts_of(row.get("also_buy"), path, number, "also_buy"),
            texts_of(row.get("category"), path, number, "category"),
        )
