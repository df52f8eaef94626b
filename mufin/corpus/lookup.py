"""Which of many texts is this one? Without the texts in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl


def hashes(texts: pl.Series) -> np.ndarray:
    """(n, 2) uint64: 128 bits a text, so that among 10^8 texts two alike are no concern (chance 10^-23)."""
    return np.stack([texts.hash(seed).to_numpy() for seed in (1, 2)], 1).astype(
        np.uint64, copy=False
    )


class Lookup:
    """Texts by their hashes, numbered from 0 by first occurrence: 24 bytes a text, whatever its length."""

    def __init__(self, texts: np.ndarray):
        order = np.lexsort((texts[:, 1], texts[:, 0]))  # stable: equal texts stay in row order
        ordered = texts[order]
        new = np.ones(len(texts), bool)
        new[1:] = (ordered[1:] != ordered[:-1]).any(1)
        first = order[new]  # first row of each distinct text
        number = np.empty(len(first), np.int64)
        number[np.argsort(first)] = np.arange(len(first))
        self.sorted, self.number = ordered[new], number
        self.group = np.empty(len(texts), np.int64)  # (n,) the number of each row's text
        self.group[order] = number[np.cumsum(new) - 1]
        self.heads = self.sorted[:, 0].copy()
        self.longest = int(
            np.unique(self.heads, return_counts=True)[1].max(initial=0)
        )  # 1, bar a coincidence

    def __len__(self) -> int:
        return len(self.number)

    def find(self, texts: np.ndarray) -> np.ndarray:
        """(m,) int64: the number of each text, -1 where it is none of these."""
        found = np.full(len(texts), -1, np.int64)
        if not len(self):
            return found
        start = np.searchsorted(self.heads, texts[:, 0])
        for step in range(self.longest):
            place = np.minimum(start + step, len(self) - 1)
            hit = (self.sorted[place] == texts).all(1)
            found[hit] = self.number[place[hit]]
        return found
