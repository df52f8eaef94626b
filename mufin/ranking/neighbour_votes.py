"""Votes of the nearest train datapoints: their labels, by how near they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin.ragged import Lists, offsets_of
from mufin.retrieval.exact import ExactNeighbours
from mufin.retrieval.hnsw import HnswNeighbours

BUDGET = 2**21  # votes held at once; they and their sorted copies take 150 MB


@dataclass(frozen=True, slots=True)
class NeighbourVotes:
    """The share of votes for each label, in [0, 1]: a k-nearest-neighbour classifier.

    v_l(x) = sum of p_i over the train datapoints i that have label l, with p the softmax over the
    `count` datapoints nearest to x of <x, x_i> / temperature (Wu et al., "Unsupervised feature
    learning via non-parametric instance discrimination", CVPR 2018, Sec. 3.4, weighs neighbours
    so). Not in MUFIN: it is one more term of the final score, and its weight may be 0.

    The centroid of a label is the mean of all its datapoints. Where these are of several kinds, a
    product is near to some of them and to no mean. Its nearest datapoints still say which labels
    go together.
    """

    search: ExactNeighbours | HnswNeighbours  # one row per datapoint with a descriptor
    products: np.ndarray  # (N,) int64, of the train datapoints
    labels: Lists  # of the train datapoints
    count: int
    temperature: float

    def scores(
        self, queries: np.ndarray, ids: np.ndarray, products: np.ndarray | None = None
    ) -> np.ndarray:
        """(n, K) float32: the votes for labels `ids` (n, K), where -1 is none and gets 0.

        `queries` (n, D') are the vectors of the datapoints for the search. With their `products`
        (n,) a datapoint of train does not vote for its own labels.
        """
        out = np.zeros(ids.shape, np.float32)
        if not ids.size or not len(self.labels.values):
            return out
        own = None if products is None else self._own(products)
        step = self.at_once()
        num_labels = int(max(ids.max(), self.labels.values.max())) + 1
        for start in range(0, len(ids), step):
            rows = np.arange(start, min(start + step, len(ids)))
            mine = None if own is None else own.take(rows)
            near, similarity = self.search.search(queries[rows], self.count, mine)
            keys, votes = self._summed(near, shares(similarity, self.temperature), num_labels)
            if not len(keys):
                continue
            wanted = np.arange(len(rows))[:, None] * num_labels + ids[rows]
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            out[rows] = np.where((keys[place] == wanted) & (ids[rows] >= 0), votes[place], 0)
        return out

    def at_once(self) -> int:
        """The queries whose votes are summed at once."""
        voices = self.count * len(self.labels.values) / max(len(self.labels), 1)  # of a query
        return max(1, int(BUDGET / max(voices, 1)))

    def _own(self, products: np.ndarray) -> Lists:
        """The train datapoints that each of `products` is."""
        order = np.argsort(self.products, kind="stable")
        first, last = (
            np.searchsorted(self.products, products, side, sorter=order)
            for side in ("left", "right")
        )
        offsets = offsets_of(last - first)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], last - first)
        return Lists(offsets, order[np.repeat(first, last - first) + within])

    def _summed(
        self, near: np.ndarray, share: np.ndarray, num_labels: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(V,) ascending row * num_labels + label, and (V,) float64 the votes for each."""
        row, column = np.nonzero(near >= 0)
        theirs = self.labels.take(near[row, column])
        voice = theirs.rows()
        keys = row[voice] * num_labels + theirs.values
        order = np.argsort(keys, kind="stable")
        keys, votes = keys[order], share[row, column][voice][order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        return keys[first], np.add.reduceat(votes, first) if len(first) else votes

    def tensors(self) -> dict[str, np.ndarray]:
        """What `models/index` keeps of it, but for the graph of the search."""
        return {
            "vectors": np.asarray(self.search.source.rows),
            "datapoint": self.search.source.label,
            "products": self.products,
            "offsets": self.labels.offsets,
            "labels": self.labels.values,
        }

    def facts(self) -> dict[str, float]:
        """Its settings."""
        return {"count": self.count, "temperature": self.temperature}


def shares(similarity: np.ndarray, temperature: float) -> np.ndarray:
    """(n, k) float64: the softmax of `similarity` / temperature over a row; -inf gets 0."""
    scaled = similarity.astype(np.float64) / temperature
    best = scaled.max(1, keepdims=True, initial=-np.inf)
    weight = np.exp(scaled - np.where(np.isfinite(best), best, 0))
    return weight / np.maximum(weight.sum(1, keepdims=True), np.finfo(np.float64).tiny)
