"""Related products from behaviour: products that occur in the same baskets, sessions or histories.

With X (baskets, products), x_bi the weight of product i in basket b (1 without weights), a pair has
c = sum over baskets of x_bi x_bj, an element of X^T X, and a product a = sum of x_bi^2. Without
weights these are numbers of baskets. n is the sum over baskets of their largest x^2: their number.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.sparse import csr_array

from mufin.corpus.baskets import DAY, Baskets, Batch, Parts, baskets_of
from mufin.errors import MufinError
from mufin.ragged import Lists, offsets_of

PAIRS = 2**22  # computed at once, per thread: of a range of products, or of a product
TIMED = 2**21  # pairs of rows whose times are compared at once, per thread
ENTRIES = 2**21  # elements of X that are read at once, per thread
MOST = 2**31 - 1  # elements of X; its indices are int32
ROUNDING = 1e-6  # relative, of float32 weights; twenty times 0.1 is at least 2


class Settings(Protocol):
    """The settings `curate.interactions` (CoOccurrence of `mufin/catalog_params.py`)."""

    @property
    def score(self) -> str: ...  # cosine, lift or count
    @property
    def min_support(self) -> float: ...  # of c
    @property
    def per_product(self) -> int: ...  # related products
    @property
    def per_basket(self) -> int: ...  # products
    @property
    def window(self) -> float | None: ...  # days
    @property
    def direction(self) -> str: ...  # both or after
    @property
    def half_life(self) -> float | None: ...  # days


def related_by_baskets(
    batches: Iterable[Batch],
    num_products: int,
    settings: Settings,
    scratch: Path,
    threads: int = 1,
) -> tuple[Lists, np.ndarray, dict[str, int]]:
    """Related products of each product, their scores, and counts of what was left out.

    A batch has items (n,) int32 in [0, num_products), baskets (n,) int64, times (n,) float64
    seconds since 1970, NaN for none, and weights (n,) float32 > 0. Returns `num_products` rows of
    related products (ascending int32) and their scores (nnz,) float32 in the same order. The same
    rows in the same order give the same bytes, whatever `threads` and the sizes of the batches are.

    - c, a, n: see above. Several rows of a product in a basket are one, with the largest weight and
      the last time. Of a basket above `per_basket` the last products count, by time, else by row;
      rows without a time come before those with one.
    - score: cosine c / sqrt(a b), lift c n / (a b), count c. Pairs of c < `min_support` are left
      out; of the others, each product keeps its `per_product` best (by the float32 score; of equal
      ones those of the smallest product numbers).
    - `window` or `direction: after`: a pair counts in a basket where a row of one is at most
      `window` days from a row of the other, and later for `after` (at the same time, neither comes
      after the other). Products that occur at several times are then several rows, also for
      `per_basket`; the pair counts once per basket, with its largest x x. a and n stay.
    - `half_life`: x is times 0.5^(age / 2 half_life), with the newest row of all at age 0. So a
      counts an occurrence, and c a pair of the same age, half after that time.

    `scratch` is an existing folder; it is empty afterwards. It takes 24 bytes per row, then 12 to
    40 bytes per product in a basket. Memory: see `baskets.py`, and PAIRS pairs per thread. Raises
    MufinError if times are needed and no row has one, or if there are more than MOST elements.
    """
    counts: Counter = Counter()
    timed = settings.window is not None or settings.direction == "after"
    try:
        baskets = baskets_of(
            batches,
            num_products,
            scratch,
            per_basket=settings.per_basket,
            half_life=settings.half_life,
            timed=timed,
            counts=counts,
        )
        _check(baskets, counts)
        rows, scores = _best_pairs(baskets, settings, scratch, threads, counts)
    finally:
        for path in scratch.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    del counts["rows"]
    return rows, scores, {what: count for what, count in counts.items() if count}


def _check(baskets: Baskets, counts: Counter) -> None:
    if counts["rows"] and counts["rows"] == counts["rows without a time"]:
        raise MufinError(
            "no row of the interactions has a time, which window, half_life and direction: after "
            "of curate.interactions need; set download.interactions.time to the column of the "
            "time, or these to null, null and both"
        )
    if (size := sum(int(some.sum()) for some in baskets.lengths)) > MOST:
        raise MufinError(
            f"the baskets hold {size:,} products, more than {MOST:,}; lower "
            "curate.interactions.per_basket, or leave out the oldest interactions"
        )


# Ranges of products. (X[:, range])^T X is computed range by range, and cut to the best at once.


@dataclass(frozen=True, slots=True)
class Range:
    """Products first <= i < end, whose pairs fit in memory."""

    number: int
    first: int
    end: int


def _best_pairs(
    baskets: Baskets, settings: Settings, scratch: Path, threads: int, counts: Counter
) -> tuple[Lists, np.ndarray]:
    ranges, offsets = _ranges(baskets), baskets.offsets()
    parts = _by_range(baskets, ranges, offsets, scratch)
    x = _matrix(baskets.column("x"), baskets.column("items"), offsets, baskets.num_products)
    times = baskets.column("times")
    pairs = partial(_timed_pairs, baskets, settings, times) if baskets.timed else _pairs

    def best(some: Range) -> tuple[np.ndarray, np.ndarray, np.ndarray, Counter]:
        total = csr_array((some.end - some.first, baskets.num_products))
        for entries in _whole_baskets(parts.read(some.number, ENTRIES)):
            entries = entries[np.argsort(entries["item"], kind="stable")]
            total = total + pairs(entries, some, x)
        parts.path(some.number).unlink(missing_ok=True)
        return _best(total, some, baskets, settings)

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(best, ranges))
    for *_, left_out in found:
        counts += left_out
    lengths, related, scores = (
        np.concatenate([some[k] for some in found]) if found else np.zeros(0, dtype)
        for k, dtype in enumerate((np.int64, np.int32, np.float32))
    )
    return Lists(offsets_of(lengths), related), scores


def _ranges(baskets: Baskets) -> list[Range]:
    """All products in ranges of at most PAIRS pairs, or of one product."""
    most = np.cumsum(np.minimum(baskets.work, baskets.num_products))
    ends, first = [], 0
    while first < baskets.num_products:
        below = most[first - 1] if first else 0
        first = max(first + 1, int(np.searchsorted(most, below + PAIRS, "right")))
        ends.append(first)
    return [Range(k, *ends) for k, ends in enumerate(zip([0, *ends], ends))]


def _by_range(baskets: Baskets, ranges: list[Range], offsets: np.ndarray, scratch: Path) -> Parts:
    """The elements of X by range of products, in order of their baskets: X^T in pieces."""
    fields = [("item", "<i4"), ("row", "<i4"), ("x", "<f8")]
    dtype = np.dtype(fields + ([("time", "<f8")] if baskets.timed else []))
    parts = Parts(scratch, "range", dtype)
    ends = np.array([some.end for some in ranges])
    columns = {"item": "items", "x": "x"} | ({"time": "times"} if baskets.timed else {})
    mapped = {name: baskets.column(column) for name, column in columns.items()}
    for low in range(0, int(offsets[-1]), ENTRIES):
        high = min(low + ENTRIES, int(offsets[-1]))
        entries = np.empty(high - low, dtype)
        for name, column in mapped.items():
            entries[name] = column[low:high]
        first, last = np.searchsorted(offsets, (low, high - 1), "right") - 1
        ends_here = np.clip(offsets[first : last + 2], low, high)
        entries["row"] = np.repeat(np.arange(first, last + 1), np.diff(ends_here))
        parts.add(np.searchsorted(ends, entries["item"], "right").astype(np.int32), entries)
    return parts


def _whole_baskets(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The pieces, cut where a basket ends."""
    rest = None
    for piece in pieces:
        piece = piece if rest is None else np.concatenate([rest, piece])
        cut = int(np.searchsorted(piece["row"], piece["row"][-1]))
        if cut:
            yield piece[:cut]
        rest = piece[cut:]
    if rest is not None:
        yield rest


def _pairs(entries: np.ndarray, some: Range, x: csr_array) -> csr_array:
    """(X[:, range])^T X, (range, products), from the elements X[:, range] sorted by product."""
    offsets = offsets_of(np.bincount(entries["item"] - some.first, minlength=some.end - some.first))
    return _matrix(entries["x"].copy(), entries["row"].copy(), offsets, x.shape[0]) @ x


def _matrix(values: np.ndarray, columns: np.ndarray, offsets: np.ndarray, width: int) -> csr_array:
    """A matrix of these rows. All indices are int32, or each product would copy those of X."""
    shape = (len(offsets) - 1, width)
    return csr_array((values, columns, offsets.astype(np.int32)), shape=shape, copy=False)


def _timed_pairs(
    baskets: Baskets,
    settings: Settings,
    times: np.ndarray,
    entries: np.ndarray,
    some: Range,
    x: csr_array,
) -> csr_array:
    """`_pairs` of only those pairs of rows that the window and the direction allow."""
    total = csr_array((some.end - some.first, baskets.num_products))
    starts = x.indptr[entries["row"]]
    lengths = x.indptr[entries["row"] + 1] - starts  # rows of the basket of each entry
    groups = _groups(entries)
    for low, high in itertools.pairwise(_chunks(groups, lengths)):
        rows = np.repeat(np.arange(low, high), lengths[low:high])  # one of each pair, in entries
        begin = np.repeat(offsets_of(lengths[low:high])[:-1] - starts[low:high], lengths[low:high])
        others = np.arange(len(rows)) - begin  # the other one, in X
        gap = times[others] - entries["time"][rows]  # seconds from the one to the other
        keep = x.indices[others] != entries["item"][rows]
        if settings.window is not None:
            keep &= np.abs(gap) <= settings.window * DAY
        if settings.direction == "after":
            keep &= gap > 0
        rows, others = rows[keep], others[keep]
        values, related = entries["x"][rows] * x.data[others], x.indices[others]
        if baskets.repeated:  # of the pairs of the same two products in a basket, the strongest
            keys = groups[rows] * baskets.num_products + related
            order = np.argsort(keys, kind="stable")
            first = np.flatnonzero(np.append(True, np.diff(keys[order]) != 0)[: len(keys)])
            if len(first):
                values = np.maximum.reduceat(values[order], first)
            rows, related = rows[order[first]], related[order[first]]
        total = total + _sums(entries["item"][rows] - some.first, related, values, total.shape)
    return total


def _groups(entries: np.ndarray) -> np.ndarray:
    """(n,) int64: the number of the (product, basket) of each entry, from 0, of sorted entries."""
    new = (np.diff(entries["item"]) != 0) | (np.diff(entries["row"]) != 0)
    return np.cumsum(np.append(False, new)[: len(entries)], dtype=np.int64)


def _chunks(groups: np.ndarray, lengths: np.ndarray) -> list[int]:
    """Where to cut entries, so that a piece has about TIMED pairs and whole groups."""
    ends, pairs = [0], np.cumsum(lengths, dtype=np.int64)
    while ends[-1] < len(groups):
        below = pairs[ends[-1] - 1] if ends[-1] else 0
        cut = min(max(int(np.searchsorted(pairs, below + TIMED)), ends[-1]), len(groups) - 1)
        ends.append(int(np.searchsorted(groups, groups[cut], "right")))
    return ends


def _sums(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]
) -> csr_array:
    """The sums of values by (row, column), added in their order, of ascending rows.

    As a product of sparse matrices, which is linear in the number of values; sorting is not.
    """
    offsets = offsets_of(np.bincount(rows, minlength=shape[0]))
    each = np.arange(len(values) + 1, dtype=np.int32)
    left = _matrix(values, each[:-1], offsets, len(values))
    return left @ _matrix(np.ones(len(values)), columns, each, shape[1])


# Choosing


def _best(
    pairs: csr_array, some: Range, baskets: Baskets, settings: Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Counter]:
    """Lengths of the rows of a range, related products, scores, and counts of what is left out."""
    size = some.end - some.first
    counts: Counter = Counter()
    one = np.repeat(np.arange(size, dtype=np.int32), np.diff(pairs.indptr))
    another = pairs.indices != one + some.first
    enough = another & (pairs.data >= settings.min_support * (1 - ROUNDING))
    counts["pairs below the support"] += int(another.sum() - enough.sum())
    one, related = one[enough], pairs.indices[enough].astype(np.int32, copy=False)
    scores = _scores(pairs.data[enough], one + some.first, related, baskets, settings.score)
    best = _first_ones(one, related, scores, size, settings.per_product)
    counts["pairs beyond the cap per product"] += len(one) - len(best)
    return np.bincount(one[best], minlength=size), related[best], scores[best], counts


def _scores(
    c: np.ndarray, one: np.ndarray, other: np.ndarray, baskets: Baskets, score: str
) -> np.ndarray:
    """(pairs,) float32 scores of c (pairs,) float64 of the products `one` and `other`."""
    a, b = baskets.squares[one], baskets.squares[other]
    if score == "cosine":
        c = c / (np.sqrt(a) * np.sqrt(b))  # a b itself may be too small for a float64
    elif score == "lift":
        c = c / a * (baskets.total / b)
    return np.minimum(c, np.finfo(np.float32).max).astype(np.float32)


def _first_ones(
    one: np.ndarray, related: np.ndarray, scores: np.ndarray, size: int, most: int
) -> np.ndarray:
    """The pairs with the `most` best scores of each of `size` products, by product and related.

    A sort of plain numbers finds the worst score that a product keeps; only pairs that are not
    below it are sorted by score and related product.
    """
    keys = (one.astype(np.int64) << 32) - scores.view(np.int32)  # scores > 0 order as their bits
    ordered, offsets = np.sort(keys), offsets_of(np.bincount(one, minlength=size))
    worst = np.append(ordered, 0)[np.minimum(offsets[:-1] + most, offsets[1:]) - 1]
    near = np.flatnonzero(keys <= worst[one])
    near = near[np.lexsort((related[near], keys[near]))]
    rank = np.arange(len(near)) - offsets_of(np.bincount(one[near], minlength=size))[one[near]]
    best = near[rank < most]
    return best[np.lexsort((related[best], one[best]))]
