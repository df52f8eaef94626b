"""MM-AmazonTitles-300K as the Extreme Classification Repository distributes it.

MUFIN Sec. 4, Datasets, and App. B describe the data set. It is a zip that comes in two layouts. The
JSON layout has one or more files of objects with the keys ASIN, title, images (URLs) and also_buy,
and no split. The text layout has a split:

    trn_X_Y.txt, tst_X_Y.txt        `rows columns`, then per datapoint its `label:value` tokens
    filter_labels_<split>.txt       filter pairs, one `datapoint label` per line
    raw_data/<titles>.raw.txt       `UID->title` in latin-1, one line per row
    raw_data/<titles>.json          the same products as JSON, with pictures and categories
    img.urls.txt                    `UID<TAB>URL`, one line per picture; also in raw_data/
    images/img.bin                  `UID<TAB>base64 of a JPEG`, one line per picture
    images/<titles>.img.bin.npz     a sparse matrix: where the pictures of a row are in img.bin

<split> is train or test; <titles> is train, test or label. For each <titles>, one of the two files
in raw_data is required. The filter pairs and all picture files are optional. Datapoints and labels
count from 0.
"""

from __future__ import annotations

import html
import itertools
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from mufin.artifacts.publication import sync
from mufin.corpus.fetch import DISK_ERRORS, Fetcher, is_url
from mufin.corpus.released_pictures import picture_urls, stored_pictures
from mufin.corpus.sources import (
    Product,
    json_object,
    looked_for,
    path_of,
    texts_of,
    title_of,
    uid_of,
)
from mufin.corpus.text_files import begins_with, json_items, latin1_lines_of, lines_of
from mufin.errors import MufinError, shown
from mufin.progress import progress
from mufin.ragged import Lists

DRIVE_ID = "1bV5d_SOw6pNXWrQecihcSc2xkqUcXMFO"  # of the zip on Google Drive
DRIVE = "https://drive.usercontent.google.com/download"
UNPACKED = 2**40  # bytes that a zip may unpack to
PACKED = 100  # a zip of more than MUCH bytes may unpack to so many times its size
MUCH = 2**30
LONGEST_TOKEN = 32  # characters of `label:value`
SHORT = {"train": "trn", "test": "tst"}  # how the split files abbreviate the names


@dataclass(slots=True)
class Layout:
    """The content of an unpacked folder; without labels and splits in the JSON layout."""

    home: Path  # the folder that its files are in
    products: Iterator[Product]  # each UID once, or once more if only a later row has pictures
    labels: list[str]  # the UID of each label
    splits: dict[str, tuple[list[str], Lists, Lists]]  # train, test: UIDs, labels, filter pairs


# The zip


def open_source(location: str | list[str] | None, scratch: Path, fetcher: Fetcher) -> Path:
    """The unpacked folder of `download.location`; None is the released zip.

    A location is a folder, a zip, a URL or a Google Drive id. Raises MufinError if it is none of
    them or cannot be fetched or unpacked.
    """
    if isinstance(location, list):
        raise MufinError(
            f"download.location is a list of {len(location)} items; "
            "the released data set is one zip or one folder"
        )
    where = location or DRIVE_ID
    url = where
    if not is_url(where):
        path = path_of(where)
        if path.is_dir():
            return path
        if path.is_file():
            return _unpack(path, scratch / "unpacked")
        if not re.fullmatch(r"[\w-]{25,}", where):  # does not look like an id either
            raise MufinError(
                f"download.location is {where}, which does not exist; "
                f"give the zip, its folder, a URL or an id{looked_for(path)}"
            )
        url = f"{DRIVE}?{urlencode({'id': where, 'export': 'download', 'confirm': 't'})}"
    archive = fetcher.save(url, scratch / "source.zip", lambda page: _confirmed(page, where))
    return _unpack(archive, scratch / "unpacked")


def _confirmed(page: str, where: str) -> str:
    """The URL of the form on the page that Google Drive shows before a large file."""
    inputs = re.findall(r'name="(\w+)" value="([^"]*)"', page)
    fields = {name: html.unescape(value) for name, value in inputs}
    if "id" not in fields:
        raise MufinError(
            f"{where} gave a page instead of a zip; "
            "fetch the zip by hand and set download.location to it"
        )
    return f"{DRIVE}?{urlencode(fields)}"


def _unpack(path: Path, folder: Path) -> Path:
    """`folder`, with the zip's files in it; skipped if it has the files of the same zip already.

    Raises MufinError for a broken zip and for one that must not or cannot be unpacked.
    """
    status, mark = path.stat(), folder / ".whole"
    version = f"{status.st_size} {status.st_mtime_ns}"
    if mark.exists() and mark.read_text() == version:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_members(path, infos, folder)
            for info in progress(infos, "unpack", "files"):
                sync(Path(archive.extract(info, folder)))
    except MufinError:
        raise
    except (RuntimeError, NotImplementedError) as error:  # a password, an unknown compression
        raise MufinError(
            f"{path} cannot be unpacked ({error}); "
            "unpack it yourself and set download.location to the folder"
        ) from None
    except Exception as error:  # zipfile raises anything on broken headers
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        if isinstance(error, OSError) and error.errno:
            raise MufinError(
                f"{path} contains paths that cannot be created ({error.strerror}); "
                "it is not the data set: set download.location to another zip"
            ) from None
        raise MufinError(f"{path} is not a complete zip; delete it and fetch it again") from None
    mark.write_text(version)
    sync(folder)
    return folder


def _check_members(path: Path, infos: list[zipfile.ZipInfo], folder: Path) -> None:
    """Raises MufinError for a zip that would fill the disk or write outside `folder`."""
    size = sum(info.file_size for info in infos)
    if size > UNPACKED or size > max(PACKED * path.stat().st_size, MUCH):
        raise MufinError(
            f"{path} would unpack to {size >> 20} MB; "
            "it is not the data set: set download.location to another zip"
        )
    for info in infos:
        target = (folder / info.filename).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise MufinError(
                f"{path} holds {info.filename!r}, a path that leaves its folder; "
                "it is not the data set: set download.location to another zip"
            )


# Products


def read(home: Path) -> Layout:
    """Products and split of an unpacked folder in either layout; raises MufinError for neither."""
    marks = sorted(home.rglob("trn_X_Y.txt"))
    if marks:
        return _read_text_layout(marks[0].parent)
    files = sorted(p for p in home.rglob("*.json*") if p.is_file())
    files = [p for p in files if not p.name.startswith("._")]  # copies that macOS adds to a zip
    if not files:
        raise MufinError(
            f"{home} has neither trn_X_Y.txt nor a JSON file of products; "
            "is it MM-AmazonTitles-300K?"
        )
    return Layout(home, (p for f in files for p in _json_products(f)), [], {})


def _read_text_layout(root: Path) -> Layout:
    uids = {
        name: [product.uid for product in _entries(root, name)]
        for name in ("train", "test", "label")
    }
    num_labels = len(uids["label"])
    splits = {}
    for name, short in SHORT.items():
        labels = _sparse(root / f"{short}_X_Y.txt", len(uids[name]), num_labels)
        excluded = _pairs(root / f"filter_labels_{name}.txt", len(uids[name]), num_labels)
        splits[name] = (uids[name], labels, excluded)
    sizes = {name: len(rows) for name, rows in uids.items()}
    return Layout(root, _text_products(root, sizes), uids["label"], splits)


def _json_products(path: Path) -> Iterator[Product]:
    """The products of a JSON file: one object per line, or one list of objects."""
    rows: Iterator[tuple[int, object]]
    if begins_with(path, "["):
        rows = enumerate(json_items(path), 1)
    else:
        rows = ((number, json_object(path, number, line)) for number, line in lines_of(path))
    for number, row in rows:
        if not isinstance(row, dict):
            raise MufinError(
                f"{path} product {number} is {str(row)[:60]!r}, not a JSON object; fetch it again"
            )
        yield Product(
            uid_of(row.get("ASIN", row.get("uid")), path, number, "ASIN"),
            title_of(row.get("title"), path, number),
            texts_of(row.get("images"), path, number, "images"),
            texts_of(row.get("also_buy"), path, number, "also_buy"),
            texts_of(row.get("category"), path, number, "category"),
        )


def _entries(root: Path, name: str) -> Iterator[Product]:
    """The products of title file `name`: train, test or label.

    Titles come from `raw_data/<name>.raw.txt`, pictures and categories from the JSON beside it. If
    only the JSON exists, the titles are in it too. If both exist, their rows must be the same
    products in the same order, else MufinError is raised.
    """
    text = root / f"raw_data/{name}.raw.txt"
    described = [root / f"raw_data/{name}{end}" for end in (".json", ".json.gz")]
    other = next((path for path in described if path.exists()), None)
    if not text.exists():
        if other is None:
            raise MufinError(
                f"{text} is missing, and so is {name}.json; the released split needs one of them"
            )
        yield from _json_products(other)
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


def _text_products(root: Path, sizes: dict[str, int]) -> Iterator[Product]:
    """The products of all title files, as `Layout.products`; `sizes` has the rows of each file.

    Their pictures come from images/img.bin, or from img.urls.txt, or from the JSON.
    """
    pictures = stored_pictures(root, sizes) or picture_urls(root)
    has_pictures: dict[str, bool] = {}  # of each UID so far
    for name in sizes:
        for row, product in enumerate(_entries(root, name)):
            if pictures:
                product.images = pictures(name, row, product.uid)
            known = product.uid in has_pictures
            if not known or (product.images and not has_pictures[product.uid]):
                has_pictures[product.uid] = bool(product.images)
                yield product


# The split


def _sparse(path: Path, rows: int, columns: int) -> Lists:
    """(rows,) lists of the label ids of each datapoint, from trn_X_Y.txt or tst_X_Y.txt.

    A row may be empty; the values after the colons are not used. Raises MufinError if the file does
    not have `rows` datapoints and `columns` labels.
    """
    out: list[list[int]] = []
    if not path.is_file():
        raise MufinError(
            f"{path} is missing; a released split needs trn_X_Y.txt and tst_X_Y.txt: fetch it"
        )
    lines = latin1_lines_of(path, LONGEST_TOKEN * (columns + 1))
    header = next(lines, (1, ""))[1].split()
    if header[:2] != [str(rows), str(columns)]:
        raise MufinError(
            f"{path} line 1 says {' '.join(header)[:100]}, but the title files have {rows} "
            f"rows and {columns} labels; the files are from different releases: "
            "fetch them again"
        )
    for number, line in lines:
        try:
            out.append([int(token.partition(":")[0]) for token in line.split()])
        except ValueError:
            raise MufinError(
                f"{path} line {number} is not a list of label:value; fetch the file again"
            ) from None
        if out[-1] and not 0 <= min(out[-1]) <= max(out[-1]) < columns:
            raise MufinError(
                f"{path} line {number} names label {shown(max(out[-1]))}, but there are only "
                f"{columns} labels; fetch the file again"
            )
    if len(out) != rows:
        raise MufinError(
            f"{path} has {len(out)} rows, but its header says {rows}; it is cut off: fetch it again"
        )
    return Lists.of_rows(out, np.int32)


def _pairs(path: Path, rows: int, columns: int) -> Lists:
    """(rows,) lists of the label ids of the filter pairs; all empty without the file."""
    if not path.exists():
        return Lists(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32))
    lines = (line for _, line in latin1_lines_of(path, 2**10))
    parts = [np.zeros((0, 2), np.int64)]
    try:
        while some := list(itertools.islice(lines, 100_000)):  # 30 times as large as their numbers
            parts.append(np.array("".join(some).split(), np.int64).reshape(-1, 2))
    except (ValueError, OverflowError):
        raise MufinError(
            f"{path} is not one `datapoint label` pair per line; fetch the file again"
        ) from None
    pairs = np.concatenate(parts)
    if len(pairs) and (
        pairs.min() < 0 or pairs[:, 0].max() >= rows or pairs[:, 1].max() >= columns
    ):
        raise MufinError(
            f"{path} names a datapoint or label that is not in the split; "
            "the files are from different releases: fetch them again"
        )
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return Lists.of_pairs(pairs[:, 0], pairs[:, 1].astype(np.int32), rows)
