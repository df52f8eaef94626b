"""A first look at one file: how it is written, which columns it has, and its first rows."""

from __future__ import annotations

import codecs
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mufin.catalogs.bad_rows import BadRows, Row
from mufin.catalogs.delimited import DECLARED, SAMPLE, separator_of
from mufin.catalogs.forms.feed_xml import begins_as_xml
from mufin.catalogs.json_rows import form_of
from mufin.catalogs.notes import Notes
from mufin.catalogs.opening import MAGIC, MARKS, Part, opened, parts_of, without_mark
from mufin.catalogs.rows import kind_of, rows_of_part
from mufin.catalogs.text_files import lines_of, text_file
from mufin.errors import MufinError

FIRST = 1000  # rows that are kept
SIZE = 2**25  # bytes of values that are kept, about
READ = 2**28  # bytes of a file that are read for figures, about
SCANNED = 2**26  # bytes that are looked at for the encoding
BYTES = 64  # of an image in a row; the others are left out
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MARKED = {"utf-8-sig": "UTF-8 with a byte order mark", "utf-16": "UTF-16", "utf-32": "UTF-32"}
WRITTEN = {
    "lines": "one object per line",
    "list": "one list of objects",
    "objects": "objects one after the other",
    "under a key": "a list of objects under a key",
}


@dataclass(slots=True)
class Look:
    """What the beginning of a file shows."""

    path: Path
    part: Part
    kind: str = ""  # parquet, xlsx, delimited, json, xml or '' for a text that is none of these
    encoding: str = ""  # of its text, in words; '' for Parquet and .xlsx
    setting: str | None = None  # download.encoding that reads it
    how: str = ""  # separator or form of JSON, in words
    rows: list[Row] = field(default_factory=list)  # the first ones
    names: list[str] = field(default_factory=list)  # of their columns
    whole: bool = False  # whether these are all rows
    row_size: float = 0.0  # bytes per row, about
    problem: str = ""  # why it cannot be read
    first: str = ""  # its first line, of a text

    def rows_to_read(self, most: int) -> int:
        """`most`, or as many rows as are about READ bytes."""
        return max(int(min(most, READ / max(self.row_size, 1.0))), 20)

    def described(self) -> str:
        """`catalog.csv, 1.3 MB: CSV with semicolons, UTF-16`."""
        name = {"parquet": "Parquet", "xlsx": "Excel", "json": "JSON", "xml": "XML"}
        what = name.get(self.kind, "table" if self.kind == "delimited" else "text")
        said = [", ".join(text for text in (what, self.how) if text), self.encoding, self._packed()]
        return f"{self.path}, {in_bytes(self.path.stat().st_size)}: " + "; ".join(
            filter(None, said)
        )

    def _packed(self) -> str:
        if self.part.member:
            return f"in a zip ({self.part.member})"
        with open(self.path, "rb") as file:
            head = file.read(8)
        return next((f"packed with {kind}" for m, kind in MAGIC.items() if head.startswith(m)), "")


def in_bytes(count: float) -> str:
    """`1.3 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def look_at(path: Path, encoding: str | None = None) -> Look:
    """The look at a file, of a zip at its first member.

    A file that can be opened, but whose rows cannot be read, has a `problem`. Raises MufinError if
    it cannot be opened, or is a zip of files with different columns.
    """
    parts = parts_of(path)
    found = _look(path, parts[0], encoding)
    for part in parts[1:3]:
        other = _look(path, part, encoding)
        if other.kind != found.kind or not alike(found.names, other.names):
            raise MufinError(
                f"{path} has {parts[0].member} and {part.member}, which have different columns; "
                "unpack it, and name the folder"
            )
    return found


def alike(names: list[str], others: list[str]) -> bool:
    """Whether two files share most of their columns."""
    a, b = set(names), set(others)
    return len(a & b) >= 0.6 * len(a | b)


def _look(path: Path, part: Part, encoding: str | None) -> Look:
    found = Look(path, part)
    try:
        if begins_as_xml(found.part):
            found.kind = "xml"
            return found
        _see_encoding(found, encoding)
        found.kind = kind_of(found.part, found.setting)
        if found.kind in ("parquet", "xlsx"):
            found.encoding, found.setting = "", None
        else:
            with text_file(found.part, found.setting) as text:  # a JSON list may be one line
                found.first = text.read(500).lstrip().partition("\n")[0]
        _see_form(found)
        _see_rows(found)
    except MufinError as error:
        found.problem = str(error)
    return found


def _see_encoding(found: Look, encoding: str | None) -> None:
    """Sets the encoding: as the mark says, else UTF-8 if all that is looked at is, else a guess."""
    with opened(found.part) as file:
        head = file.read(2**16)
        if not head.startswith((b"PAR1", b"PK\x03\x04")):
            mark = next((name for m, name in MARKS.items() if head.startswith(m)), "")
            found.setting = None if mark else encoding
            found.encoding = MARKED.get(mark, encoding or "")
            if not found.encoding:
                found.setting = _guessed(head, file)
                found.encoding = found.setting or "UTF-8"


def _guessed(head: bytes, file: BinaryIO) -> str | None:
    if wide := without_mark(head):
        return wide
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    piece = head
    try:
        while piece and read < SCANNED:
            decoder.decode(piece)
            read += len(piece)
            piece = file.read(2**20)
        return None
    except UnicodeDecodeError:
        pass
    try:  # cp1252 has no letters for five bytes; latin-1 has something for all
        piece.decode("cp1252")
        return "cp1252"
    except UnicodeDecodeError:
        return "latin-1"


def _see_form(found: Look) -> None:
    if re.match(r"\d+::", found.first):
        found.how = "values separated by ::"
    elif found.kind == "json":
        found.how = WRITTEN[form_of(found.part, (), found.setting)]
    elif found.kind == "delimited":
        lines = [line for _, line in itertools.islice(lines_of(found.part, found.setting), SAMPLE)]
        if not lines:
            return
        declared = DECLARED.fullmatch(lines[0])
        separator = declared[1] if declared else separator_of(lines, found.part.name)
        found.how = f"cells separated by {SEPARATORS.get(separator, repr(separator))}"


def _see_rows(found: Look) -> None:
    """Keeps the first rows, of a few kilobytes each."""
    notes, size = Notes(), 0
    bad = BadRows(notes, 0.999)
    rows = rows_of_part(found.part, notes, encoding=found.setting, kind=found.kind, bad=bad)  # type: ignore[arg-type]
    for _, row in rows:
        size += sum(map(_size, row.values()))
        found.rows.append({str(name): _small(value) for name, value in row.items()})
        if len(found.rows) == FIRST or size > SIZE:
            break
    else:
        found.whole = True
    names = itertools.chain.from_iterable(found.rows)
    found.names = list(dict.fromkeys(names))
    found.row_size = size / max(len(found.rows), 1)


def _size(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 8


def _small(value: object) -> object:
    """The value with the beginnings of images alone."""
    if isinstance(value, bytes):
        return value[:BYTES]
    if isinstance(value, dict):
        return {key: _small(item) for key, item in value.items()}
    return [_small(item) for item in value] if isinstance(value, list) else value
