"""Interactions from files: rows of a basket (order, session or user) and a product."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mufin.artifacts.tables import SCHEMAS
from mufin.catalogs import interaction_cells as columns_of
from mufin.catalogs.bad_rows import BadRow, BadRows, Row
from mufin.catalogs.basket_lists import BasketRows
from mufin.catalogs.cells import number_of, time_of, uid_of
from mufin.catalogs.column_names import suggested, top
from mufin.catalogs.interaction_cells import is_missing, with_dashes
from mufin.catalogs.interaction_columns import Irregular, column_batches
from mufin.catalogs.notes import Notes
from mufin.catalogs.opening import Part, parts_of
from mufin.catalogs.rows import rows_of_part
from mufin.errors import MufinError, escaped, shown

ROWS = 2**16  # read at once
SCHEMA = SCHEMAS["interactions"]
Interaction = tuple[str, str, float | None, float]  # basket, item, seconds since 1970, weight
KNOWN = {  # names that tools give to the columns
    "basket": "orderid order invoiceno invoice basketid sessionid session customerid userid user "
    "visitorid reviewerid transactionid",
    "item": "itemid item productid product sku articleid asin parentasin stockcode movieid",
    "time": "timestamp time date datetime createdat orderdate invoicedate unixreviewtime",
    "weight": "quantity qty rating weight count amount",
}


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of the files are called; see `download.interactions`."""

    basket: str
    item: str
    time: str | None = None
    weight: str | None = None

    def named(self) -> dict[str, str]:
        """{basket, item, time, weight: its column}, without those that there are not."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: column for name, column in pairs if column}


def interactions(
    paths: Iterable[Path],
    columns: Columns,
    notes: Notes,
    *,
    bad: BadRows,
    encoding: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of files of any form, in batches of the schema `interactions`.

    Ids, times and weights are read as `cells` says, times also as 2026/11/28; a time that is
    missing is null, and one that cannot be read makes a bad row. Rows without a basket or a product
    and rows whose weight is missing or not above 0 (returns, refunds) are dropped and counted in
    `notes`. A list of products, such as `line_items[].sku`, gives a row for each of them (see
    `basket_lists`). For the number of a basket see `basket_numbers`.

    CSV, JSON lines and Parquet in their plain forms are read by column, several times as fast as by
    row; from the first part of a file that is not plain, its rows are read one by one, with the
    same result. Raises MufinError for a column that is missing, and for a file that is empty.
    """
    for path in paths:
        for part in parts_of(path):
            yield from _File(part, columns, notes, bad, encoding).batches()


def of_form(rows: Iterable[Interaction], notes: Notes) -> Iterator[pa.RecordBatch]:
    """The interactions of a form's reader, in batches of the schema `interactions`."""
    rows = iter(rows)
    while some := list(itertools.islice(rows, ROWS)):
        baskets, items, times, weights = zip(*some)
        yield _kept(_texts(items), _texts(baskets), _array(times), _array(weights), notes, items)


def write_interactions(batches: Iterable[pa.RecordBatch], path: Path, bad: BadRows) -> int:
    """Write the batches as `interactions.parquet`; the number of rows.

    Raises MufinError if more rows are bad than `bad` allows, and if no row is left.
    """
    count = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            count += len(batch)
    bad.check()
    if not count:
        raise MufinError(
            "no row of download.interactions.location has a basket, an item and a weight above 0; "
            "look at download.interactions.basket, item and weight"
        )
    return count


def basket_numbers(baskets: pa.Array) -> np.ndarray:
    """(n,) int64 >= 0: the first 63 bits of a BLAKE2b hash of each id, a text.

    Equal ids have equal numbers in all files, and no table of ids is in memory. Two different ids
    have the same number with a probability of 1 in 2^63; any two of ten million with one of about
    5 in a million. Their baskets would then be one.
    """
    encoded = baskets.dictionary_encode()
    numbers = np.fromiter(map(_number, encoded.dictionary.to_pylist()), np.int64)
    return numbers[encoded.indices.to_numpy()]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class _File:
    """The rows of one file."""

    def __init__(
        self, part: Part, columns: Columns, notes: Notes, bad: BadRows, encoding: str | None
    ):
        self.part, self.path, self.columns = part, part.shown, columns.named()
        self.notes, self.bad, self.encoding = notes, bad, encoding

    def batches(self) -> Iterator[pa.RecordBatch]:
        """By column as far as the file is plain, then by row."""
        done = 0
        plain = column_batches(self.part, self.columns.values(), self.encoding)
        while True:
            try:
                first, batch = next(plain)
            except StopIteration:
                break
            except Irregular:
                yield from self._by_row(done)
                return
            done += len(batch)
            yield self._by_column(batch, first)
        if not done:  # the other reader says what is missing
            yield from self._by_row(0)

    # By row

    def _by_row(self, skip: int) -> Iterator[pa.RecordBatch]:
        wanted = list(self.columns.values())
        rows = rows_of_part(
            self.part, self.notes, encoding=self.encoding, columns=wanted, bad=self.bad
        )
        rows = itertools.islice(self._with_columns(rows), skip, None)
        products = BasketRows(self.columns, self.path)

        def parse(number: int, row: Row) -> list[tuple]:
            return [
                (
                    self._id("item", values["item"], number),
                    self._id("basket", values["basket"], number),
                    self._time(values.get("time"), number),
                    self._weight(values["weight"], number) if "weight" in values else 1.0,
                    number,
                )
                for values in products.values(number, row)
            ]

        parsed = itertools.chain.from_iterable(self.bad.kept(rows, parse))
        while some := list(itertools.islice(parsed, ROWS)):
            items, baskets, times, weights, numbers = zip(*some)
            places = [self._place(number) for number in numbers]
            ids = _texts(items), _texts(baskets)
            yield _kept(*ids, _array(times), _array(weights), self.notes, places)

    def _with_columns(self, rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
        """The rows; raises MufinError if none of the first ones has a column that is needed."""
        first = list(itertools.islice(rows, 1000))
        if not first:
            self.notes.add("files of interactions without rows", str(self.path))
        names = list(dict.fromkeys(itertools.chain.from_iterable(row for _, row in first)))
        for key, column in self.columns.items() if first else ():
            if column not in names and top(column) not in names:
                raise self._no_column(key, column, names)
        return itertools.chain(first, rows)

    def _no_column(self, key: str, column: str, names: list[str]) -> MufinError:
        taken = [c for c in self.columns.values() if c in names]
        near = suggested(key, column, names, taken)
        if not near:
            plain = {"".join(c for c in n.lower() if c.isalnum()): n for n in names}
            known = (plain.get(name) for name in KNOWN[key].split())
            near = next((name for name in known if name and name not in taken), "")
        has = escaped(" ".join(", ".join(map(str, names[:50])).split())[:120])
        return MufinError(
            f"{self.path} has no column {shown(column, 60)} (it has {has}); "
            f"set download.interactions.{key}" + (f" to {near}" if near else " to one of these")
        )

    # Values

    def _id(self, name: str, value: object, number: int) -> str | None:
        if is_missing(value):
            return None
        return uid_of(value, self.path, number, self.columns[name], self.notes)

    def _time(self, value: object, number: int) -> float | None:
        if "time" not in self.columns:
            return None
        return time_of(with_dashes(value), self.path, number, self.columns["time"])

    def _weight(self, value: object, number: int) -> float | None:
        return (
            None
            if is_missing(value)
            else number_of(value, self.path, number, self.columns["weight"])
        )

    def _place(self, number: int) -> str:
        return f"{self.path} line {number}"

    # By column

    def _by_column(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
        """A batch of the file's columns, whose first row has the number `first`."""
        wrong = np.zeros(len(batch), bool)

        def each(of: str, k: int) -> Any:
            """The value of row `k` by `cells`; None for a bad row, which is dropped once."""
            if wrong[k]:
                return None
            value, number = batch.column(names[of])[k].as_py(), first + k
            try:
                if of == "time":
                    return self._time(value, number)
                if of == "weight":
                    return self._weight(value, number)
                return self._id(of, value, number)
            except BadRow as error:
                wrong[k] = True
                self.bad.drop(error)
                return None

        names = {name: k for k, name in enumerate(self.columns)}
        item, basket = (
            columns_of.ids(batch.column(names[name]), partial(each, name))
            for name in ("item", "basket")
        )
        times, weights = np.full(len(batch), np.nan), np.ones(len(batch))
        if "time" in names:
            times = columns_of.times(batch.column(names["time"]), partial(each, "time"))
        if "weight" in names:
            weights = columns_of.numbers(batch.column(names["weight"]), partial(each, "weight"))
        self.bad.rows += int((~wrong).sum())  # the others are counted already
        numbers = np.arange(first, first + len(batch))[~wrong]
        right = pa.array(~wrong)
        ids = item.filter(right), basket.filter(right)
        return _kept(*ids, times[~wrong], weights[~wrong], self.notes, _Places(self, numbers))


@dataclass(frozen=True, slots=True)
class _Places:
    """Names of rows, made where one is needed."""

    file: _File
    numbers: np.ndarray

    def __getitem__(self, k: int) -> str:
        return self.file._place(int(self.numbers[k]))


def _array(values: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _texts(ids: Iterable[str | None]) -> pa.Array:
    return pa.array([text or None for text in ids], pa.string())


def _kept(
    items: pa.Array,
    baskets: pa.Array,
    times: np.ndarray,
    weights: np.ndarray,
    notes: Notes,
    places: Sequence[str] | _Places,
) -> pa.RecordBatch:
    """A batch of the rows that can be used; the others are counted, with an example of `places`."""
    with np.errstate(over="ignore", under="ignore"):
        weights = weights.astype(np.float32)
    keep = np.ones(len(items), bool)
    for what, good in (
        ("interactions without a product, dropped", pc.is_valid(items).to_numpy(False)),
        ("interactions without a basket, dropped", pc.is_valid(baskets).to_numpy(False)),
        ("interactions with a weight that is not above 0, dropped", weights > 0),
    ):
        if len(wrong := np.flatnonzero(keep & ~good)):
            notes.add(what, places[int(wrong[0])], len(wrong))
        keep &= good
    weights = np.minimum(weights[keep], np.finfo(np.float32).max)
    times = times[keep]
    columns = [
        items.filter(pa.array(keep)),
        pa.array(basket_numbers(baskets.filter(pa.array(keep)))),
        pa.array(times, mask=np.isnan(times)),
        pa.array(weights),
    ]
    return pa.record_batch(columns, schema=SCHEMA)
