"""Rows of files of any form: delimited text, JSON, Parquet and .xlsx, each plain or packed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from mufin.catalogs.bad_rows import BadRows, Row
from mufin.catalogs.delimited import delimited_rows
from mufin.catalogs.json_rows import json_rows
from mufin.catalogs.notes import Notes
from mufin.catalogs.opening import PARQUET, ZIP, Part, opened, parts_of
from mufin.catalogs.parquet_rows import parquet_rows
from mufin.catalogs.spreadsheet import spreadsheet_rows
from mufin.catalogs.text_files import PIECE, text_file
from mufin.errors import MufinError

Kind = Literal["parquet", "xlsx", "delimited", "json"]
DELIMITED = (".csv", ".tsv", ".tab", ".psv")
JSON = (".json", ".jsonl", ".ndjson", ".geojson")


def rows_of(
    path: Path,
    notes: Notes,
    *,
    encoding: str | None = None,
    columns: Iterable[str] = (),
    bad: BadRows | None = None,
) -> Iterator[tuple[int, Row]]:
    """(line or row number from 1, {column: value}) of each row of a file, one in memory at a time.

    The form is known from the name and the first bytes (`kind_of`); names of columns are without
    blanks around them. `columns` limits what columnar files read, helps to know separators and
    lists, and must not occur twice; it may have nested names (`cells.at`). `encoding` is that of
    texts without a byte order mark; None: UTF-8. A zip gives the rows of all its files.

    A row that cannot be read is a bad row: see `BadRows`; without `bad`, the first one raises.
    Raises MufinError for a file that cannot be read, with the file, the line and the remedy.
    """
    for part in parts_of(path):
        yield from rows_of_part(part, notes, encoding=encoding, columns=columns, bad=bad)


def rows_of_part(
    part: Part,
    notes: Notes,
    *,
    encoding: str | None = None,
    columns: Iterable[str] = (),
    bad: BadRows | None = None,
    kind: Kind | None = None,
) -> Iterator[tuple[int, Row]]:
    """As `rows_of`, of one file of those in a zip."""
    bad, columns = bad or BadRows(notes), list(columns)
    kind = kind or kind_of(part, encoding)
    if kind == "parquet":
        return parquet_rows(part, columns)
    if kind == "xlsx":
        return spreadsheet_rows(part, columns, notes)
    if kind == "delimited":
        return delimited_rows(part, columns, encoding, notes, bad)
    return _stripped(json_rows(part, columns, encoding, bad))


def _stripped(rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """The rows with names without blanks around them, if the first row has such blanks."""
    first = next(rows, None)
    if first is None:
        return iter(())
    whole = itertools.chain([first], rows)
    if all(name == name.strip() for name in first[1]):
        return whole
    return ((number, {k.strip(): v for k, v in row.items()}) for number, row in whole)


def kind_of(part: Part, encoding: str | None = None) -> Kind:
    """The form of a file: Parquet and .xlsx by their first bytes, others by their name's ending.

    A text of another ending is JSON if it begins with a bracket, else delimited.
    """
    with opened(part) as file:
        head = file.read(4)
    if head == PARQUET or part.name.endswith((".parquet", ".pq")):
        return "parquet"
    if head == ZIP:
        if part.member and not part.name.endswith(".xlsx"):
            raise MufinError(f"{part.shown} is a zip in a zip; unpack it, and name the files")
        return "xlsx"
    if part.name.endswith(JSON):
        return "json"
    first = _beginning(part, encoding)
    if first.startswith("<"):
        raise MufinError(
            f"{part.shown} is XML or a web page, not a table; export CSV or JSON, or set "
            "download.source to google-merchant if it is a feed for Google"
        )
    if part.name.endswith(DELIMITED):
        return "json" if first.startswith(("[{", '{"')) else "delimited"
    return "json" if first.startswith(("[", "{")) else "delimited"


def _beginning(part: Part, encoding: str | None) -> str:
    """The first few characters, without blanks."""
    with text_file(part, encoding) as text:
        first = ""
        while len(first) < 2 and (piece := text.read(PIECE)):
            first += "".join(piece.split())
    return first[:2]
