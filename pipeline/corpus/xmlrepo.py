"""MM-AmazonTitles-300K as the Extreme Classification Repository hands it out (METHOD, Task and data)."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import requests

from pipeline.corpus.sources import Product, _json, _list, _text, _uid, lines_of
from pipeline.errors import MufinError
from pipeline.progress import progress
from pipeline.ragged import Lists

DRIVE_ID = "1bV5d_SOw6pNXWrQecihcSc2xkqUcXMFO"
DRIVE = "https://drive.usercontent.google.com/download"
UNPACKED = 2**40        # bytes a zip may unpack to


@dataclass(slots=True)
class Layout:
    """Products, and the released split where the text files are there."""

    home: Path
    products: Iterator[Product]
    labels: list[str]
    splits: dict[str, tuple[list[str], Lists, Lists]]     # train, test: uids, labels, filter pairs


def open_source(location: str | list[str] | None, scratch: Path, timeout: float) -> Path:
    """The unpacked folder of a folder, a zip, a URL or a Google Drive id (default: the released one)."""
    if isinstance(location, list):
        raise MufinError(f"download.location is a list of {len(location)}; the released data set is one zip or folder")
    where = location or DRIVE_ID
    path = Path(where).expanduser()
    if path.is_dir():
        return path
    if not path.is_file():
        if path.suffix == ".zip" and "://" not in where:
            raise MufinError(f"download.location is {where}, which is not there; give the zip, its folder, a URL or an id")
        path = _fetch(where, scratch / "source.zip", timeout)
    return _unpack(path, scratch / "unpacked")


def _fetch(where: str, target: Path, timeout: float) -> Path:
    """The zip at a URL or Drive id, going on where an earlier try stopped; raises MufinError where it is not to be had."""
    part = target.with_suffix(".part")
    if target.exists():
        return target
    try:
        with requests.Session() as session:
            url, query = (where, {}) if "://" in where else (DRIVE, {"id": where, "export": "download", "confirm": "t"})
            have = part.stat().st_size if part.exists() else 0
            headers = {"Range": f"bytes={have}-"} if have else {}
            answer = session.get(url, params=query, stream=True, timeout=timeout, headers=headers)
            if "text/html" in answer.headers.get("Content-Type", ""):
                answer = _confirmed(session, answer, headers, timeout)
            answer.raise_for_status()
            with open(part, "ab" if answer.status_code == 206 else "wb") as file:
                for piece in progress(answer.iter_content(2**20), "fetch the zip, MB"):
                    file.write(piece)
    except requests.RequestException as error:
        raise MufinError(f"{where} cannot be fetched ({type(error).__name__}); what came is kept and the next run goes on, "
                         "or set download.location to a local zip or folder") from None
    part.rename(target)
    return target


def _confirmed(session, answer, headers: dict, timeout: float):
    """Google Drive's page before a large file, answered with the fields of its own form."""
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', answer.text))
    if "id" not in fields:
        raise MufinError(f"{answer.url} gave a page instead of a zip; fetch it by hand and set download.location to it")
    return session.get(DRIVE, params=fields, stream=True, timeout=timeout, headers=headers)


def _unpack(path: Path, folder: Path) -> Path:
    """The zip's files under `folder`, once; raises MufinError for a broken zip and for paths that leave the folder."""
    if (folder / ".whole").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if sum(i.file_size for i in infos) > UNPACKED:
                raise MufinError(f"{path} would unpack to more than {UNPACKED >> 40} TB; it is not the data set")
            for info in infos:
                target = (folder / info.filename).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise MufinError(f"{path} holds {info.filename!r}, a path that leaves its folder; it is not the data set")
            for info in progress(infos, "unpack"):
                archive.extract(info, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise MufinError(f"{path} is not a whole zip; delete it and fetch it again") from None
    (folder / ".whole").touch()
    return folder


def read(home: Path) -> Layout:
    """Products and split of an unpacked folder, whichever layout it has."""
    marks = sorted(home.rglob("trn_X_Y.txt"))
    if not marks:
        files = sorted(p for p in home.rglob("*.json*") if p.is_file() and not p.name.startswith("._"))
        if not files:
            raise MufinError(f"{home} has neither trn_X_Y.txt nor a JSON file of products; is it MM-AmazonTitles-300K?")
        return Layout(home, (p for f in files for p in _json_products(f)), [], {})
    root = marks[0].parent
    uids = {name: [uid for uid, _ in _titles(root, name)] for name in ("train", "test", "label")}
    splits = {}
    for name, short in (("train", "trn"), ("test", "tst")):
        labels = _sparse(root / f"{short}_X_Y.txt", len(uids[name]), len(uids["label"]))
        splits[name] = (uids[name], labels, _pairs(root / f"filter_labels_{name}.txt", len(uids[name]), len(uids["label"])))
    return Layout(root, _text_products(root), uids["label"], splits)


def _json_products(path: Path) -> Iterator[Product]:
    """ASIN, title, images, also_buy: one object a line, or one JSON list."""
    first = next(lines_of(path), (1, ""))[1].lstrip()
    if first.startswith("["):
        try:
            rows = enumerate(json.loads("".join(line for _, line in lines_of(path))), 1)
        except json.JSONDecodeError as error:
            raise MufinError(f"{path} line {error.lineno} is not JSON ({error.msg}); fetch it again") from None
    else:
        rows = ((number, _json(path, number, line)) for number, line in lines_of(path))
    for number, row in rows:
        if not isinstance(row, dict):
            raise MufinError(f"{path} product {number} is {str(row)[:60]!r}, not a JSON object; fetch it again")
        yield Product(_uid(row.get("ASIN", row.get("uid")), path, number, "ASIN"), _text(row.get("title")),
                      _list(row.get("images"), path, number, "images"), _list(row.get("also_buy"), path, number, "also_buy"),
                      _list(row.get("category"), path, number, "category"))


def _titles(root: Path, name: str) -> Iterator[tuple[str, str]]:
    """(uid, title) of `raw_data/<name>.raw.txt`, or of the JSON beside it."""
    path = root / f"raw_data/{name}.raw.txt"
    if path.exists():
        with open(path, encoding="latin-1", newline="\n") as file:
            for number, line in enumerate(file, 1):
                uid, arrow, title = line.rstrip("\r\n").partition("->")
                if not arrow:
                    raise MufinError(f"{path} line {number} has no `->` between UID and title; fetch the file again")
                yield uid.strip(), title
        return
    for suffix in (".json", ".json.gz"):
        if (other := root / f"raw_data/{name}{suffix}").exists():
            for product in _json_products(other):
                yield product.uid, product.title
            return
    raise MufinError(f"{path} is missing, and so is {name}.json; the released split needs one of them")


def _text_products(root: Path) -> Iterator[Product]:
    """Products of all three title files, each once, with their image URLs or stored images."""
    images: dict[str, list[str]] = {}
    urls = next((p for p in (root / "img.urls.txt", root / "raw_data/img.urls.txt") if p.exists()), None)
    if (root / "images/img.bin").exists():
        for uid, number, _ in _bin(root / "images/img.bin"):
            images.setdefault(uid, []).append(f"img.bin#{uid}#{number}")
    elif urls:
        for number, line in lines_of(urls):
            uid, tab, url = line.rstrip("\n").partition("\t")
            if not tab:
                raise MufinError(f"{urls} line {number} has no tab between UID and URL; fetch the file again")
            images.setdefault(uid.strip(), []).append(url.strip())
    seen: set[str] = set()
    for name in ("train", "test", "label"):
        for uid, title in _titles(root, name):
            if uid not in seen:
                seen.add(uid)
                yield Product(uid, title, images.get(uid, []))


def _bin(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """(uid, number of the picture, base64) of each line of the released image store."""
    counts: dict[str, int] = {}
    with open(path, "rb") as file:
        for line in file:
            uid, tab, content = line.rstrip(b"\r\n").partition(b"\t")
            if tab:
                name = uid.decode("latin-1").strip()
                counts[name] = counts.get(name, -1) + 1
                yield name, counts[name], content


def stored_images(layout: Layout, most: int) -> Iterator[tuple[str, bytes, str]]:
    """(reference, bytes, reason) of the pictures of `images/img.bin`, `most` a product."""
    path = layout.home / "images/img.bin"
    if path.exists():
        for uid, number, content in _bin(path):
            if number < most:
                try:
                    yield f"img.bin#{uid}#{number}", base64.b64decode(content, validate=True), ""
                except ValueError:
                    yield f"img.bin#{uid}#{number}", b"", "broken base64"


def _sparse(path: Path, rows: int, columns: int) -> Lists:
    """The label lists of an XML Repository file: header `rows cols`, then `label:value` tokens; a row may be empty."""
    out: list[list[int]] = []
    with open(path, encoding="ascii", errors="replace") as file:
        header = file.readline().split()
        if header[:2] != [str(rows), str(columns)]:
            raise MufinError(f"{path} line 1 says {' '.join(header)}, but the title files have {rows} rows and {columns} "
                             "labels; the files are not of one release")
        for number, line in enumerate(file, 2):
            try:
                out.append([int(token.partition(":")[0]) for token in line.split()])
            except ValueError:
                raise MufinError(f"{path} line {number} is not a list of label:value; fetch the file again") from None
            if out[-1] and not 0 <= min(out[-1]) <= max(out[-1]) < columns:
                raise MufinError(f"{path} line {number} names label {max(out[-1])} of {columns}; fetch the file again")
    if len(out) != rows:
        raise MufinError(f"{path} has {len(out)} rows where its header says {rows}; it is cut off: fetch it again")
    return Lists.of_rows(out, np.int32)


def _pairs(path: Path, rows: int, columns: int) -> Lists:
    """The filter pairs of a `datapoint label` file, by datapoint; none where there is no file."""
    if not path.exists():
        return Lists(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32))
    text = path.read_text().split()
    try:
        pairs = np.array(text, np.int64).reshape(-1, 2)
    except ValueError:
        raise MufinError(f"{path} is not one `datapoint label` pair a line; fetch the file again") from None
    if len(pairs) and (pairs.min() < 0 or pairs[:, 0].max() >= rows or pairs[:, 1].max() >= columns):
        raise MufinError(f"{path} names a datapoint or label that the split has not; the files are not of one release")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    counts = np.bincount(pairs[:, 0], minlength=rows) if len(pairs) else np.zeros(rows, np.int64)
    return Lists(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), pairs[:, 1].astype(np.int32))
