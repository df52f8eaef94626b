"""`data/raw/image_log.parquet`: one row per image reference, in the order of the references."""

from __future__ import annotations

import heapq
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mufin.artifacts.publication import publish
from mufin.artifacts.tables import SCHEMAS

ROWS = 2**20  # of a row group, as pyarrow's own default
RUN = 2**18  # rows that are sorted in memory
PENDING = 10_000  # rows that wait as Python objects
AHEAD = 1000  # rows of each run in memory while runs are merged
# 64-bit offsets: the references of a large catalog are more than 2 GiB of text.
LARGE = pa.schema([(name, pa.large_string()) for name in SCHEMAS["image_log"].names])

Row = tuple[str, str, str]


class ImageLog:
    """Rows (reference, key or '', reason or ''): as Arrow, about 40 bytes and their texts.

    Of more than RUN rows, sorted runs lie in files of `folder` that have no name.
    """

    def __init__(self, folder: Path):
        self.folder, self.rows = folder, 0
        self.pending: list[Row] = []
        self.parts: list[pa.RecordBatch] = []
        self.runs: list[BinaryIO] = []

    def add(self, reference: str, key: str, reason: str) -> None:
        """Add a row; each reference comes once."""
        self.pending.append((reference, key, reason))
        self.rows += 1
        if len(self.pending) >= PENDING:
            self._convert()
            if sum(map(len, self.parts)) >= RUN:
                self._put_aside()

    def write(self, path: Path) -> None:
        """Publish all rows, ascending by reference."""
        self._convert()
        tables: Iterator[pa.Table]
        if not self.runs:
            tables = iter([self._sorted().cast(SCHEMAS["image_log"]).combine_chunks()])
        else:
            self._put_aside()
            tables = _tables(heapq.merge(*map(_rows, self.runs)))  # strings compare as UTF-8 does
        with (
            publish(path) as scratch,
            pq.ParquetWriter(scratch, SCHEMAS["image_log"], compression="zstd") as writer,
        ):
            for table in tables:  # of a row group, or the only one
                writer.write_table(table, row_group_size=ROWS)
                del table  # before the next one is made
        for run in self.runs:
            run.close()

    def _convert(self) -> None:
        """Turn the pending rows into Arrow."""
        if self.pending:
            self.parts.append(_batch(self.pending, LARGE))
        self.pending = []

    def _sorted(self) -> pa.Table:
        """The rows in memory, which are forgotten."""
        table = pa.Table.from_batches(self.parts, LARGE)
        self.parts = []
        return table.take(pc.sort_indices(table["url"]))

    def _put_aside(self) -> None:
        """Write the rows in memory as one more run."""
        run = tempfile.TemporaryFile(dir=self.folder)
        with pa.ipc.new_stream(run, LARGE) as writer:
            writer.write_table(self._sorted(), max_chunksize=AHEAD)
        self.runs.append(run)


def _batch(rows: Iterable[Row], schema: pa.Schema) -> pa.RecordBatch:
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows), schema.types)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _rows(run: BinaryIO) -> Iterator[Row]:
    """The rows of a run, in their order."""
    run.seek(0)
    for batch in pa.ipc.open_stream(run):
        yield from zip(*(column.to_pylist() for column in batch.columns))


def _tables(rows: Iterator[Row]) -> Iterator[pa.Table]:
    """The rows, ROWS of them at a time."""
    schema = SCHEMAS["image_log"]
    while parts := list(_batches(itertools.islice(rows, ROWS), schema)):
        yield _united(parts, schema)


def _united(parts: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """One table, and the parts forgotten: both take memory."""
    table = pa.Table.from_batches(parts, schema)
    parts.clear()
    return table.combine_chunks()


def _batches(rows: Iterator[Row], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while some := list(itertools.islice(rows, PENDING)):
        yield _batch(some, schema)
