"""Products from files: your own catalog, the Amazon metadata dumps (METHOD, Task and data)."""

from __future__ import annotations

import ast
import csv
import difflib
import glob
import gzip
import io
import itertools
import json
import os
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Callable, Iterator
from urllib.parse import unquote, urljoin, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from mufin.corpus.fetch import MARK, is_url
from mufin.errors import MufinError

THUMBNAIL = re.compile(r"\._[^/]*_(?=\.\w+$)")  # ._SX38_SY50_CR,0,0,38,50_ before the extension
END = "<end of the file>"  # told to the CSV reader, which takes an open quote for none
LONGEST_LINE = 2**26  # characters; a line is a product, and one is held at a time


@dataclass(slots=True)
class Product:
    """One product as found: title and references untouched."""

    uid: str
    title: str = ""
    images: list[str] = field(default_factory=list)
    related: list[str] = field(default_factory=list)
    category: list[str] = field(default_factory=list)


# Files


@dataclass(frozen=True, slots=True)
class File:
    """A file of the source: where it lies, and the URL that it came from ('' for one that was here)."""

    path: Path
    url: str = ""


class Folders:
    """Where the pictures of a catalog's files lie: paths are relative to their own file's folder, or to its URL.

    With all files in one folder, `root`, a reference is the path as written. With several (`marked`) it is
    `<folder>/./<path as written>`, the folder relative to `root`, the parent of all: still a path, and still clear about
    which folder it must not leave.
    """

    def __init__(self, files: list[File]):
        self.of = {file: file.path.resolve().parent for file in files if not file.url}
        self.root = Path(os.path.commonpath(self.of.values())) if self.of else None
        self.marked = len(set(self.of.values())) > 1 or len(self.of) < len(files)

    def reference(self, image: str, file: File) -> str:
        if is_url(image):
            return image
        if file.url:
            try:
                return urljoin(file.url, image)
            except ValueError:
                return image
        return (
            f"{self.of[file].relative_to(self.root).as_posix()}{MARK}{image}"
            if self.marked
            else image
        )


def path_of(text: str) -> Path:
    """The path that a text names, `~` resolved, there or not; raises MufinError where it can name none."""
    try:
        path = Path(text).expanduser()
        path.exists()
        return path
    except (OSError, RuntimeError) as error:  # too long, no leave to look, a user who is not there
        why = getattr(error, "strerror", None) or str(error)
        raise MufinError(
            f"download.location names {text[:200]}, which cannot be looked at ({why}); give a file, a folder, "
            "a glob or a URL"
        ) from None


def files_of(location: str | list[str], fetched: Callable[[str], Path]) -> list[File]:
    """Files of a path, a folder, a glob, a URL (which `fetched` makes a file) or a list of them, in their order, each once.

    Raises MufinError where one names nothing.
    """
    found: dict[object, File] = {}
    for one in [location] if isinstance(location, str) else location:
        for file in [File(fetched(one), one)] if is_url(one) else map(File, _paths(one)):
            found.setdefault(file.url or file.path.resolve(), file)
    return list(found.values())


def _paths(text: str) -> list[Path]:
    path = path_of(text)
    if path.is_dir():
        if files := sorted(p for p in path.glob("meta_*.json*") if p.is_file()):
            return files
        raise MufinError(
            f"download.location names {text}, a folder without meta_*.json* files; name the files themselves, "
            f"such as {path / '*.jsonl'}"
        )
    files = (
        [path]
        if path.is_file()
        else [p for p in map(Path, sorted(glob.glob(str(path)))) if p.is_file()]
    )
    if not files:
        raise MufinError(
            f"download.location names {text}, which is not there; give a file, a folder, a glob or a URL"
        )
    return files


def name_of(url: str) -> str:
    """The name of the file at a URL, whose ending says of what form it is; only letters, digits and `.-_` of it."""
    return (
        re.sub(r"[^\w.-]", "_", unquote(urlsplit(url).path).rpartition("/")[2], flags=re.ASCII)[
            -100:
        ].lstrip(".")
        or "file"
    )


def lines_of(path: Path, longest: int = LONGEST_LINE) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a text file, gzipped or not; blank lines are passed over."""
    try:
        with io.TextIOWrapper(_opened(path), encoding="utf-8-sig") as file:
            for number, line in enumerate(iter(lambda: file.readline(longest + 1), ""), 1):
                if len(line) > longest:
                    raise MufinError(
                        f"{path} line {number} has more than {longest} characters; one product a line"
                    )
                if line.strip():
                    yield number, line
    except UnicodeDecodeError:
        raise MufinError(
            f"{path} line {_first_not_utf8(path)} is not UTF-8 text; convert the file"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise MufinError(f"{path} is a broken or cut-off gzip file; fetch it again") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> MufinError:
    return MufinError(
        f"{path} cannot be read ({error.strerror or error}); mend that, or set download.location to another"
    )


def _opened(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where its name or its first bytes say that it is gzipped."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b" or path.suffix == ".gz"
    return gzip.open(path, "rb") if packed else open(path, "rb")


def _first_not_utf8(path: Path) -> int:
    number = 1
    try:
        with _opened(path) as file:
            for line in file:
                line.decode()
                number += 1
    except (UnicodeDecodeError, EOFError, zlib.error, OSError):
        pass
    return number


# The dumps


def amazon_2018(path: Path) -> Iterator[Product]:
    """Ni et al. 2018 metadata: one JSON object a line, `image` in older files, `imageURLHighRes` / `imageURL` in newer."""
    for number, line in lines_of(path):
        row = _json(path, number, line)
        images = row.get("imageURLHighRes") or row.get("imageURL") or row.get("image") or []
        yield Product(
            _uid(row.get("asin"), path, number),
            _title(row.get("title"), path, number),
            [THUMBNAIL.sub("", url) for url in _list(images, path, number, "image")],
            _list(row.get("also_buy"), path, number, "also_buy"),
            _list(row.get("category"), path, number, "category"),
        )


def amazon_2014(path: Path) -> Iterator[Product]:
    """The 2014 release: one Python literal a line, `imUrl`, `related: {also_bought: [...]}`."""
    for number, line in lines_of(path):
        try:
            row = ast.literal_eval(line)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise MufinError(
                f"{path} line {number} is not a Python literal of a product; is it the 2014 release?"
            )
        related, categories = row.get("related") or {}, row.get("categories") or [[]]
        if not isinstance(related, dict) or not isinstance(categories, list):
            raise MufinError(
                f"{path} line {number} has {_shown(related)} in related and {_shown(categories)} in categories, "
                "not an object and a list; is it the 2014 release?"
            )
        yield Product(
            _uid(row.get("asin"), path, number),
            _title(row.get("title"), path, number),
            [THUMBNAIL.sub("", url) for url in _list(row.get("imUrl"), path, number, "imUrl")],
            _list(related.get("also_bought"), path, number, "also_bought"),
            _list(categories[0], path, number, "categories"),
        )


# Your own catalog


def catalog(path: Path, columns: dict[str, str]) -> Iterator[Product]:
    """Your own catalog: JSON lines (also .gz), CSV or Parquet; `columns` says what id, title, images, related, category
    are called. Lists in a CSV cell are a JSON list, or separated by `|`. Ids are texts or whole numbers, all alike."""
    kinds: set[type] = set()
    count = 0
    for number, row in _catalog_rows(path, columns):
        if count == 0:
            _check_columns(path, number, list(row), columns)
        count += 1
        uid = row.get(columns["id"])
        kinds.add(type(uid))
        if len(kinds) > 1:
            raise MufinError(
                f"{path} line {number} has the id {_shown(uid)} of another type than the lines before; make all "
                f"ids in {columns['id']} texts"
            )
        lists = (
            _list(row.get(columns[n]), path, number, columns[n])
            for n in ("images", "related", "category")
        )
        yield Product(
            _uid(uid, path, number, columns["id"]),
            _title(row.get(columns["title"]), path, number, columns["title"]),
            *lists,
        )
    if not count:
        raise MufinError(f"{path} is empty; a catalog has one product a line")


def _catalog_rows(path: Path, columns: dict[str, str]) -> Iterator[tuple[int, dict]]:
    """(line or row number, mapping) of each product."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _parquet_rows(path, columns)
    elif name.endswith((".csv", ".tsv")):
        yield from _csv_rows(path, name.endswith(".tsv"), columns)
    else:
        wanted = set(columns.values())
        for number, line in lines_of(path):
            yield number, _json(path, number, line, wanted)


def _parquet_rows(path: Path, columns: dict[str, str]) -> Iterator[tuple[int, dict]]:
    number = 0
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        _check_columns(path, 1, names, columns)
        for batch in file.iter_batches(
            4096, columns=[n for n in dict.fromkeys(columns.values()) if n in names]
        ):
            for number, row in enumerate(batch.to_pylist(), number + 1):  # noqa: B020
                yield number, row
    except UnicodeDecodeError:
        raise MufinError(
            f"{path} has a text after row {number} that is not UTF-8; write it again"
        ) from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        why = " ".join(str(error).split())[:200]
        raise MufinError(f"{path} is not a whole Parquet file ({why}); write it again") from None


def _csv_rows(path: Path, tabs: bool, columns: dict[str, str]) -> Iterator[tuple[int, dict]]:
    """(line on which it begins, mapping) of each row; a row may run over several lines, in quotes."""
    begin = [0]  # the reader's own count knows nothing of blank lines

    def lines() -> Iterator[str]:
        for number, line in lines_of(path):
            begin[0] = begin[0] or number
            yield line

    found = lines()
    if not (header := next(found, "")):
        return
    comma = "\t" if tabs else ";" if ";" in header and "," not in header else ","
    reader, at = csv.DictReader(itertools.chain([header], found, [END]), delimiter=comma), 1
    try:
        _check_columns(path, begin[0], list(reader.fieldnames), columns)
        begin[0] = 0
        for row in reader:
            if row[reader.fieldnames[0]] == END:
                return
            at, begin[0] = begin[0], 0
            if None in row or None in row.values():
                if END in str(row):
                    break
                raise MufinError(
                    f"{path} line {at} has {'more' if None in row else 'fewer'} cells than the header; "
                    "quote cells that hold commas or line breaks"
                )
            yield at, row
        raise csv.Error("it goes on to the end of the file")
    except csv.Error as error:
        raise MufinError(
            f"{path} line {begin[0] or at} cannot be read ({error}); is a quote left open there?"
        ) from None


def _check_columns(path: Path, number: int, names: list[str], columns: dict[str, str]) -> None:
    """The id column must be there, and the related one in a file whose rows all have the same columns; each once."""
    for name in columns.values():
        if names.count(name) > 1:
            raise MufinError(
                f"{path} has the column {name!r} {names.count(name)} times; leave one, or rename the others"
            )
    for key in (
        ("id", "related")
        if path.name.lower().removesuffix(".gz").endswith(("sv", ".parquet"))
        else ("id",)
    ):
        if columns[key] not in names:
            lower = {str(name).lower(): name for name in names}
            near = difflib.get_close_matches(columns[key].lower(), lower, 1, 0.4)
            has = " ".join(", ".join(map(str, names)).split())[:300]
            raise MufinError(
                f"{path} line {number} has no column {columns[key]!r} (it has {has}); "
                f"set download.columns.{key}" + (f" to {lower[near[0]]}" if near else "")
            )


# Values


def _json(path: Path, number: int, line: str, once: set[str] | None = None) -> dict:
    """The object of a line; raises MufinError for anything else, and for a name among `once` that it has twice."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            for name in row:
                if name in once and names.count(name) > 1:
                    raise MufinError(
                        f"{path} line {number} has {name!r} {names.count(name)} times; leave one of them"
                    )
        return row

    try:
        row = json.loads(line, object_pairs_hook=unique if once else None)
    except json.JSONDecodeError as error:
        raise MufinError(
            f"{path} line {number} is not JSON ({error.msg} at column {error.colno}); is the line cut off? "
            "mend or delete it"
        ) from None
    except (
        ValueError,
        RecursionError,
    ):  # a number of thousands of digits, brackets in brackets without end
        raise MufinError(
            f"{path} line {number} is JSON that is no product; mend or delete it"
        ) from None
    if not isinstance(row, dict):
        raise MufinError(
            f"{path} line {number} is a JSON {type(row).__name__}, not an object; one product a line"
        )
    return row


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


def _uid(value: object, path: Path, number: int, column: str = "asin") -> str:
    if (
        isinstance(value, bool)
        or not isinstance(value, (str, int))
        or not (text := _text(value).strip())
    ):
        raise MufinError(
            f"{path} line {number} has the id {_shown(value)} in {column}; an id is a text or a whole number"
        )
    return text


def _title(value: object, path: Path, number: int, column: str = "title") -> str:
    if isinstance(value, (dict, list, tuple)):
        raise MufinError(f"{path} line {number} has {_shown(value)} in {column}; a title is a text")
    return _text(value)


def _text(value: object) -> str:
    """The value as a text that UTF-8 can hold: half an emoji (JSON's \\ud83d alone) becomes a question mark."""
    text = (
        "" if value is None or value != value else str(value)
    )  # NaN: how some tools write nothing
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _list(value: object, path: Path, number: int, column: str) -> list[str]:
    """A list of texts from a list, a JSON list, a `|`-separated cell or a single value."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                raise MufinError(
                    f"{path} line {number} has {_shown(text[:60])} in {column}, which is no JSON list"
                ) from None
        else:
            return [_text(part).strip() for part in text.split("|") if part.strip()]
    if isinstance(value, dict):
        raise MufinError(f"{path} line {number} has an object in {column}; it must be a list")
    items = value if isinstance(value, (list, tuple)) else [value]
    if wrong := [item for item in items if isinstance(item, (dict, list, tuple))]:
        raise MufinError(
            f"{path} line {number} has {_shown(wrong[0])} inside {column}; it must be a list of texts"
        )
    return [text for item in items if (text := _text(item).strip())]
