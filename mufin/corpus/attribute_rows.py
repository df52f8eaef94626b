"""`data/curated/attributes.parquet`: the attributes of the products that are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.attributes import NAME, UID, attribute_batches
from mufin.artifacts.tables import SCHEMAS, temporary_batches
from mufin.corpus.chosen_rows import ChosenRows, count_beside


def write_attributes(raw: Path, rows: np.ndarray, products: Path, path: Path) -> None:
    """Write the attributes of the products, row for row with the file `products`; batch by batch.

    `rows` (P,) int64, ascending, are the rows of the products in the tables of `raw`. Rows behind
    these tables are labels that are no products, which have no attributes. Without attributes in
    `raw`, `uid` is the only column. Raises ArtifactError if they do not fit the products there.
    """
    schema, chosen = pa.schema([]), None
    if (raw / NAME).is_file():
        schema, batches = attribute_batches(raw / NAME)
        chosen = ChosenRows(batches, schema, count_beside(raw, NAME), rows)
    whole = pa.schema([SCHEMAS["products"].field(UID), *schema])
    with pq.ParquetWriter(path, whole, compression="zstd") as writer:
        for uids in temporary_batches(products, "products", [UID]):
            columns = [uids[UID]]
            if chosen:
                columns += chosen.next(len(uids)).columns
            writer.write_table(pa.Table.from_arrays(columns, schema=whole))
