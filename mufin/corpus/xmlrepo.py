"""MM-AmazonTitles-300K as the Extreme Classification Repository hands it out (METHOD, Task and data)."""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Iterator
from urllib.parse import urlencode

import numpy as np

from mufin.corpus.fetch import FULL, Fetcher, Refused, is_url, picture
from mufin.corpus.sources import (
    Product,
    _json,
    _list,
    _shown,
    _text,
    _title,
    _uid,
    lines_of,
    path_of,
)
from mufin.errors import MufinError
from mufin.progress import progress
from mufin.ragged import Lists

DRIVE_ID = "1bV5d_SOw6pNXWrQecihcSc2xkqUcXMFO"
DRIVE = "https://drive.usercontent.google.com/download"
UNPACKED = 2**40  # bytes a zip may unpack to
WHOLE = 2**40  # characters: a JSON list of all products may be one line
STORED = "img.bin#"  # begins the reference of a picture of `images/img.bin`: the byte where its line starts follows


@dataclass(slots=True)
class Layout:
    """Products, and the released split where the text files are there."""

    home: Path
    products: Iterator[Product]
    labels: list[str]
    splits: dict[str, tuple[list[str], Lists, Lists]]  # train, test: uids, labels, filter pairs


def open_source(location: str | list[str] | None, scratch: Path, fetcher: Fetcher) -> Path:
    """The unpacked folder of a folder, a zip, a URL or a Google Drive id (default: the released one)."""
    if isinstance(location, list):
        raise MufinError(
            f"download.location is a list of {len(location)}; the released data set is one zip or folder"
        )
    where = location or DRIVE_ID
    if not is_url(where):
        path = path_of(where)
        if path.is_dir():
            return path
        if path.is_file():
            return _unpack(path, scratch / "unpacked")
        if not re.fullmatch(r"[\w-]{25,}", where):
            raise MufinError(
                f"download.location is {where}, which is not there; give the zip, its folder, a URL or an id"
            )
    url = (
        where
        if is_url(where)
        else f"{DRIVE}?{urlencode({'id': where, 'export': 'download', 'confirm': 't'})}"
    )
    return _unpack(
        fetcher.save(url, scratch / "source.zip", lambda page: _confirmed(page, where)),
        scratch / "unpacked",
    )


def _confirmed(page: str, where: str) -> str:
    """The URL that the form asks for on Google Drive's page before a large file."""
    fields = {
        name: html.unescape(value)
        for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', page)
    }
    if "id" not in fields:
        raise MufinError(
            f"{where} gave a page instead of a zip; fetch it by hand and set download.location to it"
        )
    return f"{DRIVE}?{urlencode(fields)}"


def _unpack(path: Path, folder: Path) -> Path:
    """The zip's files under `folder`, once; raises MufinError for a broken zip and for paths that leave the folder."""
    status, mark = path.stat(), folder / ".whole"
    version = f"{status.st_size} {status.st_mtime_ns}"
    if mark.exists() and mark.read_text() == version:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if sum(i.file_size for i in infos) > UNPACKED:
                raise MufinError(
                    f"{path} would unpack to more than {UNPACKED >> 40} TB; it is not the data set"
                )
            for info in infos:
                target = (folder / info.filename).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise MufinError(
                        f"{path} holds {info.filename!r}, a path that leaves its folder; it is not the data set"
                    )
            for info in progress(infos, "unpack", "files"):
                archive.extract(info, folder)
    except MufinError:
        raise
    except (RuntimeError, NotImplementedError) as error:  # a password, an unknown packing
        raise MufinError(
            f"{path} cannot be unpacked ({error}); unpack it and set download.location to the folder"
        ) from None
    except Exception as error:  # zipfile raises anything on broken headers
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        if isinstance(error, OSError) and error.errno:
            raise MufinError(
                f"{path} holds paths that no folder can hold ({error.strerror}); it is not the data set"
            ) from None
        raise MufinError(f"{path} is not a whole zip; delete it and fetch it again") from None
    mark.write_text(version)
    return folder


def read(home: Path) -> Layout:
    """Products and split of an unpacked folder, whichever layout it has."""
    marks = sorted(home.rglob("trn_X_Y.txt"))
    if not marks:
        files = sorted(
            p for p in home.rglob("*.json*") if p.is_file() and not p.name.startswith("._")
        )
        if not files:
            raise MufinError(
                f"{home} has neither trn_X_Y.txt nor a JSON file of products; is it MM-AmazonTitles-300K?"
            )
        return Layout(home, (p for f in files for p in _json_products(f)), [], {})
    root = marks[0].parent
    uids = {
        name: [product.uid for product in _entries(root, name)]
        for name in ("train", "test", "label")
    }
    splits = {}
    for name, short in (("train", "trn"), ("test", "tst")):
        labels = _sparse(root / f"{short}_X_Y.txt", len(uids[name]), len(uids["label"]))
        splits[name] = (
            uids[name],
            labels,
            _pairs(root / f"filter_labels_{name}.txt", len(uids[name]), len(uids["label"])),
        )
    return Layout(
        root,
        _text_products(root, {name: len(rows) for name, rows in uids.items()}),
        uids["label"],
        splits,
    )


def _json_products(path: Path) -> Iterator[Product]:
    """ASIN, title, images, also_buy: one object a line, or one JSON list."""
    first = next(lines_of(path, WHOLE), (1, ""))[1].lstrip()
    if first.startswith("["):
        try:
            rows = enumerate(json.loads("".join(line for _, line in lines_of(path, WHOLE))), 1)
        except json.JSONDecodeError as error:
            raise MufinError(
                f"{path} line {error.lineno} is not JSON ({error.msg}); fetch it again"
            ) from None
        except (ValueError, RecursionError):
            raise MufinError(
                f"{path} is JSON that is no list of products; fetch it again"
            ) from None
    else:
        rows = ((number, _json(path, number, line)) for number, line in lines_of(path))
    for number, row in rows:
        if not isinstance(row, dict):
            raise MufinError(
                f"{path} product {number} is {str(row)[:60]!r}, not a JSON object; fetch it again"
            )
        yield Product(
            _uid(row.get("ASIN", row.get("uid")), path, number, "ASIN"),
            _title(row.get("title"), path, number),
            _list(row.get("images"), path, number, "images"),
            _list(row.get("also_buy"), path, number, "also_buy"),
            _list(row.get("category"), path, number, "category"),
        )


def _entries(root: Path, name: str) -> Iterator[Product]:
    """The products of `raw_data/<name>.raw.txt` (title alone) or of the JSON beside it (pictures and category too).

    Where both are there, titles are those of the text, and the JSON's lines must be of the same products.
    """
    text = root / f"raw_data/{name}.raw.txt"
    other = next(
        (
            p
            for p in (root / f"raw_data/{name}{end}" for end in (".json", ".json.gz"))
            if p.exists()
        ),
        None,
    )
    if not text.exists():
        if other is None:
            raise MufinError(
                f"{text} is missing, and so is {name}.json; the released split needs one of them"
            )
        yield from _json_products(other)
        return
    titles, described = _titles(text), _json_products(other) if other else itertools.repeat(None)
    for number, (uid, title) in enumerate(titles, 1):
        product = next(described, None)
        if other and (product is None or product.uid != uid):
            has = "ends before it" if product is None else f"has {_shown(product.uid)} there"
            raise MufinError(
                f"{text} line {number} is the product {_shown(uid)}, but {other} {has}; the files are not of one "
                "release: take one of them away"
            )
        yield (
            Product(uid, title, product.images, product.related, product.category)
            if product
            else Product(uid, title)
        )


def _titles(path: Path) -> Iterator[tuple[str, str]]:
    """(uid, title) of a `UID->title` file."""
    with open(path, encoding="latin-1", newline="\n") as file:
        for number, line in enumerate(file, 1):
            uid, arrow, title = line.rstrip("\r\n").partition("->")
            if not arrow or not uid.strip():
                raise MufinError(
                    f"{path} line {number} has no {'UID before `->`' if arrow else '`->` between UID and title'}; "
                    "fetch the file again"
                )
            yield uid.strip(), title


def _text_products(root: Path, sizes: dict[str, int]) -> Iterator[Product]:
    """Products of all three title files, each once, or once more where only a later row has pictures.

    Their pictures are those of the released store, else of `img.urls.txt`, else of the JSON.
    """
    pictures = _store(root, sizes) or _urls(root)
    seen: dict[str, bool] = {}  # whether pictures came with it
    for name in sizes:
        for row, product in enumerate(_entries(root, name)):
            if pictures:
                product.images = pictures(name, row, product.uid)
            if product.uid not in seen or (product.images and not seen[product.uid]):
                seen[product.uid] = bool(product.images)
                yield product


# Pictures


def _urls(root: Path):
    """A function from (title file, row, uid) to the row's URLs in `img.urls.txt`; None without that file."""
    path = next(
        (p for p in (root / "img.urls.txt", root / "raw_data/img.urls.txt") if p.exists()), None
    )
    if path is None:
        return None
    urls: dict[str, list[str]] = {}
    for number, line in lines_of(path):
        uid, tab, url = line.rstrip("\n").partition("\t")
        if not tab:
            raise MufinError(
                f"{path} line {number} has no tab between UID and URL; fetch the file again"
            )
        urls.setdefault(uid.strip(), []).append(_text(url).strip())
    return lambda name, row, uid: _of_uids(urls, uid)


def _store(root: Path, sizes: dict[str, int]):
    """A function from (title file, row, uid) to the row's pictures in `images/img.bin`; None without that file.

    Where they lie, `images/<title file>.img.bin.npz` says; for a title file without one, the UIDs of the store do.
    """
    path = root / "images/img.bin"
    if not path.exists():
        return None
    places = {
        name: _places(root / f"images/{name}.img.bin.npz", rows, path.stat().st_size)
        for name, rows in sizes.items()
    }
    by_uid = _starts(path) if None in places.values() else {}

    def pictures(name: str, row: int, uid: str) -> list[str]:
        found = _of_uids(by_uid, uid) if places[name] is None else places[name][row].tolist()
        return [f"{STORED}{start}" for start in found]

    return pictures


def _of_uids(pictures: dict[str, list], uid: str) -> list:
    """Those of a UID; a row of the release can have several, with commas between them."""
    if uid in pictures or "," not in uid:
        return pictures.get(uid, [])
    return [one for part in uid.split(",") for one in pictures.get(part.strip(), [])]


def _places(path: Path, rows: int, size: int) -> Lists | None:
    """Where in the store, of `size` bytes, the pictures of each row start: a SciPy CSR matrix of these numbers plus one."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if file["format"].item() not in (b"csr", "csr"):
                raise ValueError("no CSR matrix")
            values, columns, offsets = (file[name] for name in ("data", "indices", "indptr"))
        with np.errstate(invalid="ignore"):  # what is no number is no place either
            found = Lists(offsets.astype(np.int64), values.astype(np.int64) - 1)
        steps = np.diff(found.offsets, prepend=0, append=len(values))
        if steps[0] or steps[-1] or steps.min() < 0 or len(columns) != len(values):
            raise ValueError("its parts do not fit")
    except Exception as error:  # zipfile and NumPy raise anything on broken headers
        why = " ".join(str(error).split())[:200]
        raise MufinError(
            f"{path} is not a whole sparse matrix ({why}); fetch it again, or delete it: the UIDs of img.bin "
            "then say whose a picture is"
        ) from None
    if len(found) != rows or (
        len(found.values) and not -1 <= found.values.min() <= found.values.max() < size
    ):
        raise MufinError(
            f"{path} has {len(found)} rows with places up to byte {found.values.max(initial=0)}, but its title "
            f"file has {rows} rows and img.bin {size} bytes; the files are not of one release"
        )
    ordered = Lists(found.offsets, found.values[np.lexsort((columns, found.rows()))])
    return ordered.only(ordered.values >= 0)  # a zero that was stored is no place


def _starts(path: Path) -> dict[str, list[int]]:
    """Where the pictures of each UID start in the store."""
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
    """(bytes, '') or (b'', reason) of a picture of the open store: a line `UID<TAB>base64 JPEG`."""
    place, size = reference.removeprefix(STORED), store.seek(0, 2)
    start = int(place) if re.fullmatch("[0-9]{1,18}", place) else size
    store.seek(min(max(start - 1, 0), size))
    before = store.read(1) if start else b"\n"
    longest = 2 * max_bytes + 2**10  # base64 is a third longer than what it stands for
    line = store.readline(longest)
    content = line.partition(b"\t")[2].strip()
    if before != b"\n" or not content:
        return b"", "no picture at its place in img.bin"
    if len(line) == longest or len(content) > 4 * (max_bytes // 3 + 1):
        return b"", "too many bytes"
    try:
        return picture(base64.b64decode(content, validate=True)), ""
    except ValueError:
        return b"", "broken base64"
    except Refused as error:
        return b"", str(error)


# The split


def _sparse(path: Path, rows: int, columns: int) -> Lists:
    """The label lists of an XML Repository file: header `rows cols`, then `label:value` tokens; a row may be empty."""
    out: list[list[int]] = []
    if not path.is_file():
        raise MufinError(
            f"{path} is missing; a released split needs trn_X_Y.txt and tst_X_Y.txt: fetch it"
        )
    with open(path, encoding="ascii", errors="replace") as file:
        header = file.readline().split()
        if header[:2] != [str(rows), str(columns)]:
            raise MufinError(
                f"{path} line 1 says {' '.join(header)[:100]}, but the title files have {rows} rows and {columns} "
                "labels; the files are not of one release"
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
                    f"{path} line {number} names label {_shown(max(out[-1]))} of {columns}; fetch the file again"
                )
    if len(out) != rows:
        raise MufinError(
            f"{path} has {len(out)} rows where its header says {rows}; it is cut off: fetch it again"
        )
    return Lists.of_rows(out, np.int32)


def _pairs(path: Path, rows: int, columns: int) -> Lists:
    """The filter pairs of a `datapoint label` file, by datapoint; none where there is no file."""
    if not path.exists():
        return Lists(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32))
    try:
        pairs = np.array(path.read_text(encoding="ascii").split(), np.int64).reshape(-1, 2)
    except (ValueError, OverflowError):
        raise MufinError(
            f"{path} is not one `datapoint label` pair a line; fetch the file again"
        ) from None
    if len(pairs) and (
        pairs.min() < 0 or pairs[:, 0].max() >= rows or pairs[:, 1].max() >= columns
    ):
        raise MufinError(
            f"{path} names a datapoint or label that the split has not; the files are not of one release"
        )
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return Lists.of_pairs(pairs[:, 0], pairs[:, 1].astype(np.int32), rows)
