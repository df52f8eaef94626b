"""Vectors of labels as Parquet tables, for other programs; docs/export.md lists the columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mufin.artifacts.tables import narrow
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.nn.embedding import Embedded
from mufin.ranking.label_index import LabelIndex
from mufin.serving.model import Model

GROUP = 2**24  # bytes of the vectors in a row group, the part of a file that is in memory at once
CENTROID, WHOLE, FURTHER = 3, 4, 5  # kinds of rows beside the modalities of bag rows
NAMES = {TEXT: "title", IMAGE: "picture", LEXICAL: "words", CENTROID: "centroid", WHOLE: "label"}
NAMES[FURTHER] = "text"  # one beside the title
KINDS = np.array([NAMES[kind] for kind in range(len(NAMES))])
Columns = Mapping[str, pa.Array]


def write_labels(model: Model, path: Path) -> None:
    """A row per label: what it is, its vector z, its classifier w and its centroid."""
    index = model.predictor.index
    table = model.products.take(pa.array(index.products))
    attributes = model.attributes.take(pa.array(index.products))
    texts = None if model.texts is None else model.texts.take(pa.array(index.products))

    def columns(at: slice) -> Columns:
        rows = narrow(table.slice(at.start, at.stop - at.start))
        out = {
            "label": pa.array(np.arange(at.start, at.stop), pa.int32()),
            "uid": rows["uid"].combine_chunks(),
            "title": rows["title"].combine_chunks(),
            "category": rows["category"].combine_chunks(),
            "frequency": pa.array(index.frequency[at], pa.int64()),
            "z": _vectors(_joint([e.vectors[at] for e in index.labels])),
            "w": _vectors(_joint([w[at] for w in index.classifiers])),
            "centroid": _vectors(index.centroids[at]),
        }
        if texts is not None:
            some = pa.table({"texts": texts.slice(at.start, at.stop - at.start)})
            out["texts"] = narrow(some)["texts"].combine_chunks()
        if attributes.num_columns:
            kept = narrow(attributes.slice(at.start, at.stop - at.start))
            out["attributes"] = kept.to_struct_array().combine_chunks()
        return out

    _write(path, columns, len(index), 3 * _width(index), ["category"])


def titled_labels(model: Model) -> np.ndarray | None:
    """(L,) bool: whether the first text of a label is its title; None where texts are titles."""
    if model.texts is None:
        return None
    titles = model.products["title"].take(pa.array(model.predictor.index.products))
    return pc.not_equal(titles, "").to_numpy()


def write_rows(index: LabelIndex, path: Path, titled: np.ndarray | None = None) -> None:
    """The rows that the search compares with x: a label is as near as its nearest row.

    `titled` as `titled_labels` returns it.
    """
    source = index.neighbours.source
    kind, number = row_kinds(index, titled)

    def columns(at: slice) -> Columns:
        return {
            "row": pa.array(np.arange(at.start, at.stop), pa.int64()),
            "label": pa.array(source.label[at], pa.int32()),
            "kind": pa.array(KINDS[kind[at]], pa.string()),
            "number": pa.array(number[at], pa.int32()),
            "vector": _vectors(source.rows[at]),
        }

    _write(path, columns, len(source.label), source.rows.shape[1], ["kind"])


def write_bags(index: LabelIndex, path: Path, titled: np.ndarray | None = None) -> None:
    """The bags Z^1 of all labels, not scaled, as A_C reads them; the members side by side."""
    first = index.labels[0]
    label = np.repeat(np.arange(len(index)), first.sizes)
    kind, number = _descriptors(first, titled)

    def columns(at: slice) -> Columns:
        return {
            "label": pa.array(label[at], pa.int32()),
            "kind": pa.array(KINDS[kind[at]], pa.string()),
            "number": pa.array(number[at], pa.int32()),
            "vector": _vectors(np.concatenate([e.rows[at] for e in index.labels], 1)),
        }

    _write(path, columns, len(label), _width(index), ["kind"])


def row_kinds(index: LabelIndex, titled: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The kind of each row of the search (a key of `NAMES`), and the number of a text or picture.

    The rows are the bag rows, label by label, then the centroids (`retrieval.augmented`); with
    `retrieve.vectors: vec`, one vector per label.
    """
    count = len(index.neighbours.source.label)
    if index.vectors != "bag":
        return np.full(count, WHOLE, np.int8), np.zeros(count, np.int64)
    bags = (index.found or index.labels)[0]
    more = count - len(bags.modality)
    kind, number = _descriptors(bags, titled)
    return (
        np.concatenate([kind, np.full(more, CENTROID, np.int8)]),
        np.concatenate([number, np.zeros(more, np.int64)]),
    )


def _descriptors(bags: Embedded, titled: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) kinds, and of each text or picture its number in the product; 0 for other rows."""
    number = _numbers(bags, IMAGE)
    if titled is None:
        return bags.modality, number
    place = _numbers(bags, TEXT)
    has_title = np.repeat(titled, bags.sizes)
    further = (bags.modality == TEXT) & ((place > 0) | ~has_title)
    kind = np.where(further, np.int8(FURTHER), bags.modality)
    return kind, np.where(further, place - has_title, number)


def _numbers(bags: Embedded, modality: int) -> np.ndarray:
    """Of each row of the modality, its number among those of the product; 0 for other rows."""
    mine = (bags.modality == modality).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(mine)])  # of the modality before each row
    number = before[:-1] - np.repeat(before[bags.offsets[:-1]], bags.sizes)
    return np.where(mine, number, 0)


def _joint(parts: list[np.ndarray]) -> np.ndarray:
    """The vectors of all members side by side, divided by the root of their number.

    So the inner product of two of them is the mean of the members' inner products.
    """
    return np.concatenate(parts, 1) / np.sqrt(len(parts), dtype=np.float32)


def _width(index: LabelIndex) -> int:
    """Numbers in the joint vector of a label."""
    return sum(e.vectors.shape[1] for e in index.labels)


def _vectors(array: np.ndarray) -> pa.Array:
    flat = np.ascontiguousarray(array, np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def _write(
    path: Path, columns: Callable[[slice], Columns], count: int, numbers: int, repeated: list[str]
) -> None:
    """A table of `count` rows with `numbers` float32 each, a row group at a time.

    The values of the columns `repeated` occur often, so that a dictionary of them saves space.
    """
    schema = pa.table(dict(columns(slice(0, 0)))).schema
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated) as writer:
        for at in _groups(count, max(1, GROUP // (4 * numbers))):
            writer.write_table(pa.table(dict(columns(at)), schema=schema))


def _groups(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
