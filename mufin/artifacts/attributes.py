"""`attributes.parquet`: what is known of products besides titles and pictures, such as the price.

Recommendations can be limited by these values. No stage trains on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.contents import check, contents_of
from mufin.artifacts.tables import BATCH, read_table
from mufin.errors import ArtifactError, shown

NAME = "attributes.parquet"
UID = "uid"
NUMBER, FLAG, TEXT, TEXTS = pa.float64(), pa.bool_(), pa.string(), pa.list_(pa.string())
KINDS = {"number": NUMBER, "flag": FLAG, "text": TEXT, "texts": TEXTS}  # texts: several per product


def kind_of(type: pa.DataType) -> str:
    """The kind of a column: number, flag, text or texts; '' for a type that is none of these."""
    return next((name for name, known in KINDS.items() if type.equals(known)), "")


def read_attributes(folder: Path) -> pa.Table:
    """The attributes of `data/curated`: `uid`, then a column per attribute; null where missing.

    Row for row with `products.parquet`. A number is float64, a flag bool, a text string, and
    several texts list<string>. A folder that an earlier version wrote has no attributes. Raises
    ArtifactError if a file is missing or is not as it was written.
    """
    products, path = folder / "products.parquet", folder / NAME
    if NAME not in contents_of(folder).files:
        return read_table(products, "products", [UID])
    table = _whole(path)
    if not table.column_names or table.column_names[0] != UID:
        raise _unreadable(path, f"it begins with the columns {shown(table.column_names[:3])}")
    rows = pq.read_metadata(products).num_rows
    if len(table) != rows:
        raise _unreadable(path, f"it has {len(table)} rows for {rows} products")
    return table


def attribute_batches(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The columns of `data/raw/attributes.parquet`, and its rows in batches.

    Raises ArtifactError as `read_attributes` does.
    """
    check(path)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, str(error)) from None
    _check_kinds(path, file.schema_arrow)
    return file.schema_arrow, file.iter_batches(BATCH)


def _whole(path: Path) -> pa.Table:
    """The table, whose columns are all of a known kind."""
    check(path)
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, str(error)) from None
    _check_kinds(path, table.schema)
    return table


def _check_kinds(path: Path, schema: pa.Schema) -> None:
    for field in schema:
        if not kind_of(field.type):
            raise _unreadable(path, f"its column {field.name} is of {field.type}")


def _unreadable(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{path} cannot be read ({shown(why)}); delete it and run `dvc repro`")
