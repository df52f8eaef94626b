"""`data/curated/attributes.parquet`: the attributes of the products that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.attributes import NAME, UID, attribute_batches
from mufin.artifacts.tables import SCHEMAS, temporary_batches
from mufin.errors import ArtifactError


def write_attributes(raw: Path, rows: np.ndarray, products: Path, path: Path) -> None:
    """Write the attributes of the products, row for row with the file `products`; batch by batch.

    `rows` (P,) int64, ascending, are the rows of the products in the tables of `raw`. Rows behind
    these tables are labels that are no products, which have no attributes. Without attributes in
    `raw`, `uid` is the only column. Raises ArtifactError if they do not fit the products there.
    """
    schema, chosen = pa.schema([]), None
    if (raw / NAME).is_file():
        schema, batches = attribute_batches(raw / NAME)
        chosen = _Chosen(batches, rows, _count(raw))
    whole = pa.schema([SCHEMAS["products"].field(UID), *schema])
    with pq.ParquetWriter(path, whole, compression="zstd") as writer:
        for uids in temporary_batches(products, "products", [UID]):
            columns = [uids[UID]]
            if chosen:
                columns += chosen.next(len(uids), schema).columns
            writer.write_table(pa.Table.from_arrays(columns, schema=whole))


def _count(raw: Path) -> int:
    """The products in `raw`; raises ArtifactError if it has attributes of other ones."""
    counts = [pq.read_metadata(raw / name).num_rows for name in ("products.parquet", NAME)]
    if counts[0] != counts[1]:
        raise ArtifactError(
            f"{raw / NAME} has {counts[1]} rows for {counts[0]} products; run download again"
        )
    return counts[0]


class _Chosen:
    """Those rows of batches that are chosen, as many at a time as one asks for."""

    def __init__(self, batches: Iterator[pa.RecordBatch], rows: np.ndarray, count: int):
        self.rows = self._filtered(batches, rows, count)
        self.left: list[pa.Table] = []  # rows that were not asked for yet

    def _filtered(
        self, batches: Iterator[pa.RecordBatch], rows: np.ndarray, count: int
    ) -> Iterator[pa.Table]:
        mask, start = np.zeros(count, bool), 0
        mask[rows[rows < count]] = True
        for batch in batches:
            yield pa.table(batch.filter(pa.array(mask[start : start + len(batch)])))
            start += len(batch)

    def next(self, count: int, schema: pa.Schema) -> pa.Table:
        """The next `count` rows; rows of nulls after the last one."""
        while sum(map(len, self.left)) < count:
            more = next(self.rows, None)
            if more is None:
                missing = count - sum(map(len, self.left))
                more = pa.table([pa.nulls(missing, f.type) for f in schema], schema=schema)
            self.left.append(more)
        joined = pa.concat_tables([schema.empty_table(), *self.left])
        self.left = [joined.slice(count)]
        return joined.slice(0, count)
