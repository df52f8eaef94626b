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

import base64
import html
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode

import numpy as np

from mufin.corpus.fetch import DISK_ERRORS, Fetcher, Refused, checked_picture, is_url
from mufin.corpus.sources import (
    Product,
    json_object,
    lines_of,
    looked_for,
    path_of,
    shown,
    text_of,
    texts_of,
    title_of,
    uid_of,
)
from mufin.errors import MufinError
from mufin.progress import progress
from mufin.ragged import Lists

DRIVE_ID = "1bV5d_SOw6pNXWrQecihcSc2xkqUcXMFO"  # of the zip on Google Drive
DRIVE = "https://drive.usercontent.google.com/download"
UNPACKED = 2**40  # bytes that a zip may unpack to
WHOLE = 2**40  # characters per line, in effect no limit: one line can be a list of all products
# The reference of a picture of images/img.bin is this prefix and the byte at which its line starts.
STORED = "img.bin#"
SHORT = {"train": "trn", "test": "tst"}  # how the split files abbreviate the names

# From (title file, row, UID) to the references of the row's pictures.
Pictures = Callable[[str, int, str], list[str]]


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
                archive.extract(info, folder)
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
    return folder


def _check_members(path: Path, infos: list[zipfile.ZipInfo], folder: Path) -> None:
    """Raises MufinError for a zip that would fill the disk or write outside `folder`."""
    if sum(info.file_size for info in infos) > UNPACKED:
        raise MufinError(
            f"{path} would unpack to more than {UNPACKED >> 40} TB; "
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
    first = next(lines_of(path, WHOLE), (1, ""))[1].lstrip()
    rows: Iterator[tuple[int, object]]
    if first.startswith("["):
        rows = enumerate(_json_list(path), 1)
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


def _json_list(path: Path) -> list:
    try:
        return json.loads("".join(line for _, line in lines_of(path, WHOLE)))
    except json.JSONDecodeError as error:
        raise MufinError(
            f"{path} line {error.lineno} is not JSON ({error.msg}); fetch it again"
        ) from None
    except (ValueError, RecursionError):
        raise MufinError(f"{path} is not a JSON list of products; fetch it again") from None


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
    # Lines end with \n only: in latin-1, Python would also split at other line breaks in titles.
    with open(path, encoding="latin-1", newline="\n") as file:
        for number, line in enumerate(file, 1):
            uid, arrow, title = line.rstrip("\r\n").partition("->")
            if not arrow or not uid.strip():
                missing = "UID before `->`" if arrow else "`->` between UID and title"
                raise MufinError(f"{path} line {number} has no {missing}; fetch the file again")
            yield uid.strip(), title


def _text_products(root: Path, sizes: dict[str, int]) -> Iterator[Product]:
    """The products of all title files, as `Layout.products`; `sizes` has the rows of each file.

    Their pictures come from images/img.bin, or from img.urls.txt, or from the JSON.
    """
    pictures = _store(root, sizes) or _urls(root)
    has_pictures: dict[str, bool] = {}  # of each UID so far
    for name in sizes:
        for row, product in enumerate(_entries(root, name)):
            if pictures:
                product.images = pictures(name, row, product.uid)
            known = product.uid in has_pictures
            if not known or (product.images and not has_pictures[product.uid]):
                has_pictures[product.uid] = bool(product.images)
                yield product


# Pictures


def _urls(root: Path) -> Pictures | None:
    """The pictures in img.urls.txt, as URLs; None without that file."""
    places = (root / "img.urls.txt", root / "raw_data/img.urls.txt")
    path = next((p for p in places if p.exists()), None)
    if path is None:
        return None
    urls: dict[str, list[str]] = {}
    for number, line in lines_of(path):
        uid, tab, url = line.rstrip("\n").partition("\t")
        if not tab:
            raise MufinError(
                f"{path} line {number} has no tab between UID and URL; fetch the file again"
            )
        urls.setdefault(uid.strip(), []).append(text_of(url).strip())
    return lambda name, row, uid: _of_uids(urls, uid)


def _store(root: Path, sizes: dict[str, int]) -> Pictures | None:
    """The pictures in images/img.bin, as references that begin with STORED; None without that file.

    `images/<title file>.img.bin.npz` says which pictures a row has. The rows of a title file
    without one have the pictures whose line in img.bin begins with their UID.
    """
    path = root / "images/img.bin"
    if not path.exists():
        return None
    size = path.stat().st_size
    offsets = {
        name: _offsets(root / f"images/{name}.img.bin.npz", rows, size)
        for name, rows in sizes.items()
    }
    by_uid = _starts(path) if None in offsets.values() else {}

    def pictures(name: str, row: int, uid: str) -> list[str]:
        known = offsets[name]
        starts = _of_uids(by_uid, uid) if known is None else known[row].tolist()
        return [f"{STORED}{start}" for start in starts]

    return pictures


def _of_uids(pictures: dict[str, list], uid: str) -> list:
    """The pictures of a UID; a row of the release can have several UIDs, separated by commas."""
    if uid in pictures or "," not in uid:
        return pictures.get(uid, [])
    return [one for part in uid.split(",") for one in pictures.get(part.strip(), [])]


def _offsets(path: Path, rows: int, size: int) -> Lists | None:
    """(rows,) lists of the bytes at which a row's pictures start in img.bin; None without the file.

    The file is a SciPy CSR matrix. The columns of a row are its pictures in order, and a value is
    the byte offset plus one, since a sparse matrix does not store zeros. `rows` is the number of
    rows of the title file, `size` that of bytes in img.bin. Raises MufinError if the matrix does
    not fit them.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if file["format"].item() not in (b"csr", "csr"):
                raise ValueError("not a CSR matrix")
            values, columns, starts = (file[name] for name in ("data", "indices", "indptr"))
        with np.errstate(invalid="ignore"):  # NaN becomes an integer out of range, refused below
            found = Lists(starts.astype(np.int64), values.astype(np.int64) - 1)
        steps = np.diff(found.offsets, prepend=0, append=len(values))
        if steps[0] or steps[-1] or steps.min() < 0 or len(columns) != len(values):
            raise ValueError("its arrays do not fit together")
    except Exception as error:  # zipfile and NumPy raise anything on broken headers
        why = " ".join(str(error).split())[:200]
        raise MufinError(
            f"{path} is not a complete sparse matrix ({why}); fetch it again, or delete it "
            "to find the pictures by the UIDs in img.bin"
        ) from None
    inside = not len(found.values) or -1 <= found.values.min() <= found.values.max() < size
    if len(found) != rows or not inside:
        raise MufinError(
            f"{path} has {len(found)} rows with offsets up to byte "
            f"{found.values.max(initial=0)}, but its title file has {rows} rows and img.bin "
            f"{size} bytes; the files are from different releases: fetch them again"
        )
    # The columns of a row need not be sorted in the file.
    ordered = Lists(found.offsets, found.values[np.lexsort((columns, found.rows()))])
    return ordered.only(ordered.values >= 0)  # some writers do store zeros, which are no offsets


def _starts(path: Path) -> dict[str, list[int]]:
    """{UID: the bytes at which the lines of its pictures start in img.bin}."""
    found: dict[str, list[int]] = {}
    start = 0
    with open(path, "rb") as file:
        for line in file:
            uid, tab, _ = line.partition(b"\t")
            if tab:
                found.setdefault(uid.decode("latin-1").strip(), []).append(start)
            start += len(line)
    return found


def stored_picture(store: BinaryIO, reference: str, max_bytes: int) -> tuple[bytes, str]:
    """(bytes, '') of a picture of the open img.bin, or (b'', reason).

    `reference` begins with STORED; `max_bytes` bounds the decoded picture.
    """
    place, size = reference.removeprefix(STORED), store.seek(0, 2)
    start = int(place) if re.fullmatch("[0-9]{1,18}", place) else size
    # A valid place is the start of a line, so the byte before it is a line break.
    store.seek(min(max(start - 1, 0), size))
    before = store.read(1) if start else b"\n"
    longest = 2 * max_bytes + 2**10  # base64 adds a third; the rest is room for the UID
    line = store.readline(longest)
    content = line.partition(b"\t")[2].strip()
    if before != b"\n" or not content:
        return b"", "no picture at its place in img.bin"
    if len(line) == longest or len(content) > 4 * (max_bytes // 3 + 1):
        return b"", "too many bytes"
    try:
        return checked_picture(base64.b64decode(content, validate=True)), ""
    except ValueError:
        return b"", "broken base64"
    except Refused as error:
        return b"", str(error)


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
    with open(path, encoding="ascii", errors="replace") as file:
        header = file.readline().split()
        if header[:2] != [str(rows), str(columns)]:
            raise MufinError(
                f"{path} line 1 says {' '.join(header)[:100]}, but the title files have {rows} "
                f"rows and {columns} labels; the files are from different releases: "
                "fetch them again"
            )
        for number, line in enumerate(file, 2):
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
    try:
        pairs = np.array(path.read_text(encoding="ascii").split(), np.int64).reshape(-1, 2)
    except (ValueError, OverflowError):
        raise MufinError(
            f"{path} is not one `datapoint label` pair per line; fetch the file again"
        ) from None
    if len(pairs) and (
        pairs.min() < 0 or pairs[:, 0].max() >= rows or pairs[:, 1].max() >= columns
    ):
        raise MufinError(
            f"{path} names a datapoint or label that is not in the split; "
            "the files are from different releases: fetch them again"
        )
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return Lists.of_pairs(pairs[:, 0], pairs[:, 1].astype(np.int32), rows)
