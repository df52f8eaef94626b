"""`data/raw/image_log.parquet`: one row per image reference, in the order of the references."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mufin.artifacts.publication import publish
from mufin.artifacts.tables import SCHEMAS

ROWS = 2**20  # of a row group, as pyarrow's own default
PENDING = 10_000  # rows that wait as Python objects
# 64-bit offsets: the references of a large catalog are more than 2 GiB of text.
LARGE = pa.schema([(name, pa.large_string()) for name in SCHEMAS["image_log"].names])


class ImageLog:
    """Rows (reference, key or '', reason or ''), kept as Arrow: about 40 bytes and their texts."""

    def __init__(self) -> None:
        self.rows = 0
        self.pending: list[tuple[str, str, str]] = []
        self.parts: list[pa.RecordBatch] = []

    def add(self, reference: str, key: str, reason: str) -> None:
        """Add a row; each reference comes once."""
        self.pending.append((reference, key, reason))
        self.rows += 1
        if len(self.pending) >= PENDING:
            self._convert()

    def write(self, path: Path) -> None:
        """Publish all rows, ascending by reference."""
        self._convert()
        table = pa.Table.from_batches(self.parts, LARGE)
        self.parts = []
        order = pc.sort_indices(table["url"])
        with (
            publish(path) as scratch,
            pq.ParquetWriter(scratch, SCHEMAS["image_log"], compression="zstd") as writer,
        ):
            for start in range(0, max(len(order), 1), ROWS):  # a row group at a time
                some = table.take(order.slice(start, ROWS)).cast(SCHEMAS["image_log"])
                writer.write_table(some.combine_chunks(), row_group_size=ROWS)

    def _convert(self) -> None:
        """Turn the pending rows into Arrow."""
        columns = [pa.array(column, pa.large_string()) for column in zip(*self.pending)]
        if columns:
            self.parts.append(pa.RecordBatch.from_arrays(columns, schema=LARGE))
        self.pending = []
