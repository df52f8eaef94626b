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


class Lookup:
    """Distinct texts, numbered from 0 in the order of their first occurrence.

    Takes the (n, 2) `hashes` of the texts, repeats included. Keeps 32 bytes per distinct text and 8
    bytes per text, whatever their length.
    """

    def __init__(self, texts: np.ndarray):
        order = np.lexsort((texts[:, 1], texts[:, 0]))  # stable: equal texts stay in row order
        ordered = texts[order]
        new = np.ones(len(texts), bool)  # whether a row of `ordered` differs from the one before
        new[1:] = (ordered[1:] != ordered[:-1]).any(1)
        first = order[new]  # the first row of each distinct text, in the order of the hashes
        number = np.empty(len(first), np.int64)
        number[np.argsort(first)] = np.arange(len(first))
        self.sorted, self.number = ordered[new], number
        self.group = np.empty(len(texts), np.int64)  # (n,) the number of each row's text
        self.group[order] = number[np.cumsum(new) - 1]
        self.heads = self.sorted[:, 0].copy()  # the first 64 bits, for the binary search
        # How many distinct texts share their first 64 bits at most: 1, except by coincidence.
        self.longest = int(np.unique(self.heads, return_counts=True)[1].max(initial=0))

    def __len__(self) -> int:
        """The number of distinct texts."""
        return len(self.number)

    def find(self, texts: np.ndarray) -> np.ndarray:
        """(m,) int64: the number of each of the (m, 2) hashed texts, -1 for an unknown one."""
        found = np.full(len(texts), -1, np.int64)
        if not len(self):
            return found
        start = np.searchsorted(self.heads, texts[:, 0])
        for step in range(self.longest):
            place = np.minimum(start + step, len(self) - 1)
            hit = (self.sorted[place] == texts).all(1)
            found[hit] = self.number[place[hit]]
        return found
