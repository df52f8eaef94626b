"""`data/raw/attributes.parquet`: the columns that are kept for filters, row for row with products.

What a column is (numbers, flags, texts, lists of texts) is known when all rows were read. Until
then they wait in a temporary file, so that memory does not grow with the catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mufin.artifacts.attributes import KINDS
from mufin.catalogs.attribute_cells import (
    COMMA,
    FLAG,
    LIST,
    MISSING,
    MONEY,
    NUMBER,
    TEXT,
    Reading,
    Value,
    Values,
    reading,
    text_of_value,
)
from mufin.catalogs.notes import Notes

ROWS = 10_000  # of the temporary file that are read at once
CACHED = 10_000  # values of a column that need not be read again
NONE = Reading(MISSING)
WAITING = [("kind", pa.int8()), ("number", pa.float64()), ("texts", pa.list_(pa.string()))]


class Attribute:
    """One column: what its values were so far."""

    def __init__(self, name: str):
        self.name = name
        self.counts = [0] * (LIST + 1)  # values of each kind
        self.examples: dict[int, str] = {}  # the first value of each kind
        self.currencies: dict[str, str] = {}  # the first amount in each currency
        self.known: dict[object, Reading] = {}

    def arrays(self, values: Iterable[Value]) -> list[pa.Array]:
        """Columns of WAITING for some rows."""
        readings = [NONE if value is None else self._read(value) for value in values]
        kinds = np.array([found.kind for found in readings], np.int8)
        for kind in np.unique(kinds).tolist():
            self.counts[kind] += int((kinds == kind).sum())
        texts = [
            value if isinstance(value, list) else None if value is None else [text_of_value(value)]
            for value in values
        ]
        numbers = [found.number for found in readings]
        return [pa.array(part, kind) for part, (_, kind) in zip((kinds, numbers, texts), WAITING)]

    def _read(self, value: bool | int | float | str | list[str]) -> Reading:
        if not isinstance(value, str):
            found = reading(value)
        elif (cached := self.known.get(value)) is not None:
            return cached
        else:
            found = reading(value)
            if len(self.known) < CACHED:
                self.known[value] = found
        if found.kind not in self.examples:
            self.examples[found.kind] = str(value)[:80]
        if found.currency:
            self.currencies.setdefault(found.currency, str(value))
        return found

    def kind(self) -> str:
        """What the column is: a key of KINDS."""
        counts, values = self.counts, sum(self.counts[MISSING + 1 :])
        if counts[LIST]:
            return "texts"
        if values and counts[FLAG] == values:
            return "flag"
        alike = values in (counts[NUMBER] + counts[MONEY], counts[COMMA] + counts[MONEY])
        return "number" if values and alike and len(self.currencies) < 2 else "text"

    def note(self, notes: Notes) -> None:
        """Notes what is not as it looks."""
        name, kind, counts = self.name, self.kind(), self.counts
        if not sum(counts[MISSING + 1 :]):
            notes.add("attributes without a value", name)
        elif kind == "number":
            what = f"amounts in {name}, read as numbers without their currency"
            notes.add(what, self.examples.get(MONEY), counts[MONEY])
            what = f"numbers in {name} with a decimal comma, read as such"
            notes.add(what, self.examples.get(COMMA), counts[COMMA])
        elif kind == "text" and len(self.currencies) > 1:
            example = list(self.currencies.values())[1]
            notes.add(f"amounts in {name} of several currencies, kept as texts", example)
        elif kind == "text":
            there = [kind for kind in (NUMBER, MONEY, COMMA, FLAG, TEXT) if counts[kind]]
            rare = min(there, key=lambda kind: counts[kind])
            if len(there) > 1:
                what = f"values of {name} of another kind than the rest, so all of them are texts"
                notes.add(what, self.examples[rare], counts[rare])


class AttributeWriter:
    """Gathers the attributes of products in `waiting`, a temporary file; `close` writes them."""

    def __init__(self, names: Sequence[str], waiting: Path, notes: Notes):
        self.attributes = [Attribute(name) for name in names]
        self.path, self.notes = waiting, notes
        self.schema = pa.schema(
            [(f"{name}{i}", kind) for i in range(len(names)) for name, kind in WAITING]
        )
        self.writer = pq.ParquetWriter(waiting, self.schema)

    def add(self, rows: Sequence[Values]) -> None:
        """The values of some products; a product without any has none at all."""
        arrays: list[pa.Array] = []
        for i, attribute in enumerate(self.attributes):
            arrays += attribute.arrays([row[i] if row else None for row in rows])
        self.writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema))

    def close(self, path: Path) -> dict[str, str]:
        """Write the columns to `path`; the kind of each."""
        self.writer.close()
        kinds = {attribute.name: attribute.kind() for attribute in self.attributes}
        schema = pa.schema([(name, KINDS[kind]) for name, kind in kinds.items()])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in pq.ParquetFile(self.path).iter_batches(ROWS):
                columns = [_typed(batch, i, kind) for i, kind in enumerate(kinds.values())]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        self.path.unlink()
        for attribute in self.attributes:
            attribute.note(self.notes)
        return kinds


def _typed(batch: pa.RecordBatch, i: int, kind: str) -> pa.Array:
    """The values of attribute `i` as `kind`, null where missing."""
    texts = batch[f"texts{i}"]
    if kind == "texts":
        return texts
    if kind == "text":
        return pc.list_element(texts, 0)
    numbers = batch[f"number{i}"]
    values = numbers if kind == "number" else pc.equal(numbers, 1.0)
    missing = pc.equal(batch[f"kind{i}"], MISSING)
    return pc.if_else(missing, pa.scalar(None, KINDS[kind]), values)
