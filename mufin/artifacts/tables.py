"""Tables between stages: their schemas, and how they are written and read. docs/architecture.md lists them all."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.files import ArtifactError, publish
from mufin.ragged import Lists

STRINGS, INTS, FLOATS = pa.list_(pa.string()), pa.list_(pa.int32()), pa.list_(pa.float32())
SCHEMAS = {
    "raw_products": pa.schema(
        [
            ("uid", pa.string()),
            ("title", pa.string()),
            ("images", STRINGS),
            ("related", STRINGS),
            ("category", STRINGS),
        ]
    ),
    "image_log": pa.schema([("url", pa.string()), ("key", pa.string()), ("reason", pa.string())]),
    "released_labels": pa.schema([("uid", pa.string())]),
    "released_split": pa.schema([("uid", pa.string()), ("labels", INTS), ("excluded", INTS)]),
    "products": pa.schema(
        [("uid", pa.string()), ("title", pa.string()), ("images", STRINGS), ("category", STRINGS)]
    ),
    "labels": pa.schema([("product", pa.int32())]),
    "split": pa.schema([("product", pa.int32()), ("labels", INTS), ("excluded", INTS)]),
    "shortlist": pa.schema([("labels", INTS), ("similarity", FLOATS)]),
    "predictions": pa.schema([("labels", INTS), ("score", FLOATS)]),
}


def write_table(columns: dict, schema: str, path: Path) -> None:
    """Publish equally long columns as one Parquet file of `SCHEMAS[schema]`."""
    table = pa.table(
        {name: columns[name] for name in SCHEMAS[schema].names}, schema=SCHEMAS[schema]
    )
    with publish(path) as scratch:
        pq.write_table(table, scratch, compression="zstd")


def write_ranking(
    labels: np.ndarray, scores: np.ndarray, path: Path, schema: str = "predictions"
) -> None:
    """Publish (n, width) label ids, -1 padded, and their scores as ragged rows, best first (`predictions`, `shortlist`)."""
    rows, score = Lists.of_padded(labels), SCHEMAS[schema].names[1]
    write_table(
        {
            "labels": rows.to_arrow(pa.int32()),
            score: Lists(rows.offsets, scores[labels >= 0]).to_arrow(pa.float32()),
        },
        schema,
        path,
    )


def read_ranking(path: Path, schema: str = "predictions") -> np.ndarray:
    """(n, longest) int64 label ids, -1 padded, of what `write_ranking` wrote."""
    return Lists.of_column(read_table(path, schema, ["labels"])["labels"]).padded().astype(np.int64)


def read_table(path: Path, schema: str, columns: list[str] | None = None) -> pa.Table:
    """The Parquet file of `SCHEMAS[schema]`; raises ArtifactError where it is missing or of another form."""
    try:
        _check_form(path, pq.read_schema(path), schema, columns or SCHEMAS[schema].names)
        return pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing; run `dvc repro` (or the stage that writes it) first"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}); delete it and run `dvc repro`"
        ) from None


def table_batches(
    path: Path, schema: str, columns: list[str], rows: int = 50_000
) -> Iterator[pa.RecordBatch]:
    """`rows` rows of `columns` at a time, for tables that do not fit; raises ArtifactError as `read_table` does."""
    try:
        file = pq.ParquetFile(path)
        _check_form(path, file.schema_arrow, schema, columns)
        yield from file.iter_batches(rows, columns=columns)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing; run `dvc repro` (or the stage that writes it) first"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}); delete it and run `dvc repro`"
        ) from None


def _check_form(path: Path, found: pa.Schema, schema: str, columns: list[str]) -> None:
    for name in columns:
        wanted = SCHEMAS[schema].field(name).type
        if name not in found.names or not found.field(name).type.equals(wanted):
            raise ArtifactError(
                f"{path} has no column {name} of {wanted}; it was written by another version: "
                "delete it and run `dvc repro`"
            )
