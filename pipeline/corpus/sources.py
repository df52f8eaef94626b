"""Products from files: your own catalog, the Amazon metadata dumps (METHOD, Task and data)."""

from __future__ import annotations

import ast
import csv
import difflib
import glob
import gzip
import json
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import MufinError

THUMBNAIL = re.compile(r"\._[^/]*_(?=\.\w+$)")       # ._SX38_SY50_CR,0,0,38,50_ before the extension


@dataclass(slots=True)
class Product:
    """One product as found: title and references untouched."""

    uid: str
    title: str = ""
    images: list[str] = field(default_factory=list)
    related: list[str] = field(default_factory=list)
    category: list[str] = field(default_factory=list)


def paths_of(location: str | list[str]) -> list[Path]:
    """Files of a path, a folder, a glob or a list of them, sorted; raises MufinError where one names nothing."""
    found: list[Path] = []
    for one in [location] if isinstance(location, str) else location:
        path = Path(one).expanduser()
        files = [path] if path.is_file() else sorted(path.glob("meta_*.json*")) if path.is_dir() else [
            Path(p) for p in sorted(glob.glob(str(path)))]
        if not files:
            raise MufinError(f"download.location names {one}, which is not there; give a file, a folder or a glob")
        found += files
    return found


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a text file, gzipped or not; blank lines are passed over."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError:
        raise MufinError(f"{path} line {_first_not_utf8(path, opener)} is not UTF-8 text; convert the file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise MufinError(f"{path} is a broken or cut-off gzip file; fetch it again") from None


def _first_not_utf8(path: Path, opener) -> int:
    with opener(path, "rb") as file:
        return next(number for number, line in enumerate(file, 1) if "\ufffd" in line.decode(errors="replace"))


def amazon_2018(path: Path) -> Iterator[Product]:
    """Ni et al. 2018 metadata: one JSON object a line, `image` in older files, `imageURLHighRes` / `imageURL` in newer."""
    for number, line in lines_of(path):
        row = _json(path, number, line)
        images = row.get("imageURLHighRes") or row.get("imageURL") or row.get("image") or []
        yield Product(_uid(row.get("asin"), path, number), _text(row.get("title")),
                      [THUMBNAIL.sub("", url) for url in _list(images, path, number, "image")],
                      _list(row.get("also_buy"), path, number, "also_buy"),
                      _list(row.get("category"), path, number, "category"))


def amazon_2014(path: Path) -> Iterator[Product]:
    """The 2014 release: one Python literal a line, `imUrl`, `related: {also_bought: [...]}`."""
    for number, line in lines_of(path):
        try:
            row = ast.literal_eval(line)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise MufinError(f"{path} line {number} is not a Python literal of a product; is it the 2014 release?")
        categories = row.get("categories") or [[]]
        yield Product(_uid(row.get("asin"), path, number), _text(row.get("title")),
                      [THUMBNAIL.sub("", _text(row["imUrl"]))] if row.get("imUrl") else [],
                      _list((row.get("related") or {}).get("also_bought"), path, number, "also_bought"),
                      _list(categories[0], path, number, "categories"))


def catalog(path: Path, columns: dict[str, str]) -> Iterator[Product]:
    """Your own catalog: JSON lines (also .gz), CSV or Parquet; `columns` says what id, title, images, related, category
    are called. Lists in a CSV cell are a JSON list, or separated by `|`. Ids are texts or whole numbers, all alike."""
    kinds: set[type] = set()
    count = 0
    for number, row in _catalog_rows(path):
        if count == 0:
            _check_columns(path, number, list(row), columns)
        count += 1
        uid = row.get(columns["id"])
        kinds.add(type(uid))
        if len(kinds) > 1:
            raise MufinError(f"{path} line {number} has the id {uid!r} of another type than the lines before; make all "
                             f"ids in {columns['id']} texts")
        lists = (_list(row.get(columns[n]), path, number, columns[n]) for n in ("images", "related", "category"))
        yield Product(_uid(uid, path, number, columns["id"]), _text(row.get(columns["title"])), *lists)
    if not count:
        raise MufinError(f"{path} is empty; a catalog has one product a line")


def _catalog_rows(path: Path) -> Iterator[tuple[int, dict]]:
    """(line or row number, mapping) of each product."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        try:
            for start, batch in enumerate(pq.ParquetFile(path).iter_batches(4096)):
                yield from enumerate(batch.to_pylist(), start * 4096 + 1)
        except (pa.ArrowInvalid, OSError) as error:
            why = " ".join(str(error).split())
            raise MufinError(f"{path} is not a whole Parquet file ({why}); write it again") from None
    elif name.endswith((".csv", ".tsv")):
        at = [0]                                     # line of the file; reader.line_num knows nothing of blank lines
        lines = (line for at[0], line in lines_of(path))
        reader = csv.DictReader(lines, delimiter="\t" if name.endswith(".tsv") else ",")
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise MufinError(f"{path} line {at[0]} has {'more' if None in row else 'fewer'} cells than the header; "
                                     "quote cells that hold commas or line breaks")
                yield at[0], row
        except csv.Error as error:
            raise MufinError(f"{path} line {at[0]} cannot be read ({error}); is a quote before it left open?") from None
    else:
        for number, line in lines_of(path):
            yield number, _json(path, number, line)


def _check_columns(path: Path, number: int, names: list[str], columns: dict[str, str]) -> None:
    """The id column must be there, and the related one in a file whose rows all have the same columns."""
    for key in ("id", "related") if not path.name.endswith((".json", ".jsonl", ".gz")) else ("id",):
        if columns[key] not in names:
            lower = {str(name).lower(): name for name in names}
            near = difflib.get_close_matches(columns[key].lower(), lower, 1, 0.4)
            raise MufinError(f"{path} line {number} has no column {columns[key]!r} (it has {', '.join(map(str, names))}); "
                             f"set download.columns.{key}" + (f" to {lower[near[0]]}" if near else ""))


def _json(path: Path, number: int, line: str) -> dict:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise MufinError(f"{path} line {number} is not JSON ({error.msg} at column {error.colno}); is the line cut off? "
                         "mend or delete it") from None
    if not isinstance(row, dict):
        raise MufinError(f"{path} line {number} is a JSON {type(row).__name__}, not an object; one product a line")
    return row


def _uid(value: object, path: Path, number: int, column: str = "asin") -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or str(value).strip() == "":
        raise MufinError(f"{path} line {number} has the id {value!r} in {column}; an id is a text or a whole number")
    return _text(value).strip()


def _text(value: object) -> str:
    """The value as a text that UTF-8 can hold: half an emoji (JSON's \\ud83d alone) becomes a question mark."""
    text = "" if value is None else str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _list(value: object, path: Path, number: int, column: str) -> list[str]:
    """A list of texts from a list, a JSON list, a `|`-separated cell or a single value."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = json.loads(text)
            except json.JSONDecodeError:
                raise MufinError(f"{path} line {number} has {text[:60]!r} in {column}, which is no JSON list") from None
        else:
            return [_text(part).strip() for part in text.split("|") if part.strip()]
    if isinstance(value, dict):
        raise MufinError(f"{path} line {number} has an object in {column}; it must be a list")
    items = value if isinstance(value, (list, tuple)) else [value]
    return [text for item in items if (text := _text(item).strip())]
