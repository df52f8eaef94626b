"""Rows of (product, basket, time, weight) to a matrix of baskets and products, on the disk.

Memory holds one part of the rows at a time, and a few numbers per product and per basket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mufin.ragged import offsets_of

Batch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # items, baskets, times, weights
ROW = np.dtype([("basket", "<i8"), ("time", "<f8"), ("item", "<i4"), ("weight", "<f4")])
PARTS = 128  # of the rows, by a hash of the basket; one is sorted at a time
ROWS = 2**20  # written at once
PIECE = 2**22  # rows of a part that are read at once; a part has more above 500 million rows
SCRAMBLE = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: near numbers lie far apart
DAY = 86400.0  # seconds


class Parts:
    """Records in numbered parts on the disk, each part in the order in which they were added."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype):
        self.folder, self.name, self.dtype = folder, name, dtype

    def path(self, part: int) -> Path:
        return self.folder / f"{self.name}.{part}"

    def add(self, parts: np.ndarray, records: np.ndarray) -> None:
        """Append `records` (n,), each to its part of `parts` (n,) int."""
        order = np.argsort(parts, kind="stable")
        found, starts = np.unique(parts[order], return_index=True)
        for part, some in zip(found, np.split(order, starts[1:])):
            with open(self.path(int(part)), "ab") as file:
                records[some].tofile(file)

    def read(self, part: int, rows: int = -1) -> Iterator[np.ndarray]:
        """The records of a part, `rows` at a time (-1: all at once); none if it has none."""
        if not self.path(part).exists():
            return
        with open(self.path(part), "rb") as file:
            while len(records := np.fromfile(file, self.dtype, rows)):
                yield records


@dataclass(slots=True)
class Baskets:
    """The matrix X (baskets, products) of what each basket has, row by row, mapped from files.

    Baskets of one row are left out, since they have no pair; the sums count them.
    """

    folder: Path
    num_products: int
    timed: bool  # whether a product is in a basket once per time, and `times` are kept
    squares: np.ndarray = field(init=False)  # (N,) float64: per product, the sum of its x^2
    work: np.ndarray = field(init=False)  # (N,) float64: rows of all baskets that hold the product
    total: float = 0.0  # sum over baskets of their largest x^2; without weights, their number
    repeated: bool = False  # whether a basket has a product more than once
    lengths: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self):
        self.squares, self.work = np.zeros(self.num_products), np.zeros(self.num_products)

    def add(self, rows: np.ndarray, x: np.ndarray) -> None:
        """Append whole baskets: `rows` (m,) of dtype ROW, sorted by basket, and their x (m,)."""
        if not len(rows):
            return
        starts = _starts(rows["basket"])
        lengths = np.diff(np.append(starts, len(rows)))
        self.total += float((np.maximum.reduceat(x, starts) ** 2).sum())
        once, strongest = rows["item"], x
        if self.timed:
            once, strongest = self._strongest(rows, x)
        self.squares += np.bincount(once, strongest**2, self.num_products)
        per_row = np.repeat(lengths, lengths)
        rows, x, per_row = rows[per_row > 1], x[per_row > 1], per_row[per_row > 1]
        self.work += np.bincount(rows["item"], per_row, self.num_products)
        self.lengths.append(lengths[lengths > 1].astype(np.int32))
        columns = {"items": rows["item"], "x": x} | ({"times": rows["time"]} if self.timed else {})
        for name, values in columns.items():
            with open(self.folder / name, "ab") as file:
                np.ascontiguousarray(values).tofile(file)

    def _strongest(self, rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each product of each basket once, with its largest x there."""
        keys = _numbers(rows["basket"]) * self.num_products + rows["item"]
        order = np.argsort(keys, kind="stable")
        starts = _starts(keys[order])
        self.repeated |= len(starts) < len(rows)
        return rows["item"][order[starts]], np.maximum.reduceat(x[order], starts)

    def offsets(self) -> np.ndarray:
        """(baskets + 1,) int64: where each basket begins in the columns."""
        return offsets_of(np.concatenate([np.zeros(0, np.int32), *self.lengths]))

    def column(self, name: str) -> np.ndarray:
        """`items` (m,) int32, `x` (m,) float64 or `times` (m,) float64 seconds, in order."""
        path, dtype = self.folder / name, np.int32 if name == "items" else np.float64
        if not path.exists() or not path.stat().st_size:
            return np.zeros(0, dtype)
        return np.memmap(path, dtype, "r")


def baskets_of(
    batches: Iterable[Batch],
    num_products: int,
    folder: Path,
    *,
    per_basket: int,
    half_life: float | None,
    timed: bool,
    counts: Counter,
) -> Baskets:
    """The baskets of all rows. Each product is in a basket once, or once per time if `timed`.

    Of rows that are the same so far, the largest weight and the last time count. A basket keeps its
    `per_basket` last rows: by time (rows without a time come first), then in the order of reading.
    x is the weight, times 0.5^(age / 2 half_life) if `half_life` (days) is given, where the newest
    row of all has age 0. So x^2 of a product, and x_i x_j of a pair of the same age, halve after
    the half-life. `counts` gets what was dropped. With `timed` or `half_life`, rows without a time
    are dropped.
    """
    parts, newest = Parts(folder, "rows", ROW), -np.inf
    for rows in _rows(batches, num_products):
        there = ~np.isnan(rows["time"])
        counts["rows"] += len(rows)
        if timed or half_life:
            counts["rows without a time"] += int((~there).sum())
            rows, there = rows[there], there[there]
        newest = max(newest, rows["time"].max(initial=-np.inf, where=there))
        parts.add(_part(rows["basket"]), rows)
    found = Baskets(folder, num_products, timed)
    for part in range(PARTS):
        kept = _kept(parts.read(part, PIECE), num_products, per_basket, timed, counts)
        parts.path(part).unlink(missing_ok=True)
        x = kept["weight"].astype(np.float64)
        if half_life:
            x *= 0.5 ** ((newest - kept["time"]) / (2 * DAY * half_life))
            kept, x = kept[x * x > 0], x[x * x > 0]  # too old for a float64: its pairs count 0
        found.add(kept, x)
    return found


def _rows(batches: Iterable[Batch], num_products: int) -> Iterator[np.ndarray]:
    """The batches as records, about ROWS at a time."""
    some: list[np.ndarray] = []
    for items, baskets, times, weights in batches:
        if len(items) and not 0 <= items.min() <= items.max() < num_products:
            raise ValueError(f"a product number is not in [0, {num_products})")
        rows = np.empty(len(items), ROW)
        rows["item"], rows["basket"], rows["time"], rows["weight"] = items, baskets, times, weights
        some.append(rows)
        if sum(map(len, some)) >= ROWS:
            yield np.concatenate(some)
            some = []
    if some:
        yield np.concatenate(some)


def _part(baskets: np.ndarray) -> np.ndarray:
    """(n,) uint8: the part of each row, by its basket; negative numbers are baskets too."""
    mixed = baskets.astype(np.int64).view(np.uint64) * SCRAMBLE
    return (mixed >> np.uint64(32)).astype(np.uint32) % PARTS


def _kept(
    pieces: Iterable[np.ndarray], num_products: int, per_basket: int, timed: bool, counts: Counter
) -> np.ndarray:
    """The rows of a part that count, sorted by basket, then time, then order of reading.

    A part of many pieces is one of a few huge baskets: each piece is reduced when it is read. The
    distinct products of a basket fit in memory; where they do not, its last ones are kept already.
    """
    kept = np.zeros(0, ROW)
    for piece in pieces:
        kept = _distinct(np.concatenate([kept, piece]), num_products, timed)
        if len(kept) > 2 * PIECE:
            kept = _last(kept, per_basket, counts)
    return _last(kept, per_basket, counts)


def _distinct(rows: np.ndarray, num_products: int, timed: bool) -> np.ndarray:
    """Rows in order of basket, time and reading; each product of a basket once (per time)."""
    times = np.where(np.isnan(rows["time"]), -np.inf, rows["time"])
    order = np.lexsort((times, rows["basket"]))
    rows, times = rows[order], times[order]
    keys = _numbers(rows["basket"]) * num_products + rows["item"]
    order = np.argsort(keys, kind="stable")  # within a product of a basket, still by time
    new = np.append(True, keys[order][1:] != keys[order][:-1])[: len(rows)]
    if timed:
        new[1:] |= times[order][1:] != times[order][:-1]
    starts = np.flatnonzero(new)
    if len(starts) == len(rows):
        return rows
    last = order[np.append(starts[1:], len(rows)) - 1]
    rows["weight"][last] = np.maximum.reduceat(rows["weight"][order], starts)
    return rows[np.sort(last)]


def _last(rows: np.ndarray, per_basket: int, counts: Counter) -> np.ndarray:
    """The last `per_basket` rows of each basket, of rows in order."""
    if not len(rows):
        return rows
    starts = _starts(rows["basket"])
    lengths = np.diff(np.append(starts, len(rows)))
    after = np.repeat(starts + lengths, lengths) - np.arange(len(rows)) - 1
    counts["products beyond the cap per basket"] += int((after >= per_basket).sum())
    return rows[after < per_basket]


def _starts(values: np.ndarray) -> np.ndarray:
    """(distinct,) where each run of equal values begins, of sorted values that are not empty."""
    return np.flatnonzero(np.append(True, values[1:] != values[:-1]))


def _numbers(baskets: np.ndarray) -> np.ndarray:
    """(n,) int64: 0 for the first basket, 1 for the next, of sorted baskets."""
    return np.cumsum(np.append(False, baskets[1:] != baskets[:-1])[: len(baskets)], dtype=np.int64)
