"""Consecutive numbers for many texts, such as ids and URLs, which are found by their hashes.

The texts themselves are not kept: a catalog of 10^8 references would not fit in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl


def hashes(texts: pl.Series) -> np.ndarray:
    """(n, 2) uint64: a hash of 128 bits per text.

    Among 10^8 texts the probability that any two have the same hash is about 10^-23.
    """
    columns = [texts.hash(seed).to_numpy() for seed in (1, 2)]
    return np.stack(columns, 1).astype(np.uint64, copy=False)


def firsts(texts: np.ndarray) -> np.ndarray:
    """(n,) bool: whether each of the (n, 2) hashed texts is the first one of its text."""
    order = np.lexsort((texts[:, 1], texts[:, 0]))  # stable: equal texts stay in row order
    same = np.ones(max(len(texts) - 1, 0), bool)  # whether a text in this order equals the last one
    for column in range(2):
        ordered = texts[order, column]
        same &= ordered[1:] == ordered[:-1]
    first = np.ones(len(texts), bool)
    first[order[1:][same]] = False
    return first


class Lookup:
    """Distinct texts, numbered from 0 in the order of their first occurrence.

    Takes the (n, 2) `hashes` of the texts, repeats included. Keeps 20 bytes per distinct text and 4
    bytes per text, whatever their length; 8 more and 4 more from 2^31 texts on.
    """

    def __init__(self, texts: np.ndarray):
        whole: type[np.integer] = np.int32 if len(texts) < 2**31 else np.int64
        order = np.lexsort((texts[:, 1], texts[:, 0]))  # stable: equal texts stay in row order
        heads, tails = texts[order, 0], texts[order, 1]
        new = np.ones(len(texts), bool)  # whether a text in this order differs from the one before
        new[1:] = (heads[1:] != heads[:-1]) | (tails[1:] != tails[:-1])
        if not new.all():
            heads, tails = heads[new], tails[new]
        self.heads, self.tails = heads, tails  # the first 64 bits are searched in
        del heads, tails
        first = order[new]  # the first row of each distinct text, in the order of the hashes
        self.number: np.ndarray = np.empty(len(first), whole)
        self.number[np.argsort(first)] = np.arange(len(first), dtype=whole)
        self.group: np.ndarray = np.empty(len(texts), whole)  # (n,) the number of each row's text
        self.group[order] = self.number[np.cumsum(new) - 1]
        # How many distinct texts share their first 64 bits at most: 1, except by coincidence.
        starts = np.flatnonzero(np.append(True, self.heads[1:] != self.heads[:-1]))
        self.longest = int(np.diff(starts, append=len(first)).max(initial=0))

    def __len__(self) -> int:
        """The number of distinct texts."""
        return len(self.number)

    def find(self, texts: np.ndarray) -> np.ndarray:
        """(m,) int64: the number of each of the (m, 2) hashed texts, -1 for an unknown one."""
        found = np.full(len(texts), -1, np.int64)
        if not len(self):
            return found
        order = np.argsort(texts[:, 0])  # in this order the search stays in the processor's caches
        heads, tails = texts[order, 0], texts[order, 1]
        start = np.searchsorted(self.heads, heads)
        for step in range(self.longest):
            place = np.minimum(start + step, len(self) - 1)
            hit = (self.heads[place] == heads) & (self.tails[place] == tails)
            found[order[hit]] = self.number[place[hit]]
        return found
