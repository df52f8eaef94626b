"""Rows of CSV, TSV and the like: cells between separators; the first row names the columns."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator

from mufin.catalogs import text_files
from mufin.catalogs.bad_rows import BadRow, BadRows, Row
from mufin.catalogs.column_names import check_distinct
from mufin.catalogs.notes import Notes
from mufin.catalogs.opening import Part
from mufin.catalogs.text_files import lines_of
from mufin.errors import MufinError

END = "<end of the file>"  # a last line that shows whether a quote is still open
SEPARATORS = ",;\t|"
DECLARED = re.compile(r'"?sep=(.)"?[,;\t|]*\s*', re.I)  # a first line for spreadsheet programs
SAMPLE = 100  # lines from which the separator is known, and
SAMPLED = 2**20  # characters
csv.field_size_limit(text_files.LONGEST)  # of the process; 131,072 is less than an image in a cell


def delimited_rows(
    part: Part, columns: Iterable[str], encoding: str | None, notes: Notes, bad: BadRows
) -> Iterator[tuple[int, Row]]:
    """(line on which it begins, {column: cell}) of each row; a quoted cell may have line breaks.

    A row of more or fewer cells than the header is a bad row. Raises MufinError for a quote that is
    not closed, and for a file without a header.
    """
    path, found = part.shown, lines_of(part, encoding)
    sample = list(_sample(found))
    separator = None
    if sample and (declared := DECLARED.fullmatch(sample[0][1])):
        separator = declared[1]
        del sample[0]
    texts = [line for _, line in sample]
    if not texts:
        return
    separator = separator or separator_of(texts, part.name, columns)
    # The line on which the row being read begins, 0 before its first line. `reader.line_num` would
    # not count the blank lines that `lines_of` leaves out. A list, so that `lines` can set it.
    begin = [0]

    def lines() -> Iterator[str]:
        for number, line in itertools.chain(sample, found):
            begin[0] = begin[0] or number
            yield line
        yield END

    reader = csv.reader(lines(), delimiter=separator)
    at = 1
    try:
        names = [name.strip() for name in next(reader)]
        at, begin[0] = begin[0], 0
        if any(END in name for name in names):
            raise csv.Error("it goes on to the end of the file")
        if not any(names):
            raise MufinError(f"{path} line {at} has no names of columns; write them there")
        check_distinct(path, names, columns)
        width = len(names)
        for cells in reader:
            if len(cells) == width:
                # Python's reader accepts a quote that is still open at the end of the file. The row
                # of such a quote swallows the END line; otherwise END is a row of its own.
                if END in cells[-1]:
                    break
                at, begin[0] = begin[0], 0
                yield at, dict(zip(names, cells))
                continue
            if cells and END in cells[-1]:
                if cells == [END]:
                    return
                break
            at, begin[0] = begin[0], 0
            if len(cells) > width and not any(cells[width:]):  # separators at the end of the line
                notes.add("rows with empty cells after the last column", f"{path} line {at}")
                yield at, dict(zip(names, cells))
                continue
            bad.drop(_other_width(part, at, cells, names))
        if width == 1 and cells == [END]:
            return
        raise csv.Error("it goes on to the end of the file")
    except csv.Error as error:
        raise MufinError(
            f"{path} line {begin[0] or at} cannot be read ({error}); close the quote that is open"
        ) from None


def _sample(found: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    size = 0
    for number, line in itertools.islice(found, SAMPLE):
        yield number, line
        size += len(line)
        if size > SAMPLED:
            return


def separator_of(lines: list[str], name: str, columns: Iterable[str] = ()) -> str:
    """The separator of the cells in the first lines of a file.

    The one with which the header has most of the `columns`, then the one with which all rows have
    as many cells as the header, then the one of most cells. The comma if the header has none.
    """
    wanted = set(columns)
    order = "\t,;|" if name.endswith((".tsv", ".tab")) else SEPARATORS
    best, best_score = ",", (0, False, 1)
    for separator in order:
        try:
            rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        except csv.Error:
            continue
        names = {cell.strip() for cell in rows[0]}
        whole = rows[1:-1] if len(lines) >= SAMPLE else rows[1:]
        even = all(len(row) == len(rows[0]) for row in whole)
        score = (len(wanted & names), even, len(rows[0]))
        if len(rows[0]) > 1 and score > best_score:
            best, best_score = separator, score
    return best


def _other_width(part: Part, at: int, cells: list[str], names: list[str]) -> BadRow:
    count = "more" if len(cells) > len(names) else "fewer"
    return BadRow(
        f"{part.shown} line {at} has {count} cells than the header; "
        "quote cells that contain separators or line breaks"
    )
