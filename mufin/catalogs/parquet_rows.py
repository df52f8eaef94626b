"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from mufin.catalogs.bad_rows import Row
from mufin.catalogs.column_names import check_distinct, top
from mufin.catalogs.opening import Part, seekable
from mufin.errors import MufinError

ROWS = 4096  # per batch
MOST = 2**31  # bytes per group of rows; reading takes three times as much memory
ROWS_OF_BYTES = 16  # where a column has bytes, which are images


def parquet_rows(part: Part, columns: Iterable[str]) -> Iterator[tuple[int, Row]]:
    """(number from 1, {column: value}) of each row; of `columns` alone, where any are named.

    Names of columns are without blanks around them.
    """
    number = 0
    try:
        with seekable(part) as source, pq.ParquetFile(source, buffer_size=2**20) as file:
            schema = file.schema_arrow
            names = _present(schema, columns)
            check_distinct(part.shown, [name.strip() for name in schema.names], columns)
            size = ROWS
            if any(_has_bytes(schema.field(name).type) for name in names):
                size = ROWS_OF_BYTES
                _check_groups(part, file.metadata)
            plain = all(name == name.strip() for name in names)
            for batch in _batches(file, size, names):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row if plain else {k.strip(): v for k, v in row.items()}
    except UnicodeDecodeError:
        raise MufinError(
            f"{part.shown} has a text after row {number} that is not UTF-8; write the file again"
        ) from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        why = " ".join(str(error).split())[:200]
        raise MufinError(
            f"{part.shown} is not a complete Parquet file ({why}); write it again"
        ) from None


def _batches(file: pq.ParquetFile, size: int, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of at most `size` rows, of fewer where the texts in so many are more than 2 GiB.

    Arrow then reads a column in several arrays, and refuses to make lists or a batch of them.
    """
    done = 0
    while True:
        skip = done
        try:
            for batch in file.iter_batches(size, columns=names):
                if skip < len(batch):
                    yield batch.slice(skip)
                    done += len(batch) - skip
                skip = max(skip - len(batch), 0)
            return
        except pa.ArrowNotImplementedError:
            if size == 1:
                raise
            size = max(size // 16, 1)


def names_of_parquet(part: Part) -> list[str]:
    """The names of all columns, without blanks around them."""
    with seekable(part) as source:
        return [name.strip() for name in pq.read_schema(source).names]


def _check_groups(part: Part, metadata: pq.FileMetaData) -> None:
    """Raises MufinError if a group of rows, of which much is in memory at once, is too large.

    The sizes of single columns are not looked at: for a damaged file, pyarrow would abort.
    """
    for number in range(metadata.num_row_groups):
        size = metadata.row_group(number).total_byte_size
        if size > MOST:
            raise MufinError(
                f"{part.shown} has a row group of {size / 2**20:.0f} MB, more than "
                f"{MOST / 2**20:.0f}; write it again with smaller ones, such as row_group_size=100"
            )


def _present(schema: pa.Schema, columns: Iterable[str]) -> list[str]:
    """The columns of the file to read: those that are wanted, or hold something that is."""
    wanted = set(columns)
    if not wanted:
        return schema.names
    wanted |= set(map(top, wanted))
    return [name for name in schema.names if name.strip() in wanted]


def _has_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return True
    return any(_has_bytes(kind.field(i).type) for i in range(kind.num_fields))
