"""Products from files: a catalog of your own and the Amazon metadata dumps.

MM-AmazonTitles-300K was curated from the dump of Ni et al. 2018 (MUFIN Sec. 4, Datasets; App. B);
its released form is read by `xmlrepo`. The readers return titles and image references as they are
found; the curate stage cleans them.
"""

from __future__ import annotations

import ast
import csv
import difflib
import glob
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from mufin.corpus.catalog_folder import MARK
from mufin.corpus.fetch import is_url
from mufin.corpus.text_files import lines_of
from mufin.errors import MufinError, shown

# Amazon's size marker in a URL, such as `._SX38_SY50_CR,0,0,38,50_` before the extension. Without
# it the URL leads to the full picture.
THUMBNAIL = re.compile(r"\._[^/]*_(?=\.\w+$)")
END = "<end of the file>"  # a last line that shows whether a quote is still open (`_csv_rows`)


@dataclass(slots=True)
class Product:
    """One product as found: the title and the image references are not cleaned."""

    uid: str
    title: str = ""
    images: list[str] = field(default_factory=list)  # URLs, or paths relative to the file
    related: list[str] = field(default_factory=list)  # uids, also of products not in the catalog
    category: list[str] = field(default_factory=list)  # from the most general to the most special


# Files


@dataclass(frozen=True, slots=True)
class File:
    """A file of the source."""

    path: Path
    url: str = ""  # where it was fetched from; '' for a local file


class Folders:
    """Turns the image names in the files of a catalog into references for `Fetcher`.

    An image path is relative to the folder, or to the URL, of the file that names it. If all files
    are in one folder, `root`, the reference is the path as written. Otherwise (`marked`) the
    reference is `<folder>/./<path as written>`, with the folder relative to `root`, the closest
    common parent. From the mark `/./`, `Fetcher` knows which folder the path must not leave.
    """

    def __init__(self, files: list[File]):
        self.of = {file: file.path.resolve().parent for file in files if not file.url}
        self.root = Path(os.path.commonpath(self.of.values())) if self.of else None
        self.marked = len(set(self.of.values())) > 1 or len(self.of) < len(files)

    def reference(self, image: str, file: File) -> str:
        """The reference of an image that `file` names as `image`."""
        if is_url(image):
            return image
        if file.url:
            try:
                return urljoin(file.url, image)
            except ValueError:  # not a URL: the fetch gives the reason
                return image
        if not self.marked or self.root is None:
            return image
        return f"{self.of[file].relative_to(self.root).as_posix()}{MARK}{image}"


def path_of(text: str) -> Path:
    """The path that `text` names, with `~` resolved, whether it exists or not.

    Raises MufinError if the text cannot be a path.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
        return path
    # Too long, no permission to look, or the home folder of an unknown user.
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise MufinError(
            f"download.location names {text[:200]}, which cannot be opened ({why}); "
            "give a file, a folder, a glob or a URL"
        ) from None


def files_of(location: str | list[str], fetched: Callable[[str], Path]) -> list[File]:
    """The files that `download.location` names, in order, each once.

    An item is a path, a folder, a glob or a URL; `fetched` downloads a URL and returns the path.
    Raises MufinError for an item that names no file.
    """
    found: dict[object, File] = {}
    for item in [location] if isinstance(location, str) else location:
        if is_url(item):
            files = [File(fetched(item), item)]
        else:
            files = [File(path) for path in _paths(item)]
        for file in files:
            found.setdefault(file.url or file.path.resolve(), file)
    return list(found.values())


def _paths(text: str) -> list[Path]:
    """The files of a path, a folder or a glob, sorted; raises MufinError if there are none."""
    path = path_of(text)
    if path.is_dir():
        if files := sorted(p for p in path.glob("meta_*.json*") if p.is_file()):
            return files
        raise MufinError(
            f"download.location names {text}, a folder without meta_*.json* files; "
            f"name the files themselves, such as {path / '*.jsonl'}"
        )
    if path.is_file():
        return [path]
    files = [p for p in map(Path, sorted(glob.glob(str(path)))) if p.is_file()]
    if not files:
        raise MufinError(
            f"download.location names {text}, which does not exist; "
            f"give a file, a folder, a glob or a URL{looked_for(path)}"
        )
    return files


def looked_for(path: Path) -> str:
    """The end of an error text about a missing path: the folder that a relative path starts from.

    DVC runs some experiments in another folder, without the files that neither git nor DVC tracks.
    """
    if path.is_absolute():
        return ""
    return (
        f"; it was looked for in {Path.cwd()}: `dvc exp run --queue` and `dvc exp run --temp` run "
        "in a folder of their own that holds only tracked files, so give an absolute path, or "
        "track the file with `git add` or `dvc add`"
    )


def name_of(url: str) -> str:
    """A safe local name for the file at a URL: at most 100 letters, digits, `.`, `-` and `_`.

    The extension is kept, because it decides how the file is read.
    """
    last = unquote(urlsplit(url).path).rpartition("/")[2]
    return re.sub(r"[^\w.-]", "_", last, flags=re.ASCII)[-100:].lstrip(".") or "file"


# The Amazon dumps


def amazon_2018(path: Path) -> Iterator[Product]:
    """The products of a metadata file of Ni et al. 2018: one JSON object per line.

    Its older releases name the pictures `image`; newer ones have `imageURL` (thumbnails) and
    `imageURLHighRes`.
    """
    for number, line in lines_of(path):
        row = json_object(path, number, line)
        images = row.get("imageURLHighRes") or row.get("imageURL") or row.get("image") or []
        yield Product(
            uid_of(row.get("asin"), path, number),
            title_of(row.get("title"), path, number),
            [THUMBNAIL.sub("", url) for url in texts_of(images, path, number, "image")],
            texts_of(row.get("also_buy"), path, number, "also_buy"),
            texts_of(row.get("category"), path, number, "category"),
        )


def amazon_2014(path: Path) -> Iterator[Product]:
    """The products of a metadata file of the 2014 release: one Python literal per line.

    It has one picture per product (`imUrl`), relations in `related: {also_bought: [...]}` and a
    list of category paths, of which the first is taken.
    """
    for number, line in lines_of(path):
        try:
            row = ast.literal_eval(line)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise MufinError(
                f"{path} line {number} is not a Python literal of a product; "
                "set download.source to the release of this file"
            )
        related, categories = row.get("related") or {}, row.get("categories") or [[]]
        if not isinstance(related, dict) or not isinstance(categories, list):
            raise MufinError(
                f"{path} line {number} has {shown(related)} in related and {shown(categories)} in "
                "categories, not an object and a list; set download.source to the release of "
                "this file"
            )
        yield Product(
            uid_of(row.get("asin"), path, number),
            title_of(row.get("title"), path, number),
            [THUMBNAIL.sub("", url) for url in texts_of(row.get("imUrl"), path, number, "imUrl")],
            texts_of(related.get("also_bought"), path, number, "also_bought"),
            texts_of(categories[0], path, number, "categories"),
        )


# Your own catalog


def catalog(path: Path, columns: dict[str, str]) -> Iterator[Product]:
    """The products of a catalog of your own: JSON lines, CSV, TSV (each also .gz) or Parquet.

    `columns` maps id, title, images, related and category to the file's column names. A list in a
    CSV cell is a JSON list or is separated by `|`. Ids are texts or whole numbers, one type per
    file: 7 and "7" would silently become one product. Raises MufinError with the line and the
    remedy.
    """
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
                f"{path} line {number} has the id {shown(uid)}, of another type than the ids "
                f"before it; make all ids in {columns['id']} texts"
            )
        yield Product(
            uid_of(uid, path, number, columns["id"]),
            title_of(row.get(columns["title"]), path, number, columns["title"]),
            *(
                texts_of(row.get(columns[name]), path, number, columns[name])
                for name in ("images", "related", "category")
            ),
        )
    if not count:
        raise MufinError(f"{path} is empty; a catalog has one product per line")


def _plain_name(path: Path) -> str:
    """The file's name in lower case, without .gz."""
    return path.name.lower().removesuffix(".gz")


def _catalog_rows(path: Path, columns: dict[str, str]) -> Iterator[tuple[int, dict]]:
    """(line or row number, {column: value}) of each product."""
    name = _plain_name(path)
    if name.endswith(".parquet"):
        yield from _parquet_rows(path, columns)
    elif name.endswith((".csv", ".tsv")):
        yield from _csv_rows(path, name.endswith(".tsv"), columns)
    else:
        wanted = set(columns.values())
        for number, line in lines_of(path):
            yield number, json_object(path, number, line, wanted)


def _parquet_rows(path: Path, columns: dict[str, str]) -> Iterator[tuple[int, dict]]:
    number = 0
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        _check_columns(path, 1, names, columns)
        present = [name for name in dict.fromkeys(columns.values()) if name in names]
        for batch in file.iter_batches(4096, columns=present):
            for number, row in enumerate(batch.to_pylist(), number + 1):  # noqa: B020
                yield number, row
    except UnicodeDecodeError:
        raise MufinError(
            f"{path} has a text after row {number} that is not UTF-8; write the file again"
        ) from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        why = " ".join(str(error).split())[:200]
        raise MufinError(f"{path} is not a complete Parquet file ({why}); write it again") from None


def _csv_rows(path: Path, tabs: bool, columns: dict[str, str]) -> Iterator[tuple[int, dict]]:
    """(line on which it begins, {column: value}) of each row; a quoted cell may have line breaks.

    The separator is a tab in TSV. In CSV it is a comma, or a semicolon if the header has no comma.
    """
    # The line on which the row being read begins, 0 before its first line. `reader.line_num` would
    # not count the blank lines that `lines_of` leaves out. A list, so that `lines` can set it.
    begin = [0]

    def lines() -> Iterator[str]:
        for number, line in lines_of(path):
            begin[0] = begin[0] or number
            yield line

    found = lines()
    if not (header := next(found, "")):
        return
    separator = "\t" if tabs else ";" if ";" in header and "," not in header else ","
    # Python's reader accepts a quote that is still open at the end of the file. The row of such a
    # quote swallows the END line; otherwise END is a row of its own.
    reader = csv.DictReader(itertools.chain([header], found, [END]), delimiter=separator)
    at = 1
    try:
        names = list(reader.fieldnames or [])
        _check_columns(path, begin[0], names, columns)
        begin[0] = 0
        for row in reader:
            if row[names[0]] == END:
                return
            at, begin[0] = begin[0], 0
            # DictReader puts surplus cells under the key None and fills missing cells with None.
            if None in row or None in row.values():
                if END in str(row):
                    break
                count = "more" if None in row else "fewer"
                raise MufinError(
                    f"{path} line {at} has {count} cells than the header; "
                    "quote cells that contain separators or line breaks"
                )
            yield at, row
        raise csv.Error("it goes on to the end of the file")
    except csv.Error as error:
        raise MufinError(
            f"{path} line {begin[0] or at} cannot be read ({error}); close the quote that is open"
        ) from None


def _check_columns(path: Path, number: int, names: list[str], columns: dict[str, str]) -> None:
    """Raises MufinError if the id column is missing, or if a column that is used occurs twice.

    In CSV and Parquet, where all rows have the same columns, the related column is required too.
    """
    for name in columns.values():
        if names.count(name) > 1:
            raise MufinError(
                f"{path} has the column {name!r} {names.count(name)} times; "
                "keep one, or rename the others"
            )
    fixed = _plain_name(path).endswith((".csv", ".tsv", ".parquet"))
    for key in ("id", "related") if fixed else ("id",):
        if columns[key] in names:
            continue
        lower = {str(name).lower(): name for name in names}
        near = difflib.get_close_matches(columns[key].lower(), lower, 1, 0.4)
        has = " ".join(", ".join(map(str, names)).split())[:300]
        suggestion = f" to {lower[near[0]]}" if near else ""
        raise MufinError(
            f"{path} line {number} has no column {columns[key]!r} (it has {has}); "
            f"set download.columns.{key}{suggestion}"
        )


# Values. Each function takes the file and the line (and column) for the text of its MufinError.


def json_object(path: Path, number: int, line: str, once: set[str] | None = None) -> dict:
    """The JSON object of a line; raises MufinError for anything else.

    Also for a name in `once` that the object has twice: Python would keep only its last value.
    """
    checked = once or set()

    def unique(pairs: list[tuple[str, object]]) -> dict:
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            for name in row:
                if name in checked and names.count(name) > 1:
                    raise MufinError(
                        f"{path} line {number} has {name!r} {names.count(name)} times; "
                        "keep one of them"
                    )
        return row

    try:
        row = json.loads(line, object_pairs_hook=unique if checked else None)
    except json.JSONDecodeError as error:
        raise MufinError(
            f"{path} line {number} is not JSON ({error.msg} at column {error.colno}); "
            "is the line cut off? correct or delete it"
        ) from None
    # A number with thousands of digits, or thousands of nested brackets.
    except (ValueError, RecursionError):
        raise MufinError(
            f"{path} line {number} is JSON, but not of a product; correct or delete it"
        ) from None
    if not isinstance(row, dict):
        raise MufinError(
            f"{path} line {number} is a JSON {type(row).__name__}, not an object; "
            "write one product per line"
        )
    return row


def uid_of(value: object, path: Path, number: int, column: str = "asin") -> str:
    """The id as a text; raises MufinError for an empty one and for other types."""
    valid = isinstance(value, (str, int)) and not isinstance(value, bool)
    if not valid or not (text := text_of(value).strip()):
        raise MufinError(
            f"{path} line {number} has the id {shown(value)} in {column}; "
            "an id must be a text or a whole number"
        )
    return text


def title_of(value: object, path: Path, number: int, column: str = "title") -> str:
    """The title as a text, '' for none; raises MufinError for an object or a list."""
    if isinstance(value, (dict, list, tuple)):
        raise MufinError(
            f"{path} line {number} has {shown(value)} in {column}; a title must be a text"
        )
    return text_of(value)


def text_of(value: object) -> str:
    """The value as a text that UTF-8 can encode, '' for null and NaN.

    Half a surrogate pair, such as JSON's \\ud83d without its second half, becomes a question mark.
    """
    # Only NaN differs from itself; some tools write it for an empty cell.
    text = "" if value is None or value != value else str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def texts_of(value: object, path: Path, number: int, column: str) -> list[str]:
    """The texts of a list, of a JSON list in a text, of a `|`-separated text, or of a single value.

    Blank ones are left out. Raises MufinError for anything nested.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("["):
            return [text_of(part).strip() for part in text.split("|") if part.strip()]
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise MufinError(
                f"{path} line {number} has {shown(text[:60])} in {column}, which is not a JSON "
                "list; correct it, or separate the values by |"
            ) from None
    if isinstance(value, dict):
        raise MufinError(f"{path} line {number} has an object in {column}; it must be a list")
    items = value if isinstance(value, (list, tuple)) else [value]
    if wrong := [item for item in items if isinstance(item, (dict, list, tuple))]:
        raise MufinError(
            f"{path} line {number} has {shown(wrong[0])} inside {column}; "
            "it must be a list of texts"
        )
    return [text for item in items if (text := text_of(item).strip())]
