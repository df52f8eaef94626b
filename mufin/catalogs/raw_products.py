"""`data/raw/products.parquet`: the products as they were found, with references of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.tables import SCHEMAS
from mufin.catalogs.columnar import first_distinct
from mufin.catalogs.product import Product
from mufin.catalogs.raw_attributes import AttributeWriter
from mufin.catalogs.raw_texts import TextWriter
from mufin.corpus.digests import digest_of
from mufin.corpus.lookup import firsts

ROWS = 10_000  # of a row group
Rows: TypeAlias = Product | pa.Table  # one product, or a table with the schema of the file


def first_images(products: Iterable[Rows], most: int) -> Iterator[Rows]:
    """The products with their first `most` distinct image references."""
    for rows in products:
        if isinstance(rows, pa.Table):
            at = rows.schema.get_field_index("images")
            images = first_distinct(rows["images"].combine_chunks(), most)
            yield rows.set_column(at, "images", images)
        else:
            rows.images = list(dict.fromkeys(rows.images))[:most]
            yield rows


def write_products(
    products: Iterable[Rows],
    path: Path,
    attributes: AttributeWriter | None = None,
    texts: TextWriter | None = None,
) -> dict:
    """Write the products as Parquet, ten thousand at a time; counts of what was written.

    Their attributes go to `attributes`, and their texts beside the title to `texts`, in the same
    order; of products in tables neither is known.
    """
    counts = Counter(products=0, relations=0, image_references=0)
    with pq.ParquetWriter(path, SCHEMAS["raw_products"], compression="zstd") as writer:
        for table in _of_size(_tables(products, attributes, texts), ROWS):
            writer.write_table(table)
            counts["products"] += len(table)
            counts["relations"] += len(table["related"].chunk(0).flatten())
            counts["image_references"] += len(table["images"].chunk(0).flatten())
    return dict(counts)


def _tables(
    products: Iterable[Rows], attributes: AttributeWriter | None, texts: TextWriter | None
) -> Iterator[pa.Table]:
    """The products as tables, of at most ROWS rows where they come one by one."""
    waiting: list[Product] = []
    for rows in products:
        if not isinstance(rows, pa.Table):
            waiting.append(rows)
        if waiting and (isinstance(rows, pa.Table) or len(waiting) == ROWS):
            yield _table_of(waiting, attributes, texts)
            waiting = []
        if isinstance(rows, pa.Table):
            yield rows
    if waiting:
        yield _table_of(waiting, attributes, texts)


def _table_of(
    products: list[Product], attributes: AttributeWriter | None, texts: TextWriter | None
) -> pa.Table:
    schema = SCHEMAS["raw_products"]
    if attributes:
        attributes.add([p.attributes for p in products])
    if texts:
        texts.add([p.texts for p in products])
    columns = {n: [getattr(p, n, []) for p in products] for n in schema.names}
    return pa.table(columns, schema=schema)


def _of_size(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size` rows, each column in one piece; the last may be smaller."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += len(table)
        if rows >= size:
            whole = pa.concat_tables(waiting)
            for start in range(0, rows - size + 1, size):
                yield whole.slice(start, size).combine_chunks()
            waiting = [whole.slice(rows - rows % size)]
            rows %= size
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()


class References:
    """The distinct image references of the products, in order of their first occurrence.

    It can be iterated many times. Kept are a byte per reference and no text; while it is made, 50
    bytes per reference.
    """

    def __init__(self, path: Path):
        self.path = path
        self.first = firsts(self._hashes())  # whether no equal one comes before, of all references

    def __iter__(self) -> Iterator[str]:
        start = 0
        for flat in self._all():
            yield from flat.filter(pa.array(self.first[start : start + len(flat)])).to_pylist()
            start += len(flat)

    def _all(self) -> Iterator[pa.Array]:
        for batch in pq.ParquetFile(self.path).iter_batches(10_000, columns=["images"]):
            yield batch["images"].flatten()

    def _hashes(self) -> np.ndarray:
        # Not by polars: imported this late, its handler of Ctrl-C would come before ours.
        parts = [b"".join(map(digest_of, flat.to_pylist())) for flat in self._all()]
        return np.frombuffer(b"".join(parts), np.uint64).reshape(-1, 2)
