"""Rows of .xlsx files."""

from __future__ import annotations

import datetime
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from mufin.catalogs.bad_rows import Row
from mufin.catalogs.column_names import check_distinct
from mufin.catalogs.notes import Notes
from mufin.catalogs.opening import RATIO, Part, seekable
from mufin.errors import MufinError

TEXTS = 2**28  # bytes of the texts of a workbook, which are in memory at once; and of a small one
DIGITS = 1e15  # spreadsheet programs keep 15 digits of a number
WIDEST = 16_384  # columns of a sheet


def spreadsheet_rows(part: Part, columns: Iterable[str], notes: Notes) -> Iterator[tuple[int, Row]]:
    """(row number from 1, {column: value}) of each row of a workbook that is not empty.

    The first row that is not empty names the columns. Further sheets are read if they have the same
    ones; others are counted. Raises MufinError for a file that is broken, or unpacks to far more.
    """
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    with seekable(part) as source:
        try:
            _check_size(part, source)
            book = openpyxl.load_workbook(source, read_only=True, data_only=True)
            first: list[str] = []
            for sheet in book.worksheets:
                # Its dimensions are what the file claims: a row could then have 16,384 cells.
                sheet.reset_dimensions()
                rows = (
                    (n, _cells(row)) for n, row in enumerate(sheet.iter_rows(values_only=True), 1)
                )
                filled = ((n, row) for n, row in rows if row)
                _, header = next(filled, (0, []))
                names = [str(name).strip() for name in header]
                if not first:
                    first = names
                    check_distinct(part.shown, names, columns)
                if names and names == first:
                    yield from (
                        (n, dict(zip(names, _filled(row, len(names))))) for n, row in filled
                    )
                elif names:
                    notes.add("sheets of other columns, not read", sheet.title)
        # What openpyxl, zipfile and zlib raise for damaged files; there is no common class.
        except (zipfile.BadZipFile, zlib.error, InvalidFileException, LookupError, ValueError,
                TypeError, AttributeError, SyntaxError, EOFError, ArithmeticError, OSError,
                RuntimeError, AssertionError) as error:  # fmt: skip
            why = " ".join(str(error).split())[:100]
            raise MufinError(
                f"{part.shown} cannot be read as .xlsx ({why}); save it again, or as CSV"
            ) from None


def _filled(row: list, width: int) -> list:
    return row[:width] + [None] * (width - len(row))


def _cells(row: tuple) -> list:
    """The values without the empty ones at the end; dates as ISO texts, 12.0 as 12."""
    cells = [_value(cell) for cell in row[:WIDEST]]
    while cells and cells[-1] is None:
        cells.pop()
    return cells


def _value(cell: object) -> object:
    """Numbers become texts: a program makes a number of one id and leaves the next one a text."""
    if isinstance(cell, str):
        return cell if cell.strip() else None
    if isinstance(cell, float) and cell == cell // 1 and abs(cell) < DIGITS:
        return str(int(cell))
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    return cell if cell is None or isinstance(cell, float) else str(cell)


def _check_size(part: Part, source: Path | BinaryIO) -> None:
    with zipfile.ZipFile(source) as archive:
        infos = archive.infolist()
    packed = sum(info.compress_size for info in infos)
    texts = sum(i.file_size for i in infos if i.filename.endswith("sharedStrings.xml"))
    if texts > TEXTS or sum(i.file_size for i in infos) > max(TEXTS, RATIO * packed):
        raise MufinError(f"{part.shown} unpacks to too much for a .xlsx; save it as CSV")
