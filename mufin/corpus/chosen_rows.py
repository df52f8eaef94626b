"""Rows of a table beside the products, as many at a time as one asks for.

Tables that go row for row are read in batches of different sizes, since their rows take different
amounts of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.errors import ArtifactError


class ChosenRows:
    """Those of `count` rows in batches that `rows`, ascending, names; None names all of them.

    The columns are those of `schema`. Numbers from `count` on name no row.
    """

    def __init__(
        self,
        batches: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        count: int,
        rows: np.ndarray | None = None,
    ):
        self.schema = schema
        self.rows = self._filtered(batches, count, rows)
        self.left: list[pa.Table] = []  # rows that were not asked for yet

    def _filtered(
        self, batches: Iterable[pa.RecordBatch], count: int, rows: np.ndarray | None
    ) -> Iterator[pa.Table]:
        mask, start = np.full(count, rows is None), 0
        if rows is not None:
            mask[rows[rows < count]] = True
        for batch in batches:
            yield pa.table(batch.filter(pa.array(mask[start : start + len(batch)])))
            start += len(batch)

    def next(self, count: int) -> pa.Table:
        """The next `count` rows; rows of nulls after the last one."""
        while sum(map(len, self.left)) < count:
            more = next(self.rows, None)
            if more is None:
                missing = count - sum(map(len, self.left))
                nulls = [pa.nulls(missing, field.type) for field in self.schema]
                more = pa.table(nulls, schema=self.schema)
            self.left.append(more)
        joined = pa.concat_tables([self.schema.empty_table(), *self.left])
        self.left = [joined.slice(count)]
        return joined.slice(0, count)


def count_beside(raw: Path, name: str) -> int:
    """The products in `raw`; raises ArtifactError if the table `name` there has other rows."""
    counts = [pq.read_metadata(raw / table).num_rows for table in ("products.parquet", name)]
    if counts[0] != counts[1]:
        raise ArtifactError(
            f"{raw / name} has {counts[1]} rows for {counts[0]} products; run download again"
        )
    return counts[0]
