"""The files between the stages: schemas, load, save, atomic publish. docs/architecture.md lists them all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import MufinError
from pipeline.ragged import Lists

STRINGS, INTS, FLOATS = pa.list_(pa.string()), pa.list_(pa.int32()), pa.list_(pa.float32())
SCHEMAS = {
    "raw_products": pa.schema([("uid", pa.string()), ("title", pa.string()), ("images", STRINGS),
                               ("related", STRINGS), ("category", STRINGS)]),
    "raw_image": pa.schema([("key", pa.string()), ("bytes", pa.binary())]),
    "image_log": pa.schema([("url", pa.string()), ("key", pa.string()), ("reason", pa.string())]),
    "released_labels": pa.schema([("uid", pa.string())]),
    "released_split": pa.schema([("uid", pa.string()), ("labels", INTS), ("excluded", INTS)]),
    "products": pa.schema([("uid", pa.string()), ("title", pa.string()), ("images", STRINGS), ("category", STRINGS)]),
    "labels": pa.schema([("product", pa.int32())]),
    "split": pa.schema([("product", pa.int32()), ("labels", INTS), ("excluded", INTS)]),
    "shortlist": pa.schema([("labels", INTS), ("similarity", FLOATS)]),
    "predictions": pa.schema([("labels", INTS), ("score", FLOATS)]),
}


LARGE = 2**28
WRITING = "while writing "      # begins the note that `publish` leaves on an error: libraries do not say which file it was


class ArtifactError(MufinError):
    """An artifact is missing, broken or of another form: what, where, the remedy."""


@contextlib.contextmanager
def publish(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` (make a file or a folder of it) that replaces `target` on success only.

    An error from within passes with a note that names `target`.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch / target.name
        (scratch / target.name).lstat()                     # nothing made: raises before the old folder moves aside
        if target.is_dir() and not target.is_symlink():
            os.replace(target, scratch / f"{target.name}.old")
        os.replace(scratch / target.name, target)
    except Exception as error:
        error.add_note(f"{WRITING}{target}")
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_table(columns: dict, schema: str, path: Path) -> None:
    """Publish equally long columns as one Parquet file of `SCHEMAS[schema]`."""
    table = pa.table({name: columns[name] for name in SCHEMAS[schema].names}, schema=SCHEMAS[schema])
    with publish(path) as scratch:
        pq.write_table(table, scratch, compression="zstd")


def write_ranking(labels: np.ndarray, scores: np.ndarray, path: Path, schema: str = "predictions") -> None:
    """Publish (n, width) label ids, -1 padded, and their scores as ragged rows, best first (`predictions`, `shortlist`)."""
    keep, (_, score) = labels >= 0, SCHEMAS[schema].names
    offsets = np.concatenate([[0], np.cumsum(keep.sum(1))])
    write_table({"labels": Lists(offsets, labels[keep]).to_arrow(pa.int32()),
                 score: Lists(offsets, scores[keep]).to_arrow(pa.float32())}, schema, path)


def read_ranking(path: Path, schema: str = "predictions") -> np.ndarray:
    """(n, longest) int64 label ids, -1 padded, of what `write_ranking` wrote."""
    return Lists.of_column(read_table(path, schema, ["labels"])["labels"]).padded().astype(np.int64)


def read_table(path: Path, schema: str, columns: list[str] | None = None) -> pa.Table:
    """The Parquet file of `SCHEMAS[schema]`; raises ArtifactError where it is missing or of another form."""
    try:
        _check_form(path, pq.read_schema(path), schema, columns or SCHEMAS[schema].names)
        return pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; run `dvc repro` (or the stage that writes it) first") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); delete it and run `dvc repro`") from None


def table_batches(path: Path, schema: str, columns: list[str], rows: int = 50_000) -> Iterator[pa.RecordBatch]:
    """`rows` rows of `columns` at a time, for tables that do not fit; raises ArtifactError as `read_table` does."""
    try:
        file = pq.ParquetFile(path)
        _check_form(path, file.schema_arrow, schema, columns)
        yield from file.iter_batches(rows, columns=columns)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; run `dvc repro` (or the stage that writes it) first") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); delete it and run `dvc repro`") from None


def _check_form(path: Path, found: pa.Schema, schema: str, columns: list[str]) -> None:
    for name in columns:
        wanted = SCHEMAS[schema].field(name).type
        if name not in found.names or not found.field(name).type.equals(wanted):
            raise ArtifactError(f"{path} has no column {name} of {wanted}; it was written by another version: "
                                "delete it and run `dvc repro`")


@dataclass(frozen=True, slots=True)
class Split:
    """Datapoints of one split: the row is the datapoint id."""

    product: np.ndarray   # (N,) int64, rows of products
    labels: Lists         # the truth, label ids
    excluded: Lists       # the filter pairs, label ids

    def __len__(self) -> int:
        return len(self.product)


def read_split(path: Path) -> Split:
    """`data/curated/{train,valid,test}.parquet` (or the unseen ones)."""
    t = read_table(path, "split")
    return Split(t["product"].to_numpy().astype(np.int64), Lists.of_column(t["labels"]),
                 Lists.of_column(t["excluded"]))


def read_labels(path: Path) -> np.ndarray:
    """(L,) int64: the product of each label."""
    return read_table(path, "labels")["product"].to_numpy().astype(np.int64)


def read_json(path: Path) -> dict:
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; run `dvc repro` (or the stage that writes it) first") from None
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from None


def write_json(content: dict, path: Path) -> None:
    with publish(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def fingerprint(params: object, inputs: list[Path], code: list[Path]) -> str:
    """16 hex digits over settings, inputs and code: the name of a stage's scratch folder.

    A file over 256 MB counts by size and time of change: reading 300 GB of activations to find a checkpoint is no help.
    """
    digest = hashlib.sha256(repr(params).encode())
    for path in [*inputs, *code]:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            digest.update(str(file.name).encode())
            if (status := file.stat()).st_size > LARGE:
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
                continue
            with open(file, "rb") as f:
                digest.update(hashlib.file_digest(f, "sha256").digest())
    return digest.hexdigest()[:16]
