"""Columns of delimited, JSON and Parquet files in their plain forms, many rows at a time."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Collection, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.json as pjson
import pyarrow.parquet as pq

from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.delimited import DECLARED, END, SAMPLE, separator_of
from mufin.catalogs.json_rows import form_of, json_rows
from mufin.catalogs.notes import Notes
from mufin.catalogs.opening import Part, encoding_of, opened, seekable
from mufin.catalogs.rows import kind_of
from mufin.catalogs.text_files import lines_of
from mufin.errors import MufinError

BLOCK = 2**23  # bytes of text that are read at once
ROWS = 2**17  # rows of Parquet
TRIED = 1000  # rows of JSON that tell the types
UTF8 = ("utf-8", "utf-8-sig", "utf8", "ascii", "us-ascii")
MARK = b"\xef\xbb\xbf"
FAULTS = (MufinError, pa.ArrowException, OSError, ValueError, EOFError, csv.Error)


class Irregular(Exception):
    """From here on the file cannot be read by column; `rows_of` can, or says why not."""


def column_batches(
    part: Part, columns: Collection[str], encoding: str | None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of its first row, batch) of the `columns` of a file, in this order.

    The number is that of the line in texts, from 1. Rows that were yielded are the first ones that
    `rows_of` would yield. Raises Irregular where that is not sure.
    """
    try:
        kind = kind_of(part, encoding)
        if kind == "parquet":
            yield from _parquet(part, list(columns))
        elif kind in ("delimited", "json"):
            with opened(part) as file:
                name = encoding_of(file.read(4), encoding)
            if name.lower() not in UTF8:
                raise Irregular
            of_kind = _delimited if kind == "delimited" else _json_lines
            yield from of_kind(part, list(columns))
        else:
            raise Irregular
    except FAULTS:
        raise Irregular from None


def _parquet(part: Part, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    number = 1
    with seekable(part) as source, pq.ParquetFile(source, buffer_size=2**20) as file:
        names = file.schema_arrow.names
        if any(names.count(column) != 1 for column in columns):
            raise Irregular
        if any(pa.types.is_nested(file.schema_arrow.field(column).type) for column in columns):
            raise Irregular  # a list of products, which is several rows
        for batch in file.iter_batches(ROWS, columns=list(dict.fromkeys(columns))):
            yield number, _ordered(batch, columns)
            number += len(batch)


def _delimited(part: Part, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    lines = list(itertools.islice(lines_of(part), SAMPLE))
    declared = DECLARED.fullmatch(lines[0][1]) if lines else None
    if declared:
        del lines[0]
    if not lines or lines[0][1].count('"') % 2:
        raise Irregular
    separator = declared[1] if declared else ""
    separator = separator or separator_of([text for _, text in lines], part.name, columns)
    before, header = lines[0]
    names = [name.strip() for name in next(csv.reader([header], delimiter=separator))]
    if any(names.count(column) != 1 for column in columns):
        raise Irregular
    # The header is not given to Arrow, since its names may be equal or have blanks around them.
    wanted = [str(names.index(column)) for column in columns]
    end = END + separator * (len(names) - 1)
    with (
        opened(part) as file,
        pcsv.open_csv(
            pa.PythonFile(_Ended(file, f"\n{end}\n".encode()), "r"),
            pcsv.ReadOptions(
                use_threads=False,
                block_size=BLOCK,
                skip_rows=before,
                column_names=[str(k) for k in range(len(names))],
            ),
            pcsv.ParseOptions(delimiter=separator, newlines_in_values=True),
            pcsv.ConvertOptions(
                column_types={name: pa.string() for name in ["0", *wanted]},
                include_columns=list(dict.fromkeys(["0", *wanted])),
                strings_can_be_null=False,
            ),
        ) as reader,
    ):
        number, batches = before + 1, iter(reader)
        batch, following = next(batches), next(batches, None)
        while batch is not None:
            if following is None:
                if batch.column("0")[-1].as_py() != END:
                    raise Irregular  # a quote is open
                batch = batch.slice(0, len(batch) - 1)
            yield number, _ordered(batch, wanted)
            number += len(batch)
            batch, following = following, next(batches, None)


class _Ended:
    """A file with one more row at its end, which a quote that is still open swallows."""

    closed = False

    def __init__(self, file: BinaryIO, end: bytes):
        self.file, self.end = file, end

    def read(self, size: int) -> bytes:
        if piece := self.file.read(size):
            return piece
        self.end, piece = b"", self.end
        return piece


def _json_lines(part: Part, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    if form_of(part) != "lines":
        raise Irregular
    kinds = _kinds(part, columns)
    parse = pjson.ParseOptions(explicit_schema=kinds, unexpected_field_behavior="ignore")
    number = 1
    with opened(part) as file:
        for block in _blocks(file):
            read = pjson.ReadOptions(use_threads=False, block_size=len(block) + 1)
            table = pjson.read_json(pa.BufferReader(block), read, parse)
            # One row per line: blank lines, and lines of two objects, are not plain.
            if len(table) != block.count(b"\n") + (not block.endswith(b"\n")):
                raise Irregular
            for batch in table.to_batches():
                yield number, _ordered(batch, columns)
                number += len(batch)


def _kinds(part: Part, columns: list[str]) -> pa.Schema:
    """The types of the columns, from the first rows; a value of another type later on is a fault.

    Numbers are float64 only where all are floats: of a whole number, all digits must stay.
    """
    rows = json_rows(part, columns, None, BadRows(Notes()))
    first = [row for _, row in itertools.islice(rows, TRIED)]
    kinds = {}
    for column in dict.fromkeys(columns):
        types = {type(row[column]) for row in first if row.get(column) is not None}
        if len(types) != 1 or (kind := types.pop()) not in (str, int, float):
            raise Irregular
        kinds[column] = {str: pa.string(), int: pa.int64(), float: pa.float64()}[kind]
    return pa.schema(list(kinds.items()))


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """The text in blocks of whole lines, without its byte order mark."""
    rest, first = b"", True
    while piece := file.read(BLOCK):
        cut = piece.rfind(b"\n") + 1
        if not cut and len(rest) > BLOCK:
            raise Irregular
        if cut:
            block = rest + piece[:cut]
            yield block.removeprefix(MARK) if first else block
            first = False
        rest = rest * (not cut) + piece[cut:]
    if rest:
        yield rest.removeprefix(MARK) if first else rest


def _ordered(batch: pa.RecordBatch, columns: list[str]) -> pa.RecordBatch:
    """The columns in order; one that is named twice is there twice."""
    arrays = [batch.column(column) for column in columns]
    return pa.record_batch(arrays, names=[str(k) for k in range(len(columns))])
