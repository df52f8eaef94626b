"""`data/raw/products.parquet`: the products as they were found, with references of images."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.tables import SCHEMAS
from mufin.catalogs.product import Product
from mufin.catalogs.raw_attributes import AttributeWriter


def first_images(products: Iterable[Product], most: int) -> Iterator[Product]:
    """The products with their first `most` distinct image references."""
    for product in products:
        product.images = list(dict.fromkeys(product.images))[:most]
        yield product


def write_products(
    products: Iterable[Product], path: Path, attributes: AttributeWriter | None = None
) -> dict:
    """Write the products as Parquet, ten thousand at a time; counts of what was written.

    Their attributes go to `attributes`, in the same order.
    """
    counts, products = Counter(products=0, relations=0, image_references=0), iter(products)
    with pq.ParquetWriter(path, SCHEMAS["raw_products"], compression="zstd") as writer:
        while batch := list(itertools.islice(products, 10_000)):
            names = SCHEMAS["raw_products"].names
            columns = {n: [getattr(p, n, []) for p in batch] for n in names}
            writer.write_table(pa.table(columns, schema=SCHEMAS["raw_products"]))
            if attributes:
                attributes.add([p.attributes for p in batch])
            counts["products"] += len(batch)
            counts["relations"] += sum(len(p.related) for p in batch)
            counts["image_references"] += sum(len(p.images) for p in batch)
    return dict(counts)


def references_of(path: Path) -> Iterator[str]:
    """The distinct image references of the products, in order of their first occurrence."""
    seen: set[str] = set()
    for batch in pq.ParquetFile(path).iter_batches(10_000, columns=["images"]):
        for reference in itertools.chain.from_iterable(batch["images"].to_pylist()):
            if reference not in seen:
                seen.add(reference)
                yield reference
