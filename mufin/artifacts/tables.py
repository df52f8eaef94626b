"""The tables between stages as Parquet files: schemas, reading and writing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.contents import check
from mufin.artifacts.publication import publish
from mufin.errors import ArtifactError, shown
from mufin.ragged import Lists

STRING, INT = pa.string(), pa.int32()
STRINGS, INTS, FLOATS = pa.list_(STRING), pa.list_(INT), pa.list_(pa.float32())
BATCH = 50_000  # rows of a table at a time
SPLIT = [("labels", INTS), ("excluded", INTS)]
SCHEMAS = {  # docs/architecture.md, Artifacts, says what each column holds
    "raw_products": pa.schema(
        [
            ("uid", STRING),
            ("title", STRING),
            ("images", STRINGS),
            ("related", STRINGS),
            ("category", STRINGS),
            ("weights", FLOATS),  # of `related`; an empty list: all 1
            ("other_ids", STRINGS),
        ]
    ),
    "raw_texts": pa.schema([("texts", STRINGS)]),
    "interactions": pa.schema(
        [
            ("item", STRING),
            ("basket", pa.int64()),
            ("time", pa.float64()),
            ("weight", pa.float32()),
        ]
    ),
    "image_log": pa.schema([("url", STRING), ("key", STRING), ("reason", STRING)]),
    "raw_labels": pa.schema([("uid", STRING), ("title", STRING)]),
    "released_labels": pa.schema([("uid", STRING)]),
    "released_split": pa.schema([("uid", STRING), *SPLIT]),
    "raw_outfits": pa.schema([("split", STRING), ("set", STRING), ("items", STRINGS)]),
    "raw_questions": pa.schema(
        [
            ("split", STRING),
            ("uid", STRING),
            ("items", STRINGS),
            ("position", INT),
            ("answers", STRINGS),
            ("right", INT),
        ]
    ),
    "raw_compatibility": pa.schema(
        [("split", STRING), ("items", STRINGS), ("compatible", pa.bool_())]
    ),
    "products": pa.schema(
        [("uid", STRING), ("title", STRING), ("images", STRINGS), ("category", STRINGS)]
    ),
    "texts": pa.schema([("uid", STRING), ("texts", STRINGS)]),
    "labels": pa.schema([("product", INT)]),
    "split": pa.schema([("product", INT), *SPLIT]),
    "weights": pa.schema([("weights", FLOATS)]),
    "shortlist": pa.schema([("labels", INTS), ("similarity", FLOATS)]),
    "predictions": pa.schema([("labels", INTS), ("score", FLOATS)]),
    "out_of_fold": pa.schema(
        [
            ("fold", INT),
            ("datapoint", INT),
            ("labels", INTS),
            ("classifier", FLOATS),
            ("similarity", FLOATS),
            ("ridge", FLOATS),  # empty lists if there is no title ridge
            ("votes", FLOATS),  # likewise, without voters
            ("truth", INTS),
            ("excluded", INTS),
        ]
    ),
    "outfits": pa.schema([("split", STRING), ("set", STRING), ("items", INTS)]),
    "questions": pa.schema(
        [
            ("split", STRING),
            ("product", INT),
            ("items", INTS),
            ("position", INT),
            ("answers", INTS),
            ("right", INT),
        ]
    ),
    "compatibility": pa.schema([("split", STRING), ("items", INTS), ("compatible", pa.bool_())]),
    "fold_counts": pa.schema([("counts", INTS)]),
}


def write_table(columns: dict, schema: str, path: Path) -> None:
    """Publishes columns of equal length as a Parquet file with the schema `SCHEMAS[schema]`."""
    names = SCHEMAS[schema].names
    table = pa.table({name: columns[name] for name in names}, schema=SCHEMAS[schema])
    with publish(path) as scratch:
        pq.write_table(table, scratch, compression="zstd")


def write_ranking(
    labels: np.ndarray, scores: np.ndarray, path: Path, schema: str = "predictions"
) -> None:
    """Publishes ranked labels, best first, and their scores; padding is left out.

    `labels` (n, width) int are label ids, -1 = padding; `scores` (n, width) float. `schema` is
    `predictions` or `shortlist`.
    """
    rows = Lists.of_padded(labels)
    score = Lists(rows.offsets, scores[labels >= 0])
    columns = {
        "labels": rows.to_arrow(pa.int32()),
        SCHEMAS[schema].names[1]: score.to_arrow(pa.float32()),
    }
    write_table(columns, schema, path)


def read_ranking(path: Path, schema: str = "predictions") -> np.ndarray:
    """(n, longest) int64 label ids, -1 = padding, from a file of `write_ranking`."""
    return Lists.of_column(read_table(path, schema, ["labels"])["labels"]).padded().astype(np.int64)


def read_table(path: Path, schema: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file with the schema `SCHEMAS[schema]`, all columns or only `columns`.

    Raises ArtifactError if the file is missing, is not as it was written, or has other columns.
    """
    check(path)
    with _readable(path):
        _check_columns(path, pq.read_schema(path), schema, columns or SCHEMAS[schema].names)
        return pq.read_table(path, columns=columns)


def wide(table: pa.Table) -> pa.Table:
    """The same columns, each in one piece, with 64-bit offsets of texts and lists.

    With 32 bits a piece holds 2 GiB of text at most, such as 67 million keys of pictures.
    """
    return _cast(table, {STRING: pa.large_string()}, pa.large_list).combine_chunks()


def narrow(table: pa.Table) -> pa.Table:
    """The columns of a part of `wide(table)`, as they were in the table."""
    return _cast(table, {pa.large_string(): STRING}, pa.list_).combine_chunks()


def _cast(
    table: pa.Table,
    texts: dict[pa.DataType, pa.DataType],
    lists: Callable[[pa.Field], pa.DataType],
) -> pa.Table:
    def other(field: pa.Field) -> pa.Field:
        if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            return field.with_type(lists(other(field.type.value_field)))
        return field.with_type(texts.get(field.type, field.type))

    return table.cast(pa.schema([other(field) for field in table.schema], table.schema.metadata))


def batch_count(path: Path, rows: int = BATCH) -> int:
    """How many batches `table_batches` yields; raises ArtifactError as it does."""
    with _readable(path):
        return -(-pq.read_metadata(path).num_rows // rows)


def table_batches(
    path: Path, schema: str, columns: list[str], rows: int = BATCH
) -> Iterator[pa.RecordBatch]:
    """Yields `rows` rows of `columns` at a time, for tables that do not fit in memory.

    Raises ArtifactError as `read_table` does.
    """
    check(path)
    yield from temporary_batches(path, schema, columns, rows)


def temporary_batches(
    path: Path, schema: str, columns: list[str], rows: int = BATCH
) -> Iterator[pa.RecordBatch]:
    """`table_batches` of a file that this process wrote, and that is not part of an artifact."""
    with _readable(path):
        file = pq.ParquetFile(path)
        _check_columns(path, file.schema_arrow, schema, columns)
        yield from file.iter_batches(rows, columns=columns)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns the errors of reading `path` into ArtifactError."""
    try:
        yield
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing; run `dvc repro` (or the stage that writes it) first"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({shown(str(error))}); delete it and run `dvc repro`"
        ) from None


def _check_columns(path: Path, found: pa.Schema, schema: str, columns: list[str]) -> None:
    for name in columns:
        wanted = SCHEMAS[schema].field(name).type
        if name not in found.names or not found.field(name).type.equals(wanted):
            raise ArtifactError(
                f"{path} has no column {name} of {wanted}; another version wrote it: "
                "delete it and run `dvc repro`"
            )
